//! `#[repr(C)]` keys and values of every BPF map, the list of counters, and event records.
//!
//! Two compilers and two processes read these bytes, and pinned maps outlive both: every type has explicit
//! padding, no `bool`, `Option` or `usize`, and a size that a constant asserts. [`VERSION`] names the layout;
//! it is part of the pin directory, so a program never meets maps of another layout.

pub mod addr;
pub mod ban;
pub mod control;
pub mod event;
pub mod feature;
pub mod hint;
pub mod limit;
pub mod list;
pub mod reason;
pub mod service;
pub mod steer;
pub mod syn;

pub use addr::{Addr, Family};
pub use ban::{Ban, BanKey, BanSource};
pub use control::{Control, ControlWord, Params};
pub use event::{Event, SNAPSHOT_BYTES};
pub use feature::Feature;
pub use hint::Hints;
pub use limit::{EarnedHost, Limit, LimitKind, SLOTS_PER_LINE};
pub use list::LpmKey;
pub use reason::{Alert, Code, Counter, Outcome, PerCpu, Reason, Sampling};
pub use service::{AddressFlags, PortEntry, Service};
pub use steer::{Backend, BackendCount, Forward, SteerRule};
pub use syn::{CookieMode, CookieSettings, SEEN, SEEN_SECONDS, SynRule, SynState, TOLD, Told};

/// Version of the map layout: part of the pin directory's name.
pub const VERSION: u32 = 4;

/// `aya::Pod` says that any bytes the kernel hands out are a valid value.
#[cfg(feature = "user")]
#[expect(
    unsafe_code,
    reason = "Pod is an unsafe trait; this is the one place that implements it"
)]
mod pod {
    use super::{
        Addr, Backend, BackendCount, BanKey, Control, CookieSettings, Counter, Event, Hints, LpmKey, Params,
        PerCpu, PortEntry, Sampling, Service, SteerRule, SynRule, SynState, Told,
    };

    macro_rules! pod {
        ($($type:ty),* $(,)?) => {$(
            // SAFETY: `repr(C)` of integers only, no padding the compiler adds (the size is asserted beside
            // the type), so every bit pattern is a value.
            unsafe impl aya::Pod for $type {}
        )*};
    }
    pod!(
        Addr,
        Backend,
        BackendCount,
        BanKey,
        Control,
        CookieSettings,
        Counter,
        Event,
        Hints,
        LpmKey,
        Params,
        PerCpu,
        PortEntry,
        Sampling,
        Service,
        SteerRule,
        SynRule,
        SynState,
        Told
    );
}

/// Asserts the size and the alignment of an ABI type at compile time.
macro_rules! assert_layout {
    ($type:ty, size = $size:expr, align = $align:expr) => {
        const _: () = assert!(core::mem::size_of::<$type>() == $size);
        const _: () = assert!(core::mem::align_of::<$type>() == $align);
    };
}
pub(crate) use assert_layout;

#[cfg(test)]
mod tests;
