//! Frames of any bytes before the packet pipeline, in worlds of several settings.
#![no_main]

use std::cell::RefCell;

use edge_common::fuzz::Worlds;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static WORLDS: RefCell<Worlds> = RefCell::new(Worlds::new());
}

fuzz_target!(|input: &[u8]| WORLDS.with_borrow_mut(|worlds| worlds.check(input)));
