//! A lab with an origin, a key and a running daemon: where most tests of the binary begin.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde_json::Value;

use crate::{
    capture::{Capture, Captured, Direction},
    config::{PORT, Settings},
    daemon::{self, Daemon},
    frame::{self, Frame, Tcp, Transport},
    http::{self, Request, Response},
    lab::{Host, Lab, LabOptions, VIP_V4, VIP_V6},
    origin::Origin,
    probe,
    token::Signer,
};

/// How long no answer has to last to count as silence: long for a slow machine, short for a test.
pub const SILENCE: Duration = Duration::from_millis(1500);

/// Source port of raw segments, below the range that the kernel gives to connections.
pub const RAW_PORT: u16 = 6666;

/// A limit under test, and the arithmetic of what it may let through.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Units a second.
    pub per_second: u64,
    /// Units at once.
    pub burst: u64,
}

impl Limit {
    /// The most that may pass within `elapsed`, with one percent for the rate and a tick of the slowest clock (10 ms)
    /// for the burst.
    pub fn allows(self, elapsed: Duration) -> u64 {
        let millis = elapsed.as_millis() as u64;
        self.burst + self.per_second * millis * 101 / 100_000 + self.per_second / 100 + 1
    }
}

/// Everything a test of the binary needs. Dropped in the order of the fields.
pub struct Stage {
    /// The daemon.
    pub daemon: Daemon,
    /// What it was started with.
    pub settings: Settings,
    /// The server behind it, named `one`.
    pub origin: Origin,
    /// Signs tokens that it accepts.
    pub signer: Signer,
    /// Where it all happens.
    pub lab: Lab,
}

impl Stage {
    /// [`Settings::standard`] as changed by `adjust`, in a plain lab, with the daemon ready. `None`, after saying why,
    /// when this machine or this build cannot.
    #[track_caller]
    pub fn new(name: &str, adjust: impl FnOnce(Settings) -> Settings) -> Option<Self> {
        Self::in_lab(name, |options| options, adjust)
    }

    /// [`Self::new`] in a lab of the caller's choice.
    #[track_caller]
    pub fn in_lab(
        name: &str,
        configure: impl FnOnce(LabOptions) -> LabOptions,
        adjust: impl FnOnce(Settings) -> Settings,
    ) -> Option<Self> {
        let lab = daemon::lab_with(name, configure)?;
        let signer = Signer::hs256();
        let origin = origin(&lab);
        let settings = adjust(Settings::standard(&lab, &signer, origin.address()));
        let daemon = Daemon::start(&lab, &settings.text());
        Some(Self {
            daemon,
            settings,
            origin,
            signer,
            lab,
        })
    }

    /// One request of `host` to the gateway at `vip`, on a connection of its own.
    pub fn request(&self, host: &Host, vip: IpAddr, request: &Request) -> io::Result<Response> {
        http::once(&host.namespace, gateway(vip), request)
    }

    /// Asserts that `host` is served an open and, with a token, a private path, over IPv4 and IPv6.
    #[track_caller]
    pub fn assert_served(&self, host: &Host) {
        let private = Request::get(crate::config::PRIVATE).bearer(&self.signer.token());
        for vip in vips() {
            for request in [&Request::get("/"), &private] {
                let response = self.request(host, vip, request);
                let status = response.as_ref().map(|response| response.status);
                let role = host.namespace.role();
                assert!(
                    matches!(status, Ok(200)),
                    "{role} is served at {vip}: {response:?}"
                );
            }
        }
    }

    /// What `breakwater ban list --json` says.
    #[track_caller]
    pub fn bans(&self) -> Value {
        daemon::cli(&self.lab, ["ban", "list", "--json"]).json()
    }
}

/// An origin that says who it is, on a free port of the lab's origin host.
pub fn origin(lab: &Lab) -> Origin {
    Origin::echo(&lab.origin().namespace, (lab.origin().v4, 0).into(), "one").expect("a port is free")
}

/// The services' addresses.
pub fn vips() -> [IpAddr; 2] {
    [VIP_V4.into(), VIP_V6.into()]
}

/// Where the gateway listens.
pub fn gateway(vip: IpAddr) -> SocketAddr {
    (vip, PORT).into()
}

/// Tells whether a SYN of `host` to the gateway is answered.
pub fn is_answered(host: &Host, vip: IpAddr, limit: Duration) -> bool {
    probe::syn_is_answered(host, RAW_PORT, gateway(vip), limit)
}

/// A raw TCP segment of `host` from [`RAW_PORT`], tagged as its link is.
pub fn segment(host: &Host, to: SocketAddr, flags: u8) -> Frame {
    let tcp = Tcp {
        source: RAW_PORT,
        destination: to.port(),
        sequence: 1,
        acknowledgement: 1,
        flags,
        ..Tcp::default()
    };
    Frame::new(host.address_towards(to.ip()), to.ip(), Transport::Tcp(tcp))
}

/// A capture on the edge's side of a host's link. XDP runs before it: what it sees come in has passed the shield.
pub fn behind_the_shield(lab: &Lab, host: &Host) -> Capture {
    Capture::start(lab.edge(), &host.edge_interface).expect("the interface exists")
}

/// Whether a captured frame is a [`segment`] that came in.
pub fn is_raw_segment(frame: &Captured) -> bool {
    frame.direction == Direction::In
        && probe::transport(&frame.bytes).is_some_and(|(protocol, tcp)| {
            protocol == frame::TCP && tcp.len() >= 20 && tcp[..2] == RAW_PORT.to_be_bytes()
        })
}

/// The packets that `breakwater status --json` counts under a reason's name, in whatever part of the document.
pub fn packets(status: &Value, reason: &str) -> u64 {
    let own = match status.get(reason) {
        Some(Value::Number(count)) => count.as_u64().unwrap_or(0),
        Some(counter) => counter.get("packets").and_then(Value::as_u64).unwrap_or(0),
        // A list of objects that carry their reason.
        None if status.get("reason").is_some_and(|name| name == reason) => {
            let count = |key: &str| status.get(key).and_then(Value::as_u64).unwrap_or(0);
            count("packets") + count("observed")
        }
        None => 0,
    };
    let below = match status {
        Value::Array(items) => items.iter().map(|item| packets(item, reason)).max(),
        Value::Object(fields) => fields.values().map(|value| packets(value, reason)).max(),
        _ => None,
    };
    own.max(below.unwrap_or(0))
}

/// Whether any text of a document is this address or a prefix that contains it.
pub fn names_address(document: &Value, address: IpAddr) -> bool {
    match document {
        Value::String(text) => covers(text, address),
        Value::Array(items) => items.iter().any(|item| names_address(item, address)),
        Value::Object(fields) => fields.values().any(|value| names_address(value, address)),
        _ => false,
    }
}

fn covers(text: &str, address: IpAddr) -> bool {
    let (network, length) = text
        .split_once('/')
        .map_or((text, None), |(network, length)| (network, Some(length)));
    let Ok(network) = network.parse::<IpAddr>() else {
        return false;
    };
    let (one, other, width) = match (network, address) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (u32::from(one).into(), u32::from(other).into(), 32),
        (IpAddr::V6(one), IpAddr::V6(other)) => (u128::from(one), u128::from(other), 128),
        _ => return false,
    };
    match length.map_or(Ok(width), str::parse::<u32>) {
        Ok(length) if length <= width => (one ^ other).checked_shr(width - length).unwrap_or(0) == 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_are_found_alone_and_in_prefixes() {
        let address = IpAddr::from([198, 18, 2, 10]);
        for (text, covered) in [
            ("198.18.2.10", true),
            ("198.18.2.10/32", true),
            ("198.18.2.0/24", true),
            ("0.0.0.0/0", true),
            ("198.18.2.1", false),
            ("198.18.3.0/24", false),
            ("198.18.2.0/99", false),
            ("::/0", false),
            ("reason", false),
        ] {
            assert_eq!(
                names_address(&json!({ "bans": [{ "x": text }] }), address),
                covered,
                "{text}"
            );
        }
        assert!(names_address(
            &json!("2001:db8:102::/64"),
            "2001:db8:102::10".parse().unwrap()
        ));
    }

    #[test]
    fn packets_are_found_in_any_shape() {
        for document in [
            json!({ "counters": { "banned": 7 } }),
            json!({ "services": [{ "counters": { "banned": { "packets": 7, "bytes": 420 } } }] }),
            json!([{ "reason": "banned", "packets": 7 }, { "reason": "denied", "packets": 9 }]),
        ] {
            assert_eq!(packets(&document, "banned"), 7, "{document}");
        }
        assert_eq!(
            packets(
                &json!({ "limits": { "source_packets": { "burst": 3 } } }),
                "source_packets"
            ),
            0
        );
    }
}
