//! Where a request carries its token.
//!
//! Every source of every provider of the route is looked at, and all that is found must be one token: two different
//! ones in a request mean that somebody behind the gateway could read the other.

use std::borrow::Cow;

use super::{
    RequestView,
    refusal::{Defect, Refusal},
};
use crate::{
    carrier::{cookie, query},
    config::TokenSource,
};

/// The token of a request, and in which of a route's sources it was.
pub(super) struct Found<'a> {
    /// As it stands in the request, unquoted or decoded.
    pub(super) token: Cow<'a, [u8]>,
    /// By the provider's position in the route: one bit for each of its sources.
    pub(super) places: [u32; MAX_PROVIDERS],
}

/// Most providers of one route.
pub(super) const MAX_PROVIDERS: usize = 8;
/// Most sources of one provider.
pub(super) const MAX_SOURCES: usize = 16;

/// Looks for a token in the sources of each provider, in order; each comes with its position, below
/// [`MAX_PROVIDERS`].
pub(super) fn find<'r, 's>(
    request: &'r impl RequestView,
    providers: impl Iterator<Item = (usize, &'s [TokenSource])>,
) -> Result<Option<Found<'r>>, Refusal> {
    let mut search = Search { found: None };
    for (position, sources) in providers {
        for (bit, source) in sources.iter().take(MAX_SOURCES).enumerate() {
            let place = Place {
                position,
                bit: 1 << bit,
            };
            match source {
                TokenSource::Bearer => {
                    if let Some(token) = bearer(request)? {
                        search.take(Cow::Borrowed(token), place)?;
                    }
                }
                TokenSource::Cookie(name) => {
                    for field in request.header_values("cookie") {
                        for value in cookie::values(field, name) {
                            search.take(Cow::Borrowed(value), place)?;
                        }
                    }
                }
                TokenSource::Header(name) => {
                    for value in request.header_values(name) {
                        search.take(Cow::Borrowed(value.trim_ascii()), place)?;
                    }
                }
                TokenSource::Query(name) => {
                    for value in request
                        .query()
                        .into_iter()
                        .flat_map(|text| query::values(text, name))
                    {
                        search.take(value, place)?;
                    }
                }
            }
        }
    }
    Ok(search.found)
}

#[derive(Clone, Copy)]
struct Place {
    position: usize,
    bit: u32,
}

struct Search<'a> {
    found: Option<Found<'a>>,
}

impl<'a> Search<'a> {
    fn take(&mut self, token: Cow<'a, [u8]>, place: Place) -> Result<(), Refusal> {
        // An emptied cookie, header or parameter is how applications log out.
        if token.is_empty() {
            return Ok(());
        }
        let found = match &mut self.found {
            Some(found) if found.token != token => return Err(Refusal::Ambiguous),
            Some(found) => found,
            none => none.insert(Found {
                token,
                places: [0; MAX_PROVIDERS],
            }),
        };
        found.places[place.position] |= place.bit;
        Ok(())
    }
}

/// The credentials of `Authorization: Bearer` (RFC 6750 section 2.1); none for another scheme.
fn bearer(request: &impl RequestView) -> Result<Option<&[u8]>, Refusal> {
    let mut fields = request.header_values("authorization");
    let Some(field) = fields.next() else {
        return Ok(None);
    };
    // Authorization is a single field (RFC 9110 section 11.6.2); whoever sends two hopes for two readers.
    if fields.next().is_some() {
        return Err(Refusal::Ambiguous);
    }
    let field = field.trim_ascii();
    let scheme_length = field
        .iter()
        .position(|byte| matches!(byte, b' ' | b'\t'))
        .unwrap_or(field.len());
    let (scheme, rest) = field.split_at(scheme_length);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Ok(None);
    }
    match rest.trim_ascii_start() {
        [] => Err(Defect::Bearer.into()),
        token => Ok(Some(token)),
    }
}
