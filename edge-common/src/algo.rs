//! Pure leaves of the pipeline: hashing, the rate limiter's arithmetic and its lines of cells, the tables of
//! bans, of earned sources, of connections and of translations, the consistent hash that spreads flows over backends.

pub mod bans;
pub mod earned;
pub mod flows;
pub mod gcra;
pub mod hash;
pub mod maglev;
pub mod nat;
pub mod slots;
