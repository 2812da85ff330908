//! Model-specific registers.

use core::arch::asm;

/// Reads an MSR.
///
/// # Safety
/// The processor has the register.
pub unsafe fn read(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller vouches for the register; reading one changes no memory.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes an MSR.
///
/// # Safety
/// The processor has the register, the value is valid for it, and what it changes keeps the
/// hypervisor's own memory and control flow as they are.
pub unsafe fn write(msr: u32, value: u64) {
    // SAFETY: the caller vouches for register and value.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack, preserves_flags));
    }
}

/// Reads an MSR that the processor may not have; `None` if it has not.
pub fn read_checked(msr: u32) -> Option<u64> {
    let (low, high, missing): (u32, u32, u32);
    // SAFETY: a fault goes on at the second label, by the exception table, and reading changes no memory.
    unsafe {
        asm!(
            "2: rdmsr",
            "xor {missing:e}, {missing:e}",
            "jmp 4f",
            "3: mov {missing:e}, 1",
            "4:",
            ".pushsection .exception_table, \"a\"",
            ".long 2b - ., 3b - .",
            ".popsection",
            missing = out(reg) missing,
            in("ecx") msr,
            out("eax") low,
            out("edx") high,
            options(nomem, nostack)
        );
    }
    (missing == 0).then_some(u64::from(high) << 32 | u64::from(low))
}

/// Writes an MSR that the processor may not have, or not take the value for; `false` if so.
///
/// # Safety
/// What the register changes, if it is there, keeps the hypervisor's own memory and control flow as they are.
pub unsafe fn write_checked(msr: u32, value: u64) -> bool {
    let failed: u32;
    // SAFETY: a fault goes on at the second label, by the exception table; the caller vouches for the rest.
    unsafe {
        asm!(
            "2: wrmsr",
            "xor {failed:e}, {failed:e}",
            "3:",
            ".pushsection .exception_table, \"a\"",
            ".long 2b - ., 3b - .",
            ".popsection",
            failed = inout(reg) 1u32 => failed,
            in("ecx") msr,
            in("eax") value as u32,
            in("edx") (value >> 32) as u32,
            options(nostack)
        );
    }
    failed == 0
}
