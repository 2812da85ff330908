//! The one match on back-end: which of the two vendors' this machine has, and which way a virtual CPU runs.

use alloc::sync::Arc;

use model::addr::Mfn;
use model::chip::lapic::Mode;
use model::p2m::Nested;
use model::regs::{DescriptorTable, Event, Regs, Segment, SegmentName};
use spin::Once;

use crate::cpu::features;
use crate::exit::Exit;
use crate::virt::{GuestMsr, PostedPage, Unsupported, Virt, Window};
use crate::{pv, svm, vmx};

/// The two vendors' technologies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// VT-x.
    Vmx,
    /// AMD-V.
    Svm,
}

static FOUND: Once<Result<Vendor, Unsupported>> = Once::new();

/// What this machine has, found out at the first call.
pub fn vendor() -> Result<Vendor, Unsupported> {
    *FOUND.call_once(|| {
        let [_, ebx, ecx, _] = features::leaf(0, 0);
        let is_amd = [(0x6874_7541, 0x444d_4163), (0x6f67_7948, 0x656e_6975)].contains(&(ebx, ecx));
        if is_amd { svm::detect().map(|()| Vendor::Svm) } else { vmx::detect().map(|()| Vendor::Vmx) }
    })
}

/// Turns virtualization on on this CPU, where the machine has it.
pub fn enable_this_cpu() {
    match vendor() {
        Ok(Vendor::Vmx) => vmx::enable_this_cpu(),
        Ok(Vendor::Svm) => svm::enable_this_cpu(),
        Err(_) => {}
    }
}

/// Whether the processor can serve a page with the local APIC's registers.
pub fn serves_apic_page() -> bool {
    vendor() == Ok(Vendor::Vmx) && vmx::serves_apic_page()
}

impl Vendor {
    /// The form of the nested page tables.
    pub fn nested(self) -> Nested {
        match self {
            Self::Vmx => Nested::Ept,
            Self::Svm => Nested::Npt,
        }
    }
}

/// A virtual CPU in the hardware's hands. The tag is a byte of its own, so that telling them apart is one comparison.
#[repr(u8)]
pub enum HwVcpu {
    /// VT-x.
    Vmx(vmx::Vcpu),
    /// AMD-V.
    Svm(svm::Vcpu),
    /// In ring 3, on either.
    Pv(pv::Vcpu),
}

impl HwVcpu {
    /// A PVH or HVM virtual CPU in the state after reset, whose memory is what the nested page tables at `nested_root`
    /// map. `None` when memory is short, or the machine has no virtualization.
    pub fn new(nested_root: Mfn) -> Option<Self> {
        match vendor().ok()? {
            Vendor::Vmx => vmx::Vcpu::new(nested_root).map(Self::Vmx),
            Vendor::Svm => svm::Vcpu::new(nested_root).map(Self::Svm),
        }
    }

    /// What only PV has.
    ///
    /// # Panics
    /// If it is no PV virtual CPU: our own mistake.
    #[inline]
    pub fn pv(&self) -> &pv::Vcpu {
        match self {
            Self::Pv(vcpu) => vcpu,
            _ => panic!("a PV virtual CPU"),
        }
    }

    /// What only PV has, to change.
    ///
    /// # Panics
    /// As [`HwVcpu::pv`].
    #[inline]
    pub fn pv_mut(&mut self) -> &mut pv::Vcpu {
        match self {
            Self::Pv(vcpu) => vcpu,
            _ => panic!("a PV virtual CPU"),
        }
    }
}

macro_rules! each {
    ($self:ident, $vcpu:ident => $do:expr) => {
        match $self {
            Self::Vmx($vcpu) => $do,
            Self::Svm($vcpu) => $do,
            Self::Pv($vcpu) => $do,
        }
    };
}

impl Virt for HwVcpu {
    fn allow_msr(&mut self, msr: u32, read: bool, write: bool) {
        each!(self, vcpu => vcpu.allow_msr(msr, read, write));
    }
    fn load(&mut self) {
        each!(self, vcpu => vcpu.load());
    }
    fn unload(&mut self) {
        each!(self, vcpu => vcpu.unload());
    }
    #[inline]
    fn run(&mut self, regs: &mut Regs) -> Exit {
        each!(self, vcpu => vcpu.run(regs))
    }
    fn inject(&mut self, event: Event) {
        each!(self, vcpu => vcpu.inject(event));
    }
    #[inline]
    fn pending(&self) -> Option<Event> {
        each!(self, vcpu => vcpu.pending())
    }
    fn interrupts_open(&self, regs: &Regs) -> bool {
        each!(self, vcpu => vcpu.interrupts_open(regs))
    }
    fn nmis_open(&self) -> bool {
        each!(self, vcpu => vcpu.nmis_open())
    }
    fn want_window(&mut self, window: Window) {
        each!(self, vcpu => vcpu.want_window(window));
    }
    #[inline]
    fn skip(&mut self, regs: &mut Regs, len: u8) {
        each!(self, vcpu => vcpu.skip(regs, len));
    }
    fn segment(&self, name: SegmentName) -> Segment {
        each!(self, vcpu => vcpu.segment(name))
    }
    fn set_segment(&mut self, name: SegmentName, segment: Segment) {
        each!(self, vcpu => vcpu.set_segment(name, segment));
    }
    fn gdtr(&self) -> DescriptorTable {
        each!(self, vcpu => vcpu.gdtr())
    }
    fn set_gdtr(&mut self, table: DescriptorTable) {
        each!(self, vcpu => vcpu.set_gdtr(table));
    }
    fn idtr(&self) -> DescriptorTable {
        each!(self, vcpu => vcpu.idtr())
    }
    fn set_idtr(&mut self, table: DescriptorTable) {
        each!(self, vcpu => vcpu.set_idtr(table));
    }
    #[inline]
    fn cr(&self, n: u8) -> u64 {
        each!(self, vcpu => vcpu.cr(n))
    }
    fn set_cr(&mut self, n: u8, value: u64) {
        each!(self, vcpu => vcpu.set_cr(n, value));
    }
    fn cr8(&self) -> Option<u8> {
        each!(self, vcpu => vcpu.cr8())
    }
    fn set_cr8(&mut self, cr8: u8, threshold: u8) {
        each!(self, vcpu => vcpu.set_cr8(cr8, threshold));
    }
    #[inline]
    fn msr(&self, msr: GuestMsr) -> u64 {
        each!(self, vcpu => vcpu.msr(msr))
    }
    fn set_msr(&mut self, msr: GuestMsr, value: u64) {
        each!(self, vcpu => vcpu.set_msr(msr, value));
    }
    fn set_tsc_offset(&mut self, offset: u64) {
        each!(self, vcpu => vcpu.set_tsc_offset(offset));
    }
    fn flush(&mut self) {
        each!(self, vcpu => vcpu.flush());
    }
    fn cpl(&self) -> u8 {
        each!(self, vcpu => vcpu.cpl())
    }
    fn set_apic_access_page(&mut self, page: Mfn) {
        each!(self, vcpu => vcpu.set_apic_access_page(page));
    }
    fn serve_apic(&mut self, mode: Mode, is_enabled: bool) {
        each!(self, vcpu => vcpu.serve_apic(mode, is_enabled));
    }
    fn has_apic_page(&self) -> bool {
        each!(self, vcpu => vcpu.has_apic_page())
    }
    #[inline]
    fn posted(&self) -> Option<&Arc<PostedPage>> {
        each!(self, vcpu => vcpu.posted())
    }
    fn merge_posted(&mut self) {
        each!(self, vcpu => vcpu.merge_posted());
    }
    fn set_interrupt_status(&mut self, requested: u8, in_service: u8) {
        each!(self, vcpu => vcpu.set_interrupt_status(requested, in_service));
    }
    fn is_interrupted(&self) -> bool {
        each!(self, vcpu => vcpu.is_interrupted())
    }
    fn apic_register(&self, offset: u16) -> u32 {
        each!(self, vcpu => vcpu.apic_register(offset))
    }
    #[inline]
    fn set_apic_register(&mut self, offset: u16, value: u32) {
        each!(self, vcpu => vcpu.set_apic_register(offset, value));
    }
    #[inline]
    fn is_long(&self) -> bool {
        each!(self, vcpu => vcpu.is_long())
    }
    #[inline]
    fn is_long_kernel(&self) -> bool {
        each!(self, vcpu => vcpu.is_long_kernel())
    }
}
