//! Time as numbers: clocks, deadlines, calibration. Nobody here reads a clock; readings are arguments.
//!
//! System time is ns since the hypervisor started, the same on all CPUs. It is computed from the TSC by a [`Scale`], in
//! the arithmetic that guests use on `vcpu_time_info`, so that a guest and the hypervisor read the same time.

mod calibrate;
mod pvclock;
mod queue;
mod rate;
mod wallclock;

pub use calibrate::{Look, Rates, Reference, calibrate};
pub use pvclock::{Clock, Scale, TimeInfo};
pub use queue::{Handle, TimerQueue};
pub use rate::Rate;
pub use wallclock::{RtcFields, WallClock};

/// The earlier of two deadlines in ns; `None` is never.
#[inline]
pub fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// ns in a second.
pub const NS_PER_SEC: u64 = 1_000_000_000;
