//! The registers by number: a sixteenth of the xAPIC offset, or the MSR's number less 0x800 (SDM 3A table 10-6).

use super::lvt::{self, Lvt};
use super::{Effect, Lapic, Mode, Now, Trigger};

pub(super) const ID: u8 = 0x02;
pub(super) const VERSION: u8 = 0x03;
pub(super) const TPR: u8 = 0x08;
pub(super) const APR: u8 = 0x09;
pub(super) const PPR: u8 = 0x0a;
pub(super) const EOI: u8 = 0x0b;
pub(super) const RRD: u8 = 0x0c;
pub(super) const LDR: u8 = 0x0d;
pub(super) const DFR: u8 = 0x0e;
pub(super) const SVR: u8 = 0x0f;
pub(super) const ISR: u8 = 0x10;
pub(super) const ISR_LAST: u8 = 0x17;
pub(super) const TMR: u8 = 0x18;
pub(super) const TMR_LAST: u8 = 0x1f;
pub(super) const IRR: u8 = 0x20;
pub(super) const IRR_LAST: u8 = 0x27;
pub(super) const ESR: u8 = 0x28;
pub(super) const ICR: u8 = 0x30;
pub(super) const ICR_HIGH: u8 = 0x31;
pub(super) const LVT_TIMER: u8 = 0x32;
pub(super) const LVT_ERROR: u8 = 0x37;
pub(super) const INITIAL_COUNT: u8 = 0x38;
pub(super) const CURRENT_COUNT: u8 = 0x39;
pub(super) const DIVIDE: u8 = 0x3e;
pub(super) const SELF_IPI: u8 = 0x3f;

/// Version 0x14 with six LVT entries, as Xen's `VLAPIC_VERSION`.
const VERSION_VALUE: u32 = 0x0005_0014;
/// SVR after reset: software-disabled, spurious vector 0xff.
pub(super) const SVR_RESET: u32 = 0xff;
/// SVR's software-enable bit.
pub(super) const SVR_ENABLE: u32 = 1 << 8;
/// Bits of SVR that exist.
pub(super) const SVR_BITS: u32 = 0x1ff;

/// The LVT entry that a register is, if it is one.
pub(super) fn lvt_entry(register: u8) -> Option<Lvt> {
    let index = register.checked_sub(LVT_TIMER)?;
    lvt::IN_ORDER.get(usize::from(index)).copied()
}

impl Lapic {
    /// A register that reads the same in both modes; `None` where there is none to read.
    pub(super) fn get(&self, register: u8, now: Now) -> Option<u32> {
        Some(match register {
            ID => self.id_register(),
            VERSION => VERSION_VALUE,
            TPR => u32::from(self.tpr),
            PPR => u32::from(self.ppr()),
            LDR => self.ldr_register(),
            SVR => self.svr,
            ISR..=ISR_LAST => self.isr.word(register - ISR),
            TMR..=TMR_LAST => self.tmr.word(register - TMR),
            IRR..=IRR_LAST => self.irr.word(register - IRR),
            ESR => self.esr,
            INITIAL_COUNT => self.initial_count(),
            CURRENT_COUNT => self.current_count(now),
            DIVIDE => self.divide(),
            _ => self.lvt(lvt_entry(register)?),
        })
    }

    /// Writes a register that acts the same in both modes, dropping reserved bits; `None` where there is none
    /// to write.
    pub(super) fn put(&mut self, register: u8, value: u32, now: Now) -> Option<Effect> {
        match register {
            TPR => self.tpr = value.to_le_bytes()[0],
            EOI => return Some(self.eoi()),
            SVR => self.set_svr(value),
            ESR => self.esr = core::mem::take(&mut self.errors),
            LVT_TIMER => self.set_timer_lvt(value, now),
            INITIAL_COUNT => self.set_initial_count(value, now),
            DIVIDE => self.set_divide(value, now),
            _ => self.set_lvt(lvt_entry(register)?, value),
        }
        Some(Effect::None)
    }

    fn set_svr(&mut self, value: u32) {
        self.svr = value & SVR_BITS;
        if self.svr & SVR_ENABLE == 0 {
            self.mask_all_lvt();
        }
    }

    fn id_register(&self) -> u32 {
        match self.mode() {
            Mode::X2Apic => self.id(),
            _ => self.id() << 24,
        }
    }

    /// LDR: what was written in xAPIC mode, derived from the id in x2APIC mode (SDM 3A 10.12.10.2).
    pub(super) fn ldr_register(&self) -> u32 {
        match self.mode() {
            Mode::X2Apic => (self.id() >> 4) << 16 | 1 << (self.id() & 0xf),
            _ => self.ldr,
        }
    }

    /// The self-IPI register: an edge to oneself.
    pub(super) fn self_ipi(&mut self, vector: u8) {
        if vector < 16 {
            self.record_error(lvt::error::SEND_ILLEGAL_VECTOR);
        } else {
            self.accept(vector, Trigger::Edge);
        }
    }
}
