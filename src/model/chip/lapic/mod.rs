//! The local APIC of one virtual CPU (SDM 3A chapter 10; APM 2 chapter 16).
//!
//! The state is pure: an access or a message comes in, what follows for others goes out as an [`Effect`] or
//! a [`Wakeup`], and time is the argument [`Now`]. After every access or message the caller asks again for
//! [`Lapic::highest_pending`] (what to inject) and [`Lapic::next_deadline`] (when to call [`Lapic::expire`]).
//!
//! As in Xen the timer counts a bus of 100 MHz (10 ns a cycle, `APIC_BUS_CYCLE_NS`) and there are six LVT
//! entries: no CMCI, no suppression of EOI broadcasts.
//!
//! | file | what it holds |
//! |---|---|
//! | `base` | IA32_APIC_BASE: off, xAPIC, x2APIC |
//! | `mmio`, `msr` | the two ways in which a guest reaches the registers |
//! | `register` | the registers themselves, by number |
//! | `lvt` | local vector table, error status, LINT pins |
//! | `ipi` | the interrupt command register, destinations, messages |
//! | `priority` | IRR, ISR, TMR, TPR, PPR, EOI |
//! | `handover`, `posted` | the same where the processor has them; how they come there |
//! | `timer` | the three timer modes |

mod base;
mod handover;
mod ipi;
mod lvt;
mod mmio;
mod msr;
mod posted;
mod priority;
mod register;
#[cfg(test)]
mod tests;
mod timer;
mod vectors;

pub use base::base_is_on;
pub use ipi::{DeliveryMode, Destination, Ipi, Message, Shorthand, Trigger, Wakeup, lowest_priority};
pub use lvt::Lvt;
pub use posted::Posted;
pub use timer::{BUS_CYCLE_NS, Deadline, MIN_PERIOD_NS, Now};

use timer::Timer;
use vectors::VectorSet;

/// The access is `#GP(0)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gp;

/// What a register write asks of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Effect {
    /// Nothing.
    None,
    /// Send this to other local APICs.
    Ipi(Ipi),
    /// Tell the I/O APICs that this level-triggered vector has ended.
    EoiBroadcast(u8),
}

/// In which of its three states the APIC is (SDM 3A table 10-5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Switched off by IA32_APIC_BASE.
    Disabled,
    /// Registers in memory.
    XApic,
    /// Registers as MSRs.
    X2Apic,
}

/// What stays the same over the APIC's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The APIC id, as CPUID leaf 0xb and the MADT give it.
    pub id: u32,
    /// The bootstrap processor.
    pub bsp: bool,
    /// The guest's CPUID offers x2APIC.
    pub x2apic: bool,
    /// The guest's CPUID offers the TSC-deadline timer.
    pub tsc_deadline: bool,
    /// Width of a guest-physical address in bits (CPUID 0x80000008 EAX).
    pub phys_bits: u8,
}

/// A local APIC.
#[derive(Clone, Debug)]
pub struct Lapic {
    config: Config,
    /// IA32_APIC_BASE: always one of the legal combinations of its two enable bits.
    base: u64,
    tpr: u8,
    /// Bits 31 to 24 of LDR in xAPIC mode; x2APIC mode derives its own.
    ldr: u32,
    dfr: u32,
    svr: u32,
    isr: VectorSet,
    tmr: VectorSet,
    irr: VectorSet,
    /// Errors as of the last write to ESR.
    esr: u32,
    /// Errors since then.
    errors: u32,
    icr: u64,
    lvt: [u32; lvt::COUNT],
    timer: Timer,
}

impl Lapic {
    /// An APIC after power-up: xAPIC mode at 0xfee00000, software-disabled.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            base: base::reset(config.bsp),
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: register::SVR_RESET,
            isr: VectorSet::EMPTY,
            tmr: VectorSet::EMPTY,
            irr: VectorSet::EMPTY,
            esr: 0,
            errors: 0,
            icr: 0,
            lvt: [lvt::MASKED; lvt::COUNT],
            timer: Timer::STOPPED,
        }
    }

    /// The state after INIT: as after power-up, but IA32_APIC_BASE is kept (SDM 3A 10.4.7.3, 10.12.5.1).
    pub fn init(&mut self) {
        *self = Self { base: self.base, ..Self::new(self.config) };
    }

    /// The APIC id.
    pub fn id(&self) -> u32 {
        self.config.id
    }

    /// Whether SVR bit 8 and IA32_APIC_BASE both enable it.
    pub fn is_enabled(&self) -> bool {
        self.mode() != Mode::Disabled && self.svr & register::SVR_ENABLE != 0
    }

    /// The vector of a spurious interrupt.
    pub fn spurious_vector(&self) -> u8 {
        self.svr.to_le_bytes()[0]
    }
}
