//! A CPU's own memory: its stacks, and data that only it touches.
//!
//! Each CPU has one block of [`BLOCK`] bytes, aligned to its size. The CPU finds itself by its stack pointer
//! alone, so nothing rests on a segment base that a guest could own. From low to high:
//!
//! | pages | what |
//! |---|---|
//! | 0 | guard |
//! | 1, 2 | stack of #DF |
//! | 3 | guard |
//! | 4, 5 | stack of NMI |
//! | 6 | guard |
//! | 7, 8 | stack of #MC |
//! | 9 | guard |
//! | 10, 11 | stack of #DB |
//! | 12 | guard |
//! | 13 | the stubs of SYSCALL and SYSENTER: one frame for all CPUs |
//! | 14 | descriptors, task state and what the stubs need ([`crate::cpu::descriptors`]) |
//! | 15 | guard |
//! | 16 to 31 | the stack; its last 64 bytes are [`CpuInfo`] |

use core::arch::asm;
use core::cell::UnsafeCell;
use model::ids::CpuId;

use crate::mem::layout::STACKS;

/// The most CPUs that Euxen uses.
pub const MAX_CPUS: usize = 256;

/// Bytes of a CPU's block.
pub const BLOCK: u64 = 0x2_0000;

/// The guard pages of a block.
pub const GUARDS: [u64; 6] = [0, 3, 6, 9, 12, 15];

/// The page of the SYSCALL and SYSENTER stubs.
pub const STUBS: u64 = 13;

/// The page of descriptors and task state; behind [`STUBS`], so that the stubs find it by their own address.
pub const TABLES: u64 = 14;

/// The pages one past the end of the stacks of #DF, NMI, #MC and #DB, in the order of their IST numbers from 1.
pub const IST_ENDS: [u64; 4] = [3, 6, 9, 12];

/// What lies at the top of each CPU's stack.
#[repr(C, align(64))]
pub struct CpuInfo {
    id: u64,
    unused: [u64; 7],
}

/// Where CPU `id` has its block.
pub const fn block(id: CpuId) -> u64 {
    STACKS + id.0 as u64 * BLOCK
}

/// The first stack pointer of CPU `id`.
pub const fn stack_top(id: CpuId) -> u64 {
    block(id) + BLOCK - size_of::<CpuInfo>() as u64
}

/// Writes `CpuInfo` of CPU `id`, whose block is mapped and not in use.
///
/// # Safety
/// The block is mapped writable and its CPU has not started.
pub unsafe fn initialise(id: CpuId) {
    let info = stack_top(id) as *mut CpuInfo;
    // SAFETY: by the caller, the block is mapped and nobody else's yet.
    unsafe { info.write(CpuInfo { id: id.0 as u64, unused: [0; 7] }) }
}

/// The number of the CPU that executes this.
#[inline]
pub fn this_cpu() -> CpuId {
    let id: u64;
    // SAFETY: every stack lies in a block of this form, the boot stack included, whose top holds `CpuInfo`.
    unsafe {
        asm!(
            "mov {id}, rsp",
            "or {id}, 0x1ffff",
            "mov {id}, [{id} - 63]",
            id = out(reg) id,
            options(nostack, readonly, pure)
        );
    }
    CpuId(id as u32)
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
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        let cell = &self.0[this_cpu().0 as usize];
        // SAFETY: no other CPU reaches this element, interrupt handlers do not use `PerCpu`, and `f` does not come back here.
        f(unsafe { &mut *cell.get() })
    }
}
