//! The gateway end to end, over real sockets on loopback.

mod faults;
mod forwarding;
mod http2;
mod lifecycle;
mod listeners;
mod routing;
mod streaming;
mod strict;
mod support;
