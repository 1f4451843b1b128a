//! The lab that the end-to-end tests run in.
//!
//! Owns: network namespaces with real links, senders, origins, tokens, and handles on the `breakwater` binary. Its
//! parts talk to the system under test only through what an operator or a client has: packets, HTTP, the command line,
//! the configuration file.
//!
//! Never does: touch the machine's own interfaces, leave a namespace, process, pin or file behind, or sleep where an
//! event can be awaited. Whatever a machine lacks is skipped aloud ([`skip`]).
//!
//! Running: `cargo test --package tests`, as root. `BREAKWATER_BIN` names the binary under test; without it the one built
//! beside the tests is taken, which `cargo test` does not rebuild. Besides the binaries a machine needs `ip`, veth, and
//! for the tagged links 8021q; inside a VM that is `veth.ko`, `8021q.ko` and what they depend on, `/proc`, `/sys` and a
//! writable temporary directory.
//!
//! Invariant: a [`lab::Lab`] that is dropped, by return or by panic, leaves nothing; one that was killed leaves only
//! directories of its own name, which the next lab removes.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a step of a test that fails has to stop that test"
)]

pub mod admin;
pub mod backends;
pub mod bpffs;
pub mod browser;
pub mod capture;
pub mod config;
pub mod daemon;
pub mod decap;
pub mod flood;
pub mod frame;
pub mod http;
pub mod identity;
pub mod judge;
pub mod lab;
pub mod link;
pub mod long;
pub mod netns;
pub mod offload;
pub mod origin;
pub mod packets;
pub mod probe;
pub mod process;
pub mod proof;
pub mod pty;
pub mod rows;
pub mod sender;
pub mod skip;
pub mod stage;
pub mod token;
pub mod wait;
pub mod xdp;
