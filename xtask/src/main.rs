//! `cargo xtask`: sets up, builds, runs, tests and measures Breakwater.
fn main() {}
