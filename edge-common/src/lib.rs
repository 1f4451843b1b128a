//! The packet pipeline of Breakwater and the layout of every map it uses.
//!
//! No I/O, no clock, no randomness: time and seeds are arguments, tables are a trait. The same code runs in
//! the kernel, in tests and in the simulator.
#![no_std]
