//! What operators and their machines see of a running daemon: metrics, health, the admin API.
//!
//! Runs on a thread of its own, so that nothing that is asked of it delays a request, a packet or a ban. Reads what the
//! others have counted and asks them to do things; decides nothing itself. Never shows a secret, never open to everybody
//! but for health and metrics, where that is configured.

mod api;
pub mod client;
mod context;
mod daemon;
mod dashboard;
mod events;
pub mod metrics;
mod peer;
mod problem;
pub mod router;
mod server;
mod sources;
mod traces;

pub use api::OPENAPI;
pub use context::{Callers, Context};
pub use daemon::{Daemon, Later, Orders, Refused, Stage};
pub use events::{BAN, Event, Events};
pub(crate) use metrics::since_epoch;
pub use server::{AdminError, Bound, MAX_CONNECTIONS, Running, default_socket};
pub use sources::Watcher;
pub use traces::export as export_traces;
