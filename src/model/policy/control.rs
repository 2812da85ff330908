//! Which values a guest may put into CR0, CR3, CR4, EFER, XCR0 and PAT, as the processor would judge.
//!
//! Each check answers the value that the register then has, or [`Fault`], which is `#GP(0)`. Sources: SDM 3A 2.5, 4.1.1,
//! 9.8.5, 11.12.2; SDM 1 13.3; APM 2 3.1.7, 5.1.2.

use super::cpuid::{CpuidPolicy, Vendor};
use super::features::{e1_edx, l1_ecx, l1_edx, l7_ebx, l7_ecx};
use super::xstate;
use crate::regs::{Cr0, Cr4, Efer};

/// The guest gets `#GP(0)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

/// What the checks look at beside the register to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the architecture's")]
pub struct Controls {
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    /// The L bit of CS.
    pub cs_is_long: bool,
}

/// The bits of CR4 and EFER and the components of XCR0 that a domain has, and the width of its physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlPolicy {
    cr4: u64,
    efer: u64,
    xcr0: u64,
    phys_bits: u32,
}

fn refuse_if(condition: bool) -> Result<(), Fault> {
    if condition { Err(Fault) } else { Ok(()) }
}

fn fold(list: &[(bool, u64)]) -> u64 {
    list.iter().filter(|item| item.0).fold(0, |bits, item| bits | item.1)
}

impl ControlPolicy {
    /// What follows from the CPUID that the domain sees.
    pub fn new(cpuid: &CpuidPolicy) -> Self {
        let edx = |bits| cpuid.has_leaf_1_edx(bits);
        let ecx = |bits| cpuid.has_leaf_1_ecx(bits);
        let cr4 = fold(&[
            (edx(l1_edx::VME), (Cr4::VME | Cr4::PVI).bits()),
            (edx(l1_edx::TSC), Cr4::TSD.bits()),
            (edx(l1_edx::DE), Cr4::DE.bits()),
            (edx(l1_edx::PSE), Cr4::PSE.bits()),
            (edx(l1_edx::PAE), Cr4::PAE.bits()),
            (edx(l1_edx::MCE), Cr4::MCE.bits()),
            (edx(l1_edx::PGE), Cr4::PGE.bits()),
            (true, Cr4::PCE.bits()),
            (edx(l1_edx::FXSR), Cr4::OSFXSR.bits()),
            (edx(l1_edx::SSE), Cr4::OSXMMEXCPT.bits()),
            (ecx(l1_ecx::PCID), Cr4::PCIDE.bits()),
            (ecx(l1_ecx::XSAVE), Cr4::OSXSAVE.bits()),
            (cpuid.has_leaf_7_ebx(l7_ebx::FSGSBASE), Cr4::FSGSBASE.bits()),
            (cpuid.has_leaf_7_ebx(l7_ebx::SMEP), Cr4::SMEP.bits()),
            (cpuid.has_leaf_7_ebx(l7_ebx::SMAP), Cr4::SMAP.bits()),
            (cpuid.has_leaf_7_ecx(l7_ecx::UMIP), Cr4::UMIP.bits()),
            (cpuid.has_leaf_7_ecx(l7_ecx::PKU), Cr4::PKE.bits()),
        ]);
        let efer = fold(&[
            (cpuid.has_extended_edx(e1_edx::SYSCALL), Efer::SCE.bits()),
            (cpuid.has_extended_edx(e1_edx::LM), (Efer::LME | Efer::LMA).bits()),
            (cpuid.has_extended_edx(e1_edx::NX), Efer::NXE.bits()),
            (cpuid.vendor() == Vendor::Amd && cpuid.has_extended_edx(e1_edx::FFXSR), Efer::FFXSR.bits()),
        ]);
        Self { cr4, efer, xcr0: cpuid.xcr0(), phys_bits: cpuid.phys_bits() }
    }

    /// The bits of CR4 that the guest may set.
    pub fn cr4_allowed(&self) -> u64 {
        self.cr4
    }

    /// A write of `new` to CR0 by a guest whose registers are `old`. Reserved bits of the lower half read as zero, ET as
    /// one; EFER.LMA follows PG, which is for the caller.
    pub fn check_cr0(&self, new: u64, old: &Controls) -> Result<u64, Fault> {
        let has = |bit: Cr0| new & bit.bits() != 0;
        let was_paging = old.cr0 & Cr0::PG.bits() != 0;
        refuse_if(new >> 32 != 0)?;
        refuse_if(has(Cr0::PG) && !has(Cr0::PE))?;
        refuse_if(has(Cr0::NW) && !has(Cr0::CD))?;
        if has(Cr0::PG) && !was_paging && old.efer & Efer::LME.bits() != 0 {
            refuse_if(old.cr4 & Cr4::PAE.bits() == 0 || old.cs_is_long)?;
        }
        if !has(Cr0::PG) && was_paging {
            refuse_if(old.cr4 & Cr4::PCIDE.bits() != 0)?;
            refuse_if(old.efer & Efer::LMA.bits() != 0 && old.cs_is_long)?;
        }
        refuse_if(!has(Cr0::WP) && old.cr4 & Cr4::CET.bits() != 0)?;
        Ok((new & Cr0::all().bits()) | Cr0::ET.bits())
    }

    /// A write of `new` to CR3: no bits past the width of an address in long mode, but for bit 63 with PCIDE, which asks to
    /// keep translations and is not stored.
    pub fn check_cr3(&self, new: u64, old: &Controls) -> Result<u64, Fault> {
        if old.efer & Efer::LMA.bits() == 0 {
            return Ok(new & 0xffff_ffff);
        }
        let keep = if old.cr4 & Cr4::PCIDE.bits() != 0 { 1 << 63 } else { 0 };
        let value = new & !keep;
        refuse_if(value.checked_shr(self.phys_bits).is_some_and(|high| high != 0))?;
        Ok(value)
    }

    /// A write of `new` to CR4.
    pub fn check_cr4(&self, new: u64, old: &Controls) -> Result<u64, Fault> {
        refuse_if(new & !self.cr4 != 0)?;
        let is_long = old.efer & Efer::LMA.bits() != 0;
        refuse_if(is_long && new & Cr4::PAE.bits() == 0)?;
        if new & !old.cr4 & Cr4::PCIDE.bits() != 0 {
            refuse_if(!is_long || old.cr3 & 0xfff != 0)?;
        }
        Ok(new)
    }

    /// A write of `new` to EFER. LMA is what it was: only CR0 changes it.
    pub fn check_efer(&self, new: u64, old: &Controls) -> Result<u64, Fault> {
        refuse_if(new & !(self.efer | Efer::LMA.bits()) != 0)?;
        let is_paging = old.cr0 & Cr0::PG.bits() != 0;
        refuse_if(is_paging && (new ^ old.efer) & Efer::LME.bits() != 0)?;
        Ok((new & !Efer::LMA.bits()) | (old.efer & Efer::LMA.bits()))
    }

    /// XSETBV of `new` to register `index`. That the guest is in ring 0 and has CR4.OSXSAVE set is for the caller.
    pub fn check_xcr0(&self, index: u32, new: u64) -> Result<u64, Fault> {
        refuse_if(index != 0 || new & !self.xcr0 != 0 || new & xstate::X87 == 0)?;
        refuse_if(new & xstate::YMM != 0 && new & xstate::SSE == 0)?;
        let wide = new & xstate::AVX512;
        refuse_if(wide != 0 && (wide != xstate::AVX512 || new & xstate::YMM == 0))?;
        Ok(new)
    }
}

/// A write to the PAT MSR: each byte one of the six memory types.
pub fn check_pat(new: u64) -> Result<u64, Fault> {
    refuse_if(!new.to_le_bytes().iter().all(|kind| matches!(kind, 0 | 1 | 4..=7)))?;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::super::cpuid::tests::{amd, intel, policy};
    use super::*;

    const LONG: Controls = Controls {
        cr0: 0x8005_0033,
        cr3: 0x1000,
        cr4: Cr4::PAE.bits(),
        efer: Efer::LME.bits() | Efer::LMA.bits(),
        cs_is_long: true,
    };
    const FLAT: Controls = Controls { cr0: 0x11, cr3: 0, cr4: 0, efer: 0, cs_is_long: false };

    fn rules() -> ControlPolicy {
        ControlPolicy::new(&policy(intel, 4))
    }

    #[test]
    fn paging_needs_protection_and_no_write_through_needs_caches_off() {
        assert_eq!(rules().check_cr0(Cr0::PG.bits(), &FLAT), Err(Fault));
        assert_eq!(rules().check_cr0((Cr0::PE | Cr0::NW).bits(), &FLAT), Err(Fault));
        assert!(rules().check_cr0((Cr0::PE | Cr0::NW | Cr0::CD).bits(), &FLAT).is_ok());
        assert_eq!(rules().check_cr0(1 << 32, &FLAT), Err(Fault));
    }

    #[test]
    fn reserved_low_bits_of_cr0_vanish_and_et_stays() {
        assert_eq!(rules().check_cr0(0xffc0 | 1, &FLAT), Ok(0x11));
    }

    #[test]
    fn long_mode_begins_with_pae_and_from_a_code_segment_without_l() {
        let on = (Cr0::PE | Cr0::PG).bits();
        let ready = Controls { cr4: Cr4::PAE.bits(), efer: Efer::LME.bits(), ..FLAT };
        assert!(rules().check_cr0(on, &ready).is_ok());
        assert_eq!(rules().check_cr0(on, &Controls { cr4: 0, ..ready }), Err(Fault));
        assert_eq!(rules().check_cr0(on, &Controls { cs_is_long: true, ..ready }), Err(Fault));
    }

    #[test]
    fn paging_does_not_end_in_64_bit_code_or_with_pcids() {
        let off = LONG.cr0 & !Cr0::PG.bits();
        assert_eq!(rules().check_cr0(off, &LONG), Err(Fault));
        let compat = Controls { cs_is_long: false, ..LONG };
        assert!(rules().check_cr0(off, &compat).is_ok());
        let pcids = Controls { cr4: compat.cr4 | Cr4::PCIDE.bits(), ..compat };
        assert_eq!(rules().check_cr0(off, &pcids), Err(Fault));
    }

    #[test]
    fn cr4_has_only_what_cpuid_offers() {
        for hidden in [Cr4::VMXE, Cr4::SMXE, Cr4::LA57, Cr4::CET] {
            assert_eq!(rules().check_cr4(LONG.cr4 | hidden.bits(), &LONG), Err(Fault), "{hidden:?}");
        }
        for offered in [Cr4::SMEP, Cr4::OSXSAVE, Cr4::FSGSBASE, Cr4::PGE, Cr4::OSFXSR] {
            assert!(rules().check_cr4(LONG.cr4 | offered.bits(), &LONG).is_ok(), "{offered:?}");
        }
        assert_eq!(rules().check_cr4(LONG.cr4 | 1 << 40, &LONG), Err(Fault));
    }

    #[test]
    fn long_mode_keeps_pae_and_pcids_begin_with_pcid_zero() {
        assert_eq!(rules().check_cr4(0, &LONG), Err(Fault));
        let with = LONG.cr4 | Cr4::PCIDE.bits();
        assert_eq!(rules().check_cr4(with, &LONG), Ok(with));
        assert_eq!(rules().check_cr4(with, &Controls { cr3: 0x1001, ..LONG }), Err(Fault));
        assert_eq!(rules().check_cr4(with, &FLAT), Err(Fault));
    }

    #[test]
    fn cr3_holds_an_address_and_bit_63_only_with_pcids() {
        assert_eq!(rules().check_cr3(0x1234_5000, &LONG), Ok(0x1234_5000));
        assert_eq!(rules().check_cr3(1 << 39, &LONG), Err(Fault));
        assert_eq!(rules().check_cr3(1 << 63 | 0x1000, &LONG), Err(Fault));
        let pcids = Controls { cr4: LONG.cr4 | Cr4::PCIDE.bits(), ..LONG };
        assert_eq!(rules().check_cr3(1 << 63 | 0x1003, &pcids), Ok(0x1003));
        assert_eq!(rules().check_cr3(1 << 39 | 1, &FLAT), Ok(1));
    }

    #[test]
    fn efer_keeps_lme_while_paging_and_lma_always() {
        assert_eq!(rules().check_efer(0, &LONG), Err(Fault));
        assert_eq!(rules().check_efer(LONG.efer | Efer::SCE.bits(), &LONG), Ok(LONG.efer | Efer::SCE.bits()));
        assert_eq!(rules().check_efer(Efer::LME.bits(), &LONG), Ok(LONG.efer));
        assert_eq!(rules().check_efer((Efer::LME | Efer::LMA).bits(), &FLAT), Ok(Efer::LME.bits()));
        for bit in [Efer::SVME, Efer::LMSLE, Efer::FFXSR] {
            assert_eq!(rules().check_efer(bit.bits(), &FLAT), Err(Fault), "{bit:?}");
        }
        let amd = ControlPolicy::new(&policy(amd, 4));
        assert_eq!(amd.check_efer(Efer::FFXSR.bits(), &FLAT), Ok(Efer::FFXSR.bits()));
        assert_eq!(amd.check_efer(Efer::SVME.bits(), &FLAT), Err(Fault));
    }

    #[test]
    fn xcr0_has_whole_parts_on_what_they_build_on() {
        assert_eq!(rules().check_xcr0(0, 7), Ok(7));
        assert_eq!(rules().check_xcr0(0, 3), Ok(3));
        for wrong in [0, 2, 5, 0x21, 0xe3, 0x200, 1 << 62] {
            assert_eq!(rules().check_xcr0(0, wrong), Err(Fault), "{wrong:#x}");
        }
        assert_eq!(rules().check_xcr0(1, 7), Err(Fault));
    }

    #[test]
    fn pat_takes_the_six_memory_types() {
        assert_eq!(check_pat(0x0007_0406_0007_0406), Ok(0x0007_0406_0007_0406));
        assert_eq!(check_pat(0x02), Err(Fault));
        assert_eq!(check_pat(0x08 << 56), Err(Fault));
    }
}
