//! The packet pipeline of Breakwater and the layout of every map it uses.
//!
//! No I/O, no clock, no randomness: time and seeds are arguments, tables are a trait. The same code runs in
//! the kernel ([`datapath::run`] over BPF maps), in tests and in the simulator (over [`mem::MemTables`]).
//!
//! Architecture invariant: `unsafe` occurs only in the `Pod` impls, which exist only with the feature `user`.
#![no_std]
#![cfg_attr(not(feature = "user"), forbid(unsafe_code))]
#![cfg_attr(feature = "user", deny(unsafe_code))]

#[cfg(any(test, feature = "std"))]
extern crate std;

pub mod abi;
pub mod algo;
pub mod datapath;
#[cfg(any(test, feature = "std"))]
pub mod fuzz;
#[cfg(any(test, feature = "std"))]
pub mod mem;
pub mod wire;
