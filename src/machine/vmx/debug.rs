//! Debug registers: DR7 is in the VMCS; the others the processor has once the guest has used them.

use model::debug::{self, DR6_RESET, OnDemand};
use model::regs::Regs;

use super::event::{self, Info, kind};
use super::features::primary;
use super::vmcs::{self, VmcsField};
use super::{Vcpu, exit};
use crate::cpu;

/// DR0 to DR3, and DR6.
pub(super) type Registers = OnDemand<5>;

/// As after reset.
pub(super) const RESET: Registers = OnDemand::new([0, 0, 0, 0, DR6_RESET]);

impl Vcpu {
    /// Part of [`crate::virt::Virt::load`].
    #[inline(always)]
    pub(super) fn load_debug(&mut self) {
        if let Some(registers) = self.debug.load() {
            put_in(registers);
        }
    }

    /// The guest accesses one.
    #[cold]
    pub(super) fn demand_debug(&mut self) {
        if let Some(registers) = self.debug.demand() {
            put_in(registers);
            self.choose_debug_exits();
        }
    }

    /// Part of [`crate::virt::Virt::unload`].
    #[inline(always)]
    pub(super) fn unload_debug(&mut self) {
        if self.debug.is_in() {
            self.take_debug();
        }
    }

    /// DR6 is left as a PV guest's next debug exception must find it.
    #[cold]
    fn take_debug(&mut self) {
        let ([dr0, dr1, dr2, dr3], dr6) = (cpu::debug::addresses(), cpu::debug::status());
        cpu::debug::set_status(DR6_RESET);
        self.debug.unload([dr0, dr1, dr2, dr3, dr6], vmcs::read(VmcsField::GUEST_DR7));
        self.choose_debug_exits();
    }

    fn choose_debug_exits(&mut self) {
        let exits = if self.debug.exits() { primary::MOV_DR } else { 0 };
        self.set_primary(self.primary & !primary::MOV_DR | exits);
    }

    /// Does to the guest what the delivery of #DB does beside the jump: DR6 tells why, DR7.GD ends, and after
    /// INT1, which is a trap, RIP is past the instruction.
    pub(super) fn debug_exception(&mut self, info: Info, regs: &mut Regs) {
        const GENERAL_DETECT: u64 = 1 << 13;
        self.demand_debug();
        let dr7 = vmcs::read(VmcsField::GUEST_DR7);
        cpu::debug::set_status(noted(cpu::debug::status(), debug::reported(exit::qualification(), dr7)));
        vmcs::write_guest(VmcsField::GUEST_DR7, dr7 & !GENERAL_DETECT);
        if let (kind::PRIVILEGED_SOFT_EXCEPTION, Some(len)) = (info.kind(), exit::length()) {
            self.skip_instruction(regs, len);
        }
        event::keep_single_step(regs.rflags);
    }
}

fn put_in([dr0, dr1, dr2, dr3, dr6]: [u64; 5]) {
    cpu::debug::set_addresses([dr0, dr1, dr2, dr3]);
    cpu::debug::set_status(dr6);
}

/// DR6 with what an intercepted debug exception found, as its delivery would have left it (SDM 3B 17.2.3; 3C table 27-1).
fn noted(dr6: u64, qualification: u64) -> u64 {
    const FOUND: u64 = 0xf | 1 << 13 | 1 << 14;
    dr6 & !0xf | qualification & FOUND | DR6_RESET
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debug_exception_replaces_the_breakpoints_of_dr6_and_adds_the_rest() {
        assert_eq!(noted(DR6_RESET | 0x4005, 0x2002), DR6_RESET | 0x6002);
        assert_eq!(noted(DR6_RESET, 0x1_4000_4000), DR6_RESET | 0x4000);
    }
}
