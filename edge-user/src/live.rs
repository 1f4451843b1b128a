//! What the shield does at this moment, for people who watch: rates, heaviest sources, captured drops.
//!
//! Reads counters, bans and samples from the pinned maps, so it works with and without a daemon. Changes nothing, and
//! takes no sample away from anybody ([`crate::kernel::tap`]). Everything that is kept has a bound.

pub mod pcapng;
pub mod rates;
pub mod reading;
pub mod screen;
pub mod sources;
