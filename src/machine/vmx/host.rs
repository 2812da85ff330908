//! What belongs to the physical CPU: the state it resumes with at an exit, and the registers that it does not
//! switch between guest and hypervisor by itself.

use super::features::Features;
use super::state::index;
use super::vmcs::{self, VmcsField};
use crate::cpu::msr;
use core::arch::asm;
use x86_64::instructions::tables::{lgdt, lidt, sgdt, sidt};
use x86_64::registers::control::{Cr0, Cr3, Cr4};
use x86_64::structures::DescriptorTablePointer;

/// The limits of the GDT and the IDT, which an exit sets to 0xffff (SDM 3C 27.5.2). The TR's becomes 0x67,
/// which is that of a TSS without I/O permissions and stays so.
pub(super) struct Tables {
    gdt: DescriptorTablePointer,
    idt: DescriptorTablePointer,
}

impl Tables {
    /// As they are now.
    pub(super) fn read() -> Self {
        Self { gdt: sgdt(), idt: sidt() }
    }

    /// Gives the tables their limits back.
    pub(super) fn restore(&self) {
        // SAFETY: these are the tables that this CPU had when they were read, at the addresses that it still uses.
        unsafe {
            lgdt(&self.gdt);
            lidt(&self.idt);
        }
    }
}

/// CR4 of this CPU.
pub(super) fn cr4() -> u64 {
    Cr4::read_raw()
}

/// CR2, which the hypervisor has no use of between an exit and the next entry but for its own faults.
#[inline(always)]
pub(super) fn cr2() -> u64 {
    let value: u64;
    // SAFETY: reading CR2 changes nothing.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) }
    value
}

/// Gives the guest its CR2, which is mostly there still.
#[inline(always)]
pub(super) fn set_cr2(value: u64) {
    if cr2() != value {
        // SAFETY: CR2 is the address of the last fault and steers nothing.
        unsafe { asm!("mov cr2, {}", in(reg) value, options(nomem, nostack, preserves_flags)) }
    }
}

/// Writes the host state of the current VMCS but for the stack pointer, from this CPU's registers.
pub(super) fn write_state(tables: &Tables) {
    let (root, flags) = Cr3::read_raw();
    let (tr, tr_base) = task_register(&tables.gdt);
    // SAFETY: these are the registers that this CPU runs with, and the exit continues in `leave`.
    unsafe {
        vmcs::write(VmcsField::HOST_CR0, Cr0::read_raw());
        vmcs::write(VmcsField::HOST_CR3, root.start_address().as_u64() | u64::from(flags));
        vmcs::write(VmcsField::HOST_CR4, Cr4::read_raw());
        vmcs::write(VmcsField::HOST_TR, u64::from(tr));
        vmcs::write(VmcsField::HOST_TR_BASE, tr_base);
        vmcs::write(VmcsField::HOST_GDTR_BASE, tables.gdt.base.as_u64());
        vmcs::write(VmcsField::HOST_IDTR_BASE, tables.idt.base.as_u64());
        vmcs::write(VmcsField::HOST_RIP, super::entry::host_rip());
    }
    write_selectors();
    write_msrs();
}

/// The selectors must be global and of ring 0; the data segments may be null (SDM 3C 26.2.3).
fn write_selectors() {
    use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
    // SAFETY: selectors that this CPU has loaded; FS and GS are null, and only their bases count.
    unsafe {
        vmcs::write(VmcsField::HOST_CS, u64::from(CS::get_reg().0));
        vmcs::write(VmcsField::HOST_SS, u64::from(SS::get_reg().0));
        vmcs::write(VmcsField::HOST_DS, u64::from(DS::get_reg().0 & !7));
        vmcs::write(VmcsField::HOST_ES, u64::from(ES::get_reg().0 & !7));
        vmcs::write(VmcsField::HOST_FS, 0);
        vmcs::write(VmcsField::HOST_GS, 0);
    }
}

fn write_msrs() {
    const MSRS: [(VmcsField, u32); 7] = [
        (VmcsField::HOST_FS_BASE, index::FS_BASE),
        (VmcsField::HOST_GS_BASE, index::GS_BASE),
        (VmcsField::HOST_EFER, index::EFER),
        (VmcsField::HOST_PAT, index::PAT),
        (VmcsField::HOST_SYSENTER_CS, index::SYSENTER_CS),
        (VmcsField::HOST_SYSENTER_ESP, index::SYSENTER_ESP),
        (VmcsField::HOST_SYSENTER_EIP, index::SYSENTER_EIP),
    ];
    for (field, index) in MSRS {
        // SAFETY: every processor with VT-x and long mode has these, and the host gets back what it has now.
        unsafe { vmcs::write(field, msr::read(index)) }
    }
}

/// The task register's selector, and its base from the descriptor in the GDT.
fn task_register(gdt: &DescriptorTablePointer) -> (u16, u64) {
    let selector: u16;
    // SAFETY: STR only reads.
    unsafe { asm!("str {:x}", out(reg) selector, options(nomem, nostack, preserves_flags)) }
    let offset = u64::from(selector & !7);
    assert!(offset != 0 && offset + 15 <= u64::from(gdt.limit), "no task register is loaded");
    let at = (gdt.base.as_u64() + offset) as *const u64;
    // SAFETY: both words lie within the limit of the GDT in use.
    let (low, high) = unsafe { (at.read_unaligned(), at.add(1).read_unaligned()) };
    (selector, descriptor_base(low, high))
}

/// The base of a system descriptor of 64-bit mode (SDM 3A figure 7-4).
fn descriptor_base(low: u64, high: u64) -> u64 {
    low >> 16 & 0xff_ffff | (low >> 56) << 24 | high << 32
}

/// MSRs that VT-x leaves to the hypervisor. The last exists with RDTSCP only.
const MSRS: [u32; 6] =
    [index::STAR, index::LSTAR, index::CSTAR, index::SYSCALL_MASK, index::KERNEL_GS_BASE, index::TSC_AUX];

/// The MSRs that are switched by hand: in the processor while the virtual CPU is loaded, here otherwise.
pub(super) struct ByHand {
    guest: [u64; MSRS.len()],
    count: usize,
}

impl ByHand {
    /// As after reset.
    pub(super) fn new(features: &Features) -> Self {
        let count = if features.rdtscp() { MSRS.len() } else { MSRS.len() - 1 };
        Self { guest: [0; MSRS.len()], count }
    }

    /// Puts the guest's values into the processor.
    pub(super) fn load(&mut self) {
        crate::pv::lose_entries();
        for (index, guest) in self.present().zip(&self.guest) {
            // SAFETY: the processor has these. The values were read from the registers or made valid by `write`; the hypervisor
            // neither executes SYSCALL or SWAPGS nor reads TSC_AUX, and PV guests are given theirs anew.
            unsafe { msr::write(index, *guest) }
        }
    }

    /// Takes the guest's values out again. They stay there until others come.
    pub(super) fn unload(&mut self) {
        for (index, guest) in self.present().zip(&mut self.guest) {
            // SAFETY: the processor has these, and reading changes nothing.
            *guest = unsafe { msr::read(index) };
        }
    }

    /// The guest's value of one of these MSRs, while loaded; 0 for one that the processor lacks.
    pub(super) fn read(&self, index: u32) -> u64 {
        // SAFETY: `has` knows what the processor has.
        if self.has(index) { unsafe { msr::read(index) } } else { 0 }
    }

    /// Sets it, while loaded. A value that the register cannot hold is cut to one that it can.
    pub(super) fn write(&mut self, index: u32, value: u64) {
        if self.has(index) {
            // SAFETY: the processor has it, accepts the value, and the hypervisor does not use it.
            unsafe { msr::write(index, acceptable(index, value)) }
        }
    }

    fn has(&self, index: u32) -> bool {
        self.present().any(|there| there == index)
    }

    /// Those of [`MSRS`] that the processor has.
    fn present(&self) -> impl Iterator<Item = u32> + use<> {
        MSRS.into_iter().take(self.count)
    }
}

/// The value without what WRMSR would refuse: addresses are canonical, flags and TSC_AUX have 32 bits.
fn acceptable(index: u32, value: u64) -> u64 {
    match index {
        index::LSTAR | index::CSTAR | index::KERNEL_GS_BASE => ((value << 16) as i64 >> 16) as u64,
        index::SYSCALL_MASK | index::TSC_AUX => value & 0xffff_ffff,
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_of_a_task_state_segment_is_put_together_from_four_places() {
        let low = 0x4000_8900_5678_0067 | 0x34 << 32;
        assert_eq!(descriptor_base(low, 0xffff_82d0), 0xffff_82d0_4034_5678);
    }

    #[test]
    fn a_value_that_wrmsr_would_refuse_is_cut() {
        assert_eq!(acceptable(index::LSTAR, 0x0000_8000_0000_0000), 0xffff_8000_0000_0000);
        assert_eq!(acceptable(index::LSTAR, 0xffff_ffff_8100_0000), 0xffff_ffff_8100_0000);
        assert_eq!(acceptable(index::TSC_AUX, 0x1_0000_0002), 2);
        assert_eq!(acceptable(index::STAR, u64::MAX), u64::MAX);
    }
}
