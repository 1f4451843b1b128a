//! `[service.syn]` and `service.new_sources`: what a service asks of sources that have not proved themselves.

use std::time::Duration;

pub use edge_common::abi::CookieMode;

use super::Rate;

/// How a service is guarded against made-up sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guard {
    /// Not at all.
    #[default]
    None,
    /// TCP: a budget of new connections, and cookies.
    Syn(Syn),
    /// UDP: a budget of new sources.
    NewSources(Rate),
}

/// `[service.syn]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Syn {
    /// New connections of the whole service; `None` is any number, and then cookies are off or always on.
    pub budget: Option<Rate>,
    /// When SYNs are answered with cookies.
    pub cookies: CookieMode,
    /// How long it must have been quiet before cookies end.
    pub hold: Duration,
    /// Window scale of the service's listener, 0 to 14, if it is not the machine's.
    pub window_scale: Option<u8>,
}
