//! The guest's registers in the VMCS: segments, descriptor tables, control registers, MSRs.
//!
//! Of CR0 and CR4 there are two: the one that the processor works with, and for the bits that the hypervisor
//! owns the one that the guest reads (SDM 3C 24.6.6). LMA follows CR0.PG by itself when the guest writes CR0, and
//! with it the entry control for IA-32e mode (SDM 3C 27.2.1); writes of ours keep all three in step.

use super::features::entry;
use super::host;
use super::vmcs::{self, VmcsField};
use crate::virt::GuestMsr;
use model::regs::{Cr0, Cr4, DescriptorTable, Efer, Segment, SegmentName};

/// Architectural MSR numbers (SDM 4 table 2-2).
pub(super) mod index {
    pub(in crate::vmx) const SYSENTER_CS: u32 = 0x174;
    pub(in crate::vmx) const SYSENTER_ESP: u32 = 0x175;
    pub(in crate::vmx) const SYSENTER_EIP: u32 = 0x176;
    pub(in crate::vmx) const PAT: u32 = 0x277;
    pub(in crate::vmx) const EFER: u32 = 0xc000_0080;
    pub(in crate::vmx) const STAR: u32 = 0xc000_0081;
    pub(in crate::vmx) const LSTAR: u32 = 0xc000_0082;
    pub(in crate::vmx) const CSTAR: u32 = 0xc000_0083;
    pub(in crate::vmx) const SYSCALL_MASK: u32 = 0xc000_0084;
    pub(in crate::vmx) const FS_BASE: u32 = 0xc000_0100;
    pub(in crate::vmx) const GS_BASE: u32 = 0xc000_0101;
    pub(in crate::vmx) const KERNEL_GS_BASE: u32 = 0xc000_0102;
    pub(in crate::vmx) const TSC_AUX: u32 = 0xc000_0103;
}

/// MSRs that a guest reads and writes by itself. IA32_TSC_AUX is another where RDTSCP exists.
pub(super) const SWITCHED: [u32; 11] = [
    index::SYSENTER_CS,
    index::SYSENTER_ESP,
    index::SYSENTER_EIP,
    index::PAT,
    index::STAR,
    index::LSTAR,
    index::CSTAR,
    index::SYSCALL_MASK,
    index::FS_BASE,
    index::GS_BASE,
    index::KERNEL_GS_BASE,
];

/// Whether the MSR goes with the guest.
pub(super) fn is_switched(msr: u32) -> bool {
    SWITCHED.contains(&msr) || matches!(msr, index::TSC_AUX | index::EFER)
}

/// Where the VMCS has an MSR, or its number for one that is switched by hand.
enum Home {
    Field(VmcsField),
    ByHand(u32),
}

#[inline]
fn home(msr: GuestMsr) -> Home {
    match msr {
        GuestMsr::Efer => Home::Field(VmcsField::GUEST_EFER),
        GuestMsr::FsBase => Home::Field(VmcsField::GUEST_FS_BASE),
        GuestMsr::GsBase => Home::Field(VmcsField::GUEST_GS_BASE),
        GuestMsr::SysenterCs => Home::Field(VmcsField::GUEST_SYSENTER_CS),
        GuestMsr::SysenterEsp => Home::Field(VmcsField::GUEST_SYSENTER_ESP),
        GuestMsr::SysenterEip => Home::Field(VmcsField::GUEST_SYSENTER_EIP),
        GuestMsr::Pat => Home::Field(VmcsField::GUEST_PAT),
        GuestMsr::Star => Home::ByHand(index::STAR),
        GuestMsr::Lstar => Home::ByHand(index::LSTAR),
        GuestMsr::Cstar => Home::ByHand(index::CSTAR),
        GuestMsr::SyscallMask => Home::ByHand(index::SYSCALL_MASK),
        GuestMsr::KernelGsBase => Home::ByHand(index::KERNEL_GS_BASE),
        GuestMsr::TscAux => Home::ByHand(index::TSC_AUX),
    }
}

/// Access rights: the segment is unusable (SDM 3C table 24-2).
const UNUSABLE: u32 = 1 << 16;

/// A segment's attributes as the VMCS has them: the flags four bits higher, and a bit for an absent segment.
fn access_rights(attributes: u16) -> u32 {
    let attributes = u32::from(attributes);
    let unusable = if attributes & u32::from(Segment::PRESENT) == 0 { UNUSABLE } else { 0 };
    attributes & 0xff | (attributes & 0xf00) << 4 | unusable
}

/// The attributes of access rights; an unusable segment is not present.
fn attributes(rights: u32) -> u16 {
    let attributes = (rights & 0xff | rights >> 4 & 0xf00) as u16;
    if rights & UNUSABLE != 0 { attributes & !Segment::PRESENT } else { attributes }
}

pub(super) fn segment(name: SegmentName) -> Segment {
    let n = name as u8;
    Segment {
        selector: vmcs::read(VmcsField::GUEST_SELECTOR.segment(n)) as u16,
        attributes: attributes(vmcs::read32(VmcsField::GUEST_ACCESS_RIGHTS.segment(n))),
        limit: vmcs::read32(VmcsField::GUEST_LIMIT.segment(n)),
        base: vmcs::read(VmcsField::GUEST_BASE.segment(n)),
    }
}

pub(super) fn set_segment(name: SegmentName, segment: Segment) {
    let n = name as u8;
    vmcs::write_guest(VmcsField::GUEST_SELECTOR.segment(n), u64::from(segment.selector));
    vmcs::write_guest(VmcsField::GUEST_ACCESS_RIGHTS.segment(n), u64::from(access_rights(segment.attributes)));
    vmcs::write_guest(VmcsField::GUEST_LIMIT.segment(n), u64::from(segment.limit));
    vmcs::write_guest(VmcsField::GUEST_BASE.segment(n), segment.base);
}

pub(super) fn gdtr() -> DescriptorTable {
    DescriptorTable {
        base: vmcs::read(VmcsField::GUEST_GDTR_BASE),
        limit: vmcs::read(VmcsField::GUEST_GDTR_LIMIT) as u16,
    }
}

pub(super) fn set_gdtr(table: DescriptorTable) {
    vmcs::write_guest(VmcsField::GUEST_GDTR_BASE, table.base);
    vmcs::write_guest(VmcsField::GUEST_GDTR_LIMIT, u64::from(table.limit));
}

pub(super) fn idtr() -> DescriptorTable {
    DescriptorTable {
        base: vmcs::read(VmcsField::GUEST_IDTR_BASE),
        limit: vmcs::read(VmcsField::GUEST_IDTR_LIMIT) as u16,
    }
}

pub(super) fn set_idtr(table: DescriptorTable) {
    vmcs::write_guest(VmcsField::GUEST_IDTR_BASE, table.base);
    vmcs::write_guest(VmcsField::GUEST_IDTR_LIMIT, u64::from(table.limit));
}

/// The privilege level, which is SS's even where SS is unusable (SDM 3C 24.4.1).
pub(super) fn cpl() -> u8 {
    (vmcs::read32(VmcsField::GUEST_SS_ACCESS_RIGHTS) >> 5 & 3) as u8
}

/// CR0.PE.
pub(super) fn is_protected() -> bool {
    vmcs::read(VmcsField::GUEST_CR0) & Cr0::PE.bits() != 0
}

/// EFER.LMA.
pub(super) fn is_long_mode() -> bool {
    vmcs::read(VmcsField::GUEST_EFER) & Efer::LMA.bits() != 0
}

/// LMA, and the entry control that must agree with it, as LME and PG now say.
fn follow_paging() {
    let efer = Efer::from_bits_retain(vmcs::read(VmcsField::GUEST_EFER));
    let paging = vmcs::read(VmcsField::GUEST_CR0) & Cr0::PG.bits() != 0;
    let long = paging && efer.contains(Efer::LME);
    let controls = vmcs::read(VmcsField::ENTRY_CONTROLS);
    let bit = u64::from(entry::IA32E_GUEST);
    let mut followed = efer;
    followed.set(Efer::LMA, long);
    vmcs::write_guest(VmcsField::GUEST_EFER, followed.bits());
    // SAFETY: only the guest's mode changes, and the processor checks it against EFER.
    unsafe { vmcs::write(VmcsField::ENTRY_CONTROLS, if long { controls | bit } else { controls & !bit }) }
}

/// The state of SDM 3A table 9-1, as far as the VMCS holds it.
pub(super) fn reset() {
    const ZEROS: [VmcsField; 11] = [
        VmcsField::GUEST_CR3,
        VmcsField::GUEST_EFER,
        VmcsField::GUEST_DEBUGCTL,
        VmcsField::GUEST_SYSENTER_CS,
        VmcsField::GUEST_SYSENTER_ESP,
        VmcsField::GUEST_SYSENTER_EIP,
        VmcsField::INTERRUPTIBILITY,
        VmcsField::ACTIVITY,
        VmcsField::PENDING_DEBUG,
        VmcsField::GUEST_CR0,
        VmcsField::GUEST_CR4,
    ];
    for field in ZEROS {
        vmcs::write_guest(field, 0);
    }
    vmcs::write_guest(VmcsField::LINK_POINTER, u64::MAX);
    vmcs::write_guest(VmcsField::GUEST_PAT, 0x0007_0406_0007_0406);
    vmcs::write_guest(VmcsField::GUEST_DR7, model::debug::DR7_RESET);
    let data = Segment { selector: 0, attributes: 0x93, limit: 0xffff, base: 0 };
    for name in [SegmentName::Es, SegmentName::Ss, SegmentName::Ds, SegmentName::Fs, SegmentName::Gs] {
        set_segment(name, data);
    }
    set_segment(SegmentName::Cs, Segment { selector: 0xf000, attributes: 0x9b, limit: 0xffff, base: 0xffff_0000 });
    set_segment(SegmentName::Ldtr, Segment { attributes: 0x82, ..data });
    set_segment(SegmentName::Tr, Segment { attributes: 0x8b, ..data });
    let table = DescriptorTable { base: 0, limit: 0xffff };
    set_gdtr(table);
    set_idtr(table);
}

impl super::Vcpu {
    /// [`crate::virt::Virt::cr`].
    #[inline]
    pub(super) fn read_cr(&self, n: u8) -> u64 {
        let seen = |real, shadow, owned: u64| vmcs::read(real) & !owned | vmcs::read(shadow) & owned;
        match n {
            0 => seen(VmcsField::GUEST_CR0, VmcsField::CR0_SHADOW, self.features.fixed.cr0_owned()),
            2 => self.cr2,
            3 => vmcs::read(VmcsField::GUEST_CR3),
            4 => seen(VmcsField::GUEST_CR4, VmcsField::CR4_SHADOW, self.features.fixed.cr4_owned()),
            _ => 0,
        }
    }

    /// [`crate::virt::Virt::set_cr`]. In PAE paging (not long mode) the four page-directory pointers are not loaded
    /// anew: a guest loads them by its own writes, which do not exit.
    pub(super) fn write_cr(&mut self, n: u8, value: u64) {
        match n {
            0 => self.write_cr0(value),
            2 => self.cr2 = value,
            3 => vmcs::write_guest(VmcsField::GUEST_CR3, value),
            4 => self.write_cr4(value),
            _ => {}
        }
        if n != 2 {
            self.tag.renew(&self.features);
        }
    }

    fn write_cr0(&mut self, value: u64) {
        let fixed = &self.features.fixed;
        let never = Cr0::CD.union(Cr0::NW).bits();
        let always = fixed.cr0_ones & !Cr0::PE.union(Cr0::PG).bits();
        vmcs::write_guest(VmcsField::GUEST_CR0, value & fixed.cr0_may & !never | always);
        // SAFETY: what the guest reads concerns the guest alone.
        unsafe { vmcs::write(VmcsField::CR0_SHADOW, value) }
        follow_paging();
    }

    /// MCE stays as the host has it: a machine check while it is clear would shut the machine down.
    fn write_cr4(&mut self, value: u64) {
        let fixed = &self.features.fixed;
        let never = Cr4::SMXE.union(Cr4::MCE).bits();
        let always = fixed.cr4_ones | host::cr4() & Cr4::MCE.bits();
        vmcs::write_guest(VmcsField::GUEST_CR4, value & fixed.cr4_may & !never | always);
        // SAFETY: what the guest reads concerns the guest alone.
        unsafe { vmcs::write(VmcsField::CR4_SHADOW, value) }
    }

    /// [`crate::virt::Virt::msr`].
    #[inline]
    pub(super) fn read_msr(&self, msr: GuestMsr) -> u64 {
        match home(msr) {
            Home::Field(field) => vmcs::read(field),
            Home::ByHand(index) => self.by_hand.read(index),
        }
    }

    /// [`crate::virt::Virt::set_msr`].
    pub(super) fn write_msr(&mut self, msr: GuestMsr, value: u64) {
        match home(msr) {
            Home::ByHand(index) => self.by_hand.write(index, value),
            Home::Field(VmcsField::GUEST_EFER) => {
                let known = Efer::SCE.union(Efer::LME).union(Efer::NXE).bits();
                vmcs::write_guest(VmcsField::GUEST_EFER, value & known);
                follow_paging();
                self.tag.renew(&self.features);
            }
            Home::Field(field) => vmcs::write_guest(field, value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_survive_the_way_through_access_rights() {
        for value in 0..0x1000u16 {
            assert_eq!(attributes(access_rights(value)), value);
        }
    }

    #[test]
    fn an_absent_segment_is_unusable_and_keeps_its_privilege_level() {
        assert_eq!(access_rights(0x60), UNUSABLE | 0x60);
        assert_eq!(access_rights(0xa9b), 0xa09b);
        assert_eq!(attributes(UNUSABLE | 0xe0), 0x60);
    }

    #[test]
    fn efer_is_switched_but_its_writes_exit() {
        assert!(is_switched(index::EFER) && !SWITCHED.contains(&index::EFER));
    }
}
