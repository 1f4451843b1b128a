//! Any bytes as a path, before two normalisers and what must hold for both.
#![no_main]

use edge_user::gateway::path::fuzz::check;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| check(input));
