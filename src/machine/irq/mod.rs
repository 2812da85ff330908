//! The interrupts that the hypervisor takes for itself: which vector means what, and what is left for the run loop.
//!
//! A handler does no more than acknowledge and note. The work is done by the CPU's own run loop, which asks
//! [`take_pending`] after each exit and each sleep.

pub mod ioapic;
pub mod lapic;
pub mod pic;

use core::sync::atomic::{AtomicU32, Ordering};

use model::ids::CpuId;

use crate::cpu::idle;
use crate::percpu::{MAX_CPUS, this_cpu};

/// The local APIC's timer.
pub const TIMER: u8 = 0xf0;
/// A CPU is to leave the guest, or to wake, and no more.
pub const NUDGE: u8 = 0xf1;
/// The serial port has a byte, or is empty.
pub const SERIAL: u8 = 0xf2;
/// Something was posted to the virtual CPU that runs: in a guest the processor takes that from there, without an exit.
pub const POSTED: u8 = 0xf3;
/// The local APIC's spurious interrupt.
pub const SPURIOUS: u8 = 0xff;

/// What has happened, as bits of a word per CPU.
pub mod pending {
    /// A deadline has passed.
    pub const TIMER: u32 = 1 << 0;
    /// The scheduler is to be asked.
    pub const KICK: u32 = 1 << 1;
    /// The console's port is to be served, or a domain's console.
    pub const CONSOLE: u32 = 1 << 2;
    /// There is something for the virtual CPU that runs.
    pub const LOOK: u32 = 1 << 3;
}

/// Of one CPU; in a cache line of its own, which a CPU may watch while it sleeps.
#[repr(align(64))]
struct Word(AtomicU32);

static PENDING: [Word; MAX_CPUS] = [const { Word(AtomicU32::new(0)) }; MAX_CPUS];

/// What has happened to this CPU since the last call.
#[inline]
pub fn take_pending() -> u32 {
    let word = &PENDING[this_cpu().0 as usize].0;
    if word.load(Ordering::Relaxed) == 0 {
        return 0;
    }
    word.swap(0, Ordering::Acquire) // pairs with `note`
}

/// Whether [`take_pending`] would give something.
#[inline]
pub fn is_pending() -> bool {
    Pending::here().is_some()
}

/// What has happened to one CPU, so that it need not be looked for each time.
#[derive(Clone, Copy)]
pub struct Pending(&'static AtomicU32);

impl Pending {
    /// That of the CPU that executes this.
    pub fn here() -> Self {
        Self(&PENDING[this_cpu().0 as usize].0)
    }

    /// As [`is_pending`] on that CPU.
    #[inline]
    pub fn is_some(self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// Whether there is nothing but [`pending::LOOK`], which is taken back then.
    #[inline]
    pub fn was_a_look(self) -> bool {
        self.0.compare_exchange(pending::LOOK, 0, Ordering::Acquire, Ordering::Relaxed).is_ok() // pairs with `note`
    }
}

/// Notes something for a CPU without interrupting it. Sequentially consistent: who then looks, so too, where that CPU is needs no
/// fence between.
#[inline]
pub fn note(cpu: CpuId, what: u32) {
    PENDING[cpu.0 as usize].0.fetch_or(what, Ordering::SeqCst); // its release pairs with `take_pending`
}

/// Interrupts another CPU, which then looks at what is noted for it.
#[inline]
pub fn interrupt(cpu: CpuId) {
    lapic::send(cpu, NUDGE);
}

/// Tells another CPU, which is in a guest, that something was posted for that. Elsewhere it comes to nothing.
pub fn notify(cpu: CpuId) {
    lapic::send(cpu, POSTED);
}

/// Sleeps until an interrupt has been taken, or, `by_mwait`, something is noted for this CPU; not at all if something is already.
pub fn wait(by_mwait: bool) {
    idle::wait_for(&PENDING[this_cpu().0 as usize].0, by_mwait);
}

/// Has this CPU, whose interrupts are masked, leave the guest at once when it enters.
pub fn nudge() {
    lapic::send(this_cpu(), NUDGE);
}

/// The handler of every interrupt vector.
#[inline]
pub fn dispatch(vector: u8) {
    let what = match vector {
        TIMER => pending::TIMER,
        SERIAL => pending::CONSOLE,
        SPURIOUS => return,
        NUDGE | POSTED => 0,
        _ => 0, // a stray interrupt of firmware's making: acknowledged, and no more
    };
    if what != 0 {
        note(this_cpu(), what);
    }
    lapic::end_of_interrupt();
}
