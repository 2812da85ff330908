//! Where each physical CPU is, in the hypervisor, in a guest or asleep, and how another one has it look at something.
//!
//! A CPU looks at what is noted for it after it has said that it enters a guest or sleeps, and before it does. So one that is in
//! the hypervisor needs no interrupt, nor one that sleeps by MWAIT, which the note itself wakes.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};

use machine::irq::{self, pending};
use machine::percpu::{MAX_CPUS, this_cpu};
use model::ids::CpuId;

use crate::idle;

/// What lies in cache lines of its own, as one CPU writes it often.
#[repr(align(64))]
pub struct Apart<T>(pub T);

/// Of one CPU; written at each entry.
struct Place {
    /// Odd while it is in a guest; goes up at each entry and exit.
    visits: AtomicU64,
    /// [`AWAKE`], or how it sleeps.
    sleep: AtomicU8,
}

const AWAKE: u8 = 0;
const SLEEPS_BY_HLT: u8 = 1;
const SLEEPS_BY_MWAIT: u8 = 2;

static PLACES: [Apart<Place>; MAX_CPUS] =
    [const { Apart(Place { visits: AtomicU64::new(0), sleep: AtomicU8::new(AWAKE) }) }; MAX_CPUS];

/// A CPU's number of visits to guests, so that it need not be looked for each time.
#[derive(Clone, Copy)]
pub struct Visits(&'static AtomicU64);

impl Visits {
    /// Those of the CPU that executes this.
    pub fn here() -> Self {
        Self::of(this_cpu())
    }

    /// Those of a CPU.
    pub fn of(cpu: CpuId) -> Self {
        Self(&PLACES[cpu.0 as usize].0.visits)
    }

    /// This CPU is about to enter a guest: what is read after this is read after other CPUs could see it.
    #[inline]
    pub fn entering(self) {
        self.0.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        fence(Ordering::SeqCst); // pairs with that of who writes something and then looks where this CPU is
    }

    /// This CPU has left the guest, or did not enter after all.
    #[inline]
    pub fn left(self) {
        self.0.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// The visit that the CPU is on, if it is in a guest.
    pub fn current(self) -> Option<u64> {
        let visit = self.0.load(Ordering::Acquire);
        (visit % 2 == 1).then_some(visit)
    }
}

/// Has a CPU ask the scheduler, and look at all else.
pub fn kick(cpu: CpuId) {
    if cpu == this_cpu() {
        irq::note(cpu, pending::KICK);
    } else {
        tell(cpu, pending::KICK);
    }
}

/// Has another CPU look what there is for the virtual CPU that it runs.
#[inline(always)]
pub fn poke(cpu: CpuId) {
    tell(cpu, pending::LOOK);
}

/// Has a CPU that is in a guest take what is posted for that. One that is not looks before it enters.
pub fn notify(cpu: CpuId) {
    fence(Ordering::SeqCst); // pairs with the one in `entering`
    if Visits::of(cpu).0.load(Ordering::Relaxed) % 2 == 1 {
        irq::notify(cpu);
    }
}

/// Notes something for another CPU, and interrupts it if it does not look by itself.
#[inline(always)]
fn tell(cpu: CpuId, what: u32) {
    irq::note(cpu, what);
    let place = &PLACES[cpu.0 as usize].0;
    // Sequentially consistent, as the note is: the pair pairs with the fences in `entering` and `sleep`.
    let is_in_guest = place.visits.load(Ordering::SeqCst) % 2 == 1;
    if is_in_guest || place.sleep.load(Ordering::SeqCst) == SLEEPS_BY_HLT {
        irq::interrupt(cpu);
    }
}

/// Sleeps until an interrupt comes, which is taken, or something is noted for this CPU.
pub fn sleep() {
    let place = &PLACES[this_cpu().0 as usize].0;
    let by_mwait = idle::is_by_mwait();
    place.sleep.store(if by_mwait { SLEEPS_BY_MWAIT } else { SLEEPS_BY_HLT }, Ordering::Relaxed);
    fence(Ordering::SeqCst); // pairs with the one in `tell`
    irq::wait(by_mwait);
    place.sleep.store(AWAKE, Ordering::Relaxed);
}
