//! How a domain is scheduled, as an operator says it, and the ranges of that in words.

use crate::ids::{CpuId, VcpuId};
use crate::sched::CpuSet;
use crate::sched::credit::{BadParams, WEIGHT_DEFAULT};
use alloc::vec::Vec;

/// The range of a weight.
pub const WEIGHTS: &str = "must be from 1 to 65535";
/// The range of a cap, as Xen keeps it. More than 100 for each virtual CPU, which `xl` refuses, has no effect.
pub const CAPS: &str = "must be from 0 to 65535, in percent of one CPU, 0 for none";

/// A domain's weight and cap, and where its virtual CPUs run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduling {
    /// Its weight, at least 1.
    pub weight: u16,
    /// Percent of one CPU; 0 for no cap.
    pub cap: u16,
    /// Where its virtual CPUs may run.
    pub hard: Affinity,
    /// Where they would rather run.
    pub soft: Affinity,
}

impl Default for Scheduling {
    /// Xen's defaults.
    fn default() -> Self {
        Self { weight: WEIGHT_DEFAULT as u16, cap: 0, hard: Affinity::default(), soft: Affinity::default() }
    }
}

/// A set of CPUs for each virtual CPU of a domain, none of them empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// The same for all.
    Same(CpuSet),
    /// One for each, by its number; those without one have all CPUs.
    Each(Vec<CpuSet>),
}

impl Affinity {
    /// Each of so many virtual CPUs on one of so many CPUs, in turn.
    pub fn pinned(vcpus: u32, cpus: u32) -> Self {
        Self::Each((0..vcpus).map(|vcpu| CpuSet::only(CpuId(vcpu % cpus.max(1)))).collect())
    }

    /// The set of a virtual CPU.
    pub fn of(&self, vcpu: VcpuId) -> CpuSet {
        match self {
            Self::Same(set) => *set,
            Self::Each(sets) => sets.get(vcpu.0 as usize).copied().unwrap_or(CpuSet::ALL),
        }
    }
}

impl Default for Affinity {
    fn default() -> Self {
        Self::Same(CpuSet::ALL)
    }
}

/// What the parameter that is out of range must be.
pub fn range(bad: BadParams) -> &'static str {
    match bad {
        BadParams::Slice => "must be from 1 to 1000 ms",
        BadParams::RateLimit => "must be 0, or from 100 to 500000 us and less than the slice",
        BadParams::MigrationDelay => "must be at most 100000 us",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_cpu_without_a_set_of_its_own_has_all_cpus() {
        let affinity = Affinity::Each([2, 3].map(|cpu| CpuSet::only(CpuId(cpu))).to_vec());
        assert_eq!(affinity.of(VcpuId(1)), CpuSet::only(CpuId(3)));
        assert_eq!(affinity.of(VcpuId(2)), CpuSet::ALL);
        assert_eq!(Affinity::default().of(VcpuId(127)), CpuSet::ALL);
    }

    #[test]
    fn pinned_virtual_cpus_have_a_cpu_each_as_far_as_there_are_some() {
        let pinned = Affinity::pinned(3, 2);
        let cpus = [0, 1, 2].map(|vcpu| pinned.of(VcpuId(vcpu)).iter().map(|cpu| cpu.0).collect::<Vec<_>>());
        assert_eq!(cpus, [[0], [1], [0]]);
    }
}
