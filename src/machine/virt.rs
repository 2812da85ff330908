//! The contract between the hypervisor and the two ways in which a processor runs a guest.
//!
//! [`Virt`] is implemented by [`crate::vmx::Vcpu`] (VT-x, SDM 3C 23 to 31) and [`crate::svm::Vcpu`] (AMD-V, APM 2 15),
//! and by [`crate::pv::Vcpu`], which needs neither: it runs in ring 3 on page tables of its own.
//! What a vendor cannot hide is described beside its implementation, with the manual's section.
//! [`crate::hw::HwVcpu`] is the one match on which it is.
//!
//! A virtual CPU is *loaded* on one physical CPU at a time. All methods but `new`, `load` and `allow_msr` are
//! for the CPU on which it is loaded, and interrupts are off throughout.

use crate::exit::Exit;
use alloc::sync::Arc;
use model::addr::Mfn;
use model::chip::lapic::Mode;
pub use model::regs::GuestMsr;
use model::regs::{DescriptorTable, Event, Regs, Segment, SegmentName};

pub use crate::vmx::PostedPage;

/// Which exit to take as soon as the guest can accept an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// None.
    None,
    /// [`Exit::InterruptWindow`] when an interrupt can be injected.
    Interrupt,
    /// [`Exit::NmiWindow`] when an NMI can be injected.
    Nmi,
}

/// What a processor must do to run a virtual CPU.
pub trait Virt: Sized {
    /// Lets the guest read or write this MSR without an exit. All others exit.
    fn allow_msr(&mut self, msr: u32, read: bool, write: bool);

    /// Makes it current on this CPU, with the registers that the processor does not switch by itself.
    fn load(&mut self);

    /// Gives it up, so that another CPU may load it.
    fn unload(&mut self);

    /// Runs the guest until it leaves. Interrupts are off before and after; one that comes while the guest
    /// runs ends in [`Exit::Host`] with its handler run. Events injected and not yet delivered are kept.
    fn run(&mut self, regs: &mut Regs) -> Exit;

    /// Delivers `event` at the next entry. The caller has seen that none is [`Virt::pending`], and for an
    /// interrupt or NMI that the guest is open to it.
    fn inject(&mut self, event: Event);

    /// The event that waits for the next entry: injected, or cut short by the last exit (SDM 3C 24.9.3; APM 2 15.7.2).
    fn pending(&self) -> Option<Event>;

    /// Whether the guest could take an interrupt now: IF set, no shadow of STI or MOV SS, none pending.
    fn interrupts_open(&self, regs: &Regs) -> bool;

    /// Whether the guest could take an NMI now.
    fn nmis_open(&self) -> bool;

    /// Asks for an exit once the guest is open to an event; holds until changed.
    fn want_window(&mut self, window: Window);

    /// Moves past an instruction of `len` bytes that was emulated: RIP advances, wrapping at 4 GiB outside 64-bit
    /// code; shadow and RF end; a pending single step is delivered.
    fn skip(&mut self, regs: &mut Regs, len: u8);

    /// A segment register with its hidden part.
    fn segment(&self, name: SegmentName) -> Segment;
    /// Writes [`Virt::segment`].
    fn set_segment(&mut self, name: SegmentName, segment: Segment);
    /// GDTR.
    fn gdtr(&self) -> DescriptorTable;
    /// Writes GDTR.
    fn set_gdtr(&mut self, table: DescriptorTable);
    /// IDTR.
    fn idtr(&self) -> DescriptorTable;
    /// Writes IDTR.
    fn set_idtr(&mut self, table: DescriptorTable);

    /// Control register 0, 2, 3 or 4 as the guest believes it to be.
    fn cr(&self, n: u8) -> u64;
    /// Writes control register 0, 2, 3 or 4. The caller has checked the value; EFER.LMA follows CR0.PG.
    fn set_cr(&mut self, n: u8, value: u64);

    /// CR8 where the processor keeps it without exits; `None` where every access exits as [`Exit::Cr`].
    fn cr8(&self) -> Option<u8>;
    /// Sets CR8 where [`Virt::cr8`] is kept; a guest that lowers it below `threshold` exits.
    fn set_cr8(&mut self, cr8: u8, threshold: u8);

    /// Gives the frame that the guest has at its local APIC's address, before the first load. Where the processor cannot
    /// serve that page it is memory like any other.
    fn set_apic_access_page(&mut self, _: Mfn) {}
    /// Has the processor do as much of a local APIC in this mode, software-enabled or not, as it can. The caller brings it up to
    /// date afterwards.
    fn serve_apic(&mut self, _: Mode, _is_enabled: bool) {}
    /// Whether it serves the page: reads come from what [`Virt::set_apic_register`] wrote, a write exits as
    /// [`Exit::ApicWrite`], and the task priority is the guest's.
    fn has_apic_page(&self) -> bool {
        false
    }
    /// Where interrupts are posted, while the processor delivers them by itself: the registers have the vectors then,
    /// and neither EOI nor the task priority exits. What is posted is seen by an entry that begins later, and in the
    /// guest after [`crate::irq::notify`].
    fn posted(&self) -> Option<&Arc<PostedPage>> {
        None
    }
    /// Brings the registers what was posted so far.
    fn merge_posted(&mut self) {}
    /// Says which is the highest of the vectors that were written to the registers as requested, and as in service; 0 for none.
    fn set_interrupt_status(&mut self, _requested: u8, _in_service: u8) {}
    /// Whether the processor would deliver an interrupt if the guest were open to it.
    fn is_interrupted(&self) -> bool {
        false
    }
    /// A register of that page, by its offset.
    fn apic_register(&self, _: u16) -> u32 {
        0
    }
    /// Writes [`Virt::apic_register`].
    fn set_apic_register(&mut self, _: u16, _: u32) {}

    /// A register that is switched with the guest.
    fn msr(&self, msr: GuestMsr) -> u64;
    /// Writes [`Virt::msr`]. The caller has checked the value.
    fn set_msr(&mut self, msr: GuestMsr, value: u64);

    /// Adds this to the TSC that the guest reads, modulo 2^64.
    fn set_tsc_offset(&mut self, offset: u64);

    /// Forgets all translations of this guest on this CPU before its next entry: its p2m changed (SDM 3C 28.4.3;
    /// APM 2 15.16).
    fn flush(&mut self);

    /// Current privilege level.
    fn cpl(&self) -> u8;

    /// Whether the guest is in long mode (EFER.LMA).
    fn is_long(&self) -> bool;

    /// Whether its kernel runs, in long mode: who makes 64-bit hypercalls.
    #[inline]
    fn is_long_kernel(&self) -> bool {
        self.cpl() == 0 && self.is_long()
    }
}

/// Why this machine cannot run PVH and HVM guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// The feature that is missing, in its manual's words.
    pub feature: &'static str,
    /// What an operator can do about it, or nothing.
    pub advice: &'static str,
}
