//! Which virtual CPU runs where: the interface of a scheduler, and the plain policy behind it.
//!
//! A virtual CPU is known by a [`Key`]. Three things decide whether it can run: it is awake, nobody has paused it, and
//! its registers are in memory or on the CPU in question. The policy is told of each change and answers which
//! physical CPU should ask it again; that CPU then calls [`Scheduler::schedule`] and does what it says.
//!
//! ```text
//!             schedule picks it                 schedule picks another        saved
//!   waiting -------------------> running ----------------------------> waiting, only for its old CPU --> waiting
//!      ^                            | sleep or pause, then schedule
//!      |     wake, unpause          v
//!      +------------------------- asleep or paused
//! ```
//!
//! [`credit`] is to take the plain policy's place.
//!
//! [`Runstate`] is the time account of one virtual CPU (`VCPUOP_get_runstate_info`).

mod cpuset;
pub mod credit;
mod round_robin;
mod runqueue;
mod runstate;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use cpuset::{CpuSet, MAX_CPUS};
pub use round_robin::{DEFAULT_SLICE_NS, RoundRobin};
pub use runstate::{RunState, Runstate};

use crate::ids::CpuId;
use core::fmt;

/// A virtual CPU of any domain: a small number that the hypervisor gives out, lowest free first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u32);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "k{}", self.0)
    }
}

/// Which CPU should call [`Scheduler::schedule`] soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Wake {
    /// None.
    None,
    /// This one. It may be the caller's own.
    Kick(CpuId),
}

/// What a CPU does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Decision {
    /// Run this virtual CPU; `None` is to idle.
    pub run: Option<Key>,
    /// Call [`Scheduler::schedule`] again at this time at the latest, in ns. `None` while nobody waits for this CPU.
    pub until_ns: Option<u64>,
}

/// Why [`Scheduler::add`] fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddError {
    /// The key is in use.
    Exists,
    /// The hypervisor has no memory for another.
    NoMemory,
}

/// The contract of a scheduler.
///
/// The caller serialises all calls by one lock. Times are ns of one clock that all CPUs share; one that runs back is
/// taken as standing still. A key that was not added is ignored by all calls. What a caller owes:
///
/// 1. Act on each [`Wake::Kick`]: the named CPU calls `schedule` before it runs or idles on.
/// 2. After `schedule` on a CPU, run exactly what it says. Where that is not what ran there before, put the former
///    virtual CPU's registers in memory and then call `saved` for it, before the next `schedule` of that CPU.
/// 3. After `sleep` or `yield_` of a virtual CPU, its CPU calls `schedule`. Between `sleep` and that call look again for
///    what would wake it, and call `wake`: so no event is lost.
///
/// What a policy promises:
///
/// 1. No virtual CPU is on two CPUs, nor on one while its registers are on another.
/// 2. It runs only where its affinity allows, awake and with a pause count of zero.
/// 3. No CPU stays idle, once kicks are done, while a virtual CPU waits that could run there.
/// 4. Each virtual CPU that waits runs after a bounded time.
pub trait Scheduler {
    /// A CPU is there to run virtual CPUs; it idles until its first `schedule`.
    fn add_cpu(&mut self, cpu: CpuId);

    /// A new virtual CPU, awake, its registers in memory, with a pause count of 1: it runs after [`Scheduler::unpause`].
    fn add(&mut self, key: Key, affinity: CpuSet, now_ns: u64) -> Result<(), AddError>;

    /// Forgets a virtual CPU. Refused while it is on a CPU ([`Scheduler::is_off`]): pause it and wait first.
    fn remove(&mut self, key: Key) -> Result<(), CpuId>;

    /// It has something to do.
    fn wake(&mut self, key: Key, now_ns: u64) -> Wake;

    /// It has nothing to do until it is woken. For the running virtual CPU's own CPU.
    fn sleep(&mut self, key: Key);

    /// As [`Scheduler::sleep`], because it was taken down: its account says offline, not blocked.
    fn go_down(&mut self, key: Key);

    /// It lets all others that wait go first, once. For the running virtual CPU's own CPU.
    fn yield_(&mut self, key: Key);

    /// Pauses it once more. With the answer's kick it soon leaves its CPU; [`Scheduler::is_off`] tells when it has.
    fn pause(&mut self, key: Key, now_ns: u64) -> Wake;

    /// Takes back one [`Scheduler::pause`]. Ignored at a count of zero.
    fn unpause(&mut self, key: Key, now_ns: u64) -> Wake;

    /// Restricts it to these CPUs. An empty set stops it.
    fn set_affinity(&mut self, key: Key, affinity: CpuSet, now_ns: u64) -> Wake;

    /// What `cpu` does from now on.
    fn schedule(&mut self, cpu: CpuId, now_ns: u64) -> Decision;

    /// To be asked after each [`Scheduler::schedule`]: an idle CPU that is to look, because one waits that may run there. The
    /// CPU that was kicked for that one took another.
    fn overlooked(&mut self) -> Wake;

    /// The registers of a virtual CPU that left its CPU are in memory.
    fn saved(&mut self, key: Key, now_ns: u64) -> Wake;

    /// Whether no CPU runs it or holds its registers.
    fn is_off(&self, key: Key) -> bool;

    /// The CPU that runs it or still holds its registers.
    fn held_by(&self, key: Key) -> Option<CpuId>;

    /// What `cpu` was told to run.
    fn current(&self, cpu: CpuId) -> Option<Key>;

    /// The CPU that runs it.
    fn running_on(&self, key: Key) -> Option<CpuId>;

    /// Its time account.
    fn runstate(&self, key: Key) -> Option<&Runstate>;
}
