//! Debug registers: DR6 and DR7 are in the control block; DR0 to DR3 the processor has once the guest has used one of all.

use model::debug::{DR6_RESET, OnDemand};

use super::Vcpu;
use crate::cpu;

/// DR0 to DR3.
pub(super) type Registers = OnDemand<4>;

/// As after reset.
pub(super) const RESET: Registers = OnDemand::new([0; 4]);

impl Vcpu {
    /// Part of [`crate::virt::Virt::load`].
    #[inline(always)]
    pub(super) fn load_debug(&mut self) {
        if let Some(addresses) = self.debug.load() {
            cpu::debug::set_addresses(addresses);
        }
    }

    /// The guest accesses one.
    #[cold]
    pub(super) fn demand_debug(&mut self) {
        if let Some(addresses) = self.debug.demand() {
            cpu::debug::set_addresses(addresses);
            self.choose_debug_exits();
        }
    }

    /// Part of [`crate::virt::Virt::unload`]. DR6, in which an exit may leave the guest's, is left as a PV guest's next debug
    /// exception must find it.
    #[inline(always)]
    pub(super) fn unload_debug(&mut self) {
        if self.vmcb().dr6() != DR6_RESET {
            cpu::debug::set_status(DR6_RESET);
        }
        if self.debug.is_in() {
            self.take_debug();
        }
    }

    #[cold]
    fn take_debug(&mut self) {
        let dr7 = self.vmcb().dr7();
        self.debug.unload(cpu::debug::addresses(), dr7);
        self.choose_debug_exits();
    }

    fn choose_debug_exits(&mut self) {
        let exits = self.debug.exits();
        self.vmcb_mut().set_debug_exits(exits);
    }
}
