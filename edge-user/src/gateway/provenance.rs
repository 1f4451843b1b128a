//! What this proxy says about where a request came from: `Forwarded` (RFC 7239), `X-Forwarded-For`, `-Proto`, `-Host`,
//! and the client's certificate.
//!
//! What a client claims in these fields goes no further, unless the client is a configured proxy: then its words are
//! continued, as far as they are well formed. Nothing here decides anything: limits, bans and routes never look at them.

use std::{cell::RefCell, net::IpAddr, rc::Rc, str::FromStr};

use super::{
    client::Client,
    gate::{
        FieldKind, Request, authority,
        field::{is_token, list},
    },
    header_policy::FieldSink,
};

thread_local! {
    /// Where the element of one request is put together; filled and read without a pause in between.
    static ELEMENT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What is said about a client's connection; written once per connection, copied per request.
#[derive(Debug)]
pub struct Provenance {
    /// The other end.
    pub client: Rc<Client>,
    address: String,
    scheme: &'static str,
}

impl Provenance {
    /// What is said about a connection of `client`.
    pub fn new(client: Client) -> Self {
        let scheme = if client.tls.is_some() { "https" } else { "http" };
        let ip = client.address.ip().to_canonical();
        Self {
            address: ip.to_string(),
            client: Rc::new(client),
            scheme,
        }
    }

    /// Address of the client, without port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// Writes the fields for one request.
    pub fn put(&self, sink: &mut impl FieldSink, request: &Request<'_>, host: &[u8]) {
        let secured = self.client.tls.iter().flat_map(|tls| &tls.identity);
        for (name, value) in secured {
            sink.put(name.as_bytes(), value);
        }
        ELEMENT.with_borrow_mut(|element| {
            element.clear();
            self.put_element(element, host);
            if self.client.is_trusted {
                self.put_continued(sink, request, host, element);
                return;
            }
            sink.put(b"x-forwarded-for", self.address.as_bytes());
            sink.put(b"x-forwarded-proto", self.scheme.as_bytes());
            sink.put(b"x-forwarded-host", host);
            sink.put(b"forwarded", element);
        });
    }

    /// What this proxy saw, as an element of `Forwarded`.
    fn put_element(&self, element: &mut Vec<u8>, host: &[u8]) {
        // An IPv6 address is quoted and in brackets (RFC 7239, 6).
        let (open, close): (&[u8], &[u8]) = if self.address.contains(':') {
            (b"for=\"[", b"]\"")
        } else {
            (b"for=", b"")
        };
        let parts = [
            open,
            self.address.as_bytes(),
            close,
            b";proto=",
            self.scheme.as_bytes(),
            b";host=\"",
            host,
            b"\"",
        ];
        for part in parts {
            element.extend_from_slice(part);
        }
    }

    /// Writes what a trusted proxy says and this one adds.
    fn put_continued(&self, sink: &mut impl FieldSink, request: &Request<'_>, host: &[u8], element: &[u8]) {
        let said = Said::by(request);
        let mut chain: Vec<u8> = Vec::new();
        for member in &said.addresses {
            join(&mut chain, member);
        }
        join(&mut chain, self.address.as_bytes());
        sink.put(b"x-forwarded-for", &chain);
        sink.put(b"x-forwarded-proto", said.proto.unwrap_or(self.scheme.as_bytes()));
        sink.put(b"x-forwarded-host", said.host.unwrap_or(host));
        let mut elements = said.elements.unwrap_or_default();
        if elements.is_empty() {
            // A proxy that speaks the older fields only (RFC 7239, 7.4).
            for member in said.addresses {
                let ip = std::str::from_utf8(member).ok().and_then(address);
                join(
                    &mut elements,
                    ip.map_or_else(|| "for=unknown".to_owned(), node).as_bytes(),
                );
            }
        }
        join(&mut elements, element);
        sink.put(b"forwarded", &elements);
    }
}

/// What the fields of a trusted proxy say.
#[derive(Default)]
struct Said<'r> {
    addresses: Vec<&'r [u8]>,
    proto: Option<&'r [u8]>,
    host: Option<&'r [u8]>,
    /// `None` if any of it is malformed.
    elements: Option<Vec<u8>>,
}

impl<'r> Said<'r> {
    fn by(request: &Request<'r>) -> Self {
        let mut said = Self {
            elements: Some(Vec::new()),
            ..Self::default()
        };
        for (_, name, value) in request
            .fields()
            .filter(|(kind, ..)| *kind == FieldKind::Forwarding)
        {
            if name.eq_ignore_ascii_case(b"x-forwarded-for") {
                said.addresses.extend(list(value));
            } else if name.eq_ignore_ascii_case(b"x-forwarded-proto") {
                said.proto = list(value)
                    .next()
                    .filter(|proto| [&b"http"[..], b"https"].contains(proto));
            } else if name.eq_ignore_ascii_case(b"x-forwarded-host") {
                said.host = list(value).next().filter(|host| authority::is_valid(host));
            } else if name.eq_ignore_ascii_case(b"forwarded") {
                said.elements = said.elements.filter(|_| is_forwarded(value)).map(|mut elements| {
                    join(&mut elements, value);
                    elements
                });
            }
        }
        // Left of what is no address anybody could have written anything.
        let is_known = |member: &&[u8]| {
            std::str::from_utf8(member).is_ok_and(|text| text == "unknown" || address(text).is_some())
        };
        let known = said
            .addresses
            .iter()
            .rev()
            .take_while(|member| is_known(member))
            .count();
        said.addresses.drain(..said.addresses.len() - known);
        said
    }
}

/// `for=` with an address.
fn node(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("for={ip}"),
        IpAddr::V6(ip) => format!("for=\"[{ip}]\""),
    }
}

/// An address as proxies write it: bare, in brackets, with a port.
fn address(text: &str) -> Option<IpAddr> {
    IpAddr::from_str(text)
        .or_else(|_| std::net::SocketAddr::from_str(text).map(|socket| socket.ip()))
        .ok()
        .or_else(|| {
            text.strip_prefix('[')?
                .strip_suffix(']')?
                .parse()
                .ok()
                .map(IpAddr::V6)
        })
}

fn join(into: &mut Vec<u8>, more: &[u8]) {
    if !into.is_empty() {
        into.extend_from_slice(b", ");
    }
    into.extend_from_slice(more);
}

/// Whether a value is a list of RFC 7239's elements.
fn is_forwarded(value: &[u8]) -> bool {
    let mut rest = value.trim_ascii();
    loop {
        let Some(equals) = rest.iter().position(|byte| *byte == b'=') else {
            return false;
        };
        if !is_token(&rest[..equals]) {
            return false;
        }
        let Some(after) = after_value(&rest[equals + 1..]) else {
            return false;
        };
        let after = after.trim_ascii_start();
        match after.first() {
            None => return true,
            Some(b';') => rest = &after[1..],
            Some(b',') => rest = after[1..].trim_ascii_start(),
            Some(_) => return false,
        }
    }
}

/// What comes after a token or a quoted string.
fn after_value(value: &[u8]) -> Option<&[u8]> {
    if let Some(quoted) = value.strip_prefix(b"\"") {
        let mut at = 0;
        loop {
            match quoted.get(at)? {
                b'"' => return quoted.get(at + 1..),
                b'\\' => at += 2,
                b'\t' | b' '..=b'~' => at += 1,
                _ => return None,
            }
        }
    }
    let end = value
        .iter()
        .position(|byte| matches!(byte, b';' | b',' | b' ' | b'\t'))
        .unwrap_or(value.len());
    is_token(&value[..end]).then(|| &value[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_elements() {
        for good in [
            "for=192.0.2.1",
            "for=\"[2001:db8::1]:80\";proto=https;host=\"a:80\"",
            "For=_hidden, for=unknown;by=_x",
            "for=\"a, b; c\\\"\"",
        ] {
            assert!(is_forwarded(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "for",
            "for=",
            "=a",
            "for=[::1]",
            "for=a b",
            "for=\"a",
            "for=a,",
            "for=a;",
            "for=a,,for=b",
            "for=\"\u{1}\"",
            "for=\"a\\",
            "f\"r=a",
        ] {
            assert!(!is_forwarded(bad.as_bytes()), "{bad}");
        }
    }
}
