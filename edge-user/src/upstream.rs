//! Upstreams: where their endpoints are, which one a request goes to, how it is connected to, and which are left out.
//!
//! A [`cluster::Cluster`] is one upstream for the whole process. Its usable endpoints are an immutable snapshot,
//! [`members::Members`], that the background thread ([`supervisor`]) publishes; each worker keeps its own hold on the snapshot in a
//! [`chooser::Chooser`] and looks at one version number per request. Connections belong to one worker ([`pool`],
//! [`mux`]).
//! On a request's path nothing is locked; what cores share is written only when something fails, or where
//! the configuration asks for a count over all workers (`least_request`, `circuit`).
//!
//! Never here: routes, tokens, what a request looks like.

pub mod attempt;
pub mod budget;
pub mod check;
pub mod chooser;
pub mod circuit;
pub mod cluster;
pub mod connect;
mod ejection;
pub mod endpoint;
pub mod jitter;
mod keeper;
mod maglev;
pub mod members;
pub mod mux;
pub mod pool;
pub mod proxy_header;
pub mod quiet;
mod resolve;
mod schedule;
pub mod stream;
pub mod supervisor;
pub mod tls;
