//! Every bound of the gateway, in one place, with its default.

use std::time::Duration;

use super::gate::HeadLimits;
use crate::config::GatewayLimits;

/// Which way HTTP/1 goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codec {
    /// By bytes, and by hyper what that declines.
    #[default]
    Bytes,
    /// By hyper: for comparison.
    Hyper,
}

/// Bounds of the gateway. A 16 KiB cookie fits the defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Request target and head, in bytes.
    pub head: HeadLimits,
    /// Response head of an upstream, in bytes.
    pub response_head: usize,
    /// Request body, in bytes; bodies stream in constant memory, so the default is none.
    pub body: Option<u64>,
    /// From the first byte of a request head to its last.
    pub head_timeout: Duration,
    /// A connection without a request.
    pub idle_timeout: Duration,
    /// A body, either way, of which nothing moves.
    pub stall_timeout: Duration,
    /// Least bytes a second of a request body, over each [`Self::stall_timeout`] spent waiting for it.
    pub min_body_rate: u32,
    /// Least bytes a second that a client takes of an answer, over each [`Self::stall_timeout`] that it holds it up.
    pub min_read_rate: u32,
    /// From the accepted connection to the end of its PROXY protocol header.
    pub proxy_header_timeout: Duration,
    /// An upgraded connection, both ways, of which nothing moves.
    pub tunnel_idle_timeout: Duration,
    /// Client connections at once, all workers together.
    pub connections: usize,
    /// Client connections at once of one peer address.
    pub connections_per_peer: usize,
    /// HTTP/2 streams at once on one connection.
    pub streams: u32,
    /// Which codec serves HTTP/1.
    pub codec: Codec,
}

impl Default for Limits {
    fn default() -> Self {
        Self::of(&GatewayLimits::default())
    }
}

impl Limits {
    /// As configured; what the configuration does not set has its default here.
    pub fn of(config: &GatewayLimits) -> Self {
        Self {
            head: HeadLimits {
                target: config.target_bytes.get() as usize,
                head: config.header_bytes.get() as usize,
                fields: config.header_count.get() as usize,
            },
            response_head: 64 * 1024,
            body: None,
            head_timeout: config.header_timeout,
            idle_timeout: config.idle_timeout,
            stall_timeout: config.stall_timeout,
            min_body_rate: config.min_body_rate,
            min_read_rate: config.min_read_rate,
            proxy_header_timeout: config.proxy_header_timeout,
            tunnel_idle_timeout: config.tunnel_idle_timeout,
            connections: config.connections.get() as usize,
            connections_per_peer: config.connections_per_address.get() as usize,
            streams: config.streams.get(),
            codec: Codec::default(),
        }
    }
}

/// Most bytes read from a client that is being turned away, so that it can read why.
pub const LINGER_BYTES: usize = 256 * 1024;

/// Longest time a client is read from while it is being turned away.
pub const LINGER_TIME: Duration = Duration::from_secs(2);

/// Connections that the kernel may hold for a worker that has not accepted them yet.
pub const BACKLOG: i32 = 4096;
