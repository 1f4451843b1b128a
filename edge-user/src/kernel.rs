//! The kernel side: loads, attaches, pins and adopts the shield; reads and writes its maps.
//!
//! The only user of aya. Everything works with the daemon running or not: the state is in the pinned maps, and
//! whoever holds the lock on the pin directory may change it. Nothing here knows HTTP.

pub mod attach;
pub mod bans;
pub mod change;
pub mod clock;
pub mod counters;
pub mod earned;
pub mod error;
pub mod events;
pub mod features;
pub mod foreign;
pub mod handed;
pub mod interfaces;
pub mod lists;
pub mod loader;
pub mod mapped;
pub mod pins;
pub mod preflight;
pub mod program_log;
pub mod services;
pub mod steering;
pub mod syn;
pub mod sysctl;
pub mod tables;
pub mod tap;
mod whole;

pub use clock::Clock;
pub use error::KernelError;
pub use pins::Pins;
pub use tables::ShieldTables;
