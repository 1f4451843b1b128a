//! Pure leaves of the pipeline: hashing, the rate limiter's arithmetic and its lines of cells, the tables of
//! bans and of earned sources.

pub mod bans;
pub mod earned;
pub mod gcra;
pub mod hash;
pub mod slots;
