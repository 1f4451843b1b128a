//! Authentication through its public door: every algorithm and key source, attacks, mutations, key servers.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod algorithms;
mod attacks;
mod corpus;
mod edge;
mod http;
mod keyserver;
mod local;
mod mutation;
mod remote;
mod support;
