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
/// Nanoseconds of a tick, and ticks of a nanosecond, times 2^32.
static NS_PER_TICK: AtomicU64 = AtomicU64::new(1 << 32);
static TICKS_PER_NS: AtomicU64 = AtomicU64::new(1 << 32);

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
        let scale = (u128::from(hz) << 32) / 1_000_000_000;
        TICKS_PER_NS.store(scale as u64, Ordering::Relaxed);
    }
    lapic::set_timer_hz(timer.saturating_mul((1000 / CALIBRATION_MS) as u32));
    counter.name()
}
