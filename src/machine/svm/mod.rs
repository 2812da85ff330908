//! AMD-V: guests by VMRUN and nested paging (APM 2 chapter 15).
//!
//! What the vendor cannot hide:
//! - Without next-RIP save an exit does not tell the length of its instruction, but for port accesses.
//! - No control register is intercepted: [`crate::exit::Exit::Cr`] never comes from here.
//! - EFER reads exit as its writes do, because the processor's EFER shows SVME.
//! - The exit at which CR8 falls below its threshold waits until the guest's IF is set.
//! - An NMI that waits behind another event opens its window at a later exit, when the guest's IF is clear.

mod asid;
mod bitmap;
mod debug;
mod entry;
mod event;
mod exit;
mod features;
mod run;

pub use features::detect;

use crate::cpu::msr;
use crate::exit::Exit;
use crate::mem::OwnedPages;
use crate::percpu::{MAX_CPUS, PerCpu, this_cpu};
use crate::virt::{GuestMsr, Virt, Window};
use asid::{Pool, Stamp};
use bitmap::Msrpm;
use core::arch::asm;
use core::cell::UnsafeCell;
use event::Events;
use features::Features;
use model::addr::{MachineAddr, Mfn, PAGE_SIZE};
use model::ids::CpuId;
use model::regs::{DescriptorTable, Efer, Event, Regs, Segment, SegmentName};
use model::svm::{Clean, Residence, Vmcb, tlb_control};

const EFER: u32 = 0xc000_0080;
const VM_HSAVE_PA: u32 = 0xc001_0117;

/// What each CPU keeps for its guests.
struct Cpu {
    /// The host save area of VMRUN, then the block that VMSAVE fills for the host.
    host: Option<OwnedPages>,
    asids: Pool,
}

static CPUS: PerCpu<Cpu> = PerCpu::new([const { UnsafeCell::new(Cpu { host: None, asids: Pool::new() }) }; MAX_CPUS]);

/// Turns AMD-V on. To be called once on each CPU, where [`detect`] has found no fault, with interrupts off.
///
/// # Panics
/// When there is no memory for three pages.
pub fn enable_this_cpu() {
    let offer = features::read().expect("AMD-V, as detected");
    bitmap::build_iopm();
    CPUS.with(|cpu| {
        let host =
            cpu.host.get_or_insert_with(|| OwnedPages::zeroed(1).expect("memory at boot for the host save area"));
        cpu.asids.set_size(offer.nr_asids);
        // SAFETY: the processor has AMD-V, so both registers; SVME changes nothing of the host's execution, and the
        // host save area is a page of ours that stays with this CPU.
        unsafe {
            msr::write(EFER, msr::read(EFER) | Efer::SVME.bits());
            msr::write(VM_HSAVE_PA, host.addr().raw());
        }
    });
}

/// Where a virtual CPU is loaded.
#[derive(Clone, Copy)]
struct Place {
    cpu: CpuId,
    /// The host's block of that CPU.
    host: MachineAddr,
}

/// A virtual CPU that AMD-V runs.
pub struct Vcpu {
    vmcb: OwnedPages,
    msrpm: Msrpm,
    features: Features,
    events: Events,
    /// What is clean once it has run.
    clean: Clean,
    residence: Residence,
    /// The right to its ASID, with the CPU on which that holds.
    stamp: Option<Stamp>,
    place: Option<Place>,
    debug: debug::Registers,
    /// TSC_AUX while it is not loaded.
    tsc_aux: u64,
}

impl Vcpu {
    fn vmcb(&self) -> &Vmcb {
        // SAFETY: the page is ours and mapped, any bits are a `Vmcb`, and the processor writes it only in `enter`,
        // when no reference to it is alive.
        unsafe { &*self.vmcb.ptr().cast::<Vmcb>() }
    }

    /// The control block and what goes with it.
    fn parts(&mut self) -> (&mut Vmcb, &mut Events) {
        // SAFETY: as in `vmcb`; `self` is borrowed uniquely, and with it the page.
        (unsafe { &mut *self.vmcb.ptr().cast::<Vmcb>() }, &mut self.events)
    }

    /// The control block and where it was loaded last.
    fn block_and_residence(&mut self) -> (&mut Vmcb, &mut Residence) {
        // SAFETY: as in `parts`.
        (unsafe { &mut *self.vmcb.ptr().cast::<Vmcb>() }, &mut self.residence)
    }

    fn vmcb_mut(&mut self) -> &mut Vmcb {
        self.parts().0
    }

    /// Makes sure of an ASID on this CPU, without translations if `is_stale`.
    fn settle_asid(&mut self, is_stale: bool) {
        let here = this_cpu();
        let old = self.stamp.filter(|_| !is_stale);
        let (stamp, must_flush) = CPUS.with(|cpu| {
            let kept = old.filter(|&stamp| cpu.asids.is_current(here, stamp));
            (kept.unwrap_or_else(|| cpu.asids.take(here)), cpu.asids.must_flush())
        });
        self.stamp = Some(stamp);
        let vmcb = self.vmcb_mut();
        vmcb.set_asid(stamp.asid());
        if must_flush {
            vmcb.tlb_control = tlb_control::ALL;
        }
    }

    /// The TLB is as this run's TLB_CONTROL asked.
    #[cold]
    fn note_flush(&mut self) {
        let vmcb = self.vmcb_mut();
        if core::mem::replace(&mut vmcb.tlb_control, tlb_control::NOTHING) == tlb_control::ALL {
            CPUS.with(|cpu| cpu.asids.flushed());
        }
    }

    fn has_tsc_aux(&self) -> bool {
        self.features.contains(Features::TSC_AUX)
    }
}

impl Vcpu {
    /// A virtual CPU in the state of SDM 3A table 9-1 but for the PVH particulars that the kernel sets afterwards,
    /// whose memory is what the nested page tables at `nested_root` map. `None` when memory is short.
    pub fn new(nested_root: Mfn) -> Option<Self> {
        let features = features::read()?.features;
        let (iopm, mut msrpm) = (bitmap::iopm()?, Msrpm::new()?);
        for msr in bitmap::SWITCHED_MSRS {
            msrpm.allow(msr, true, true);
        }
        let has_tsc_aux = features.contains(Features::TSC_AUX);
        msrpm.allow(bitmap::TSC_AUX, has_tsc_aux, has_tsc_aux);
        let msrpm_addr = msrpm.addr();
        let (vmcb, events) = (OwnedPages::zeroed(0)?, Events::new());
        let (clean, residence) = (Clean::after_run(features.contains(Features::CLEAN_BITS)), Residence::default());
        let (stamp, place, debug) = (None, None, debug::RESET);
        let mut vcpu = Self { vmcb, msrpm, features, events, clean, residence, stamp, place, debug, tsc_aux: 0 };
        vcpu.vmcb_mut().initialise(nested_root, msrpm_addr, iopm);
        if features.contains(Features::PAUSE_FILTER) {
            vcpu.vmcb_mut().watch_spinning(features.contains(Features::PAUSE_FILTER_THRESHOLD));
        }
        Some(vcpu)
    }
}

impl Virt for Vcpu {
    fn allow_msr(&mut self, msr: u32, read: bool, write: bool) {
        self.msrpm.allow(msr, read, write);
    }

    fn load(&mut self) {
        let here = this_cpu();
        let host = CPUS.with(|cpu| {
            let pages = cpu.host.as_ref().expect("AMD-V is on, as `enable_this_cpu` left it");
            let host = MachineAddr::new(pages.addr().raw() + PAGE_SIZE);
            // SAFETY: the second page of `pages` is this CPU's alone, and with `pages` there EFER.SVME is set.
            unsafe { entry::save_host(host) };
            host
        });
        let addr = self.vmcb.addr();
        let (vmcb, residence) = self.block_and_residence();
        residence.arrive(vmcb, here, addr);
        self.settle_asid(false);
        self.place = Some(Place { cpu: here, host });
        write_cr2(self.vmcb().cr(2));
        self.load_debug();
        if self.has_tsc_aux() {
            // SAFETY: the processor has the register, and the host makes no use of it.
            unsafe { msr::write(bitmap::TSC_AUX, self.tsc_aux) };
        }
    }

    fn unload(&mut self) {
        self.unload_debug();
        if self.has_tsc_aux() {
            // SAFETY: the processor has the register.
            self.tsc_aux = unsafe { msr::read(bitmap::TSC_AUX) };
        }
        self.place = None;
    }

    #[inline]
    fn run(&mut self, regs: &mut Regs) -> Exit {
        self.enter(regs)
    }

    fn inject(&mut self, event: Event) {
        let (vmcb, events) = self.parts();
        events.inject(vmcb, event);
    }

    fn pending(&self) -> Option<Event> {
        event::pending(self.vmcb())
    }

    fn interrupts_open(&self, regs: &Regs) -> bool {
        event::interrupts_open(self.vmcb(), regs)
    }

    fn nmis_open(&self) -> bool {
        self.events.nmis_open(self.vmcb())
    }

    fn want_window(&mut self, window: Window) {
        let (vmcb, events) = self.parts();
        events.want(vmcb, window);
    }

    fn skip(&mut self, regs: &mut Regs, len: u8) {
        event::skip(self.vmcb_mut(), regs, len);
    }

    fn segment(&self, name: SegmentName) -> Segment {
        self.vmcb().segment(name)
    }

    fn set_segment(&mut self, name: SegmentName, segment: Segment) {
        self.vmcb_mut().set_segment(name, segment);
    }

    fn gdtr(&self) -> DescriptorTable {
        self.vmcb().gdtr()
    }

    fn set_gdtr(&mut self, table: DescriptorTable) {
        self.vmcb_mut().set_gdtr(table);
    }

    fn idtr(&self) -> DescriptorTable {
        self.vmcb().idtr()
    }

    fn set_idtr(&mut self, table: DescriptorTable) {
        self.vmcb_mut().set_idtr(table);
    }

    #[inline]
    fn cr(&self, n: u8) -> u64 {
        self.vmcb().cr(n)
    }

    fn set_cr(&mut self, n: u8, value: u64) {
        self.vmcb_mut().set_cr(n, value);
        if n == 2 && self.place.is_some() {
            write_cr2(value);
        }
    }

    fn cr8(&self) -> Option<u8> {
        Some(self.vmcb().cr8())
    }

    fn set_cr8(&mut self, cr8: u8, threshold: u8) {
        let (vmcb, events) = self.parts();
        vmcb.set_cr8(cr8);
        events.set_threshold(vmcb, threshold);
    }

    #[inline]
    fn msr(&self, name: GuestMsr) -> u64 {
        match self.vmcb().msr(name) {
            Some(value) => value,
            // SAFETY: the processor has the register.
            None if self.place.is_some() && self.has_tsc_aux() => unsafe { msr::read(bitmap::TSC_AUX) },
            None => self.tsc_aux,
        }
    }

    fn set_msr(&mut self, name: GuestMsr, value: u64) {
        if name != GuestMsr::TscAux {
            return self.vmcb_mut().set_msr(name, value);
        }
        // The register has 32 bits; the others must be zero (APM 2 3.2.10).
        self.tsc_aux = value & 0xffff_ffff;
        if self.place.is_some() && self.has_tsc_aux() {
            // SAFETY: the processor has the register, and the host makes no use of it.
            unsafe { msr::write(bitmap::TSC_AUX, self.tsc_aux) };
        }
    }

    fn set_tsc_offset(&mut self, offset: u64) {
        self.vmcb_mut().set_tsc_offset(offset);
    }

    fn flush(&mut self) {
        if !self.features.contains(Features::FLUSH_BY_ASID) {
            return self.settle_asid(true);
        }
        let vmcb = self.vmcb_mut();
        if vmcb.tlb_control == tlb_control::NOTHING {
            vmcb.tlb_control = tlb_control::THIS_ASID;
        }
    }

    fn cpl(&self) -> u8 {
        self.vmcb().cpl()
    }

    fn is_long(&self) -> bool {
        self.vmcb().is_long()
    }
}

/// Loads the guest's CR2. VMRUN does it from the control block, but Bochs 3.0 leaves the register as it is there, so that a
/// page fault's handler would read the address of another guest's.
fn write_cr2(value: u64) {
    // SAFETY: CR2 steers nothing; a fault of the host's own writes it anew.
    unsafe { asm!("mov cr2, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}
