//! Vectors that the processor has instead, while it delivers interrupts by itself (SDM 3C 29.2).
//!
//! IRR, ISR, TPR and the interrupt command are in its virtual-APIC page then. They come back for an access that the processor does not
//! carry out, or for good. Meanwhile IRR here is empty but for what was accepted and is not yet posted, and ISR and
//! TPR are as they were then.

use super::register::{ICR, ICR_HIGH, IRR, ISR, TPR};
use super::{Lapic, Mode, Posted, vectors::VectorSet};

impl Lapic {
    /// Posts what was accepted. Whether the virtual CPU is to be told.
    pub fn post(&mut self, posted: &Posted) -> bool {
        let mut is_to_be_told = false;
        while let Some(vector) = self.irr.highest() {
            self.irr.remove(vector);
            is_to_be_told |= posted.post(vector);
        }
        is_to_be_told
    }

    /// Takes the vectors back, from registers by their offsets in the page.
    pub fn take_back(&mut self, register: impl Fn(u16) -> u32) {
        let offset = |number: u8| u16::from(number) << 4;
        self.irr = VectorSet::from_words(|n| register(offset(IRR + n)));
        self.isr = VectorSet::from_words(|n| register(offset(ISR + n)));
        self.tpr = register(offset(TPR)).to_le_bytes()[0];
        if self.mode() == Mode::XApic {
            // An interrupt to itself is among what the processor carries out.
            self.icr = u64::from(register(offset(ICR_HIGH))) << 32 | u64::from(register(offset(ICR)));
        }
    }

    /// Leaves the vectors to who has them in the page. Gives the highest that is requested and the highest in service.
    pub fn hand_over(&mut self) -> (u8, u8) {
        let requested = core::mem::replace(&mut self.irr, VectorSet::EMPTY);
        (requested.highest().unwrap_or(0), self.isr.highest().unwrap_or(0))
    }
}
