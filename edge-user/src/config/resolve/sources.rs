//! `provider.sources`: where in a request a token is looked for.

use super::Checks;
use crate::config::{TokenSource, bounds, raw::RawProvider, section::Field, suggest};

const SOURCES_HELP: &str = "\"bearer\", \"cookie:NAME\", \"header:NAME\" or \"query:NAME\"";

pub(super) fn sources(raw: &RawProvider, checks: &mut Checks<'_>) -> Vec<TokenSource> {
    let Some(field) = raw.sources.field() else {
        return vec![TokenSource::Bearer];
    };
    let Field { value: list, at } = field;
    checks.not_empty(
        field,
        "a provider looks for tokens in at least one place",
        SOURCES_HELP,
    );
    checks.bounded(&raw.sources, bounds::MAX_SOURCES);
    let places: Vec<_> = list.iter().map(|item| item.at(at)).collect();
    let given = list.iter().zip(&places);
    checks.unique(
        "source",
        given
            .clone()
            .map(|(item, at)| (item.value.as_str(), item.value.clone(), at)),
    );
    given
        .filter_map(|(item, at)| match source(&item.value) {
            Ok(source) => Some(source),
            Err((message, help)) => {
                checks.error_help(at, message, help);
                None
            }
        })
        .collect()
}

/// What a header's name follows.
pub(super) const HEADER_SOURCE: &str = "header:";

fn source(text: &str) -> Result<TokenSource, (String, String)> {
    let fail = |message: String| Err((message, SOURCES_HELP.to_owned()));
    if text == "bearer" {
        return Ok(TokenSource::Bearer);
    }
    let Some((kind, name)) = text.split_once(':') else {
        return match suggest::nearest(text, ["bearer", "cookie:", HEADER_SOURCE, "query:"]) {
            Some(near) => fail(format!("unknown token source `{text}`; did you mean `{near}`?")),
            None => fail(format!("unknown token source `{text}`")),
        };
    };
    // Cookie names and field names are both tokens (RFC 6265 section 4.1.1, RFC 9110 section 5.1).
    let token = http::HeaderName::from_bytes(name.as_bytes());
    match kind {
        "cookie" if token.is_ok() => Ok(TokenSource::Cookie(name.to_owned())),
        "header" => match token {
            Ok(header) if header == http::header::AUTHORIZATION || header == http::header::COOKIE => fail(
                format!("`{name}` is not a header of its own kind; use \"bearer\" or \"cookie:NAME\""),
            ),
            Ok(header) => Ok(TokenSource::Header(header.as_str().to_owned())),
            Err(_) => fail(format!("`{name}` is not the name of a header")),
        },
        "query" if !name.is_empty() && name.bytes().all(is_query_name) => {
            Ok(TokenSource::Query(name.to_owned()))
        }
        "cookie" | "query" => fail(format!("`{name}` is not the name of a {kind} value")),
        _ => fail(format!("unknown token source `{kind}`")),
    }
}

fn is_query_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}
