//! Time: the TSC, calibrated once against a counter of known rate, as nanoseconds since boot.
//!
//! All CPUs' TSCs are taken to run as one, as they do after a common reset on every processor with an invariant
//! TSC and in the emulators that Euxen is tested on.

mod reference;
pub mod rtc;

use core::sync::atomic::{AtomicU64, Ordering};

use model::time::{Look, Rates};

use crate::acpi::Topology;
use crate::cpu;
use crate::irq::lapic;

unsafe extern "C" {
    static boot_tsc: u64;
}

static TSC_HZ: AtomicU64 = AtomicU64::new(1_000_000_000);
/// Nanoseconds of a tick, and ticks of a nanosecond, times 2^32.
static NS_PER_TICK: AtomicU64 = AtomicU64::new(1 << 32);
static TICKS_PER_NS: AtomicU64 = AtomicU64::new(1 << 32);

/// The TSC at the hypervisor's first instruction.
pub fn boot() -> u64 {
    // SAFETY: written by the entry code, and never again.
    unsafe { boot_tsc }
}

/// Ticks of the TSC in a second.
pub fn tsc_hz() -> u64 {
    TSC_HZ.load(Ordering::Relaxed)
}

/// Nanoseconds since the hypervisor's first instruction, for this value of the TSC.
#[inline]
pub fn at(tsc: u64) -> u64 {
    let ticks = tsc.wrapping_sub(boot());
    ((u128::from(ticks) * u128::from(NS_PER_TICK.load(Ordering::Relaxed))) >> 32) as u64
}

/// Nanoseconds since the hypervisor's first instruction.
#[inline]
pub fn now() -> u64 {
    at(cpu::rdtsc())
}

/// Waits.
pub fn delay_us(us: u64) {
    let end = cpu::rdtsc() + us * tsc_hz() / 1_000_000;
    while cpu::rdtsc() < end {
        cpu::relax();
    }
}

/// The longest time that the timer is set to; then it fires early.
const LONGEST_NS: u64 = 1 << 56;

/// Raises this CPU's timer interrupt at `ns` since boot. It may come a little early.
#[inline]
pub fn set_deadline(ns: u64) {
    let tsc = cpu::rdtsc();
    let left = ns.saturating_sub(at(tsc)).min(LONGEST_NS);
    let ticks = (u128::from(left) * u128::from(TICKS_PER_NS.load(Ordering::Relaxed))) >> 32;
    lapic::set_deadline(tsc + ticks as u64 + 1, left);
}

/// Ticks of a nanosecond, times 2^32.
fn ticks_per_ns(hz: u64) -> u64 {
    ((u128::from(hz) << 32) / 1_000_000_000) as u64
}

/// What [`calibrate`] found.
pub struct Calibration {
    /// What it measured against.
    pub counter: &'static str,
    /// What it measured.
    pub rates: Rates,
}

/// Finds out how fast the TSC counts, and the local APIC's timer where deadlines are not TSC values. `Err` says what stands still.
pub fn calibrate(topology: &Topology) -> Result<Calibration, &'static str> {
    let counter = reference::Counter::best(topology);
    let look = || Look { before: cpu::rdtsc(), counter: counter.read(), timer: lapic::count(), after: cpu::rdtsc() };
    let rates = model::time::calibrate(&counter.reference, lapic::start_count, look);
    lapic::end_count();
    let rates = rates.ok_or("no counter of known rate counts (HPET, ACPI PM timer, 8254), or the TSC stands still")?;
    if rates.timer_hz == 0 && !lapic::has_deadline() {
        return Err("the local APIC's timer stands still");
    }
    TSC_HZ.store(rates.tsc_hz, Ordering::Relaxed);
    let scale = (1_000_000_000u128 << 32) / u128::from(rates.tsc_hz);
    NS_PER_TICK.store(scale as u64, Ordering::Relaxed);
    TICKS_PER_NS.store(ticks_per_ns(rates.tsc_hz), Ordering::Relaxed);
    lapic::set_timer_scale(ticks_per_ns(rates.timer_hz));
    Ok(Calibration { counter: counter.name(), rates })
}
