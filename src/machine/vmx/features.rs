//! What this processor's VT-x offers, and the controls that Euxen runs its guests with.
//!
//! A capability MSR tells for each bit of a control field whether it may be 0 and whether it may be 1
//! (SDM 3D appendix A). A field is built from what Euxen needs, what it likes to have, and what must be one;
//! it is a feature's absence that is named, never a bit's. Virtual NMIs are among what is needed: no processor
//! with unrestricted guest lacks them, and doing without them is a second way of tracking NMIs.

use crate::cpu::msr;
use crate::virt::Unsupported;
use core::arch::x86_64::__cpuid;
use model::regs::{Cr0, Cr4};

/// Architectural MSR numbers (SDM 4 table 2-2).
mod index {
    pub(super) const FEATURE_CONTROL: u32 = 0x3a;
    pub(super) const VMX_BASIC: u32 = 0x480;
    /// Pin-based controls; primary, exit and entry controls follow.
    pub(super) const PIN: u32 = 0x481;
    pub(super) const CR0_FIXED0: u32 = 0x486;
    pub(super) const CR0_FIXED1: u32 = 0x487;
    pub(super) const CR4_FIXED0: u32 = 0x488;
    pub(super) const CR4_FIXED1: u32 = 0x489;
    pub(super) const SECONDARY: u32 = 0x48b;
    pub(super) const EPT_VPID: u32 = 0x48c;
    /// The four from `PIN` on without the bits that are one by default only.
    pub(super) const TRUE_PIN: u32 = 0x48d;
}

/// IA32_FEATURE_CONTROL: no more writes until reset.
const LOCK: u64 = 1 << 0;
/// IA32_FEATURE_CONTROL: VMXON outside SMX operation.
const VMX_OUTSIDE_SMX: u64 = 1 << 2;

/// Pin-based controls (SDM 3C 24.6.1).
pub(super) mod pin {
    pub(in crate::vmx) const EXTERNAL_INTERRUPT: u32 = 1 << 0;
    pub(in crate::vmx) const NMI: u32 = 1 << 3;
    pub(in crate::vmx) const VIRTUAL_NMIS: u32 = 1 << 5;
    pub(in crate::vmx) const POSTED_INTERRUPTS: u32 = 1 << 7;
}

/// Primary processor-based controls (SDM 3C 24.6.2).
pub(super) mod primary {
    pub(in crate::vmx) const INTERRUPT_WINDOW: u32 = 1 << 2;
    pub(in crate::vmx) const TSC_OFFSETTING: u32 = 1 << 3;
    pub(in crate::vmx) const HLT: u32 = 1 << 7;
    pub(in crate::vmx) const MWAIT: u32 = 1 << 10;
    pub(in crate::vmx) const RDPMC: u32 = 1 << 11;
    pub(in crate::vmx) const CR8_LOAD: u32 = 1 << 19;
    pub(in crate::vmx) const CR8_STORE: u32 = 1 << 20;
    pub(in crate::vmx) const TPR_SHADOW: u32 = 1 << 21;
    pub(in crate::vmx) const NMI_WINDOW: u32 = 1 << 22;
    pub(in crate::vmx) const MOV_DR: u32 = 1 << 23;
    pub(in crate::vmx) const IO_BITMAPS: u32 = 1 << 25;
    pub(in crate::vmx) const MSR_BITMAPS: u32 = 1 << 28;
    pub(in crate::vmx) const MONITOR: u32 = 1 << 29;
    pub(in crate::vmx) const SECONDARY: u32 = 1 << 31;
}

/// Secondary processor-based controls (SDM 3C 24.6.2).
pub(super) mod secondary {
    /// Virtualize APIC accesses.
    pub(in crate::vmx) const APIC_ACCESSES: u32 = 1 << 0;
    pub(in crate::vmx) const EPT: u32 = 1 << 1;
    pub(in crate::vmx) const RDTSCP: u32 = 1 << 3;
    /// Virtualize x2APIC mode.
    pub(in crate::vmx) const X2APIC_MODE: u32 = 1 << 4;
    pub(in crate::vmx) const VPID: u32 = 1 << 5;
    pub(in crate::vmx) const WBINVD: u32 = 1 << 6;
    pub(in crate::vmx) const UNRESTRICTED_GUEST: u32 = 1 << 7;
    /// APIC-register virtualization.
    pub(in crate::vmx) const APIC_REGISTERS: u32 = 1 << 8;
    /// Virtual-interrupt delivery.
    pub(in crate::vmx) const INTERRUPT_DELIVERY: u32 = 1 << 9;
    pub(in crate::vmx) const PAUSE_LOOP: u32 = 1 << 10;
    pub(in crate::vmx) const INVPCID: u32 = 1 << 12;
}

/// VM-exit controls (SDM 3C 24.7.1).
pub(super) mod exit {
    pub(in crate::vmx) const SAVE_DEBUG: u32 = 1 << 2;
    pub(in crate::vmx) const HOST_64_BIT: u32 = 1 << 9;
    /// Acknowledge interrupt on exit.
    pub(in crate::vmx) const ACKNOWLEDGE: u32 = 1 << 15;
    pub(in crate::vmx) const SAVE_PAT: u32 = 1 << 18;
    pub(in crate::vmx) const LOAD_PAT: u32 = 1 << 19;
    pub(in crate::vmx) const SAVE_EFER: u32 = 1 << 20;
    pub(in crate::vmx) const LOAD_EFER: u32 = 1 << 21;
}

/// VM-entry controls (SDM 3C 24.8.1).
pub(super) mod entry {
    pub(in crate::vmx) const LOAD_DEBUG: u32 = 1 << 2;
    pub(in crate::vmx) const IA32E_GUEST: u32 = 1 << 9;
    pub(in crate::vmx) const LOAD_PAT: u32 = 1 << 14;
    pub(in crate::vmx) const LOAD_EFER: u32 = 1 << 15;
}

/// A control that Euxen needs, with its name in the manual.
type Need = (u32, &'static str);

const PIN_NEEDS: &[Need] = &[
    (pin::EXTERNAL_INTERRUPT, "external-interrupt exiting"),
    (pin::NMI, "NMI exiting"),
    (pin::VIRTUAL_NMIS, "virtual NMIs"),
];

const PRIMARY_NEEDS: &[Need] = &[
    (primary::SECONDARY, "secondary processor-based controls"),
    (primary::MSR_BITMAPS, "MSR bitmaps"),
    (primary::IO_BITMAPS, "I/O bitmaps"),
    (primary::TSC_OFFSETTING, "TSC offsetting"),
    (primary::HLT, "HLT exiting"),
    (primary::MWAIT, "MWAIT exiting"),
    (primary::MONITOR, "MONITOR exiting"),
    (primary::RDPMC, "RDPMC exiting"),
    (primary::MOV_DR, "MOV-DR exiting"),
];

const SECONDARY_NEEDS: &[Need] = &[
    (secondary::EPT, "EPT"),
    (secondary::UNRESTRICTED_GUEST, "unrestricted guest"),
    (secondary::WBINVD, "WBINVD exiting"),
];

const EXIT_NEEDS: &[Need] = &[
    (exit::HOST_64_BIT, "64-bit host"),
    (exit::SAVE_DEBUG, "save debug controls"),
    (exit::SAVE_EFER, "save IA32_EFER at exit"),
    (exit::LOAD_EFER, "load IA32_EFER at exit"),
    (exit::SAVE_PAT, "save IA32_PAT at exit"),
    (exit::LOAD_PAT, "load IA32_PAT at exit"),
];

const ENTRY_NEEDS: &[Need] = &[
    (entry::IA32E_GUEST, "64-bit guest"),
    (entry::LOAD_DEBUG, "load debug controls"),
    (entry::LOAD_EFER, "load IA32_EFER at entry"),
    (entry::LOAD_PAT, "load IA32_PAT at entry"),
];

/// Secondary controls that are taken where offered.
const SECONDARY_LIKES: u32 = secondary::RDTSCP | secondary::VPID | secondary::PAUSE_LOOP | secondary::INVPCID;

/// IA32_VMX_EPT_VPID_CAP (SDM 3D A.10).
#[derive(Clone, Copy, Debug)]
pub(super) struct EptVpid(u64);

impl EptVpid {
    const WALK_4: u64 = 1 << 6;
    const WRITE_BACK: u64 = 1 << 14;
    const INVEPT: u64 = 1 << 20;
    const ACCESSED_DIRTY: u64 = 1 << 21;
    const INVEPT_SINGLE: u64 = 1 << 25;
    const INVEPT_ALL: u64 = 1 << 26;
    const INVVPID: u64 = 1 << 32;
    const INVVPID_ALL: u64 = 1 << 42;

    fn has(self, bits: u64) -> bool {
        self.0 & bits == bits
    }
    /// INVEPT can forget one set of tables.
    pub(super) fn invept_single(self) -> bool {
        self.has(Self::INVEPT_SINGLE)
    }
    /// INVVPID can forget all VPIDs, without which none is used.
    fn invvpid_all(self) -> bool {
        self.has(Self::INVVPID | Self::INVVPID_ALL)
    }
    /// The processor keeps accessed and dirty bits in EPT entries.
    pub(super) fn accessed_dirty(self) -> bool {
        self.has(Self::ACCESSED_DIRTY)
    }
    fn check(self) -> Result<(), Unsupported> {
        need(self.has(Self::WALK_4), "EPT with a walk of four levels")?;
        need(self.has(Self::WRITE_BACK), "EPT with write-back memory")?;
        need(self.has(Self::INVEPT) && self.0 & (Self::INVEPT_SINGLE | Self::INVEPT_ALL) != 0, "INVEPT")
    }
}

/// The control fields and capabilities of this processor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Features {
    /// The revision that a VMCS or VMXON region begins with.
    pub(super) revision: u32,
    /// Pin-based controls.
    pub(super) pin: u32,
    /// Primary processor-based controls, no window open, debug registers kept.
    pub(super) primary: u32,
    /// Secondary processor-based controls, the local APIC's page not served.
    pub(super) secondary: u32,
    /// The processor can serve it.
    apic_registers: bool,
    /// It can deliver the local APIC's interrupts by itself, and takes those that are posted.
    delivers: bool,
    /// VM-exit controls.
    pub(super) exit: u32,
    /// VM-entry controls, guest not in IA-32e mode.
    pub(super) entry: u32,
    /// Of EPT and VPID.
    pub(super) ept_vpid: EptVpid,
    /// CR0 and CR4 in VMX operation.
    pub(super) fixed: Fixed,
}

impl Features {
    /// Reads the capability MSRs.
    ///
    /// # Errors
    /// The first feature found missing.
    pub(super) fn read() -> Result<Self, Unsupported> {
        check_offered()?;
        // SAFETY: CPUID says VMX, and with it come this MSR and those of `capability`.
        let basic = unsafe { msr::read(index::VMX_BASIC) };
        let first = if basic & 1 << 55 != 0 { index::TRUE_PIN } else { index::PIN };
        let pin = adjust(capability(first), PIN_NEEDS, 0)?;
        let primary =
            with_tpr(adjust(capability(first + 1), PRIMARY_NEEDS, primary::TPR_SHADOW)?, capability(first + 1))?;
        let offered = capability(index::SECONDARY);
        let mut secondary = adjust(offered, SECONDARY_NEEDS, SECONDARY_LIKES)?;
        let both = u64::from(secondary::APIC_ACCESSES | secondary::APIC_REGISTERS);
        let apic_registers = primary & primary::TPR_SHADOW != 0 && offered >> 32 & both == both;
        let ept_vpid = EptVpid(capability(index::EPT_VPID));
        ept_vpid.check()?;
        if !ept_vpid.invvpid_all() {
            secondary &= !secondary::VPID;
        }
        let delivery = u64::from(secondary::INTERRUPT_DELIVERY | secondary::X2APIC_MODE);
        let offered_at_exit = capability(first + 2);
        let delivers = apic_registers
            && offered >> 32 & delivery == delivery
            && may(capability(first), pin::POSTED_INTERRUPTS)
            && may(offered_at_exit, exit::ACKNOWLEDGE);
        let exit = adjust(offered_at_exit, EXIT_NEEDS, if delivers { exit::ACKNOWLEDGE } else { 0 })?;
        let entry = adjust(capability(first + 3), ENTRY_NEEDS, 0)? & !entry::IA32E_GUEST;
        let revision = (basic & 0x7fff_ffff) as u32;
        let fixed = Fixed::read();
        Ok(Self { revision, pin, primary, secondary, apic_registers, delivers, exit, entry, ept_vpid, fixed })
    }

    /// CR8 is kept by the processor.
    pub(super) fn tpr_shadow(&self) -> bool {
        self.primary & primary::TPR_SHADOW != 0
    }
    /// Reads of the local APIC's page can come from the virtual-APIC page.
    pub(super) fn apic_registers(&self) -> bool {
        self.apic_registers
    }
    /// Interrupts of the local APIC can be the processor's to deliver.
    pub(super) fn delivers_interrupts(&self) -> bool {
        self.delivers
    }
    /// An exit by an interrupt has acknowledged it.
    pub(super) fn acknowledges(&self) -> bool {
        self.exit & exit::ACKNOWLEDGE != 0
    }
    /// Translations are tagged.
    pub(super) fn vpid(&self) -> bool {
        self.secondary & secondary::VPID != 0
    }
    /// A guest that spins on PAUSE exits.
    pub(super) fn pause_loop(&self) -> bool {
        self.secondary & secondary::PAUSE_LOOP != 0
    }
    /// RDTSCP and IA32_TSC_AUX exist.
    pub(super) fn rdtscp(&self) -> bool {
        self.secondary & secondary::RDTSCP != 0
    }
}

/// Which bits of CR0 and CR4 VMX operation fixes (SDM 3D A.7, A.8).
#[derive(Clone, Copy, Debug)]
pub(super) struct Fixed {
    pub(super) cr0_ones: u64,
    pub(super) cr0_may: u64,
    pub(super) cr4_ones: u64,
    pub(super) cr4_may: u64,
}

impl Fixed {
    fn read() -> Self {
        Self {
            cr0_ones: capability(index::CR0_FIXED0),
            cr0_may: capability(index::CR0_FIXED1),
            cr4_ones: capability(index::CR4_FIXED0),
            cr4_may: capability(index::CR4_FIXED1),
        }
    }

    /// Gives this CPU's CR0 and CR4 the bits that VMX operation asks for, CR4.VMXE among them.
    pub(super) fn apply(&self) {
        use x86_64::registers::control;
        let cr0 = control::Cr0::read_raw() & self.cr0_may | self.cr0_ones;
        let cr4 = control::Cr4::read_raw() & self.cr4_may | self.cr4_ones;
        // SAFETY: what is fixed are PE, PG and NE, which the hypervisor runs with, and VMXE.
        unsafe {
            control::Cr0::write_raw(cr0);
            control::Cr4::write_raw(cr4);
        }
    }

    /// The bits of CR0 of which a change by the guest exits: what is fixed (but PE and PG, which unrestricted
    /// guest frees) and the cache controls, which would change the memory types of the hypervisor's own accesses.
    pub(super) fn cr0_owned(&self) -> u64 {
        let freed = Cr0::PE.union(Cr0::PG).bits();
        let cache = Cr0::CD.union(Cr0::NW).bits();
        (self.cr0_ones & !freed | !self.cr0_may | cache) & 0xffff_ffff
    }

    /// The bits of CR4 of which a change by the guest exits: all but those that concern the guest alone.
    pub(super) fn cr4_owned(&self) -> u64 {
        !(GUEST_CR4.bits() & self.cr4_may)
    }
}

/// Bits of CR4 that a guest sets and clears by itself. MCE is not among them: a machine check while it is clear
/// would shut the machine down.
const GUEST_CR4: Cr4 = Cr4::VME
    .union(Cr4::PVI)
    .union(Cr4::TSD)
    .union(Cr4::DE)
    .union(Cr4::PSE)
    .union(Cr4::PAE)
    .union(Cr4::PGE)
    .union(Cr4::PCE)
    .union(Cr4::OSFXSR)
    .union(Cr4::OSXMMEXCPT)
    .union(Cr4::UMIP)
    .union(Cr4::FSGSBASE)
    .union(Cr4::PCIDE)
    .union(Cr4::OSXSAVE)
    .union(Cr4::SMEP)
    .union(Cr4::SMAP);

/// Whether the processor has VT-x and the firmware let us use it.
fn check_offered() -> Result<(), Unsupported> {
    let offered = __cpuid(0).eax >= 1 && __cpuid(1).ecx & 1 << 5 != 0;
    need(offered, "VT-x (VMX)")?;
    // SAFETY: CPUID says VMX, and with it comes this MSR.
    let control = unsafe { msr::read(index::FEATURE_CONTROL) };
    if control & LOCK != 0 && control & VMX_OUTSIDE_SMX == 0 {
        let advice = "enable VT-x (Intel Virtualization Technology) in the firmware";
        return Err(Unsupported { feature: "VT-x (VMX), which the firmware disabled", advice });
    }
    Ok(())
}

/// Allows VMXON on this CPU where the firmware left that open. Only after `check_offered`.
pub(super) fn unlock() {
    // SAFETY: the caller has seen VMX in CPUID, and with it comes this MSR; unlocked it can be written once.
    unsafe {
        let control = msr::read(index::FEATURE_CONTROL);
        if control & LOCK == 0 {
            msr::write(index::FEATURE_CONTROL, control | LOCK | VMX_OUTSIDE_SMX);
        }
    }
}

/// A capability MSR.
fn capability(msr: u32) -> u64 {
    // SAFETY: the callers have seen VMX in CPUID, the secondary controls before they ask for 0x48b, and EPT before 0x48c.
    unsafe { msr::read(msr) }
}

/// Whether a control may be one.
fn may(capability: u64, control: u32) -> bool {
    capability >> 32 & u64::from(control) != 0
}

/// A control field with all needs, the likes that are offered, and what must be one.
fn adjust(capability: u64, needs: &[Need], likes: u32) -> Result<u32, Unsupported> {
    let (must, may) = (capability as u32, (capability >> 32) as u32);
    let mut value = must | likes & may;
    for &(bit, name) in needs {
        need(may & bit != 0, name)?;
        value |= bit;
    }
    Ok(value)
}

/// The primary controls with an exit at each access to CR8 where there is no TPR shadow.
fn with_tpr(primary: u32, capability: u64) -> Result<u32, Unsupported> {
    if primary & primary::TPR_SHADOW != 0 {
        return Ok(primary);
    }
    let needs = [(primary::CR8_LOAD, "CR8-load exiting"), (primary::CR8_STORE, "CR8-store exiting")];
    Ok(primary | adjust(capability, &needs, 0)?)
}

fn need(there: bool, feature: &'static str) -> Result<(), Unsupported> {
    if there { Ok(()) } else { Err(Unsupported { feature, advice: "" }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(must: u32, may: u32) -> u64 {
        u64::from(may) << 32 | u64::from(must)
    }

    #[test]
    fn a_missing_need_is_named() {
        let missing = adjust(offer(0, !secondary::UNRESTRICTED_GUEST), SECONDARY_NEEDS, 0).unwrap_err();
        assert_eq!(missing.feature, "unrestricted guest");
    }

    #[test]
    fn a_field_holds_what_must_be_one_and_only_the_likes_that_are_offered() {
        let offered = offer(0x16, 0x16 | pin::EXTERNAL_INTERRUPT | pin::NMI | pin::VIRTUAL_NMIS | 1 << 7);
        assert_eq!(adjust(offered, PIN_NEEDS, 1 << 7 | 1 << 6), Ok(0x16 | 0x29 | 1 << 7));
    }

    #[test]
    fn without_a_tpr_shadow_every_access_to_cr8_exits() {
        let both = primary::CR8_LOAD | primary::CR8_STORE;
        assert_eq!(with_tpr(primary::TPR_SHADOW, offer(0, !0)), Ok(primary::TPR_SHADOW));
        assert_eq!(with_tpr(0, offer(0, both)), Ok(both));
    }

    #[test]
    fn the_host_owns_ne_and_the_cache_bits_of_cr0_but_neither_pe_nor_pg() {
        let fixed = Fixed { cr0_ones: 0x8000_0021, cr0_may: 0xffff_ffff, cr4_ones: 0x2000, cr4_may: 0x3727ff };
        assert_eq!(fixed.cr0_owned(), 0x6000_0020);
        let owned = Cr4::from_bits_retain(fixed.cr4_owned());
        assert!(owned.contains(Cr4::VMXE | Cr4::SMXE | Cr4::MCE | Cr4::PKE | Cr4::LA57 | Cr4::CET));
        assert!(!owned.intersects(Cr4::PAE | Cr4::PGE | Cr4::SMEP | Cr4::OSXSAVE | Cr4::PCIDE));
    }

    #[test]
    fn the_host_owns_a_bit_of_cr4_that_the_processor_lacks() {
        let fixed = Fixed { cr0_ones: 0, cr0_may: 0, cr4_ones: 0x2000, cr4_may: 0x3727ff & !Cr4::PCIDE.bits() };
        assert!(Cr4::from_bits_retain(fixed.cr4_owned()).contains(Cr4::PCIDE));
    }
}
