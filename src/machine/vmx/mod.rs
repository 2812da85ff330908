//! VT-x: the processor runs a guest from a VMCS, in VMX non-root operation (SDM 3C 23 to 31).
//!
//! | file | what |
//! |---|---|
//! | `features` | what the processor offers, the control fields made of it |
//! | `vmcs` | the structure's fields, and reading and writing them |
//! | `run`, `entry` | a virtual CPU on a processor; the way into the guest and back |
//! | `exit`, `event` | why it left; what goes in with it |
//! | `state`, `host` | the guest's registers, the host's |
//! | `debug` | debug registers, in the processor once they are used |
//! | `apic`, `posted` | the local APIC's page and interrupts, where the processor sees to them |
//! | `bitmap`, `tlb` | what passes without an exit; tags and flushes |
//!
//! What VT-x cannot hide: a VMCS belongs to the CPU where it was last current until VMCLEAR, so every
//! `unload` is one; and 32-bit PAE paging keeps four page-directory pointers in the VMCS, which writes of CR3 by
//! the hypervisor do not load (SDM 3C 26.3.2.4).

mod apic;
mod bitmap;
mod debug;
mod entry;
mod event;
mod exit;
mod features;
mod host;
mod posted;
mod run;
mod state;
mod tlb;
mod vmcs;

use crate::exit::Exit;
use crate::mem::OwnedPages;
use crate::percpu::{MAX_CPUS, PerCpu};
use crate::virt::{GuestMsr, Unsupported, Virt, Window};
use alloc::sync::Arc;
use bitmap::{IoBitmaps, MsrBitmap};
use core::arch::asm;
use core::cell::UnsafeCell;
use features::Features;
use model::addr::Mfn;
use model::chip::lapic::Mode;
use model::ids::CpuId;
use model::regs::{DescriptorTable, Event, Regs, Segment, SegmentName};

pub use apic::serves_apic_page;
pub use posted::PostedPage;

/// Whether this processor has what Euxen needs of VT-x.
///
/// # Errors
/// The first feature found missing, and what an operator can do about it.
pub fn detect() -> Result<(), Unsupported> {
    Features::read().map(|_| ())
}

/// The region that each CPU gives the processor for as long as it is in VMX operation.
static VMXON_REGIONS: PerCpu<Option<OwnedPages>> = PerCpu::new([const { UnsafeCell::new(None) }; MAX_CPUS]);

/// Begins VMX operation on this CPU, once, at boot, after [`detect`] found the first CPU good.
///
/// # Panics
/// When this CPU lacks what the first one has, or memory is short.
pub fn enable_this_cpu() {
    let features = match Features::read() {
        Ok(features) => features,
        Err(missing) => panic!("this CPU lacks {}", missing.feature),
    };
    let region = region(&features).expect("memory at boot for VMX operation");
    features::unlock();
    features.fixed.apply();
    let operand = region.addr().raw();
    let failed: u8;
    // SAFETY: CR0, CR4 and the feature control allow VMXON; the region is owned and stays so for ever.
    unsafe {
        asm!("vmxon [{}]", "setna {}", in(reg) &operand, out(reg_byte) failed, options(nostack));
    }
    assert!(failed == 0, "VMXON failed");
    VMXON_REGIONS.with(|slot| *slot = Some(region));
}

/// A page that begins with the revision that the processor asks for.
fn region(features: &Features) -> Option<OwnedPages> {
    let page = OwnedPages::zeroed(0)?;
    // SAFETY: the page is owned and has room for four bytes, of which there is no Rust reference.
    unsafe { page.ptr().cast::<u32>().write_volatile(features.revision) }
    Some(page)
}

/// A virtual CPU in a VMCS of its own.
pub struct Vcpu {
    features: Features,
    vmcs: OwnedPages,
    msr_bitmap: MsrBitmap,
    io_bitmaps: IoBitmaps,
    /// The virtual-APIC page.
    apic: OwnedPages,
    /// The APIC-access page, where reads are served from the virtual-APIC page.
    apic_access: Option<Mfn>,
    /// Where others post interrupts, if the processor can deliver them.
    posted: Option<Arc<PostedPage>>,
    /// What of the local APIC the processor does now.
    apic_service: apic::Service,
    eptp: u64,
    tag: tlb::Tag,
    /// The VMCS has its first contents.
    is_set_up: bool,
    /// How it is entered, the VMCS's launch state included. Cleared with the VMCS.
    how: entry::How,
    loaded_on: Option<CpuId>,
    /// The CPU whose state an exit brings back, by the VMCS, and its descriptor tables.
    host: Option<(CpuId, host::Tables)>,
    by_hand: host::ByHand,
    debug: debug::Registers,
    /// What the VMCS has as the host's stack pointer.
    host_rsp: u64,
    seen: entry::Seen,
    queued: event::Queued,
    /// The primary controls as the VMCS has them.
    primary: u32,
    cr2: u64,
}

/// The EPT pointer: write-back, a walk of four levels (SDM 3C table 24-9).
fn ept_pointer(root: Mfn, accessed_dirty: bool) -> u64 {
    const WRITE_BACK: u64 = 6;
    const WALK_4: u64 = 3 << 3;
    const ACCESSED_DIRTY: u64 = 1 << 6;
    root.base().raw() | WRITE_BACK | WALK_4 | if accessed_dirty { ACCESSED_DIRTY } else { 0 }
}

impl Vcpu {
    /// A virtual CPU in the state of SDM 3A table 9-1 but for the PVH particulars that the kernel sets afterwards,
    /// whose memory is what the nested page tables at `nested_root` map. `None` when memory is short.
    pub fn new(nested_root: Mfn) -> Option<Self> {
        let features = Features::read().ok()?;
        let mut msr_bitmap = MsrBitmap::new()?;
        for msr in state::SWITCHED {
            msr_bitmap.allow(msr, true, true);
        }
        msr_bitmap.allow(state::index::EFER, true, false);
        if features.rdtscp() {
            msr_bitmap.allow(state::index::TSC_AUX, true, true);
        }
        Some(Self {
            vmcs: region(&features)?,
            msr_bitmap,
            io_bitmaps: IoBitmaps::new()?,
            apic: OwnedPages::zeroed(0)?,
            apic_access: None,
            posted: if features.delivers_interrupts() { Some(Arc::new(PostedPage::new()?)) } else { None },
            apic_service: apic::Service::default(),
            eptp: ept_pointer(nested_root, features.ept_vpid.accessed_dirty()),
            tag: tlb::Tag::NONE,
            is_set_up: false,
            how: entry::How::new(),
            loaded_on: None,
            host: None,
            by_hand: host::ByHand::new(&features),
            debug: debug::RESET,
            host_rsp: 0,
            seen: entry::Seen::default(),
            queued: event::Queued::NONE,
            primary: features.primary,
            cr2: 0,
            features,
        })
    }
}

impl Virt for Vcpu {
    fn allow_msr(&mut self, msr: u32, read: bool, write: bool) {
        self.msr_bitmap.allow(msr, read, write);
    }
    fn load(&mut self) {
        self.load_here();
    }
    fn unload(&mut self) {
        self.unload_here();
    }
    #[inline]
    fn run(&mut self, regs: &mut Regs) -> Exit {
        self.run_here(regs)
    }
    #[inline]
    fn inject(&mut self, event: Event) {
        self.queue(event);
    }
    #[inline]
    fn pending(&self) -> Option<Event> {
        self.queued.event()
    }
    fn interrupts_open(&self, regs: &Regs) -> bool {
        self.takes_interrupts(regs)
    }
    fn nmis_open(&self) -> bool {
        self.takes_nmis()
    }
    fn want_window(&mut self, window: Window) {
        self.set_window(window);
    }
    #[inline]
    fn skip(&mut self, regs: &mut Regs, len: u8) {
        self.skip_instruction(regs, len);
    }
    fn segment(&self, name: SegmentName) -> Segment {
        state::segment(name)
    }
    fn set_segment(&mut self, name: SegmentName, segment: Segment) {
        state::set_segment(name, segment);
    }
    fn gdtr(&self) -> DescriptorTable {
        state::gdtr()
    }
    fn set_gdtr(&mut self, table: DescriptorTable) {
        state::set_gdtr(table);
    }
    fn idtr(&self) -> DescriptorTable {
        state::idtr()
    }
    fn set_idtr(&mut self, table: DescriptorTable) {
        state::set_idtr(table);
    }
    #[inline]
    fn cr(&self, n: u8) -> u64 {
        self.read_cr(n)
    }
    fn set_cr(&mut self, n: u8, value: u64) {
        self.write_cr(n, value);
    }
    fn cr8(&self) -> Option<u8> {
        self.read_cr8()
    }
    fn set_cr8(&mut self, cr8: u8, threshold: u8) {
        self.write_cr8(cr8, threshold);
    }
    #[inline]
    fn msr(&self, msr: GuestMsr) -> u64 {
        self.read_msr(msr)
    }
    fn set_msr(&mut self, msr: GuestMsr, value: u64) {
        self.write_msr(msr, value);
    }
    fn set_tsc_offset(&mut self, offset: u64) {
        // SAFETY: the offset concerns only what the guest reads.
        unsafe { vmcs::write(vmcs::VmcsField::TSC_OFFSET, offset) }
    }
    fn flush(&mut self) {
        self.forget_translations();
    }
    fn cpl(&self) -> u8 {
        state::cpl()
    }
    fn is_long(&self) -> bool {
        state::is_long_mode()
    }
    fn set_apic_access_page(&mut self, page: Mfn) {
        self.give_apic_access_page(page);
    }
    fn serve_apic(&mut self, mode: Mode, is_enabled: bool) {
        self.choose_apic_service(mode, is_enabled);
    }
    fn has_apic_page(&self) -> bool {
        self.apic_service.page
    }
    #[inline]
    fn posted(&self) -> Option<&Arc<PostedPage>> {
        self.posted_while_delivering()
    }
    fn merge_posted(&mut self) {
        if self.apic_service.delivers {
            self.merge();
        }
    }
    fn set_interrupt_status(&mut self, requested: u8, in_service: u8) {
        self.set_status(requested, in_service);
    }
    fn is_interrupted(&self) -> bool {
        self.has_deliverable()
    }
    fn apic_register(&self, offset: u16) -> u32 {
        self.read_apic(offset)
    }
    #[inline]
    fn set_apic_register(&mut self, offset: u16, value: u32) {
        self.write_apic(offset, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ept_pointer_says_write_back_and_four_levels() {
        assert_eq!(ept_pointer(Mfn::new(0x1234), false), 0x123_401e);
        assert_eq!(ept_pointer(Mfn::new(0x1234), true), 0x123_405e);
    }
}
