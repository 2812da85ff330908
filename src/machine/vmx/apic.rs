//! The local APIC: what the processor does by itself, and what exits (SDM 3C chapter 29).
//!
//! The virtual-APIC page has the registers as the guest reads them. Its task priority is the guest's CR8 wherever there is
//! a TPR shadow. Where the processor has APIC-register virtualization too, the guest's memory has a frame at the APIC's
//! address, the APIC-access page: what is read there comes from the virtual-APIC page, what is written goes to it and
//! exits after the instruction. Nobody reads or writes that frame itself.
//!
//! With virtual-interrupt delivery, which is used together with posted interrupts or not at all, IRR and ISR are in the
//! virtual-APIC page as well, in either mode of the APIC: the processor delivers from there, and EOI, task priority and
//! interrupts to oneself do not exit. Others post what they have for the guest. It comes into the page by the
//! processor, when it gets [`irq::POSTED`] in the guest, or by [`Vcpu::merge`] before an entry.

use super::Vcpu;
use super::features::{pin, secondary};
use super::posted::PostedPage;
use super::vmcs::{self, VmcsField};
use crate::irq;
use alloc::sync::Arc;
use model::addr::Mfn;
use model::chip::lapic::Mode;

/// Offsets in the page: the task priority's, and those of the first of the requests.
const TPR: u16 = 0x80;
const IRR: u16 = 0x200;

/// What the processor does of the local APIC.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Service {
    /// Serves the page.
    pub(super) page: bool,
    /// Delivers interrupts.
    pub(super) delivers: bool,
}

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
        if let Some(posted) = &self.posted {
            vmcs::write_guest(VmcsField::INTERRUPT_STATUS, 0);
            // SAFETY: the descriptor lives as long as the virtual CPU; the vector is the hypervisor's, for this alone.
            unsafe {
                vmcs::write(VmcsField::POSTED_DESCRIPTOR, posted.addr());
                vmcs::write(VmcsField::NOTIFICATION_VECTOR, u64::from(irq::POSTED));
                for field in VmcsField::EOI_EXITS {
                    vmcs::write(field, 0); // no I/O APIC waits for the end of a level
                }
            }
        }
    }

    /// [`crate::virt::Virt::serve_apic`].
    pub(super) fn choose_apic_service(&mut self, mode: Mode, is_enabled: bool) {
        let page = self.apic_access.is_some() && mode == Mode::XApic;
        let delivers = self.posted.is_some() && is_enabled && (page || mode == Mode::X2Apic);
        let old = core::mem::replace(&mut self.apic_service, Service { page, delivers });
        if old == self.apic_service {
            return;
        }
        let served = if page { secondary::APIC_ACCESSES | secondary::APIC_REGISTERS } else { 0 };
        let msrs = if delivers && !page { secondary::X2APIC_MODE | secondary::APIC_REGISTERS } else { 0 };
        let delivered = if delivers { secondary::INTERRUPT_DELIVERY } else { 0 };
        let posted = if delivers { pin::POSTED_INTERRUPTS } else { 0 };
        // Without that control the guest would reach the host's APIC.
        self.msr_bitmap.serve_x2apic(msrs != 0);
        // SAFETY: the controls are offered, and what they need was written by `set_up`.
        unsafe {
            vmcs::write(VmcsField::SECONDARY_CONTROLS, u64::from(self.features.secondary | served | msrs | delivered));
            vmcs::write(VmcsField::PIN_CONTROLS, u64::from(self.features.pin | posted));
            vmcs::write(VmcsField::TPR_THRESHOLD, 0);
        }
        if old.page != page {
            self.forget_translations(); // they may lead to the frame itself (SDM 3C 29.4.5)
        }
    }

    /// [`crate::virt::Virt::posted`].
    pub(super) fn posted_while_delivering(&self) -> Option<&Arc<PostedPage>> {
        self.posted.as_ref().filter(|_| self.apic_service.delivers)
    }

    /// As [`Vcpu::merge`], if there is something: one load where there is not.
    #[inline(always)]
    pub(super) fn merge_outstanding(&mut self) {
        if self.apic_service.delivers && self.posted.as_ref().is_some_and(|posted| posted.is_outstanding()) {
            self.merge();
        }
    }

    /// Brings the page what was posted.
    #[inline(never)]
    pub(super) fn merge(&mut self) {
        let Some(posted) = self.posted.take() else { return };
        self.write_apic(IRR, posted.mark(self.read_apic(IRR)));
        let mut highest = 0;
        posted.take(|word, bits| {
            let at = IRR + u16::from(word) * 16;
            self.write_apic(at, self.read_apic(at) | bits);
            highest = word * 32 + (31 - bits.leading_zeros() as u8);
        });
        self.posted = Some(posted);
        let (requested, in_service) = interrupt_status();
        if highest > requested {
            self.set_status(highest, in_service);
        }
    }

    /// [`crate::virt::Virt::set_interrupt_status`].
    pub(super) fn set_status(&mut self, requested: u8, in_service: u8) {
        if self.apic_service.delivers {
            if let Some(posted) = &self.posted {
                posted.mark(0); // the requests that had it may have been written over
            }
            vmcs::write_guest(VmcsField::INTERRUPT_STATUS, u64::from(u16::from_le_bytes([requested, in_service])));
        }
    }

    /// [`crate::virt::Virt::is_interrupted`].
    pub(super) fn has_deliverable(&self) -> bool {
        if !self.apic_service.delivers {
            return false;
        }
        let (requested, in_service) = interrupt_status();
        let priority = self.read_apic(TPR) as u8 >> 4;
        requested >> 4 > priority.max(in_service >> 4)
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
        if self.features.tpr_shadow() && !self.apic_service.delivers {
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

/// The highest vector that is requested, and the highest in service; 0 for none.
fn interrupt_status() -> (u8, u8) {
    let [requested, in_service, ..] = vmcs::read32(VmcsField::INTERRUPT_STATUS).to_le_bytes();
    (requested, in_service)
}
