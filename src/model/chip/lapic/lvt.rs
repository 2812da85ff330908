//! The local vector table, the error status register and the LINT pins (SDM 3A 10.5.1 to 10.5.3).

use super::ipi::{DeliveryMode, Trigger, Wakeup};
use super::{Lapic, Mode};

/// An entry of the local vector table, in register order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lvt {
    /// The timer, which [`Lapic::expire`] raises.
    Timer = 0,
    /// Thermal sensor.
    Thermal = 1,
    /// Performance counters.
    Performance = 2,
    /// Pin LINT0: INTR.
    Lint0 = 3,
    /// Pin LINT1: NMI.
    Lint1 = 4,
    /// Errors of the APIC itself.
    Error = 5,
}

/// How many entries there are.
pub(super) const COUNT: usize = 6;

/// Entries in register order, from register 0x32.
pub(super) const IN_ORDER: [Lvt; COUNT] =
    [Lvt::Timer, Lvt::Thermal, Lvt::Performance, Lvt::Lint0, Lvt::Lint1, Lvt::Error];

/// The mask bit, which is also the value after reset.
pub(super) const MASKED: u32 = 1 << 16;
const VECTOR: u32 = 0xff;
const MODE: u32 = 7 << 8;
const DELIVERY_STATUS: u32 = 1 << 12;
const POLARITY: u32 = 1 << 13;
const REMOTE_IRR: u32 = 1 << 14;
const LEVEL: u32 = 1 << 15;
const TIMER_PERIODIC: u32 = 1 << 17;
const TIMER_DEADLINE: u32 = 1 << 18;

/// Bits of ESR (SDM 3A figure 10-9).
pub(super) mod error {
    pub(in super::super) const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
    pub(in super::super) const RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
    pub(in super::super) const ILLEGAL_REGISTER: u32 = 1 << 7;
}

impl Lvt {
    fn index(self) -> usize {
        self as usize
    }

    fn writable(self, tsc_deadline: bool) -> u32 {
        match self {
            Lvt::Timer => VECTOR | MASKED | TIMER_PERIODIC | if tsc_deadline { TIMER_DEADLINE } else { 0 },
            Lvt::Thermal | Lvt::Performance => VECTOR | MODE | MASKED,
            Lvt::Lint0 | Lvt::Lint1 => VECTOR | MODE | POLARITY | LEVEL | MASKED,
            Lvt::Error => VECTOR | MASKED,
        }
    }

    /// Bits that exist, written or only read: what an x2APIC write may hold.
    pub(super) fn defined(self, tsc_deadline: bool) -> u32 {
        let read_only = if matches!(self, Lvt::Lint0 | Lvt::Lint1) { REMOTE_IRR } else { 0 };
        self.writable(tsc_deadline) | DELIVERY_STATUS | read_only
    }
}

impl Lapic {
    pub(super) fn lvt(&self, entry: Lvt) -> u32 {
        self.lvt[entry.index()]
    }

    /// Writes an entry. A software-disabled APIC keeps every mask bit set (SDM 3A 10.4.7.2).
    pub(super) fn set_lvt(&mut self, entry: Lvt, value: u32) {
        let kept = self.lvt[entry.index()] & REMOTE_IRR;
        let forced = if self.is_enabled() { 0 } else { MASKED };
        self.lvt[entry.index()] = value & entry.writable(self.config.tsc_deadline) | kept | forced;
    }

    pub(super) fn mask_all_lvt(&mut self) {
        for entry in &mut self.lvt {
            *entry |= MASKED;
        }
    }

    /// An event at this entry: what it holds is delivered, unless it is masked. On a switched-off APIC the
    /// two pins are the processor's INTR and NMI.
    pub fn raise(&mut self, entry: Lvt) -> Wakeup {
        if self.mode() == Mode::Disabled {
            return match entry {
                Lvt::Lint0 => Wakeup::ExtInt,
                Lvt::Lint1 => Wakeup::Nmi,
                _ => Wakeup::None,
            };
        }
        let value = self.lvt(entry);
        if value & MASKED != 0 {
            return Wakeup::None;
        }
        let [vector, ..] = value.to_le_bytes();
        match mode_of(entry, value) {
            DeliveryMode::FIXED => self.raise_fixed(entry, vector),
            DeliveryMode::NMI => Wakeup::Nmi,
            DeliveryMode::INIT => Wakeup::Init,
            DeliveryMode::EXT_INT => Wakeup::ExtInt,
            _ => Wakeup::None,
        }
    }

    fn raise_fixed(&mut self, entry: Lvt, vector: u8) -> Wakeup {
        // LINT1 knows edges only (SDM 3A 10.5.1).
        if entry == Lvt::Lint0 && self.lvt(entry) & LEVEL != 0 {
            if self.lvt(entry) & REMOTE_IRR != 0 {
                return Wakeup::None;
            }
            self.lvt[entry.index()] |= REMOTE_IRR;
            return self.accept(vector, Trigger::Level);
        }
        self.accept(vector, Trigger::Edge)
    }

    /// LINT0 may deliver its level again once its vector has ended.
    pub(super) fn end_level(&mut self, vector: u8) {
        let entry = &mut self.lvt[Lvt::Lint0.index()];
        if entry.to_le_bytes()[0] == vector {
            *entry &= !REMOTE_IRR;
        }
    }

    /// Notes an error for ESR, and raises the error entry when it is new.
    pub(super) fn record_error(&mut self, bits: u32) {
        if self.errors & bits == bits {
            return;
        }
        self.errors |= bits;
        let entry = self.lvt(Lvt::Error);
        let [vector, ..] = entry.to_le_bytes();
        if entry & MASKED == 0 && vector < 16 {
            self.errors |= error::RECEIVE_ILLEGAL_VECTOR;
        } else {
            self.raise(Lvt::Error);
        }
    }
}

/// Entries without a delivery-mode field are fixed.
fn mode_of(entry: Lvt, value: u32) -> DeliveryMode {
    match entry {
        Lvt::Timer | Lvt::Error => DeliveryMode::FIXED,
        _ => DeliveryMode::from_bits(value),
    }
}

impl Lapic {
    /// Periodic and TSC-deadline bits of the timer's entry.
    pub(super) fn timer_is_periodic(&self) -> bool {
        self.lvt(Lvt::Timer) & TIMER_PERIODIC != 0
    }

    pub(super) fn timer_is_deadline(&self) -> bool {
        self.lvt(Lvt::Timer) & (TIMER_DEADLINE | TIMER_PERIODIC) == TIMER_DEADLINE
    }
}
