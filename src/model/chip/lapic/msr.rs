//! x2APIC mode: registers as MSRs 0x800 to 0x83f (SDM 3A 10.12.1 to 10.12.3).
//!
//! What is wrong with an access here is `#GP`, never a bit of ESR: another mode, a register that is not there
//! or not for this direction, a reserved bit.

use super::ipi::{ICR_BITS, low_half};
use super::register::{
    DIVIDE, EOI, ESR, ICR, INITIAL_COUNT, LVT_ERROR, LVT_TIMER, SELF_IPI, SVR, SVR_BITS, TPR, lvt_entry,
};
use super::{Effect, Gp, Lapic, Mode, Now};

/// Number of the first register's MSR.
const FIRST: u32 = 0x800;

impl Lapic {
    /// Whether this MSR is in the range of the x2APIC's registers.
    pub fn owns_msr(msr: u32) -> bool {
        (FIRST..FIRST + 0x100).contains(&msr)
    }

    /// RDMSR of a register.
    pub fn read_msr(&self, msr: u32, now: Now) -> Result<u64, Gp> {
        match self.msr_register(msr)? {
            ICR => Ok(self.icr),
            register => self.get(register, now).map(u64::from).ok_or(Gp),
        }
    }

    /// WRMSR of a register.
    pub fn write_msr(&mut self, msr: u32, value: u64, now: Now) -> Result<Effect, Gp> {
        let register = self.msr_register(msr)?;
        if register == ICR {
            if low_half(value) & !ICR_BITS != 0 {
                return Err(Gp);
            }
            self.icr = value;
            return Ok(self.send(value));
        }
        let value = u32::try_from(value).map_err(|_| Gp)?;
        if value & !self.writable_bits(register)? != 0 {
            return Err(Gp);
        }
        if register == SELF_IPI {
            self.self_ipi(value.to_le_bytes()[0]);
            return Ok(Effect::None);
        }
        self.put(register, value, now).ok_or(Gp)
    }

    fn msr_register(&self, msr: u32) -> Result<u8, Gp> {
        if self.mode() != Mode::X2Apic {
            return Err(Gp);
        }
        msr.checked_sub(FIRST).and_then(|n| u8::try_from(n).ok()).ok_or(Gp)
    }

    /// The bits that a write of a register may set.
    fn writable_bits(&self, register: u8) -> Result<u32, Gp> {
        Ok(match register {
            TPR | SELF_IPI => 0xff,
            EOI | ESR => 0,
            SVR => SVR_BITS,
            INITIAL_COUNT => u32::MAX,
            DIVIDE => 0xb,
            LVT_TIMER..=LVT_ERROR => lvt_entry(register).ok_or(Gp)?.defined(self.config.tsc_deadline),
            _ => return Err(Gp),
        })
    }
}
