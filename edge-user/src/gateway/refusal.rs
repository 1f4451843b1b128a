//! Why a request was not forwarded: the one list of reasons, and the one place that turns a reason into a status.
//!
//! Clients learn the status, a short stable reason and the request's id (RFC 9457), never addresses, names of
//! upstreams or error texts. The discriminant of [`Reason`] is the index of its counter.

use std::borrow::Cow;

use super::gate::field::list;

use crate::offence::OffenceKind;

/// Declares the reasons: variant, status, slug, whether the connection must close, and the offence it amounts to.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $status:literal, $slug:literal, $close:literal, $offence:expr;)+) => {
        /// Why a request was refused or failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[doc = $doc])+ $name),+ }

        impl Reason {
            /// Every reason, in the order of its counters.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The status code a client gets.
            pub fn status(self) -> u16 { match self { $(Self::$name => $status),+ } }

            /// The stable name in logs, metrics and response bodies.
            pub fn slug(self) -> &'static str { match self { $(Self::$name => $slug),+ } }

            /// Whether the client's connection must not be used again: its framing is unknown or not to be trusted.
            pub fn closes(self) -> bool { match self { $(Self::$name => $close),+ } }

            /// What the peer did, if it is to blame.
            pub fn offence(self) -> Option<OffenceKind> { match self { $(Self::$name => $offence),+ } }
        }
    };
}

reasons! {
    /// The bytes are not an HTTP/1 head: grammar, line ends, control characters.
    BadSyntax = 400, "bad_syntax", true, Some(OffenceKind::Malformed);
    /// The request target has a form or a character that is not allowed.
    BadTarget = 400, "bad_target", true, Some(OffenceKind::Malformed);
    /// The path has no single reading: dot segments, encoded separators, bad percent-encoding.
    BadPath = 400, "bad_path", true, Some(OffenceKind::Malformed);
    /// `Host` is missing, repeated, invalid or at odds with the target.
    BadHost = 400, "bad_host", true, Some(OffenceKind::Smuggling);
    /// `Content-Length` and `Transfer-Encoding` leave the body's length open to interpretation.
    BadFraming = 400, "bad_framing", true, Some(OffenceKind::Smuggling);
    /// A field that decides about the connection is malformed.
    BadField = 400, "bad_field", true, Some(OffenceKind::Malformed);
    /// The chunked body breaks its grammar.
    BadChunk = 400, "bad_chunk", true, Some(OffenceKind::Smuggling);
    /// The client ended its body early.
    BodyCutShort = 400, "body_cut_short", true, None;
    /// The expectation is not `100-continue`.
    UnknownExpectation = 417, "unknown_expectation", true, None;
    /// CONNECT and TRACE are not served.
    MethodNotServed = 501, "method_not_served", true, None;
    /// The request target is too long.
    TargetTooLong = 414, "target_too_long", true, Some(OffenceKind::Oversized);
    /// Too many fields, or too many bytes of them.
    HeadTooLarge = 431, "head_too_large", true, Some(OffenceKind::Oversized);
    /// The body is above the limit.
    BodyTooLarge = 413, "body_too_large", true, Some(OffenceKind::Oversized);
    /// The request head did not arrive in time.
    HeadTimeout = 408, "head_timeout", true, Some(OffenceKind::SlowClient);
    /// The request body stalled.
    BodyTimeout = 408, "body_timeout", true, Some(OffenceKind::SlowClient);
    /// The client stopped reading its response.
    ClientStalled = 408, "client_stalled", true, Some(OffenceKind::SlowClient);
    /// The authority is not served on this connection (RFC 9110, 15.5.20).
    Misdirected = 421, "misdirected", true, Some(OffenceKind::Malformed);
    /// No route lists the path.
    NoRoute = 404, "no_route", false, Some(OffenceKind::NoRoute);
    /// Routes list the path for other methods only (RFC 9110, 15.5.6).
    MethodNotAllowed = 405, "method_not_allowed", false, None;
    /// The route asks for a token and none was presented.
    TokenMissing = 401, "token_missing", false, Some(OffenceKind::MissingToken);
    /// The token was refused.
    TokenRefused = 401, "token_refused", false, Some(OffenceKind::BadToken);
    /// The token is genuine but not valid now: honest clients send such, so it is no offence.
    TokenStale = 401, "token_stale", false, None;
    /// Keys to check the token with are not to be had.
    KeysUnavailable = 503, "keys_unavailable", false, None;
    /// The request carries two different tokens.
    TokenAmbiguous = 400, "token_ambiguous", false, Some(OffenceKind::BadToken);
    /// The token does not carry what the route asks for.
    Forbidden = 403, "forbidden", false, Some(OffenceKind::Forbidden);
    /// The client is kept out for what it did before.
    Banned = 403, "banned", true, None;
    /// The client is slowed down for what it did before.
    Slowed = 429, "slowed", false, None;
    /// More requests than a limit allows in its time.
    RateLimited = 429, "rate_limited", false, Some(OffenceKind::RateLimited);
    /// More requests at once than a limit allows.
    TooManyAtOnce = 429, "too_many_at_once", false, Some(OffenceKind::RateLimited);
    /// No connection to any endpoint could be made.
    UpstreamUnreachable = 502, "upstream_unreachable", false, None;
    /// The upstream closed or reset its connection before a complete response head.
    UpstreamReset = 502, "upstream_reset", false, None;
    /// The upstream's response is malformed or ambiguous.
    UpstreamMalformed = 502, "upstream_malformed", false, None;
    /// The upstream's response broke off within its body.
    UpstreamCutShort = 502, "upstream_cut_short", true, None;
    /// Connecting to the upstream took too long.
    UpstreamConnectTimeout = 504, "upstream_connect_timeout", false, None;
    /// The upstream sent no response head in time.
    UpstreamTimeout = 504, "upstream_timeout", false, None;
    /// The upstream's response body stalled.
    UpstreamStalled = 504, "upstream_stalled", true, None;
    /// Nothing moved on an upgraded connection.
    TunnelIdle = 408, "tunnel_idle", true, None;
    /// A part of a merged answer that must be there is not.
    PartFailed = 502, "part_failed", false, None;
    /// The whole exchange took longer than its route allows.
    RequestTimeout = 504, "request_timeout", true, None;
    /// TLS with the upstream failed: its certificate, or the handshake.
    UpstreamTls = 502, "upstream_tls", false, None;
    /// No endpoint of the route's upstream is known: none was resolved.
    NoEndpoint = 503, "no_endpoint", false, None;
    /// Every endpoint of the route's upstream is down.
    UpstreamDown = 503, "upstream_down", false, None;
    /// The upstream has as many connections, requests or waiting requests as it may.
    UpstreamBusy = 503, "upstream_busy", false, None;
    /// Every connection or upstream slot is taken.
    Overloaded = 503, "overloaded", true, None;
}

impl Reason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Whether the upstream is to blame.
    pub fn is_of_upstream(self) -> bool {
        matches!(
            self,
            Self::UpstreamReset
                | Self::UpstreamMalformed
                | Self::UpstreamCutShort
                | Self::UpstreamTimeout
                | Self::UpstreamStalled
        )
    }

    /// Whether it tells that forwarding came to nothing, whoever is to blame: what counts as an upstream's failure.
    pub fn is_about_upstream(self) -> bool {
        self.is_of_upstream()
            || matches!(
                self,
                Self::UpstreamUnreachable
                    | Self::UpstreamConnectTimeout
                    | Self::UpstreamTls
                    | Self::NoEndpoint
                    | Self::UpstreamDown
                    | Self::UpstreamBusy
            )
    }

    /// The index of this reason's counter.
    pub fn index(self) -> usize {
        self as usize
    }
}

/// A request that ends here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// A finer reason for the log: a fixed text, never what the client sent.
    pub detail: Cow<'static, str>,
    /// What the answer says beside its status: names in lower case, values without control characters.
    pub fields: Vec<(&'static str, String)>,
    /// What the client did, where more is known than the reason says: the client is not told.
    pub offence: Option<OffenceKind>,
}

impl Refusal {
    /// A refusal without detail.
    pub const fn new(reason: Reason) -> Self {
        Self {
            reason,
            detail: Cow::Borrowed(""),
            fields: Vec::new(),
            offence: None,
        }
    }

    /// A refusal with a detail for the log.
    pub const fn because(reason: Reason, detail: &'static str) -> Self {
        Self {
            reason,
            detail: Cow::Borrowed(detail),
            fields: Vec::new(),
            offence: None,
        }
    }

    /// A refusal that passes: the client is told when to come back.
    pub fn for_now(reason: Reason, seconds: u32) -> Self {
        Self {
            fields: vec![("retry-after", seconds.to_string())],
            ..Self::new(reason)
        }
    }

    /// What the client did, if it is to blame.
    pub fn offence(&self) -> Option<OffenceKind> {
        self.offence.or(self.reason.offence())
    }

    /// The status a client gets: its reason's, or 302 where a browser is sent somewhere else.
    pub fn status(&self) -> u16 {
        if self.fields.iter().any(|(name, _)| *name == "location") {
            302
        } else {
            self.reason.status()
        }
    }

    /// The body a client gets.
    pub fn body(&self, request_id: &str, form: Form) -> String {
        let status = self.status();
        let (title, slug) = (status_text(status), self.reason.slug());
        match form {
            Form::Problem => format!(
                "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status},\"reason\":\"{slug}\",\"request_id\":\"{request_id}\"}}\n"
            ),
            Form::Html => format!(
                "<!doctype html><title>{status} {title}</title><h1>{status} {title}</h1><p>{slug}</p><p>Request {request_id}</p>\n"
            ),
            Form::Text => format!("{status} {title}: {slug}\nRequest {request_id}\n"),
        }
    }
}

/// In which form a client wants to be told (RFC 9110, 12.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// `application/problem+json` (RFC 9457): whoever takes it, and whoever takes neither.
    #[default]
    Problem,
    /// `text/html`: browsers, which take JSON less gladly.
    Html,
    /// `text/plain`.
    Text,
}

impl Form {
    /// The form that a value of `Accept` prefers.
    pub fn of(accept: &[u8]) -> Self {
        let mut best = [0_u16; 3];
        for member in list(accept) {
            let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let range = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts
                .find_map(|part| part.strip_prefix(b"q="))
                .map_or(1000, thousandths);
            let forms: &[Self] = match range.as_slice() {
                b"*/*" => &[Self::Problem, Self::Html, Self::Text],
                b"application/problem+json" | b"application/json" | b"application/*" => &[Self::Problem],
                b"text/html" => &[Self::Html],
                b"text/*" => &[Self::Html, Self::Text],
                b"text/plain" => &[Self::Text],
                _ => &[],
            };
            for form in forms {
                let best = &mut best[*form as usize];
                *best = quality.max(*best);
            }
        }
        let [problem, html, text] = best;
        if html > problem && html >= text {
            Self::Html
        } else if text > problem {
            Self::Text
        } else {
            Self::Problem
        }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Problem => "application/problem+json",
            Self::Html => "text/html; charset=utf-8",
            Self::Text => "text/plain; charset=utf-8",
        }
    }
}

/// A quality in thousandths (RFC 9110, 12.4.2); one that is none counts for nothing.
fn thousandths(text: &[u8]) -> u16 {
    let digits = |text: &[u8]| text.len() <= 3 && text.iter().all(u8::is_ascii_digit);
    match text {
        b"1" | b"1." | b"1.0" | b"1.00" | b"1.000" => 1000,
        [b'0', b'.', rest @ ..] if digits(rest) => (0..3)
            .map(|at| rest.get(at).map_or(0, |digit| u16::from(digit - b'0')))
            .fold(0, |sum, digit| sum * 10 + digit),
        _ => 0,
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self::new(reason)
    }
}

/// The reason phrase of a status that a refusal can have.
pub(crate) fn status_text(status: u16) -> &'static str {
    match status {
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_slug_and_a_known_status() {
        let mut slugs: Vec<_> = Reason::ALL.iter().map(|reason| reason.slug()).collect();
        slugs.sort_unstable();
        slugs.dedup();
        assert_eq!(slugs.len(), Reason::COUNT);
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), index);
            assert_ne!(status_text(reason.status()), "Error", "{reason:?}");
        }
    }

    #[test]
    fn the_form_is_what_the_client_prefers() {
        for (accept, form) in [
            ("", Form::Problem),
            ("*/*", Form::Problem),
            ("image/png", Form::Problem),
            ("application/json", Form::Problem),
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                Form::Html,
            ),
            ("text/plain", Form::Text),
            ("text/plain, application/json;q=0.5", Form::Text),
            ("text/html;q=0.5, application/json", Form::Problem),
            ("text/html;q=2, */*;q=0.1", Form::Problem),
            ("Text/HTML; q=0.7, application/*; q=0", Form::Html),
        ] {
            assert_eq!(Form::of(accept.as_bytes()), form, "{accept}");
        }
    }

    #[test]
    fn the_body_is_json_with_the_request_id() {
        let body = Refusal::new(Reason::NoRoute).body("abc", Form::Problem);
        let value: serde_json::Value = serde_json::from_str(&body).expect("valid JSON");
        assert_eq!(value["status"], 404);
        assert_eq!(value["reason"], "no_route");
        assert_eq!(value["request_id"], "abc");
    }
}
