//! What this processor's AMD-V offers: CPUID leaf 0x8000_000a (APM 3 E.4.9) and VM_CR (APM 2 15.30.1).
//!
//! Nested paging is required. Next-RIP save and flush by ASID are used where they are; without them the kernel
//! decodes the exiting instruction, and a flush takes a new ASID. Without the pause filter spinning is not noticed,
//! without clean bits the whole block is loaded at each entry. No control register is intercepted, so decode assists
//! would tell nothing.

use crate::cpu::{msr, speculation};
use crate::virt::Unsupported;
use bitflags::bitflags;
use core::arch::x86_64::__cpuid;
use model::config::cmdline::Guards;

const VM_CR: u32 = 0xc001_0114;
const VM_CR_SVMDIS: u64 = 1 << 4;

bitflags! {
    /// EDX of leaf 0x8000_000a, and what else of the processor matters here.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Features: u32 {
        const NESTED_PAGING = 1 << 0;
        const NEXT_RIP_SAVE = 1 << 3;
        const CLEAN_BITS = 1 << 5;
        const FLUSH_BY_ASID = 1 << 6;
        const PAUSE_FILTER = 1 << 10;
        const PAUSE_FILTER_THRESHOLD = 1 << 12;
        /// Not of that leaf: entry and exit are guarded against speculation attacks.
        const GUARDED = 1 << 29;
        /// Not of that leaf: QEMU's software emulation, which may deliver an injected interrupt once more, at any later
        /// instruction and with IF clear, when something else stops its emulated CPU before the next exit.
        const INJECTS_TWICE = 1 << 30;
        /// Not of that leaf: the processor has the register TSC_AUX (leaf 0x8000_0001, EDX bit 27).
        const TSC_AUX = 1 << 31;
    }
}

/// What CPUID says of AMD-V.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    pub(super) features: Features,
    /// Address-space identifiers, the host's 0 included.
    pub(super) nr_asids: u32,
}

/// Reads CPUID; `None` on a processor without AMD-V.
pub(super) fn read() -> Option<Offer> {
    if __cpuid(0x8000_0000).eax < 0x8000_000a {
        return None;
    }
    let extended = __cpuid(0x8000_0001);
    if extended.ecx & (1 << 2) == 0 {
        return None;
    }
    let svm = __cpuid(0x8000_000a);
    let mut features = Features::from_bits_truncate(svm.edx & 0x1fff_ffff);
    features.set(Features::GUARDED, speculation::hvm_guards() != Guards::all(false));
    features.set(Features::INJECTS_TWICE, is_qemu_tcg());
    features.set(Features::TSC_AUX, extended.edx & (1 << 27) != 0);
    Some(Offer { features, nr_asids: svm.ebx })
}

/// Whether the processor is QEMU's software emulation, by the signature of the hypervisor's leaf that QEMU gives it.
fn is_qemu_tcg() -> bool {
    let leaf = __cpuid(0x4000_0000);
    [leaf.ebx, leaf.ecx, leaf.edx]
        == [u32::from_le_bytes(*b"TCGT"), u32::from_le_bytes(*b"CGTC"), u32::from_le_bytes(*b"GTCG")]
}

/// Whether this processor can run guests by AMD-V with nested paging.
pub fn detect() -> Result<(), Unsupported> {
    let offer = read();
    let is_disabled = offer.is_some() && {
        // SAFETY: a processor with AMD-V has VM_CR.
        unsafe { msr::read(VM_CR) & VM_CR_SVMDIS != 0 }
    };
    judge(offer, is_disabled)
}

fn judge(offer: Option<Offer>, is_disabled: bool) -> Result<(), Unsupported> {
    let Some(offer) = offer else {
        return Err(Unsupported { feature: "AMD-V (SVM)", advice: "" });
    };
    if is_disabled {
        return Err(Unsupported { feature: "AMD-V (SVM)", advice: "enable SVM in the firmware's set-up" });
    }
    if !offer.features.contains(Features::NESTED_PAGING) || offer.nr_asids < 2 {
        return Err(Unsupported { feature: "nested paging (NPT)", advice: "" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Offer = Offer { features: Features::NESTED_PAGING, nr_asids: 16 };

    #[test]
    fn nested_paging_alone_is_enough() {
        assert_eq!(judge(Some(GOOD), false), Ok(()));
    }

    #[test]
    fn a_processor_without_it_gets_no_advice() {
        assert_eq!(judge(None, false).map_err(|missing| missing.advice), Err(""));
        let old = Offer { features: Features::NEXT_RIP_SAVE, ..GOOD };
        assert_eq!(judge(Some(old), false).map_err(|missing| missing.feature), Err("nested paging (NPT)"));
    }

    #[test]
    fn firmware_that_disabled_it_is_named() {
        assert!(judge(Some(GOOD), true).is_err_and(|missing| missing.advice.contains("firmware")));
    }
}
