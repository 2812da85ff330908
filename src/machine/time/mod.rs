//! Time: the TSC, calibrated once against a counter of known rate, as nanoseconds since boot.
//!
//! All CPUs' TSCs are taken to run as one, as they do after a common reset on every processor with an invariant
//! TSC and in the emulators that Euxen is tested on.

mod reference;
pub mod rtc;

use core::sync::atomic::{AtomicU64, Ordering};

use crate::acpi::Topology;
use crate::cpu;
use crate::irq::lapic;

unsafe extern "C" {
    static boot_tsc: u64;
}

static TSC_HZ: AtomicU64 = AtomicU64::new(1_000_000_000);
/// Nanoseconds of a tick, times 2^32.
static NS_PER_TICK: AtomicU64 = AtomicU64::new(1 << 32);

/// Milliseconds that calibration waits.
const CALIBRATION_MS: u64 = 10;

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

/// The TSC at this many nanoseconds since boot.
pub fn tsc_at(ns: u64) -> u64 {
    let ticks = u128::from(ns) * u128::from(tsc_hz()) / 1_000_000_000;
    boot().wrapping_add(u64::try_from(ticks).unwrap_or(u64::MAX >> 1))
}

/// Waits.
pub fn delay_us(us: u64) {
    let end = cpu::rdtsc() + us * tsc_hz() / 1_000_000;
    while cpu::rdtsc() < end {
        cpu::relax();
    }
}

/// Raises this CPU's timer interrupt at `ns` since boot, or lets it rest.
pub fn set_deadline(ns: Option<u64>) {
    match ns {
        Some(ns) => lapic::set_deadline(tsc_at(ns), ns.saturating_sub(now())),
        None => lapic::clear_deadline(),
    }
}

/// Finds out how fast the TSC counts, and the local APIC's timer where deadlines are not TSC values. Gives back what
/// it was measured against.
pub fn calibrate(topology: &Topology) -> &'static str {
    let counter = reference::Counter::best(topology);
    let mut ticks = 0;
    let timer = lapic::measure(|| ticks = counter.ticks_during(CALIBRATION_MS));
    let hz = ticks * (1000 / CALIBRATION_MS);
    if hz > 0 {
        TSC_HZ.store(hz, Ordering::Relaxed);
        let scale = (1_000_000_000u128 << 32) / u128::from(hz);
        NS_PER_TICK.store(scale as u64, Ordering::Relaxed);
    }
    lapic::set_timer_hz(timer.saturating_mul((1000 / CALIBRATION_MS) as u32));
    counter.name()
}
