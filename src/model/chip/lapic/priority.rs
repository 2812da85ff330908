//! What is pending, what is in service, and which of it may interrupt (SDM 3A 10.8).
//!
//! ```text
//!   accept -> IRR -- highest_pending --> acknowledge -> ISR -- EOI --> done
//! ```
//! A vector's upper four bits are its class. It may interrupt when its class is above that of the processor
//! priority, which is the larger of TPR's class and the class in service.

use super::ipi::{Trigger, Wakeup};
use super::lvt::error;
use super::{Effect, Gp, Lapic, Mode};

fn class(vector: u8) -> u8 {
    vector >> 4
}

impl Lapic {
    /// Takes in an interrupt. A software-disabled APIC drops it; a vector below 16 is an error.
    pub fn accept(&mut self, vector: u8, trigger: Trigger) -> Wakeup {
        if !self.is_enabled() {
            return Wakeup::None;
        }
        if vector < 16 {
            self.record_error(error::RECEIVE_ILLEGAL_VECTOR);
            return Wakeup::None;
        }
        self.irr.insert(vector);
        self.tmr.set(vector, trigger == Trigger::Level);
        Wakeup::Interrupt
    }

    /// The processor priority register.
    pub fn ppr(&self) -> u8 {
        let in_service = self.isr.highest().unwrap_or(0);
        if class(self.tpr) >= class(in_service) { self.tpr } else { in_service & 0xf0 }
    }

    /// The vector that may interrupt the processor now, if its flags allow.
    pub fn highest_pending(&self) -> Option<u8> {
        if self.mode() == Mode::Disabled {
            return None;
        }
        self.irr.highest().filter(|&vector| class(vector) > class(self.ppr()))
    }

    /// The processor takes this vector: it moves from IRR to ISR. Answers whether it was pending.
    pub fn acknowledge(&mut self, vector: u8) -> bool {
        let pending = self.irr.contains(vector);
        if pending {
            self.irr.remove(vector);
            self.isr.insert(vector);
        }
        pending
    }

    /// Ends the interrupt of the highest priority in service.
    pub(super) fn eoi(&mut self) -> Effect {
        let Some(vector) = self.isr.highest() else {
            return Effect::None;
        };
        self.isr.remove(vector);
        if !self.tmr.contains(vector) {
            return Effect::None;
        }
        self.end_level(vector);
        Effect::EoiBroadcast(vector)
    }

    /// CR8: the class of TPR (SDM 3A 10.8.6).
    pub fn cr8(&self) -> u8 {
        class(self.tpr)
    }

    /// The task priority register.
    pub fn tpr(&self) -> u8 {
        self.tpr
    }

    /// Takes over a task priority that the guest has set without an exit.
    pub fn set_tpr(&mut self, tpr: u8) {
        self.tpr = tpr;
    }

    /// Writes CR8. `#GP` for a value above 15.
    pub fn set_cr8(&mut self, value: u64) -> Result<(), Gp> {
        match value.to_le_bytes() {
            [class @ 0..=15, 0, 0, 0, 0, 0, 0, 0] => {
                self.tpr = class << 4;
                Ok(())
            }
            _ => Err(Gp),
        }
    }

    /// The value of CR8 below which something that TPR alone holds back may interrupt; zero when there is none.
    ///
    /// Never above [`Lapic::cr8`], as VT-x wants its TPR threshold (SDM 3C 26.2.1.1).
    pub fn cr8_threshold(&self) -> u8 {
        let in_service = self.isr.highest().map_or(0, class);
        match self.irr.highest().map(class) {
            Some(pending) if pending > in_service && pending <= self.cr8() => pending,
            _ => 0,
        }
    }
}
