//! Counters whose rate is known: HPET, ACPI PM timer, 8254.

use model::addr::MachineAddr;
use model::time::Reference;
use x86_64::instructions::port::Port;

use crate::acpi::{self, Topology};
use crate::mem::map::{self, Rights};

/// Reads in which a counter is to move.
const PATIENCE: u32 = 100_000;

/// A counter, and its rate.
pub struct Counter {
    /// Its rate.
    pub reference: Reference,
    source: Source,
}

enum Source {
    /// The HPET's main counter.
    Hpet(*const u32),
    /// The port of the ACPI PM timer.
    PmTimer(u16),
    /// Channel 2 of the 8254.
    Pit,
}

impl Counter {
    /// The best counter of the board that does count.
    pub fn best(topology: &Topology) -> Self {
        let found = topology.references().iter().find_map(|reference| {
            let counter = match *reference {
                acpi::Reference::Hpet(address) => Self::hpet(address)?,
                acpi::Reference::PmTimer { port, is_32_bit } => {
                    Self { reference: Reference::acpi_pm(is_32_bit), source: Source::PmTimer(port) }
                }
            };
            counter.counts().then_some(counter)
        });
        found.unwrap_or_else(Self::pit)
    }

    /// What it is.
    pub fn name(&self) -> &'static str {
        match self.source {
            Source::Hpet(_) => "HPET",
            Source::PmTimer(_) => "ACPI PM timer",
            Source::Pit => "8254",
        }
    }

    /// IA-PC HPET specification 1.0a, 2.3: capabilities at 0, configuration at 0x10, counter at 0xf0, whose lower half is read.
    fn hpet(address: u64) -> Option<Self> {
        let base = map::device(MachineAddr::new(address), 0x400, Rights::DEVICE)?;
        // SAFETY: firmware says that an HPET's registers are here, and they are mapped; turning the counter on raises nothing.
        let period = unsafe {
            let period = base.add(4).cast::<u32>().read_volatile();
            let configuration = base.add(0x10).cast::<u32>();
            configuration.write_volatile(configuration.read_volatile() | 1);
            period
        };
        let reference = Reference::hpet(period, false)?;
        Some(Self { reference, source: Source::Hpet(base.wrapping_add(0xf0).cast()) })
    }

    /// Channel 2 counts down from 65,536 again and again: mode 2, its gate open, the speaker off (8254 data sheet; ports 0x42, 0x43, 0x61).
    fn pit() -> Self {
        // SAFETY: channel 2 drives the speaker alone, which stays silent.
        unsafe {
            let mut gate = Port::<u8>::new(0x61);
            let old = gate.read();
            gate.write(old & !2 | 1);
            Port::<u8>::new(0x43).write(0xb4u8);
            let mut count = Port::<u8>::new(0x42);
            count.write(0u8);
            count.write(0u8);
        }
        Self { reference: Reference::PIT, source: Source::Pit }
    }

    fn counts(&self) -> bool {
        let first = self.read();
        (0..PATIENCE).any(|_| self.read() != first)
    }

    /// What it reads. [`Reference`] knows which bits count.
    pub fn read(&self) -> u64 {
        match self.source {
            // SAFETY: the counter is mapped.
            Source::Hpet(counter) => u64::from(unsafe { counter.read_volatile() }),
            // SAFETY: reading the timer that firmware names changes nothing.
            Source::PmTimer(port) => u64::from(unsafe { Port::<u32>::new(port).read() }),
            Source::Pit => read_pit(),
        }
    }
}

fn read_pit() -> u64 {
    // SAFETY: what channel 2 counts is latched, and read; nothing else is changed.
    unsafe {
        Port::<u8>::new(0x43).write(0x80u8);
        let mut count = Port::<u8>::new(0x42);
        let low: u8 = count.read();
        u64::from(u16::from_le_bytes([low, count.read()]))
    }
}
