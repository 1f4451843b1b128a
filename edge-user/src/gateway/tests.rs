//! The gateway end to end, over real sockets on loopback: every test twice, once by each codec. A new file of tests is
//! named in both modules.

/// By bytes.
#[path = "tests"]
mod bytes {
    const CODEC: crate::gateway::limits::Codec = crate::gateway::limits::Codec::Bytes;

    mod actions;
    mod beside;
    mod codec;
    mod compression;
    mod conformance;
    mod connect;
    mod corpus;
    mod desync;
    mod drip;
    mod events;
    mod faults;
    mod floods;
    mod forwarding;
    mod frames;
    mod grpc;
    mod http2;
    mod http2_actions;
    mod http2_direct;
    mod lifecycle;
    mod limiting;
    mod listeners;
    mod paths;
    mod routing;
    mod routing_page;
    mod streaming;
    mod strict;
    mod support;
    mod telling;
    mod unasked;
    mod upstream_faults;
    mod upstream_http2;
    mod upstream_tls;
    mod upstreams;
    mod websocket2;
}

/// By hyper.
#[path = "tests"]
#[expect(clippy::duplicate_mod, reason = "the same tests over the other codec")]
mod hyper {
    const CODEC: crate::gateway::limits::Codec = crate::gateway::limits::Codec::Hyper;

    mod actions;
    mod beside;
    mod compression;
    mod corpus;
    mod desync;
    mod faults;
    mod forwarding;
    mod http2;
    mod http2_actions;
    mod http2_direct;
    mod lifecycle;
    mod limiting;
    mod listeners;
    mod paths;
    mod routing;
    mod routing_page;
    mod streaming;
    mod strict;
    mod support;
    mod telling;
    mod unasked;
    mod upstream_faults;
    mod upstream_http2;
    mod upstream_tls;
    mod upstreams;
}
