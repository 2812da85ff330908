//! What is done against speculation attacks, as `model::policy::mitigation` has decided it, once and before there is a guest.
//!
//! What lasts is set here on each CPU. What is to be done at an entry or exit is built into second copies of the ways in
//! and out (`vmx/entry.rs`, `svm/entry.rs`, `pv/entry.rs`), so that the first ones know nothing of it.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

use model::config::cmdline::Guards;
use model::policy::mitigation::Mitigations;
use spin::Once;

use super::descriptors::HV_DS;
use super::msr;

const SPEC_CTRL: u32 = 0x48;
/// The MSR whose bit 0 is IBPB.
pub(crate) const PRED_CMD: u32 = 0x49;
/// The MSR whose bit 0 flushes the L1 data cache.
pub(crate) const FLUSH_CMD: u32 = 0x10b;
const EFER: u32 = 0xc000_0080;
/// Automatic IBRS (APM 2 3.1.7).
const AIBRSE: u64 = 1 << 21;

static CHOSEN: Once<Mitigations> = Once::new();

/// What VERW is given: its memory form alone clears buffers (Intel, Microarchitectural Data Sampling).
pub(crate) static SELECTOR: u16 = HV_DS;
/// VERW comes before a PVH guest is entered: what the guarded way of AMD-V asks.
pub(crate) static HVM_VERW: AtomicBool = AtomicBool::new(false);
/// IBPB comes after a PVH guest has left: likewise.
pub(crate) static HVM_IBPB: AtomicBool = AtomicBool::new(false);
/// IBPB comes between domains.
static BETWEEN_DOMAINS: AtomicBool = AtomicBool::new(false);

/// Assembly that fills the return stack with 32 places that speculation does not get beyond (Intel, Retpoline; AMD, Software
/// Techniques for Managing Speculation): as many as any processor has. LFENCE ends what was guessed before. Needs 256
/// bytes of stack.
macro_rules! fill_return_stack {
    () => {
        ".rept 32\n call 2f\n 3: pause\n lfence\n jmp 3b\n 2:\n .endr\n add rsp, 256\n lfence"
    };
}

/// Assembly of IBPB; RAX, RCX and RDX are lost.
macro_rules! ibpb {
    () => {
        "mov ecx, {pred_cmd}\n mov eax, 1\n xor edx, edx\n wrmsr"
    };
}

pub(crate) use {fill_return_stack, ibpb};

/// Keeps what was decided. Called once, before a guest or another CPU is there.
pub fn choose(chosen: Mitigations) {
    let chosen = CHOSEN.call_once(|| chosen);
    HVM_VERW.store(chosen.hvm.verw, Ordering::Relaxed);
    HVM_IBPB.store(chosen.hvm.ibpb, Ordering::Relaxed);
    BETWEEN_DOMAINS.store(chosen.ibpb, Ordering::Relaxed);
}

/// What is done around stays in PV guests.
pub(crate) fn pv_guards() -> Guards<bool> {
    CHOSEN.get().map_or(Guards::all(false), |chosen| chosen.pv)
}

/// What is done around stays in PVH guests.
pub(crate) fn hvm_guards() -> Guards<bool> {
    CHOSEN.get().map_or(Guards::all(false), |chosen| chosen.hvm)
}

/// Whether VT-x flushes the L1 data cache at each entry.
pub(crate) fn flushes_l1d() -> bool {
    CHOSEN.get().is_some_and(|chosen| chosen.l1d_flush)
}

/// Sets on this CPU what lasts; once, at boot.
pub fn enable_this_cpu() {
    let Some(chosen) = CHOSEN.get() else { return };
    if chosen.automatic_ibrs {
        // SAFETY: every processor with long mode has the register; the bit concerns predictions alone.
        unsafe { set(EFER, msr::read(EFER) | AIBRSE) };
    }
    if chosen.spec_ctrl != 0 {
        // SAFETY: what the register says concerns speculation alone.
        unsafe { set(SPEC_CTRL, chosen.spec_ctrl) };
    }
}

/// # Safety
/// As [`msr::write_checked`].
unsafe fn set(register: u32, value: u64) {
    // SAFETY: by the caller.
    if !unsafe { msr::write_checked(register, value) } {
        log::warn!("the processor does not take {value:#x} for MSR {register:#x}, and does not do what it says");
    }
}

/// Makes this CPU forget where branches went, if so decided: it goes from one domain to another.
pub fn change_domain() {
    if !BETWEEN_DOMAINS.load(Ordering::Relaxed) {
        return;
    }
    // SAFETY: the processor has PRED_CMD, or it would not have been chosen, and the command changes no state but
    // predictions. The calls are undone by the addition.
    unsafe {
        asm!(
            "wrmsr",
            fill_return_stack!(),
            in("ecx") PRED_CMD,
            in("eax") 1,
            in("edx") 0,
        );
    }
}
