//! The processor: its registers, its tables, and how it takes exceptions and interrupts.

pub(crate) mod debug;
pub mod descriptors;
pub mod extended;
pub mod features;
pub mod idle;
pub mod msr;
pub mod speculation;
mod stubs;
pub mod trap;

use core::arch::asm;

/// The time-stamp counter.
#[inline]
pub fn rdtsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter.
    unsafe { asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags)) };
    u64::from(high) << 32 | u64::from(low)
}

/// One step of a loop that waits for another CPU.
#[inline]
pub fn relax() {
    core::hint::spin_loop();
}

/// Sleeps until an interrupt comes, and takes it. Interrupts are off before and after.
pub fn wait_for_interrupt() {
    // SAFETY: handlers keep every register, and STI's shadow lets no interrupt slip in before HLT.
    unsafe { asm!("sti", "hlt", "cli") };
}

/// Takes the interrupts that are pending. Interrupts are off before and after.
#[inline]
pub fn take_interrupts() {
    // SAFETY: handlers keep every register. The NOP ends the shadow of STI.
    unsafe { asm!("sti", "nop", "cli") };
}

/// Ends this CPU's work for good.
pub fn stop() -> ! {
    loop {
        // SAFETY: nothing follows.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// Writes this processor's caches back to memory.
pub fn write_back_caches() {
    // SAFETY: memory holds what the caches held.
    unsafe { asm!("wbinvd", options(nostack, preserves_flags)) };
}

/// Resets the machine: by the keyboard controller, by port 0xCF9, and at last by a triple fault.
pub fn reset() -> ! {
    use x86_64::instructions::port::Port;
    // SAFETY: the machine ends here; whatever these ports are, nothing depends on them any more.
    unsafe {
        Port::<u8>::new(0xcf9).write(0x06);
        Port::<u8>::new(0x64).write(0xfe);
    }
    for _ in 0..1_000_000 {
        relax();
    }
    let empty = [0u8; 10];
    // SAFETY: with an empty IDT the breakpoint ends in a triple fault, which is what is wanted.
    unsafe { asm!("lidt [{0}]", "int3", in(reg) empty.as_ptr(), options(noreturn)) };
}
