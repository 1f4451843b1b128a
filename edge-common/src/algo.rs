//! Pure leaves of the pipeline: hashing, the rate limiter's arithmetic and its two-row sketch.

pub mod gcra;
pub mod hash;
pub mod sketch;
