//! Connections to upstreams: kept, found again, given up.
//!
//! Everything here belongs to one worker: no lock, no counter shared between cores.

pub mod pool;
