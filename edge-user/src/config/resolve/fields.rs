//! Names of HTTP fields: which of them a configuration may match, set or remove.

use super::Checks;
use crate::config::section::Field;

/// Fields that frame, route or authenticate the request itself, or that the gateway writes.
pub(super) const RESERVED: [&str; 21] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];

/// Of [`RESERVED`], those that say something about the request's content or sender and may be asked about.
const MATCHABLE: [&str; 3] = ["authorization", "content-type", "cookie"];

/// How a name arrives in servers that turn headers into variables: case and punctuation are lost.
pub(super) fn normal(name: &str) -> String {
    let letter = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    name.chars().map(letter).collect()
}

/// Whether `text` is a token (RFC 9110, 5.6.2).
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Reports a field that no route can be found by.
pub(super) fn matchable(name: &Field<String>, checks: &mut Checks<'_>) {
    let Field { value, at } = name;
    let plain = normal(value);
    if http::HeaderName::from_bytes(value.as_bytes()).is_err() {
        checks.error_help(
            at,
            "this is not the name of a header",
            "letters, digits and `-`, as in \"x-version\"",
        );
    } else if plain == "host" {
        checks.error_help(at, "a host is not matched as a header", "use `hosts`");
    } else if (RESERVED.contains(&plain.as_str()) || plain.starts_with("x-forwarded-"))
        && !MATCHABLE.contains(&plain.as_str())
    {
        checks.error_help(
            at,
            format!("a client's `{value}` is not to be trusted and goes no further"),
            "a route cannot be chosen by it",
        );
    }
}

/// Of [`RESERVED`], those that belong to the message and not to its way.
const CONTENT: [&str; 1] = ["content-type"];

/// Of [`RESERVED`], those that mean nothing in an answer.
const OF_REQUESTS: [&str; 5] = ["authorization", "cookie", "host", "x-real-ip", "x-request-id"];

/// Fields that say how the body is coded, and would lie if they were changed.
const CODING: [&str; 2] = ["content-encoding", "content-range"];

/// Whether the gateway alone writes a field, given in its [`normal`] form, of requests or of answers.
pub(super) fn is_written_here(plain: &str, of_requests: bool) -> bool {
    let reserved = RESERVED.contains(&plain) || plain.starts_with("x-forwarded-") || CODING.contains(&plain);
    reserved && !CONTENT.contains(&plain) && (of_requests || !OF_REQUESTS.contains(&plain))
        || plain == "proxy-authenticate"
}
