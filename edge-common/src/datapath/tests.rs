//! Verdict tables over the in-memory maps.
