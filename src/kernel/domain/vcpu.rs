//! A virtual CPU: what only its own physical CPU touches, and what others may.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use machine::cpu::extended::Extended;
use machine::exit::{Exit, Kind};
use machine::frame::RegsPage;
use machine::hw::HwVcpu;
use machine::virt::{PostedPage, Window};
use model::chip::lapic::Lapic;
use model::ids::{CpuId, VcpuId};
use model::pv::state::PvState;
use model::pvh::Registers;
use model::sched::{CpuSet, Key};
use sync::{Lock, place};

use crate::pv::PvContext;
use crate::pv::memory::Exchange;
use crate::time::Timer;

/// What a virtual CPU has to look at before it enters the guest again, as bits of [`Vcpu::attention`].
pub mod attention {
    /// Its local APIC may have an interrupt for it.
    pub const APIC: u32 = 1 << 0;
    /// An NMI waits.
    pub const NMI: u32 = 1 << 1;
    /// It was told to start, or to wait for that (INIT).
    pub const START: u32 = 1 << 2;
    /// Its domain ends or pauses: the scheduler is asked again.
    pub const SCHEDULE: u32 = 1 << 3;
}

/// A virtual CPU.
pub struct Vcpu {
    /// Its number within the domain.
    pub id: VcpuId,
    /// How the scheduler knows it.
    pub key: Key,
    /// What others may touch.
    pub state: Lock<place::Vcpu, VcpuState>,
    /// What it has to look at; see [`attention`].
    pub attention: AtomicU32,
    /// Runs, or would if it had something to do: it was started and not taken down.
    pub is_up: AtomicBool,
    /// What the guest reads of the TSC beyond the host's, for the CPU on which its APIC timer fires.
    pub tsc_offset: AtomicU64,
    /// IA32_APIC_BASE as its local APIC has it. Only its own CPU writes it.
    pub apic_base: AtomicU64,
    /// `VCPUOP_register_runstate_memory_area`: the guest's address that is written when it is scheduled; 0 for none.
    pub runstate_area: AtomicU64,
    /// Exits so far.
    pub exits: ExitCounts,
}

impl Vcpu {
    /// Notes what it has to look at.
    pub fn note(&self, what: u32) {
        self.attention.fetch_or(what, Ordering::Release); // pairs with the swap before entry
    }
}

/// How often a virtual CPU left the guest, by kind. What is done within a stay in a PV guest does not count.
#[derive(Default)]
pub struct ExitCounts([AtomicU64; Kind::COUNT]);

impl ExitCounts {
    /// Counts one. For the CPU that runs the virtual CPU, so that no two write at once.
    #[inline]
    pub fn count(&self, kind: Kind) {
        let counter = &self.0[kind as usize];
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// How many there were of a kind.
    pub fn of(&self, kind: Kind) -> u64 {
        self.0[kind as usize].load(Ordering::Relaxed)
    }

    /// How many there were.
    pub fn all(&self) -> u64 {
        Kind::ALL.iter().map(|&kind| self.of(kind)).sum()
    }
}

/// The part of a virtual CPU that other CPUs reach.
pub struct VcpuState {
    /// Its local APIC.
    pub lapic: Lapic,
    /// Where interrupts are posted that the local APIC has accepted, while its processor delivers them by itself and has the
    /// vectors. Its own CPU puts it here; INIT takes it away.
    pub posted: Option<Arc<PostedPage>>,
    /// How it will start.
    pub start: Option<Start>,
    /// Waits for a start-up message, or for `VCPUOP_up`.
    pub waits_for_startup: bool,
    /// Its state was set by `VCPUOP_initialise` or at the domain's start.
    pub is_initialised: bool,
    /// `VCPUOP_set_singleshot_timer`, and the one that `set_timer_op` shares with it.
    pub singleshot: Timer,
    /// `VCPUOP_set_periodic_timer`.
    pub periodic: Timer,
    /// Its period in ns; 0 for none.
    pub period_ns: u64,
    /// The timeout of `SCHEDOP_poll`.
    pub poll: Timer,
    /// The local APIC's timer.
    pub apic_timer: Timer,
    /// `SCHEDOP_watchdog`: those that are set; on the first virtual CPU.
    pub watchdogs: [Option<Timer>; 2],
    /// `SCHEDOP_pin_override`: where it may run when that has been taken back.
    pub overridden: Option<CpuSet>,
    /// `XENMEM_exchange`: the chunk that it is at.
    pub exchange: Option<Box<Exchange>>,
}

/// The registers with which a virtual CPU starts; all others are as after reset.
pub struct StartState {
    pub registers: Registers,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
}

/// How a virtual CPU starts.
pub enum Start {
    /// With these registers.
    Registers(Box<StartState>),
    /// In real mode at this page (SDM 3A 9.4.2).
    Startup(u8),
    /// With this state of a PV virtual CPU.
    Pv(Box<PvState>),
    /// Not at all: INIT came, and it waits.
    Wait,
}

/// Hypercalls that are remembered for a crash report.
pub const REMEMBERED: usize = 8;

/// What only the physical CPU that runs it touches.
pub struct Context {
    /// The hardware's part.
    pub hw: HwVcpu,
    /// The general registers.
    pub regs: RegsPage,
    /// What it has as a PV virtual CPU, if it is one.
    pub pv: Option<Box<PvContext>>,
    /// The vector and floating-point state.
    pub extended: Extended,
    /// What the guest reads of the TSC beyond the host's.
    pub tsc_offset: u64,
    /// The window that was asked for last.
    pub window: Window,
    /// The domain's [`super::Domain::tlb_epoch`] that its translations are of.
    pub tlb_epoch: Cell<u64>,
    /// Where it ran last.
    pub last_cpu: Option<CpuId>,
    /// Its processor serves the local APIC's register page.
    pub has_apic_page: bool,
    /// Sleeps in `SCHEDOP_poll`.
    pub is_polling: bool,
    /// The last exit that was not a hypercall, CPUID or RDMSR.
    pub last_exit: Option<Exit>,
    /// The last hypercalls.
    pub hypercalls: Remembered,
}

/// The last hypercalls: number and first argument.
#[derive(Clone, Copy)]
pub struct Remembered {
    calls: [(u64, u64); REMEMBERED],
    /// Where the next goes.
    next: usize,
    /// The last that was done at once; [`NO_CALL`] for none.
    quick: (u64, u64),
}

/// No hypercall has this number.
const NO_CALL: u64 = u64::MAX;

impl Default for Remembered {
    fn default() -> Self {
        Self { calls: [(0, 0); REMEMBERED], next: 0, quick: (NO_CALL, 0) }
    }
}

impl Remembered {
    /// Remembers a hypercall.
    #[inline]
    pub fn add(&mut self, number: u64, argument: u64) {
        self.calls[self.next % REMEMBERED] = (number, argument);
        self.next = self.next.wrapping_add(1);
    }

    /// Remembers a hypercall that was done at once, of which the last one alone is kept.
    #[inline(always)]
    pub fn note_quick(&mut self, number: u64, argument: u64) {
        self.quick = (number, argument);
    }

    /// The last hypercall that was done at once.
    pub fn last_quick(&self) -> Option<(u64, u64)> {
        (self.quick.0 != NO_CALL).then_some(self.quick)
    }

    /// The last hypercalls but for those, the newest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        let count = self.next.min(REMEMBERED);
        (1..=count).map(|back| self.calls[(self.next - back) % REMEMBERED])
    }
}

impl Context {
    /// What it has as a PV virtual CPU.
    ///
    /// # Panics
    /// If it is no PV virtual CPU: our own mistake.
    #[inline]
    pub fn pv(&mut self) -> &mut PvContext {
        self.pv.as_mut().expect("a PV virtual CPU")
    }

    /// Keeps what a debug exception of a PV virtual CPU left in DR6.
    pub fn note_debug_trap(&mut self) {
        let dr6 = self.hw.pv().debug_register(6);
        self.hw.pv_mut().set_debug_register(6, 0);
        self.pv().debug.raised(dr6);
    }

    /// Gives the processor the debug registers of a PV virtual CPU.
    pub fn load_debug(&mut self) {
        let (addresses, control) = self.pv().debug.hardware();
        let hw = self.hw.pv_mut();
        for (n, address) in (0..).zip(addresses) {
            hw.set_debug_register(n, address);
        }
        hw.set_debug_register(7, control);
    }
}
