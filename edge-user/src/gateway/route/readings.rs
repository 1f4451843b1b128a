//! Paths that servers read in several ways, and that are let through nevertheless: with parameters (`/a;v=1/b`, RFC 3986,
//! 3.3, which some servers drop before they look), and, on routes that say so, with encoded slashes (which some servers
//! decode).
//!
//! Such a path goes through only if every reading of it leads to the same route: whatever the upstream makes of it, it
//! was authorised by the rules of what it asks for. All of this happens before a token is looked at.

use super::{RouteId, find};
use crate::gateway::{
    gate::Request,
    path::{self, ENCODED_SLASH},
    plan::Plan,
    refusal::{Reason, Refusal},
};

/// How a `;` that was sent as `%3B` is spelled: some servers decode before they cut.
const ENCODED_SEMICOLON: &str = "%3B";

/// Holds all readings of the request's path against the route that was found for it.
pub(super) fn agree(
    plan: &Plan,
    request: &Request<'_>,
    method: &[u8],
    route: RouteId,
) -> Result<(), Refusal> {
    let path = request.path();
    // Nearly every path has neither.
    if memchr::memchr2(b';', b'%', path.as_bytes()).is_none() {
        return Ok(());
    }
    let slashes = path.contains(ENCODED_SLASH);
    let parameters = path.contains(';') || path.contains(ENCODED_SEMICOLON);
    if slashes && !plan.route(route).keeps_encoded_slashes {
        return Err(Refusal::because(
            Reason::BadPath,
            path::PathFault::Separator.text(),
        ));
    }
    let readings = [(false, true), (true, false), (true, true)];
    for (decode, cut) in readings {
        if decode && !slashes || cut && !parameters {
            continue;
        }
        let other = reading(path, decode, cut).ok_or(Refusal::because(
            Reason::BadPath,
            "parameter that hides a segment",
        ))?;
        if find(plan, request, &other, method) != Some(route) {
            return Err(Refusal::because(
                Reason::BadPath,
                "readings lead to different routes",
            ));
        }
    }
    Ok(())
}

/// The path with encoded slashes decoded, with parameters cut off, or both; `None` if that leaves dot segments or empty
/// ones.
fn reading(path: &str, decode: bool, cut: bool) -> Option<String> {
    let mut read = path.to_owned();
    if decode {
        read = read.replace(ENCODED_SLASH, "/");
    }
    if cut {
        read = read.replace(ENCODED_SEMICOLON, ";");
        let names = read
            .split('/')
            .map(|segment| segment.split(';').next().unwrap_or(segment));
        read = names.collect::<Vec<_>>().join("/");
    }
    path::check_segments(&read).ok()?;
    Some(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_of_a_path() {
        for (path, decode, cut, want) in [
            ("/a;x/b;y=1", false, true, Some("/a/b")),
            ("/a%3Bx/b", false, true, Some("/a/b")),
            ("/a%2Fb;x", true, false, Some("/a/b;x")),
            ("/a%2Fb;x", true, true, Some("/a/b")),
            ("/a/;x", false, true, Some("/a/")),
            ("/;x/a", false, true, None),
            ("/a/..%3Bx", false, true, None),
        ] {
            assert_eq!(reading(path, decode, cut).as_deref(), want, "{path}");
        }
    }
}
