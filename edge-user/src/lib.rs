//! Breakwater's user space: configuration, the kernel's shield, the gateway, and the loop between them.
//!
//! Who may import whom: `cli -> lifecycle -> {gateway, kernel, admin} -> config`. `gateway` never
//! names aya, `kernel` never names hyper, `config` performs no I/O beyond reading its files.

pub mod admin;
pub mod advise;
pub mod auth;
pub mod carrier;
pub mod cli;
pub mod config;
#[cfg(test)]
mod documents;
pub mod gateway;
pub mod history;
pub mod import;
pub mod kernel;
pub mod lifecycle;
pub mod live;
pub mod offence;
pub mod telemetry;
pub mod upstream;
