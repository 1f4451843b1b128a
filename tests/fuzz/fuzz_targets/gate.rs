//! Any bytes as a request, a response and a chunked body, before the gate and a plainer reader.
#![no_main]

use edge_user::gateway::gate::fuzz::check;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| check(input));
