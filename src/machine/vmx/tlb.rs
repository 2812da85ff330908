//! Tags of translations (VPIDs), and forgetting translations.
//!
//! Each CPU hands out VPIDs of its own, never one twice before all are used up and INVVPID has forgotten
//! them all. So a fresh VPID is a flush, of the translations from linear addresses. Those of the nested page
//! tables are tagged with the table's address and forgotten by INVEPT (SDM 3C 28.3, 28.4).

use super::features::Features;
use super::vmcs::{self, VmcsField};
use crate::percpu::{MAX_CPUS, PerCpu, this_cpu};
use core::arch::asm;
use core::cell::UnsafeCell;
use model::ids::CpuId;

static POOLS: PerCpu<Pool> = PerCpu::new([const { UnsafeCell::new(Pool::NEW) }; MAX_CPUS]);

/// The VPIDs of one CPU. 0 is the hypervisor's.
struct Pool {
    last: u16,
    generation: u64,
}

impl Pool {
    /// Used up: the first VPID forgets what another hypervisor may have left.
    const NEW: Self = Self { last: u16::MAX, generation: 0 };

    /// A VPID that no translation carries, once everything is forgotten if the second part says so.
    fn take(&mut self) -> (u16, bool) {
        match self.last.checked_add(1) {
            Some(next) => {
                self.last = next;
                (next, false)
            }
            None => {
                self.last = 1;
                self.generation += 1;
                (1, true)
            }
        }
    }
}

/// The VPID of a virtual CPU, and where and when it is good.
pub(super) struct Tag {
    cpu: CpuId,
    generation: u64,
}

impl Tag {
    /// Good nowhere.
    pub(super) const NONE: Self = Self { cpu: CpuId(u32::MAX), generation: 0 };

    /// Brings the current VMCS a tag that is good on this CPU. Where it ran elsewhere in between, or never
    /// here, all that this CPU may remember of the nested tables is forgotten too.
    pub(super) fn load(&mut self, features: &Features, eptp: u64) {
        let generation = POOLS.with(|pool| pool.generation);
        if self.cpu != this_cpu() {
            forget_nested(features, eptp);
        } else if self.generation == generation {
            return;
        }
        self.renew(features);
    }

    /// Forgets the translations from linear addresses, by a fresh VPID. Without VPIDs every entry forgets them.
    pub(super) fn renew(&mut self, features: &Features) {
        self.cpu = this_cpu();
        if !features.vpid() {
            return;
        }
        let (vpid, generation) = POOLS.with(|pool| {
            let (vpid, used_up) = pool.take();
            if used_up {
                forget_linear();
            }
            (vpid, pool.generation)
        });
        self.generation = generation;
        // SAFETY: a tag that nothing else carries on this CPU, and not 0, which the hypervisor's own translations carry.
        unsafe { vmcs::write(VmcsField::VPID, u64::from(vpid)) }
    }
}

/// Forgets everything that comes from the nested page tables of `eptp`, or from all where only that is offered.
pub(super) fn forget_nested(features: &Features, eptp: u64) {
    const SINGLE: u64 = 1;
    const ALL: u64 = 2;
    let kind = if features.ept_vpid.invept_single() { SINGLE } else { ALL };
    let operand = [eptp, 0];
    // SAFETY: the processor has INVEPT of this kind, and forgetting translations harms none.
    unsafe {
        asm!("invept {}, [{}]", in(reg) kind, in(reg) &operand, options(nostack));
    }
}

/// Forgets all tagged translations.
fn forget_linear() {
    const ALL: u64 = 2;
    let operand = [0u64; 2];
    // SAFETY: VPIDs are used only where this INVVPID is offered, and forgetting translations harms none.
    unsafe {
        asm!("invvpid {}, [{}]", in(reg) ALL, in(reg) &operand, options(nostack));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_vpid_is_zero_or_comes_twice_in_a_generation() {
        let mut pool = Pool::NEW;
        for generation in 1..=2 {
            assert_eq!(pool.take(), (1, true));
            for expected in 2..=u16::MAX {
                assert_eq!(pool.take(), (expected, false));
            }
            assert_eq!(pool.generation, generation);
        }
    }
}
