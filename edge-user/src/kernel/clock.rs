//! The kernel's tick, from user space.
//!
//! The program reads jiffies, the cheapest clock there is. User space cannot, but jiffies advance in step with
//! `CLOCK_MONOTONIC`, so one reading of both, kept in the pinned parameters, converts for good.

use std::time::{Duration, SystemTime};

use edge_common::abi::Params;
use rustix::time::{ClockId, clock_getres, clock_gettime};

const NANOS: u64 = 1_000_000_000;

/// Converts between ticks and time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    tick_ns: u64,
    epoch_tick: u64,
    epoch_ns: u64,
}

/// Ticks a second of the running kernel: the coarse clock's resolution is one tick
/// (kernel/time/posix-timers.c, `posix_get_coarse_res`).
pub fn ticks_per_second() -> u32 {
    let resolution = clock_getres(ClockId::RealtimeCoarse);
    let nanos = u64::try_from(resolution.tv_nsec).unwrap_or(0).max(1);
    ((NANOS + nanos / 2) / nanos) as u32
}

/// `CLOCK_MONOTONIC` now, in nanoseconds.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, nanos) = (now.tv_sec.cast_unsigned(), now.tv_nsec.cast_unsigned());
    seconds.saturating_mul(NANOS).saturating_add(nanos)
}

impl Clock {
    /// The clock that the pinned parameters describe.
    pub fn new(params: &Params) -> Self {
        Self {
            tick_ns: NANOS / u64::from(params.hz.max(1)),
            epoch_tick: params.epoch_tick,
            epoch_ns: params.epoch_ns,
        }
    }

    /// The tick now.
    pub fn now(&self) -> u64 {
        self.at(monotonic_ns())
    }

    /// The tick at a moment of the monotonic clock.
    fn at(&self, ns: u64) -> u64 {
        self.epoch_tick
            .saturating_add(ns.saturating_sub(self.epoch_ns) / self.tick_ns)
    }

    /// The tick after `duration` from now, rounded up; `None` never comes.
    pub fn after(&self, duration: Option<Duration>) -> u64 {
        duration.map_or(u64::MAX, |duration| {
            self.now().saturating_add(self.ticks(duration))
        })
    }

    /// Ticks that `duration` takes, rounded up.
    pub fn ticks(&self, duration: Duration) -> u64 {
        (duration.as_nanos() as u64).div_ceil(self.tick_ns)
    }

    /// Time from now until `tick`; zero if it is past, `None` if it never comes.
    pub fn until(&self, tick: u64) -> Option<Duration> {
        if tick == u64::MAX {
            return None;
        }
        Some(Duration::from_nanos(
            tick.saturating_sub(self.now()).saturating_mul(self.tick_ns),
        ))
    }

    /// Time since `tick`.
    pub fn since(&self, tick: u64) -> Duration {
        Duration::from_nanos(self.now().saturating_sub(tick).saturating_mul(self.tick_ns))
    }

    /// The wall clock's time at `tick`.
    pub fn wall(&self, tick: u64) -> SystemTime {
        SystemTime::now()
            .checked_sub(self.since(tick))
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    //! The conversion, against itself and against the passing of time.

    use super::*;

    fn clock() -> Clock {
        Clock::new(&Params {
            hz: 250,
            epoch_tick: 1_000,
            epoch_ns: monotonic_ns(),
            ..Params::default()
        })
    }

    #[test]
    fn hz_is_one_a_kernel_can_have() {
        assert!((24..=1200).contains(&ticks_per_second()));
    }

    #[test]
    fn a_duration_ahead_is_that_far_away() {
        let clock = clock();
        let left = clock
            .until(clock.after(Some(Duration::from_mins(1))))
            .expect("it comes");
        assert!(
            left > Duration::from_millis(59_900) && left <= Duration::from_millis(60_004),
            "{left:?}"
        );
        assert_eq!(clock.until(clock.after(None)), None);
        assert_eq!(clock.until(5), Some(Duration::ZERO));
    }
}
