//! Data that only its own physical CPU touches.

use core::cell::UnsafeCell;
use model::ids::CpuId;

/// The most CPUs that Euxen uses.
pub const MAX_CPUS: usize = 256;

/// The number of the CPU that executes this.
pub fn this_cpu() -> CpuId {
    CpuId(0) // filled in with the per-CPU areas
}

/// One `T` per CPU, reachable only from its own.
pub struct PerCpu<T>([UnsafeCell<T>; MAX_CPUS]);

// SAFETY: `with` reaches the running CPU's element only, and a CPU is one thread of control with interrupts off.
unsafe impl<T> Sync for PerCpu<T> {}

impl<T> PerCpu<T> {
    /// Wraps the initial values.
    pub const fn new(values: [UnsafeCell<T>; MAX_CPUS]) -> Self {
        Self(values)
    }

    /// Calls `f` with this CPU's element. `f` must not call `with` on the same variable again.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        let cell = &self.0[this_cpu().0 as usize];
        // SAFETY: no other CPU reaches this element, interrupt handlers do not use `PerCpu`, and `f` does not come back here.
        f(unsafe { &mut *cell.get() })
    }
}
