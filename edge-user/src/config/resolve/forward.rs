//! `provider.claim_headers`: which verified claims the upstream gets to see, under names that are nobody else's.

use std::collections::HashMap;

use super::{
    Checks, claims,
    fields::{RESERVED, normal},
    items,
    sources::HEADER_SOURCE,
};
use crate::config::{
    ClaimHeader, TokenForwarding, bounds,
    raw::{RawClaimHeader, RawProvider},
    section::{Field, Section},
    value::Item,
};

pub(super) fn forwarding(raw: &RawProvider, checks: &mut Checks<'_>) -> TokenForwarding {
    checks.bounded(&raw.claim_headers, bounds::MAX_CLAIMS);
    let list = items(&raw.claim_headers);
    let names = list.iter().filter_map(|item| item.value.header.field());
    checks.unique(
        "header",
        names.map(|field| (normal(&field.value), field.value.clone(), &field.at)),
    );
    TokenForwarding {
        remove_token: raw.remove_token.clone().or(false),
        headers: list
            .iter()
            .filter_map(|item| claim_header(&item.value, checks))
            .collect(),
    }
}

fn claim_header(raw: &RawClaimHeader, checks: &mut Checks<'_>) -> Option<ClaimHeader> {
    let header = raw.header.required(raw.at(), checks.findings);
    if let Some(Field { value, at }) = header {
        if http::HeaderName::from_bytes(value.as_bytes()).is_err() {
            checks.error_help(
                at,
                "this is not the name of a header",
                "letters, digits and `-`, as in \"x-user\"",
            );
        } else if RESERVED.contains(&normal(value).as_str()) {
            checks.error_help(
                at,
                format!("`{value}` means something else and cannot be set from a claim"),
                "a name of its own, as in \"x-user\"",
            );
        }
    }
    let path = raw.claim.required(raw.at(), checks.findings);
    let path = path.map(|field| claims::path(field, checks));
    Some(ClaimHeader {
        header: header?.value.to_ascii_lowercase(),
        path: path?,
        encoding: raw.encoding.clone().or_default(),
    })
}

/// Whether a header may carry what the gateway says about a client.
pub(super) fn is_free_header(name: &str) -> bool {
    http::HeaderName::from_bytes(name.as_bytes()).is_ok() && !RESERVED.contains(&normal(name).as_str())
}

/// A header that is set from a claim is taken from every client: it cannot carry anybody's token.
pub(super) fn clashes(providers: &[Item<RawProvider>], checks: &mut Checks<'_>) {
    let mut carriers: HashMap<String, &str> = HashMap::new();
    for raw in providers.iter().map(|item| &item.value) {
        let headers = items(&raw.sources)
            .iter()
            .filter_map(|item| item.value.strip_prefix(HEADER_SOURCE));
        for header in headers {
            let provider = raw.name.value().map_or("", String::as_str);
            carriers.entry(normal(header)).or_insert(provider);
        }
    }
    let headers = providers
        .iter()
        .flat_map(|item| items(&item.value.claim_headers))
        .filter_map(|item| item.value.header.field());
    for Field { value, at } in headers {
        if let Some(provider) = carriers.get(&normal(value)) {
            checks.error_help(
                at,
                format!("provider `{provider}` takes tokens from `{value}`"),
                "a header set from a claim is removed from every request first: use another name",
            );
        }
    }
}
