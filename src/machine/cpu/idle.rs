//! How a CPU sleeps: by HLT, or by MWAIT, which a write to a word ends without an interrupt (SDM 2A MONITOR, MWAIT; APM 3).

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::features;

static BY_MWAIT: AtomicBool = AtomicBool::new(false);

/// Decides, once, on the first CPU. A hypervisor beneath takes MWAIT for no sleep, or refuses it.
pub fn prepare(wanted: bool) {
    const MONITOR: u32 = 1 << 3;
    const HYPERVISOR: u32 = 1 << 31;
    /// ECX of leaf 5: the extensions are listed, and interrupts that are off end MWAIT too.
    const BREAKS: u32 = 3;
    let [.., ecx, _] = features::leaf(1, 0);
    let has_it = ecx & MONITOR != 0 && features::leaf(0, 0)[0] >= 5 && features::leaf(5, 0)[2] & BREAKS == BREAKS;
    BY_MWAIT.store(wanted && has_it && ecx & HYPERVISOR == 0, Ordering::Relaxed);
}

/// Whether CPUs sleep by MWAIT.
#[inline]
pub fn is_by_mwait() -> bool {
    BY_MWAIT.load(Ordering::Relaxed)
}

/// Sleeps until an interrupt comes, or until `word` is written by another CPU; not at all if it is not zero. Interrupts that are
/// there are taken in any case; they are off before and after.
pub fn wait_for(word: &AtomicU32) {
    if !is_by_mwait() {
        return if word.load(Ordering::Relaxed) == 0 { super::wait_for_interrupt() } else { super::take_interrupts() };
    }
    // SAFETY: MONITOR only watches, and the processor has it, as `prepare` has found.
    unsafe { asm!("monitor", in("rax") word.as_ptr(), in("ecx") 0, in("edx") 0, options(nostack, preserves_flags)) };
    if word.load(Ordering::Acquire) == 0 {
        // SAFETY: the state C1, which keeps everything; ECX says that interrupts end it though they are off.
        unsafe { asm!("mwait", in("eax") 0, in("ecx") 1, options(nostack, preserves_flags)) };
    }
    super::take_interrupts();
}
