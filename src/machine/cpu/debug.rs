//! The debug registers of this CPU. The hypervisor sets no breakpoint: while it runs, DR7 has all of them off.

use core::arch::asm;

/// DR0 to DR3.
pub(crate) fn addresses() -> [u64; 4] {
    let (dr0, dr1, dr2, dr3);
    // SAFETY: reading these changes nothing, and with DR7.GD clear it does not trap.
    unsafe {
        asm!("mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3",
            out(reg) dr0, out(reg) dr1, out(reg) dr2, out(reg) dr3, options(nomem, nostack, preserves_flags));
    }
    [dr0, dr1, dr2, dr3]
}

/// Writes [`addresses`].
pub(crate) fn set_addresses([dr0, dr1, dr2, dr3]: [u64; 4]) {
    // SAFETY: DR7 has the breakpoints off, so that an address does nothing.
    unsafe {
        asm!("mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}",
            in(reg) dr0, in(reg) dr1, in(reg) dr2, in(reg) dr3, options(nomem, nostack, preserves_flags));
    }
}

/// DR6: why a debug exception came.
pub(crate) fn status() -> u64 {
    let dr6: u64;
    // SAFETY: as in `addresses`.
    unsafe { asm!("mov {}, dr6", out(reg) dr6, options(nomem, nostack, preserves_flags)) };
    dr6
}

/// Writes [`status`]. The upper half must be zero.
pub(crate) fn set_status(dr6: u64) {
    // SAFETY: a status steers nothing.
    unsafe { asm!("mov dr6, {}", in(reg) dr6, options(nomem, nostack, preserves_flags)) };
}
