//! The virtual-machine control structure: the names of its fields and the instructions that reach it.
//!
//! A VMCS is a page whose layout only the processor knows. It is made current by VMPTRLD and read and written
//! by VMREAD and VMWRITE, always the current one. Encodings: SDM 3D appendix B; instructions: SDM 3C 31.3.

use core::arch::asm;
use model::addr::MachineAddr;

/// The encoding of a VMCS field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct VmcsField(u32);

#[rustfmt::skip]
impl VmcsField {
    // Controls.
    pub(super) const VPID: Self = Self(0x0000);
    pub(super) const NOTIFICATION_VECTOR: Self = Self(0x0002);
    pub(super) const IO_BITMAP_A: Self = Self(0x2000);
    pub(super) const IO_BITMAP_B: Self = Self(0x2002);
    pub(super) const MSR_BITMAP: Self = Self(0x2004);
    pub(super) const TSC_OFFSET: Self = Self(0x2010);
    pub(super) const VIRTUAL_APIC_PAGE: Self = Self(0x2012);
    pub(super) const APIC_ACCESS_PAGE: Self = Self(0x2014);
    pub(super) const POSTED_DESCRIPTOR: Self = Self(0x2016);
    pub(super) const EPT_POINTER: Self = Self(0x201a);
    /// Four fields of 64 vectors each.
    pub(super) const EOI_EXITS: [Self; 4] = [Self(0x201c), Self(0x201e), Self(0x2020), Self(0x2022)];
    pub(super) const PIN_CONTROLS: Self = Self(0x4000);
    pub(super) const PRIMARY_CONTROLS: Self = Self(0x4002);
    pub(super) const EXCEPTION_BITMAP: Self = Self(0x4004);
    pub(super) const PAGE_FAULT_MASK: Self = Self(0x4006);
    pub(super) const PAGE_FAULT_MATCH: Self = Self(0x4008);
    pub(super) const CR3_TARGET_COUNT: Self = Self(0x400a);
    pub(super) const EXIT_CONTROLS: Self = Self(0x400c);
    pub(super) const EXIT_MSR_STORE_COUNT: Self = Self(0x400e);
    pub(super) const EXIT_MSR_LOAD_COUNT: Self = Self(0x4010);
    pub(super) const ENTRY_CONTROLS: Self = Self(0x4012);
    pub(super) const ENTRY_MSR_LOAD_COUNT: Self = Self(0x4014);
    pub(super) const ENTRY_MSR_LOAD: Self = Self(0x200a);
    pub(super) const ENTRY_INTERRUPTION: Self = Self(0x4016);
    pub(super) const ENTRY_ERROR_CODE: Self = Self(0x4018);
    pub(super) const ENTRY_INSTRUCTION_LENGTH: Self = Self(0x401a);
    pub(super) const TPR_THRESHOLD: Self = Self(0x401c);
    pub(super) const SECONDARY_CONTROLS: Self = Self(0x401e);
    pub(super) const PLE_GAP: Self = Self(0x4020);
    pub(super) const PLE_WINDOW: Self = Self(0x4022);
    pub(super) const CR0_MASK: Self = Self(0x6000);
    pub(super) const CR4_MASK: Self = Self(0x6002);
    pub(super) const CR0_SHADOW: Self = Self(0x6004);
    pub(super) const CR4_SHADOW: Self = Self(0x6006);

    // What an exit tells.
    pub(super) const GUEST_PHYSICAL: Self = Self(0x2400);
    pub(super) const INSTRUCTION_ERROR: Self = Self(0x4400);
    pub(super) const EXIT_REASON: Self = Self(0x4402);
    pub(super) const EXIT_INTERRUPTION: Self = Self(0x4404);
    pub(super) const EXIT_ERROR_CODE: Self = Self(0x4406);
    pub(super) const VECTORING: Self = Self(0x4408);
    pub(super) const VECTORING_ERROR_CODE: Self = Self(0x440a);
    pub(super) const INSTRUCTION_LENGTH: Self = Self(0x440c);
    pub(super) const QUALIFICATION: Self = Self(0x6400);
    pub(super) const GUEST_LINEAR: Self = Self(0x640a);

    // The guest's state. The segment fields are those of ES; the others follow by `segment`.
    pub(super) const GUEST_SELECTOR: Self = Self(0x0800);
    /// The highest vector requested (RVI) in the low byte, the highest in service (SVI) in the high one.
    pub(super) const INTERRUPT_STATUS: Self = Self(0x0810);
    pub(super) const LINK_POINTER: Self = Self(0x2800);
    pub(super) const GUEST_DEBUGCTL: Self = Self(0x2802);
    pub(super) const GUEST_PAT: Self = Self(0x2804);
    pub(super) const GUEST_EFER: Self = Self(0x2806);
    pub(super) const GUEST_LIMIT: Self = Self(0x4800);
    pub(super) const GUEST_GDTR_LIMIT: Self = Self(0x4810);
    pub(super) const GUEST_IDTR_LIMIT: Self = Self(0x4812);
    pub(super) const GUEST_ACCESS_RIGHTS: Self = Self(0x4814);
    pub(super) const GUEST_SS_ACCESS_RIGHTS: Self = Self(0x4818);
    pub(super) const GUEST_CS_ACCESS_RIGHTS: Self = Self(0x4816);
    pub(super) const INTERRUPTIBILITY: Self = Self(0x4824);
    pub(super) const ACTIVITY: Self = Self(0x4826);
    pub(super) const GUEST_SYSENTER_CS: Self = Self(0x482a);
    pub(super) const GUEST_CR0: Self = Self(0x6800);
    pub(super) const GUEST_CR3: Self = Self(0x6802);
    pub(super) const GUEST_CR4: Self = Self(0x6804);
    pub(super) const GUEST_BASE: Self = Self(0x6806);
    pub(super) const GUEST_FS_BASE: Self = Self(0x680e);
    pub(super) const GUEST_GS_BASE: Self = Self(0x6810);
    pub(super) const GUEST_GDTR_BASE: Self = Self(0x6816);
    pub(super) const GUEST_IDTR_BASE: Self = Self(0x6818);
    pub(super) const GUEST_DR7: Self = Self(0x681a);
    pub(super) const GUEST_RSP: Self = Self(0x681c);
    pub(super) const GUEST_RIP: Self = Self(0x681e);
    pub(super) const GUEST_RFLAGS: Self = Self(0x6820);
    pub(super) const PENDING_DEBUG: Self = Self(0x6822);
    pub(super) const GUEST_SYSENTER_ESP: Self = Self(0x6824);
    pub(super) const GUEST_SYSENTER_EIP: Self = Self(0x6826);

    // The host's state, loaded at every exit.
    pub(super) const HOST_ES: Self = Self(0x0c00);
    pub(super) const HOST_CS: Self = Self(0x0c02);
    pub(super) const HOST_SS: Self = Self(0x0c04);
    pub(super) const HOST_DS: Self = Self(0x0c06);
    pub(super) const HOST_FS: Self = Self(0x0c08);
    pub(super) const HOST_GS: Self = Self(0x0c0a);
    pub(super) const HOST_TR: Self = Self(0x0c0c);
    pub(super) const HOST_PAT: Self = Self(0x2c00);
    pub(super) const HOST_EFER: Self = Self(0x2c02);
    pub(super) const HOST_SYSENTER_CS: Self = Self(0x4c00);
    pub(super) const HOST_CR0: Self = Self(0x6c00);
    pub(super) const HOST_CR3: Self = Self(0x6c02);
    pub(super) const HOST_CR4: Self = Self(0x6c04);
    pub(super) const HOST_FS_BASE: Self = Self(0x6c06);
    pub(super) const HOST_GS_BASE: Self = Self(0x6c08);
    pub(super) const HOST_TR_BASE: Self = Self(0x6c0a);
    pub(super) const HOST_GDTR_BASE: Self = Self(0x6c0c);
    pub(super) const HOST_IDTR_BASE: Self = Self(0x6c0e);
    pub(super) const HOST_SYSENTER_ESP: Self = Self(0x6c10);
    pub(super) const HOST_SYSENTER_EIP: Self = Self(0x6c12);
    pub(super) const HOST_RSP: Self = Self(0x6c14);
    pub(super) const HOST_RIP: Self = Self(0x6c16);

    /// The number that VMREAD and VMWRITE take.
    pub(super) const fn encoding(self) -> u32 {
        self.0
    }

    /// The same field of segment register `n`, in the order of [`model::regs::SegmentName`].
    pub(super) const fn segment(self, n: u8) -> Self {
        Self(self.0 + 2 * (n as u32 & 7))
    }

    /// Whether the field holds guest state: bits 11:10 of the encoding are 2 (SDM 3C 24.11.2).
    const fn is_guest_state(self) -> bool {
        self.0 >> 10 & 3 == 2
    }
}

/// Reads a field of the current VMCS.
#[inline(always)]
pub(super) fn read(field: VmcsField) -> u64 {
    let value: u64;
    // SAFETY: VMREAD with register operands changes no memory; without a current VMCS it leaves the register as it is.
    unsafe {
        asm!("vmread {}, {}", out(reg) value, in(reg) u64::from(field.0), options(nomem, nostack));
    }
    value
}

/// Reads a field of at most 32 bits.
#[inline(always)]
pub(super) fn read32(field: VmcsField) -> u32 {
    read(field) as u32
}

/// Writes a field of the current VMCS.
///
/// # Safety
/// What the field makes the processor do at the next entry or exit keeps the hypervisor's memory and control flow as they are.
#[inline(always)]
pub(super) unsafe fn write(field: VmcsField, value: u64) {
    let failed: u8;
    // SAFETY: the caller vouches for field and value; the VMCS is no memory that Rust knows of.
    unsafe {
        asm!("vmwrite {}, {}", "setna {}", in(reg) u64::from(field.0), in(reg) value, out(reg_byte) failed, options(nostack));
    }
    debug_assert!(failed == 0, "VMWRITE of {field:x?} failed");
}

/// Writes a field of the guest's state.
#[inline(always)]
pub(super) fn write_guest(field: VmcsField, value: u64) {
    assert!(field.is_guest_state());
    // SAFETY: guest state reaches nothing but the guest, and the processor checks it at entry.
    unsafe { write(field, value) }
}

/// Makes the VMCS at `region` current on this CPU.
///
/// # Safety
/// `region` is an owned, cleared VMCS region with the right revision, and this CPU is in VMX operation.
pub(super) unsafe fn make_current(region: MachineAddr) {
    let operand = region.raw();
    let failed: u8;
    // SAFETY: the caller vouches for the region; the operand is a quadword on the stack.
    unsafe {
        asm!("vmptrld [{}]", "setna {}", in(reg) &operand, out(reg_byte) failed, options(nostack));
    }
    assert!(failed == 0, "VMPTRLD of {region:?} failed");
}

/// Writes the VMCS at `region` back to memory and makes it not current and not launched.
///
/// # Safety
/// `region` is an owned VMCS region, and this CPU is in VMX operation.
pub(super) unsafe fn clear(region: MachineAddr) {
    let operand = region.raw();
    let failed: u8;
    // SAFETY: the caller vouches for the region; the operand is a quadword on the stack.
    unsafe {
        asm!("vmclear [{}]", "setna {}", in(reg) &operand, out(reg_byte) failed, options(nostack));
    }
    assert!(failed == 0, "VMCLEAR of {region:?} failed");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_tells_guest_state_from_controls_and_host_state() {
        for field in [VmcsField::GUEST_SELECTOR, VmcsField::GUEST_EFER, VmcsField::ACTIVITY, VmcsField::GUEST_RIP] {
            assert!(field.is_guest_state());
        }
        for field in [VmcsField::EPT_POINTER, VmcsField::EXIT_REASON, VmcsField::HOST_RIP, VmcsField::VPID] {
            assert!(!field.is_guest_state());
        }
    }

    #[test]
    fn the_fields_of_a_segment_register_follow_those_of_es() {
        assert_eq!(VmcsField::GUEST_ACCESS_RIGHTS.segment(1), VmcsField::GUEST_CS_ACCESS_RIGHTS);
        assert_eq!(VmcsField::GUEST_ACCESS_RIGHTS.segment(2), VmcsField::GUEST_SS_ACCESS_RIGHTS);
        assert_eq!(VmcsField::GUEST_BASE.segment(4), VmcsField::GUEST_FS_BASE);
        assert_eq!(VmcsField::GUEST_BASE.segment(5), VmcsField::GUEST_GS_BASE);
    }
}
