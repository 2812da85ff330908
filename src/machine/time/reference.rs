//! Counters whose rate is known: HPET, ACPI PM timer, 8254.

use model::addr::MachineAddr;
use x86_64::instructions::port::Port;

use crate::acpi::{Reference, Topology};
use crate::cpu;
use crate::mem::map::{self, Rights};

/// Ticks of the PM timer in a second (ACPI 6.5 4.8.3.3).
const PM_TIMER_HZ: u64 = 3_579_545;
/// Ticks of the 8254 in a second.
const PIT_HZ: u64 = 1_193_182;
/// Reads after which a counter that stands still is given up.
const PATIENCE: u32 = 10_000_000;

/// A counter that can be waited on.
pub enum Counter {
    /// The HPET: its main counter, and its period in femtoseconds.
    Hpet { counter: *const u32, period_fs: u64 },
    /// The ACPI PM timer: its port and the bits that count.
    PmTimer { port: u16, mask: u32 },
    /// Channel 2 of the 8254.
    Pit,
}

impl Counter {
    /// The best counter of the board that does count.
    pub fn best(topology: &Topology) -> Self {
        let found = topology.references().iter().find_map(|reference| match *reference {
            Reference::Hpet(address) => Self::hpet(address),
            Reference::PmTimer { port, is_32_bit } => {
                Some(Self::PmTimer { port, mask: if is_32_bit { u32::MAX } else { 0xff_ffff } })
            }
        });
        found.filter(Self::counts).unwrap_or(Self::Pit)
    }

    /// What it is.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hpet { .. } => "HPET",
            Self::PmTimer { .. } => "ACPI PM timer",
            Self::Pit => "8254",
        }
    }

    /// IA-PC HPET specification 1.0a, 2.3: capabilities at 0, configuration at 0x10, counter at 0xf0.
    fn hpet(address: u64) -> Option<Self> {
        let base = map::device(MachineAddr::new(address), 0x400, Rights::DEVICE)?;
        // SAFETY: firmware says that an HPET's registers are here, and they are mapped; turning the counter on raises nothing.
        let period = unsafe {
            let period = base.add(4).cast::<u32>().read_volatile();
            let configuration = base.add(0x10).cast::<u32>();
            configuration.write_volatile(configuration.read_volatile() | 1);
            period
        };
        let is_believable = (1..=100_000_000).contains(&period);
        is_believable.then(|| Self::Hpet { counter: base.wrapping_add(0xf0).cast(), period_fs: u64::from(period) })
    }

    fn counts(&self) -> bool {
        let first = self.read();
        (0..100_000).any(|_| self.read() != first)
    }

    fn read(&self) -> u32 {
        match *self {
            // SAFETY: the counter is mapped.
            Self::Hpet { counter, .. } => unsafe { counter.read_volatile() },
            // SAFETY: reading the timer that firmware names changes nothing.
            Self::PmTimer { port, mask } => unsafe { Port::<u32>::new(port).read() & mask },
            Self::Pit => 0,
        }
    }

    /// How far the TSC goes while this counter goes `ms` milliseconds; 0 if the counter stands still.
    pub fn ticks_during(&self, ms: u64) -> u64 {
        let (wanted, mask) = match *self {
            Self::Hpet { period_fs, .. } => (ms * 1_000_000_000_000 / period_fs, u32::MAX),
            Self::PmTimer { mask, .. } => (PM_TIMER_HZ * ms / 1000, mask),
            Self::Pit => return pit_ticks_during(ms),
        };
        let (first, start) = (self.read(), cpu::rdtsc());
        for _ in 0..PATIENCE {
            let passed = u64::from(self.read().wrapping_sub(first) & mask);
            if passed >= wanted {
                // The counter may have gone past: scale to what was asked.
                return (u128::from(cpu::rdtsc() - start) * u128::from(wanted) / u128::from(passed)) as u64;
            }
        }
        0
    }
}

/// One shot of channel 2, whose output is read at bit 5 of port 0x61.
fn pit_ticks_during(ms: u64) -> u64 {
    let count = PIT_HZ * ms / 1000;
    // SAFETY: channel 2 drives the speaker alone, which stays silent (bit 1 of port 0x61 clear).
    unsafe {
        let mut gate = Port::<u8>::new(0x61);
        let old = gate.read() & !3;
        gate.write(old | 1);
        Port::<u8>::new(0x43).write(0xb0u8);
        let mut data = Port::<u8>::new(0x42);
        data.write(count as u8);
        data.write((count >> 8) as u8);
        let start = cpu::rdtsc();
        let is_over = (0..PATIENCE).any(|_| gate.read() & 0x20 != 0);
        let end = cpu::rdtsc();
        gate.write(old);
        if is_over { end - start } else { 0 }
    }
}
