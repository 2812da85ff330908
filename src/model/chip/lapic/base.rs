//! IA32_APIC_BASE, MSR 0x1b: where the registers are, and in which of three modes (SDM 3A 10.4.4, 10.12.5).
//!
//! ```text
//!   Disabled <----> XApic ----> X2Apic
//!       ^------------------------'
//! ```
//! Every other change of mode is `#GP`. Switching off forgets all state.

use super::{Gp, Lapic, Mode};
use crate::addr::{GuestPhys, PAGE_SIZE};

const BSP: u64 = 1 << 8;
const EXTD: u64 = 1 << 10;
const ENABLE: u64 = 1 << 11;
/// Where the register page is after reset.
const DEFAULT_ADDRESS: u64 = 0xfee0_0000;

/// The MSR's value after power-up.
pub(super) fn reset(bsp: bool) -> u64 {
    DEFAULT_ADDRESS | ENABLE | if bsp { BSP } else { 0 }
}

/// Whether this value of the MSR has the APIC on.
pub fn base_is_on(base: u64) -> bool {
    base & ENABLE != 0
}

fn mode_of(base: u64) -> Option<Mode> {
    match (base & ENABLE != 0, base & EXTD != 0) {
        (false, false) => Some(Mode::Disabled),
        (true, false) => Some(Mode::XApic),
        (true, true) => Some(Mode::X2Apic),
        (false, true) => None,
    }
}

impl Lapic {
    /// The mode that IA32_APIC_BASE selects.
    pub fn mode(&self) -> Mode {
        mode_of(self.base).unwrap_or(Mode::Disabled)
    }

    /// Reads IA32_APIC_BASE.
    pub fn apic_base(&self) -> u64 {
        self.base
    }

    /// Writes IA32_APIC_BASE. `#GP` for a reserved bit and for a change of mode that does not exist.
    pub fn set_apic_base(&mut self, value: u64) -> Result<(), Gp> {
        if value & !self.base_bits() != 0 {
            return Err(Gp);
        }
        let to = mode_of(value).ok_or(Gp)?;
        match (self.mode(), to) {
            (Mode::X2Apic, Mode::XApic) | (Mode::Disabled, Mode::X2Apic) => return Err(Gp),
            (Mode::XApic | Mode::X2Apic, Mode::Disabled) => self.init(),
            _ => {}
        }
        self.base = value;
        Ok(())
    }

    /// The register page, in xAPIC mode.
    pub fn mmio_base(&self) -> Option<GuestPhys> {
        (self.mode() == Mode::XApic).then(|| GuestPhys::new(self.base & self.address_bits()))
    }

    fn address_bits(&self) -> u64 {
        let width = u32::from(self.config.phys_bits).clamp(32, 52);
        (1 << width) - PAGE_SIZE
    }

    fn base_bits(&self) -> u64 {
        self.address_bits() | ENABLE | BSP | if self.config.x2apic { EXTD } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, lapic};
    use super::super::{Config, Gp, Lapic, Mode};
    use super::*;

    const OFF: u64 = DEFAULT_ADDRESS;
    const XAPIC: u64 = DEFAULT_ADDRESS | ENABLE;
    const X2APIC: u64 = XAPIC | EXTD;

    fn after(steps: &[u64]) -> Lapic {
        let mut apic = lapic(1);
        for &step in steps {
            apic.set_apic_base(step).expect("a legal step");
        }
        apic
    }

    #[test]
    fn power_up_is_xapic_mode_at_the_default_page() {
        assert_eq!(lapic(1).apic_base(), 0xfee0_0800);
        assert_eq!(Lapic::new(Config { bsp: true, ..config(0) }).apic_base(), 0xfee0_0900);
        assert_eq!(lapic(1).mmio_base(), Some(GuestPhys::new(0xfee0_0000)));
    }

    #[test]
    fn legal_changes_of_mode_are_taken() {
        assert_eq!(after(&[XAPIC]).mode(), Mode::XApic);
        assert_eq!(after(&[X2APIC]).mode(), Mode::X2Apic);
        assert_eq!(after(&[X2APIC, X2APIC]).mode(), Mode::X2Apic);
        assert_eq!(after(&[X2APIC, OFF]).mode(), Mode::Disabled);
        assert_eq!(after(&[OFF, OFF, XAPIC, X2APIC]).mode(), Mode::X2Apic);
        assert_eq!(after(&[X2APIC]).mmio_base(), None);
    }

    #[test]
    fn illegal_changes_of_mode_fault_and_change_nothing() {
        for (steps, bad) in
            [(&[OFF][..], X2APIC), (&[X2APIC], XAPIC), (&[], OFF | EXTD), (&[OFF], OFF | EXTD), (&[X2APIC], OFF | EXTD)]
        {
            let mut apic = after(steps);
            let before = apic.apic_base();
            assert_eq!(apic.set_apic_base(bad), Err(Gp));
            assert_eq!(apic.apic_base(), before);
        }
    }

    #[test]
    fn reserved_bits_of_the_base_fault() {
        for bit in [0, 7, 9, 39, 63] {
            assert_eq!(lapic(0).set_apic_base(XAPIC | 1 << bit), Err(Gp), "bit {bit}");
        }
        let mut plain = Lapic::new(Config { x2apic: false, ..config(0) });
        assert_eq!(plain.set_apic_base(X2APIC), Err(Gp));
    }

    #[test]
    fn the_register_page_can_be_moved() {
        assert_eq!(after(&[0x10_0000_0000 | ENABLE]).mmio_base(), Some(GuestPhys::new(0x10_0000_0000)));
    }
}
