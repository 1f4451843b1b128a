//! Whether a request shows what its listener asks for.

use std::{net::IpAddr, path::Path, sync::Arc};

use aws_lc_rs::{constant_time, digest};
use http::{HeaderMap, StatusCode, header};

use crate::{
    admin::problem::Problem,
    config::{keyfile::Fault, read_token},
};

/// What a listener asks of each request.
#[derive(Clone)]
pub(super) struct Guard(Asks);

#[derive(Clone)]
enum Asks {
    /// Nothing more: who came in was known.
    Nothing,
    /// That it was meant for this machine: whoever may use the socket may have a browser at its other end.
    Meant,
    /// The impossible: who came in is nobody's business to serve.
    Impossible,
    /// A bearer token with this SHA-256, which has one length whatever the token's is.
    Token(Arc<[u8]>),
}

impl Guard {
    /// Asks for nothing.
    pub(super) const fn open() -> Self {
        Self(Asks::Nothing)
    }

    /// Asks for nothing of those who can reach the socket but that they mean it.
    pub(super) const fn local() -> Self {
        Self(Asks::Meant)
    }

    /// Refuses everything.
    pub(super) const fn closed() -> Self {
        Self(Asks::Impossible)
    }

    /// Asks for the token in a file.
    ///
    /// # Errors
    /// The file cannot be used.
    pub(super) fn token(file: &Path) -> Result<Self, Fault> {
        let token = read_token(file)?;
        Ok(Self(Asks::Token(sha256(&token).into())))
    }

    /// Whether the page for people may be shown to whoever did not pass: it is where they write the token.
    pub(super) const fn asks_for_token(&self) -> bool {
        matches!(self.0, Asks::Token(_))
    }

    /// Whether a request with these fields may go on.
    ///
    /// # Errors
    /// 401 or 403.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        is_own(headers)?;
        match &self.0 {
            Asks::Nothing => Ok(()),
            Asks::Meant => is_here(headers),
            Asks::Impossible => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "only root, the daemon's user and members of `admin.group` may use this socket",
            )),
            Asks::Token(wanted) => {
                let shown = bearer(headers).map(sha256);
                match shown {
                    Some(shown) if constant_time::verify_slices_are_equal(&shown, wanted).is_ok() => Ok(()),
                    _ => Err(Problem::new(
                        StatusCode::UNAUTHORIZED,
                        "send `Authorization: Bearer` with the token of `admin.token_file`",
                    )),
                }
            }
        }
    }
}

/// A page of another site can have its reader's browser send requests here, with whatever lets the reader in (a client
/// certificate, a forwarded socket); the browser then names that site (RFC 6454, 7).
fn is_own(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    match (authority, host) {
        (Some((_, authority)), Some(host)) if authority.eq_ignore_ascii_case(host) => Ok(()),
        _ => Err(Problem::new(
            StatusCode::FORBIDDEN,
            "a page of another site sent this: its `Origin` is not this `Host`",
        )),
    }
}

/// Behind a name on the Internet that leads to this machine (DNS rebinding) a browser takes this API for a part of a
/// stranger's site. Nobody who means a socket needs such a name.
fn is_here(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(host) = headers.get(header::HOST) else {
        return Ok(());
    };
    let host = host.to_str().unwrap_or(".");
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    if !name.contains('.') || address.unwrap_or(name).parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "over the socket `Host` is `localhost`, another name without a dot, or an address",
    ))
}

/// The one bearer token of a request (RFC 6750, 2.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let (field, None) = (fields.next()?.as_bytes(), fields.next()) else {
        return None;
    };
    let (scheme, token) = field.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii())
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, bytes).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(guard: &Guard, fields: &[(&'static str, &str)]) -> u16 {
        let fields = fields
            .iter()
            .map(|(name, value)| ((*name).parse().expect("a name"), value.parse().expect("a value")));
        let headers: HeaderMap = fields.collect();
        guard
            .check(&headers)
            .map_or_else(|problem| problem.status.as_u16(), |()| 200)
    }

    #[test]
    fn a_browser_acts_for_no_other_site() {
        for guard in [Guard::open(), Guard::local()] {
            let with = |origin| status(&guard, &[("host", "localhost:9180"), ("origin", origin)]);
            assert_eq!(with("http://localhost:9180"), 200);
            assert_eq!(with("https://LOCALHOST:9180"), 200);
            for other in [
                "null",
                "",
                "http://localhost",
                "http://localhost:9180.example",
                "https://evil.example",
                "localhost:9180",
            ] {
                assert_eq!(with(other), 403, "{other:?}");
            }
            assert_eq!(status(&guard, &[("origin", "http://localhost")]), 403);
            assert_eq!(status(&guard, &[]), 200);
        }
    }

    #[test]
    fn a_socket_answers_to_no_name_of_the_internet() {
        let here = Guard::local();
        for host in [
            "localhost",
            "localhost:9180",
            "breakwater",
            "127.0.0.1:9180",
            "[::1]:9180",
            "::1",
            "",
        ] {
            assert_eq!(status(&here, &[("host", host)]), 200, "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9180",
            "127.0.0.1.evil.example",
            "localhost.",
            "1.2.3",
        ] {
            assert_eq!(status(&here, &[("host", host)]), 403, "{host}");
            assert_eq!(status(&Guard::open(), &[("host", host)]), 200, "{host}");
        }
    }
}
