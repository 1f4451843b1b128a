//! Pages of other origins (Fetch standard, 3.2): preflight requests are answered here, answers say who may read them.
//!
//! The rules protect users, not servers: whatever is not a browser ignores them.

use std::sync::Arc;

use super::{answer::Reply, gate::Request, refusal::Refusal};
use crate::config::{Cors, CorsOrigin, CorsOrigins};

/// The compiled rules of a route.
#[derive(Debug)]
pub struct PlannedCors {
    origins: CorsOrigins,
    methods: String,
    headers: Vec<String>,
    any_header: bool,
    expose: String,
    credentials: bool,
    max_age: String,
}

type Fields = Vec<(Arc<str>, Vec<u8>)>;

impl PlannedCors {
    /// Compiles the rules.
    pub fn new(cors: &Cors) -> Self {
        Self {
            origins: cors.origins.clone(),
            methods: cors.methods.join(", "),
            headers: cors.headers.clone(),
            any_header: cors.any_header,
            expose: cors.expose.join(", "),
            credentials: cors.credentials,
            max_age: cors.max_age.as_secs().to_string(),
        }
    }

    /// What `Access-Control-Allow-Origin` says to the request, if its origin is allowed.
    fn allowed<'r>(&self, request: &Request<'r>) -> Option<&'r [u8]> {
        let mut origins = request.values("origin");
        let (Some(origin), None) = (origins.next(), origins.next()) else {
            return None;
        };
        match &self.origins {
            CorsOrigins::Any => Some(b"*"),
            CorsOrigins::Listed(listed) => listed.iter().any(|known| known.is(origin)).then_some(origin),
        }
    }

    /// Adds what an answer says to a page of another origin.
    pub fn grant(&self, request: &Request<'_>, fields: &mut Fields) {
        let mut put = |name: &str, value: &[u8]| fields.push((name.into(), value.to_vec()));
        if self.varies() {
            // Said to every request: a cache must not give one origin's answer to another.
            put("vary", b"origin");
        }
        let Some(origin) = self.allowed(request) else {
            return;
        };
        put("access-control-allow-origin", origin);
        if self.credentials {
            put("access-control-allow-credentials", b"true");
        }
        if !self.expose.is_empty() {
            put("access-control-expose-headers", self.expose.as_bytes());
        }
    }

    /// Adds the same to a refusal.
    pub fn mark(&self, request: &Request<'_>, refusal: &mut Refusal) {
        if self.varies() {
            refusal.fields.push(("vary", "origin".to_owned()));
        }
        if let Some(origin) = self.allowed(request) {
            let origin = String::from_utf8_lossy(origin).into_owned();
            refusal.fields.push(("access-control-allow-origin", origin));
            if self.credentials {
                refusal
                    .fields
                    .push(("access-control-allow-credentials", "true".to_owned()));
            }
        }
    }

    /// Whether answers differ by origin.
    fn varies(&self) -> bool {
        !matches!(self.origins, CorsOrigins::Any)
    }

    /// The answer to a preflight request. One from an origin that is not allowed gets no leave, which is a refusal to
    /// the browser that asked.
    pub fn preflight(&self, request: &Request<'_>) -> Reply {
        let mut fields: Fields = Vec::new();
        let mut put = |name: &str, value: &[u8]| fields.push((name.into(), value.to_vec()));
        put(
            "vary",
            b"origin, access-control-request-method, access-control-request-headers",
        );
        if let Some(origin) = self.allowed(request) {
            put("access-control-allow-origin", origin);
            if self.credentials {
                put("access-control-allow-credentials", b"true");
            }
            put("access-control-allow-methods", self.methods.as_bytes());
            let asked = request.values("access-control-request-headers").next();
            match (asked, self.any_header) {
                // The gate has let the value through: it has no control characters.
                (Some(asked), true) => put("access-control-allow-headers", asked),
                (Some(_), false) if !self.headers.is_empty() => {
                    put("access-control-allow-headers", self.headers.join(", ").as_bytes());
                }
                (Some(_), false) | (None, _) => {}
            }
            put("access-control-max-age", self.max_age.as_bytes());
        }
        Reply::empty(204, fields)
    }
}

impl CorsOrigin {
    /// Whether `origin`, as sent, is this one. Origins are compared byte by byte (RFC 6454, 5).
    fn is(&self, origin: &[u8]) -> bool {
        match self {
            Self::Exact(known) => known.as_bytes() == origin,
            Self::Below { scheme, tail } => {
                let label = origin
                    .strip_prefix(scheme.as_bytes())
                    .and_then(|rest| rest.strip_suffix(tail.as_bytes()));
                let is_host =
                    |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(byte);
                label.is_some_and(|label| !label.is_empty() && label.iter().all(is_host))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_whole() {
        let below = CorsOrigin::Below {
            scheme: "https://".into(),
            tail: ".example.org".into(),
        };
        for (origin, want) in [
            ("https://a.example.org", true),
            ("https://a.b.example.org", true),
            ("https://example.org", false),
            ("https://.example.org", false),
            ("http://a.example.org", false),
            ("https://a.example.org:8443", false),
            ("https://evil.org/.example.org", false),
            ("https://evil.org#.example.org", false),
            ("https://a.example.org.evil.org", false),
            ("https://A.example.org", false),
            ("null", false),
        ] {
            assert_eq!(below.is(origin.as_bytes()), want, "{origin}");
        }
        let exact = CorsOrigin::Exact("https://a".into());
        assert!(exact.is(b"https://a") && !exact.is(b"https://a.b") && !exact.is(b"https://a/"));
    }
}
