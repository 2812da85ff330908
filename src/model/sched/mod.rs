//! Which virtual CPU runs where.
//!
//! A virtual CPU is known by a [`Key`]. Three things decide whether it can run: it is awake, nobody has paused it, and
//! its registers are in memory or on the CPU in question. The policy is told of each change and says which
//! physical CPU should ask it again; that CPU then calls [`credit::schedule`] and does what it says.
//!
//! ```text
//!             schedule picks it                 schedule picks another        saved
//!   waiting -------------------> running ----------------------------> waiting, only for its old CPU --> waiting
//!      ^                            | sleep or pause, then schedule
//!      |     wake, unpause          v
//!      +------------------------- asleep or paused
//! ```
//!
//! Times are ns of one clock that all CPUs share; one that runs back is taken as standing still. A key that was not added is
//! ignored by all calls. What a caller owes:
//!
//! 1. Act on each kick: the named CPU calls `schedule` before it runs or idles on.
//! 2. After `schedule` on a CPU, run exactly what it says. Where that is not what ran there before, put the former
//!    virtual CPU's registers in memory and then call `saved` for it, before the next `schedule` of that CPU.
//! 3. After `sleep` of a virtual CPU its CPU calls `schedule`. Between `sleep` and that call look again for
//!    what would wake it, and call `wake`: so no event is lost.
//!
//! What the policy promises, beside its bounds (docs/scheduling.md):
//!
//! 1. No virtual CPU is on two CPUs, nor on one while its registers are on another.
//! 2. It runs only where its affinity allows, awake and with a pause count of zero.
//! 3. No CPU stays idle, once kicks are done, while a virtual CPU waits that could run there.
//!
//! [`Runstate`] is the time account of one virtual CPU (`VCPUOP_get_runstate_info`).

mod cpuset;
pub mod credit;
mod runstate;

pub use cpuset::{CpuSet, MAX_CPUS};
pub use runstate::{RunState, Runstate};

use core::fmt;

/// A virtual CPU of any domain: a small number that the hypervisor gives out, lowest free first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u32);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "k{}", self.0)
    }
}

/// What a CPU does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Decision {
    /// Run this virtual CPU; `None` is to idle.
    pub run: Option<Key>,
    /// Call [`credit::schedule`] again at this time at the latest, in ns. `None` while nobody waits for this CPU, and no cap
    /// has to be looked at.
    pub until_ns: Option<u64>,
}
