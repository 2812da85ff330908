//! The local APIC's page: what the processor answers by itself, and what exits (SDM 3C chapter 29).
//!
//! The virtual-APIC page has the registers as the guest reads them. Its task priority is the guest's CR8 wherever there is
//! a TPR shadow. Where the processor has APIC-register virtualization too, the guest's memory has a frame at the APIC's
//! address, the APIC-access page: what is read there comes from the virtual-APIC page, what is written goes to it and
//! exits after the instruction. Nobody reads or writes that frame itself.

use super::Vcpu;
use super::features::secondary;
use super::vmcs::{self, VmcsField};
use model::addr::Mfn;

/// The task priority's offset.
const TPR: u16 = 0x80;

/// Whether the registers can be served from a page.
pub fn serves_apic_page() -> bool {
    super::Features::read().is_ok_and(|features| features.apic_registers())
}

impl Vcpu {
    /// [`crate::virt::Virt::set_apic_access_page`].
    pub(super) fn give_apic_access_page(&mut self, page: Mfn) {
        self.apic_access = self.features.apic_registers().then_some(page);
    }

    /// What `set_up` writes of it.
    pub(super) fn write_apic_addresses(&self) {
        if !self.features.tpr_shadow() {
            return;
        }
        // SAFETY: the first page lives as long as the virtual CPU; the second is a frame that its domain keeps.
        unsafe {
            vmcs::write(VmcsField::VIRTUAL_APIC_PAGE, self.apic.addr().raw());
            vmcs::write(VmcsField::TPR_THRESHOLD, 0);
            if let Some(page) = self.apic_access {
                vmcs::write(VmcsField::APIC_ACCESS_PAGE, page.base().raw());
            }
        }
    }

    /// [`crate::virt::Virt::serve_apic_page`].
    pub(super) fn switch_apic_page(&mut self, is_on: bool) -> bool {
        let Some(_) = self.apic_access else { return false };
        if self.has_apic_page != is_on {
            self.has_apic_page = is_on;
            let more = if is_on { secondary::APIC_ACCESSES | secondary::APIC_REGISTERS } else { 0 };
            // SAFETY: both controls are offered, and the pages that they need were written by `set_up`.
            unsafe { vmcs::write(VmcsField::SECONDARY_CONTROLS, u64::from(self.features.secondary | more)) }
            self.forget_translations(); // they may lead to the frame itself (SDM 3C 29.4.5)
        }
        is_on
    }

    /// [`crate::virt::Virt::apic_register`].
    pub(super) fn read_apic(&self, offset: u16) -> u32 {
        // SAFETY: the four bytes lie in the owned page, of which there is no Rust reference.
        unsafe { self.apic.ptr().add(usize::from(offset & 0xff0)).cast::<u32>().read_volatile() }
    }

    /// [`crate::virt::Virt::set_apic_register`].
    #[inline]
    pub(super) fn write_apic(&mut self, offset: u16, value: u32) {
        // SAFETY: as above.
        unsafe { self.apic.ptr().add(usize::from(offset & 0xff0)).cast::<u32>().write_volatile(value) }
    }

    /// [`crate::virt::Virt::cr8`].
    pub(super) fn read_cr8(&self) -> Option<u8> {
        self.features.tpr_shadow().then(|| (self.read_apic(TPR) >> 4 & 15) as u8)
    }

    /// [`crate::virt::Virt::set_cr8`]. An entry fails with a threshold above CR8 (SDM 3C 26.2.1.1): it is lowered.
    pub(super) fn write_cr8(&mut self, cr8: u8, threshold: u8) {
        if self.features.tpr_shadow() {
            let cr8 = cr8 & 15;
            // The lower half of the task priority is the guest's, who wrote it to the page.
            if self.read_cr8() != Some(cr8) {
                self.write_apic(TPR, u32::from(cr8) << 4);
            }
            // SAFETY: the threshold decides when the guest exits.
            unsafe { vmcs::write(VmcsField::TPR_THRESHOLD, u64::from(threshold.min(cr8))) }
        }
    }
}
