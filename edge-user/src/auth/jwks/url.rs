//! Addresses that keys may be fetched from.

use std::net::IpAddr;

use http::Uri;
use thiserror::Error;

const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";

/// Why an address is not fetched from.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UrlError {
    /// Not an absolute URL.
    #[error("{0:?} is not an absolute http or https URL")]
    Invalid(String),
    /// Anybody on the way could give us his keys.
    #[error("{0:?}: plain http is possible for loopback addresses only")]
    Insecure(String),
    /// User and password in a URL end up in logs.
    #[error("a user name in the URL is not supported")]
    UserInfo,
}

/// A checked URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteUrl {
    /// Whether TLS is spoken.
    pub(super) is_secure: bool,
    /// Name or address, lower case, without brackets.
    pub(super) host: String,
    /// Port.
    pub(super) port: u16,
    /// As sent in `Host`.
    pub(super) authority: String,
    /// Path and query.
    pub(super) target: String,
}

impl RemoteUrl {
    /// Checks a URL.
    pub(crate) fn parse(text: &str) -> Result<Self, UrlError> {
        let invalid = || UrlError::Invalid(text.to_owned());
        let without_fragment = text.split('#').next().unwrap_or_default();
        let uri: Uri = without_fragment.parse().map_err(|_| invalid())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(invalid());
        };
        if authority.as_str().contains('@') {
            return Err(UrlError::UserInfo);
        }
        let host = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
        let (is_secure, default_port) = match scheme {
            "https" => (true, 443),
            "http" => (false, 80),
            _ => return Err(invalid()),
        };
        let has_port = authority.as_str().len() > authority.host().len();
        if host.is_empty() || (has_port && authority.port_u16().is_none()) {
            return Err(invalid());
        }
        if !is_secure && !is_loopback(&host) {
            return Err(UrlError::Insecure(text.to_owned()));
        }
        Ok(Self {
            is_secure,
            host,
            port: authority.port_u16().unwrap_or(default_port),
            authority: authority.as_str().to_owned(),
            target: uri
                .path_and_query()
                .map_or("/", |target| target.as_str())
                .to_owned(),
        })
    }

    /// Where a redirect leads, if that is on the same server.
    pub(super) fn redirect(&self, location: &str) -> Option<Self> {
        if location.starts_with('/') && !location.starts_with("//") {
            let target = location.split('#').next().unwrap_or_default();
            let _: Uri = target.parse().ok()?;
            return Some(Self {
                target: target.to_owned(),
                ..self.clone()
            });
        }
        let next = Self::parse(location).ok()?;
        (next.is_secure == self.is_secure && next.host == self.host && next.port == self.port).then_some(next)
    }
}

/// Where an issuer's discovery document lies (OpenID Connect Discovery 1.0 section 4).
pub(crate) fn discovery_url(issuer: &str) -> Result<RemoteUrl, UrlError> {
    RemoteUrl::parse(&format!("{}{DISCOVERY_PATH}", issuer.trim_end_matches('/')))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_safe_addresses() {
        let url = RemoteUrl::parse("https://ID.example:8443/keys?x=1#y").unwrap();
        assert_eq!(
            (url.host.as_str(), url.port, url.target.as_str()),
            ("id.example", 8443, "/keys?x=1")
        );
        assert_eq!(RemoteUrl::parse("https://id.example").unwrap().target, "/");
        for good in ["http://127.0.0.1:1/x", "http://[::1]/x", "http://localhost:80"] {
            assert!(RemoteUrl::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/keys",
            "id.example/keys",
            "ftp://id.example/",
            "http://id.example/",
            "http://localhost.evil/",
            "http://10.0.0.1/",
            "https://",
            "https://user@id.example/",
            "https://u:p@id.example/",
            "https://a b/",
            "https://id.example:/",
            "https://id.example:99999/",
        ] {
            assert!(RemoteUrl::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            discovery_url("https://a/b/").unwrap().target,
            "/b/.well-known/openid-configuration"
        );
    }

    #[test]
    fn redirects_stay_on_the_server() {
        let url = RemoteUrl::parse("https://id.example/keys").unwrap();
        assert_eq!(
            url.redirect("/other").map(|next| next.target),
            Some("/other".into())
        );
        assert!(url.redirect("https://id.example:443/other").is_some());
        for away in [
            "//evil.example/",
            "https://evil.example/",
            "http://id.example/",
            "https://id.example:444/",
            "x",
            "",
        ] {
            assert_eq!(url.redirect(away), None, "{away}");
        }
    }
}
