//! Authentication through its public door: every algorithm and key source, attacks, mutations, key servers.

mod algorithms;
mod support;
