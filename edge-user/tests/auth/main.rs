//! Authentication through its public door: every algorithm and key source, attacks, mutations, key servers.

mod algorithms;
mod attacks;
mod corpus;
mod mutation;
mod support;
