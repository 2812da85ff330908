//! PV: a virtual CPU that runs in ring 3 on page tables of its own, in the hypervisor's address space.
//!
//! Nothing of VT-x or AMD-V is needed. Exceptions, SYSCALL and interrupts enter the hypervisor through
//! its own IDT and SYSCALL stubs; the kernel above decides what the guest gets of them.
//!
//! | file | what |
//! |---|---|
//! | `entry`, `run` | the way into the guest and back; why it left |
//! | `switch` | what changes with the virtual CPU that a CPU has loaded |
//! | `registers`, `segments`, `debug` | control registers and MSRs; selectors and descriptors; breakpoints |
//! | `space`, `l4` | the domain's part of the hole; the hypervisor's slots in its page tables |
//! | `copy` | the guest's memory by its own addresses |

mod copy;
mod debug;
mod entry;
pub mod l4;
mod registers;
mod run;
mod segments;
mod space;
mod switch;

pub use copy::{
    clear, copy_from, copy_to, is_guests, read_half, read1, read2, read3, read8, read9, with_bytes, write_frame,
    write_frame_with_error, write_words, write1, write2, write3,
};
pub use run::Attendant;
pub use space::{GDT_PAGES, LDT_PAGES, Space, Table};
pub use switch::forget_translations;

use alloc::sync::Arc;

use model::addr::Mfn;
use model::ids::{CpuId, VcpuId};
use model::regs::{DescriptorTable, Event, Regs, Segment, SegmentName};

use crate::cpu::{features, speculation};
use crate::exit::Exit;
use crate::frame::{BARRIER, GUARDED, RegsPage};
use crate::virt::{GuestMsr, Virt, Window};

/// Says where SYSCALL and SYSENTER of this CPU, number `id`, lead; once, at boot.
pub(crate) fn enable_this_cpu(id: CpuId) {
    entry::enable(id);
    copy::set_smap(features::has_smap());
}

pub(crate) use switch::lose_entries;

/// Takes the memory that all PV domains share; once, at boot. Without it there are none.
pub fn prepare() {
    space::empty();
}

/// Makes this CPU forget what it knows of one page, of the guest's that it has loaded or of any address.
#[inline]
pub fn invlpg(address: u64) {
    space::forget(address);
}

/// What [`model::regs::Regs::vector`] holds when a guest has left otherwise than by an exception or interrupt.
pub mod cause {
    pub use super::entry::{SYSCALL, SYSCALL_COMPAT, SYSENTER};
}

/// The part of a PV virtual CPU that is switched with the processor.
pub struct Vcpu {
    id: VcpuId,
    /// Its part of the hole.
    tables: Arc<space::Tables>,
    is_isolated: bool,
    /// What is done when it leaves and before it enters, beside changes of CR3: bits of the words of
    /// [`Frame`](crate::frame::Frame).
    guards: [u64; 2],
    /// It enters as its frame says.
    enters_by_frame: bool,
    /// Where its `Regs` are: in the direct map, and in its part of the hole.
    regs: u64,
    frame: u64,
    /// `regs` while it can run just so: it is live, and has no breakpoints.
    ready: u64,
    /// Its registers are in the processor: it is loaded, with page tables.
    is_live: bool,
    loaded: Option<switch::Host>,
    /// Whose descriptors are in its part of the hole.
    last_cpu: Option<CpuId>,
    /// The L4 tables of kernel and user mode.
    bases: [Option<Mfn>; 2],
    is_kernel: bool,
    pending: Option<Event>,
    state: registers::State,
}

impl Vcpu {
    /// Virtual CPU `id` of the domain that `space` belongs to, in kernel mode, without page tables yet, which will run with
    /// these registers and no others.
    pub fn new(space: &Space, id: VcpuId, regs: &RegsPage) -> Self {
        let (guards, is_isolated) = (speculation::pv_guards(), space.is_isolated());
        Self {
            id,
            tables: space.tables(),
            is_isolated,
            guards: [
                if guards.rsb { GUARDED } else { 0 } | if guards.ibpb { BARRIER } else { 0 },
                if guards.verw { GUARDED } else { 0 },
            ],
            enters_by_frame: is_isolated || guards.verw,
            regs: core::ptr::from_ref::<Regs>(regs) as u64,
            frame: space.map_regs(id, regs),
            ready: 0,
            is_live: false,
            loaded: None,
            last_cpu: None,
            bases: [None; 2],
            is_kernel: true,
            pending: None,
            state: registers::State::new(),
        }
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

    /// Goes to the other mode: page tables and GS base change. `false`, and nothing has changed, if the other mode has no
    /// page tables.
    #[inline]
    pub fn toggle_mode(&mut self) -> bool {
        let Some(base) = self.bases[usize::from(self.is_kernel)] else { return false };
        self.is_kernel = !self.is_kernel;
        self.swap_gs();
        if self.is_live && !self.is_isolated {
            switch::load_cr3(base.base()); // all that `use_base` comes to
        } else {
            self.use_base();
        }
        true
    }

    /// The L4 table of kernel mode, to which the caller holds a reference as long as it is this.
    pub fn set_kernel_base(&mut self, l4: Mfn) {
        self.bases[0] = Some(l4);
        self.use_base();
    }

    /// The L4 table of user mode; as [`Vcpu::set_kernel_base`].
    pub fn set_user_base(&mut self, l4: Option<Mfn>) {
        self.bases[1] = l4;
        self.use_base();
    }

    /// The L4 tables of kernel and user mode.
    pub fn bases(&self) -> [Option<Mfn>; 2] {
        self.bases
    }

    /// The L4 table of the mode in which the guest is.
    fn base(&self) -> Option<Mfn> {
        self.bases[usize::from(!self.is_kernel)]
    }
}

impl Virt for Vcpu {
    fn allow_msr(&mut self, _: u32, _: bool, _: bool) {}
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
    fn inject(&mut self, event: Event) {
        self.pending = Some(event);
    }
    #[inline]
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
    #[inline]
    fn skip(&mut self, regs: &mut Regs, len: u8) {
        regs.rip = regs.rip.wrapping_add(u64::from(len));
    }
    fn segment(&self, name: SegmentName) -> Segment {
        self.read_segment(name)
    }
    fn set_segment(&mut self, name: SegmentName, segment: Segment) {
        self.write_segment(name, segment);
    }
    fn gdtr(&self) -> DescriptorTable {
        DescriptorTable { base: space::base(self.id), limit: 0xefff }
    }
    fn set_gdtr(&mut self, _: DescriptorTable) {}
    fn idtr(&self) -> DescriptorTable {
        DescriptorTable::default()
    }
    fn set_idtr(&mut self, _: DescriptorTable) {}
    fn cr(&self, n: u8) -> u64 {
        self.read_cr(n)
    }
    #[inline]
    fn set_cr(&mut self, n: u8, value: u64) {
        self.write_cr(n, value);
    }
    fn cr8(&self) -> Option<u8> {
        None
    }
    fn set_cr8(&mut self, _: u8, _: u8) {}
    fn msr(&self, msr: GuestMsr) -> u64 {
        self.read_msr(msr)
    }
    #[inline]
    fn set_msr(&mut self, msr: GuestMsr, value: u64) {
        self.write_msr(msr, value);
    }
    fn set_tsc_offset(&mut self, _: u64) {}
    fn flush(&mut self) {
        self.forget_translations();
    }
    fn cpl(&self) -> u8 {
        if self.is_kernel { 0 } else { 3 }
    }
    fn is_long(&self) -> bool {
        true
    }
}
