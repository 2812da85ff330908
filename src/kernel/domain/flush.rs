//! After a change of a domain's memory: no processor may use what was there before, and then it is let go.
//!
//! A CPU that is in a guest of the domain is kicked out and waited for. One that is not sees the new [`epoch`] before it
//! enters, and flushes: so nobody is waited for who could wait for us. The same holds for a CPU that copies from or to a
//! PV guest's memory, which uses the guest's translations: it counts as being in the guest meanwhile.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use machine::percpu::{MAX_CPUS, this_cpu};
use machine::{cpu, irq};
use model::ids::CpuId;
use sync::Cx;
use sync::place::before;

use super::{Domain, Vcpu, memory::Dropped};
use crate::cpus::Visits;
use crate::run::Running;
use crate::sched;

/// Goes up when all CPUs have to forget what they know of all domains.
static EVERYWHERE: AtomicU64 = AtomicU64::new(0);

/// A number that is another when translations of the domain have to be forgotten before they are used.
#[inline]
pub fn epoch(domain: &Domain) -> u64 {
    // Both only go up: so the sum changes with each.
    domain.tlb_epoch.load(Ordering::Relaxed).wrapping_add(EVERYWHERE.load(Ordering::Relaxed))
}

/// Makes every CPU forget what it knew of the domain's memory, then lets go of what was taken out of it. Holds no
/// lock that another CPU could need on its way out of a guest.
pub fn after_change<P: before::RunQueue>(
    cx: &mut Cx<P>,
    run: &mut Running,
    dropped: impl IntoIterator<Item = Dropped>,
) {
    let mut dropped = dropped.into_iter().peekable();
    if dropped.peek().is_none() {
        return;
    }
    all(cx, &run.domain);
    dropped.for_each(Dropped::let_go);
}

/// Makes every CPU forget what it knows of the domain's memory: has it done so, or will before it uses any of it. The
/// [`Cx`] shows that the caller holds no lock that a CPU needs on its way out of a guest.
pub fn all<P: before::RunQueue>(_: &mut Cx<P>, domain: &Domain) {
    let number = begin(&domain.tlb_epoch);
    domain.vcpus.iter().for_each(|vcpu| wait_for_vcpu(vcpu));
    if let Some(pv) = &domain.pv {
        // Release: pairs with the load by which somebody learns that he need not flush.
        pv.flushed_epoch.fetch_max(number, Ordering::Release);
    }
}

/// Likewise, waiting only for the CPUs that run some of its virtual CPUs.
pub fn some<'a, P: before::RunQueue>(_: &mut Cx<P>, domain: &Domain, vcpus: impl Iterator<Item = &'a Vcpu>) {
    let _ = begin(&domain.tlb_epoch);
    vcpus.for_each(wait_for_vcpu);
}

/// Makes every CPU forget what it knows of any domain's memory.
pub fn everywhere() {
    let _ = begin(&EVERYWHERE);
    (0..MAX_CPUS as u32).for_each(|cpu| wait_for(CpuId(cpu)));
}

/// The number of a flush that begins. What was written before is seen by every CPU that comes to know it.
fn begin(epoch: &AtomicU64) -> u64 {
    let number = epoch.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
    fence(Ordering::SeqCst); // pairs with the one in `entering`
    number
}

fn wait_for_vcpu(vcpu: &Vcpu) {
    if let Some(cpu) = sched::held_by(vcpu.key) {
        wait_for(cpu);
    }
}

/// Returns when a CPU has left the guest in which it is.
fn wait_for(cpu: CpuId) {
    if cpu == this_cpu() {
        return;
    }
    let visits = Visits::of(cpu);
    if let Some(visit) = visits.current() {
        irq::interrupt(cpu);
        while visits.current() == Some(visit) {
            cpu::relax();
        }
    }
}
