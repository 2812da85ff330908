//! `pv-check`: a debug option that looks, after each operation, whether the page tables that it wrote are as they must be,
//! and once a second whether all of a domain's are, with every use and reference counted.
//!
//! What must not be stops the hypervisor: nothing that rests on page tables can be trusted after it.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use machine::mem::frames;
use model::addr::Mfn;
use model::ids::DomId;
use model::pv::mmu::check::{Violation, check_frame};
use model::pv::mmu::sweep::Sweep;

use super::{Tables, VcpuTables};
use crate::time;

static IS_ON: AtomicBool = AtomicBool::new(false);

/// Turns it on, at boot.
pub fn enable() {
    IS_ON.store(true, Ordering::Relaxed);
}

/// Whether it is on.
#[inline]
pub(super) fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

/// Time between two looks at all of a domain's page tables.
const PERIOD_NS: u64 = 1_000_000_000;

/// What is kept from one operation to the next.
pub(super) struct Checks {
    sweep: Option<Sweep>,
    next_ns: u64,
}

impl Checks {
    pub(super) const fn new() -> Self {
        Self { sweep: None, next_ns: 0 }
    }

    /// Looks at the tables that an operation wrote, and perhaps at all.
    #[cold]
    pub(super) fn look(&mut self, tables: &Tables<'_>, touched: &[Mfn], vcpus: &[VcpuTables]) {
        let domain = tables.domain.id;
        for &mfn in touched {
            expect(domain, check_frame(tables, domain, mfn, |_, _| {}));
        }
        if time::now() >= self.next_ns {
            self.sweep(tables, vcpus);
            // From its end: the guest gets its time even where a sweep takes longer than that.
            self.next_ns = time::now() + PERIOD_NS;
        }
    }

    /// Looks at all. The lock is held throughout, as nothing may change meanwhile: so this takes its time.
    fn sweep(&mut self, tables: &Tables<'_>, vcpus: &[VcpuTables]) {
        let domain = tables.domain.id;
        let bases: Vec<Mfn> = vcpus.iter().flat_map(|vcpu| [vcpu.kernel, vcpu.user]).flatten().collect();
        let sweep = self.sweep.get_or_insert_with(|| Sweep::new(domain, frames::count()));
        sweep.restart();
        loop {
            if let Some(outcome) = sweep.step(tables, &bases, usize::MAX) {
                return expect(domain, outcome);
            }
        }
    }
}

fn expect(domain: DomId, outcome: Result<(), Violation>) {
    if let Err(violation) = outcome {
        panic!("pv-check: page tables of {domain}: {violation}");
    }
}
