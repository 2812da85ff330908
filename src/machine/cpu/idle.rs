//! How a CPU sleeps: by HLT, or by MWAIT, which a write to a word ends without an interrupt (SDM 2A MONITOR, MWAIT; APM 3).

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

/// Sleeps until an interrupt comes, or, `by_mwait`, until `word` is written by another CPU; not at all if it is not zero.
/// Interrupts that are there are taken in any case; they are off before and after.
pub fn wait_for(word: &AtomicU32, by_mwait: bool) {
    if by_mwait {
        // SAFETY: MONITOR only watches; a processor without it raises an exception, which is a panic.
        unsafe {
            asm!("monitor", in("rax") word.as_ptr(), in("ecx") 0, in("edx") 0, options(nostack, preserves_flags))
        };
    }
    match (word.load(Ordering::Relaxed), by_mwait) {
        (0, false) => super::wait_for_interrupt(),
        // No extension is asked for, which not all emulators have: as with HLT interrupts are on, and STI's shadow lets none
        // slip in before.
        // SAFETY: the state is C1, which keeps everything; handlers keep every register.
        (0, true) => unsafe { asm!("sti", "mwait", "cli", in("eax") 0, in("ecx") 0) },
        _ => super::take_interrupts(),
    }
}
