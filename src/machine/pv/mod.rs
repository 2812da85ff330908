//! PV: a virtual CPU that runs in ring 3 on page tables of its own, in the hypervisor's address space.
//!
//! Nothing of VT-x or AMD-V is needed. Exceptions, SYSCALL and interrupts enter the hypervisor through
//! its own IDT and SYSCALL stubs; the kernel above decides what the guest gets of them.

mod space;

pub use space::Space;

use model::addr::Mfn;
use model::ids::VcpuId;
use model::regs::{DescriptorTable, Event, Regs, Segment, SegmentName};

use crate::exit::Exit;
use crate::virt::{GuestMsr, Virt, Window};

/// The part of a PV virtual CPU that is switched with the processor.
pub struct Vcpu {
    id: VcpuId,
    /// The L4 tables of kernel and user mode.
    bases: [Option<Mfn>; 2],
    is_kernel: bool,
    pending: Option<Event>,
    /// CR0, CR2, CR4 as the guest believes them to be.
    cr0: u64,
    cr2: u64,
    cr4: u64,
}

impl Vcpu {
    /// Virtual CPU `id` of the domain that `space` belongs to, in kernel mode, without page tables yet.
    pub fn new(_space: &Space, id: VcpuId) -> Option<Self> {
        Some(Self { id, bases: [None; 2], is_kernel: true, pending: None, cr0: 0, cr2: 0, cr4: 0 })
    }

    /// Its number.
    pub fn id(&self) -> VcpuId {
        self.id
    }

    /// Whether the guest is in kernel mode.
    #[inline]
    pub fn is_kernel(&self) -> bool {
        self.is_kernel
    }

    /// Goes to the other mode: page tables and GS base change.
    pub fn toggle_mode(&mut self) {
        self.is_kernel = !self.is_kernel;
    }

    /// The L4 table of kernel mode.
    pub fn set_kernel_base(&mut self, l4: Mfn) {
        self.bases[0] = Some(l4);
    }

    /// The L4 table of user mode.
    pub fn set_user_base(&mut self, l4: Option<Mfn>) {
        self.bases[1] = l4;
    }
}

impl Virt for Vcpu {
    fn allow_msr(&mut self, _: u32, _: bool, _: bool) {}
    fn load(&mut self) {}
    fn unload(&mut self) {}
    fn run(&mut self, _: &mut Regs) -> Exit {
        Exit::TripleFault
    }
    fn inject(&mut self, event: Event) {
        self.pending = Some(event);
    }
    fn pending(&self) -> Option<Event> {
        self.pending
    }
    fn interrupts_open(&self, _: &Regs) -> bool {
        false
    }
    fn nmis_open(&self) -> bool {
        false
    }
    fn want_window(&mut self, _: Window) {}
    fn skip(&mut self, regs: &mut Regs, len: u8) {
        regs.rip = regs.rip.wrapping_add(u64::from(len));
    }
    fn segment(&self, _: SegmentName) -> Segment {
        Segment::default()
    }
    fn set_segment(&mut self, _: SegmentName, _: Segment) {}
    fn gdtr(&self) -> DescriptorTable {
        DescriptorTable::default()
    }
    fn set_gdtr(&mut self, _: DescriptorTable) {}
    fn idtr(&self) -> DescriptorTable {
        DescriptorTable::default()
    }
    fn set_idtr(&mut self, _: DescriptorTable) {}
    fn cr(&self, n: u8) -> u64 {
        match n {
            0 => self.cr0,
            2 => self.cr2,
            3 => self.bases[usize::from(!self.is_kernel)].map_or(0, |l4| l4.base().raw()),
            _ => self.cr4,
        }
    }
    fn set_cr(&mut self, n: u8, value: u64) {
        match n {
            0 => self.cr0 = value,
            2 => self.cr2 = value,
            4 => self.cr4 = value,
            _ => {}
        }
    }
    fn cr8(&self) -> Option<u8> {
        None
    }
    fn set_cr8(&mut self, _: u8, _: u8) {}
    fn msr(&self, _: GuestMsr) -> u64 {
        0
    }
    fn set_msr(&mut self, _: GuestMsr, _: u64) {}
    fn set_tsc_offset(&mut self, _: u64) {}
    fn flush(&mut self) {}
    fn cpl(&self) -> u8 {
        if self.is_kernel { 0 } else { 3 }
    }
}
