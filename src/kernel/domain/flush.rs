//! After a change of a domain's memory: no processor may use what was there before, and then it is let go.
//!
//! A CPU that is in a guest of the domain is kicked out and waited for. One that is not sees the new
//! [`Domain::tlb_epoch`] before it enters, and flushes: so nobody is waited for who could wait for us.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use machine::percpu::{MAX_CPUS, this_cpu};
use machine::{cpu, irq};
use sync::Cx;
use sync::place::before;

use super::{Domain, memory::Dropped};
use crate::run::Running;
use crate::sched;

/// For each CPU a number that is odd while the CPU is in a guest, and goes up at each entry and exit.
static VISITS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// This CPU is about to enter a guest: what is read after this is read after other CPUs could see it.
#[inline]
pub fn entering() {
    let visits = &VISITS[this_cpu().0 as usize];
    visits.store(visits.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    fence(Ordering::SeqCst); // pairs with the one in `after_change`
}

/// This CPU has left the guest, or did not enter after all.
#[inline]
pub fn left() {
    let visits = &VISITS[this_cpu().0 as usize];
    visits.store(visits.load(Ordering::Relaxed) + 1, Ordering::Release);
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
    flush_all(cx, &run.domain);
    dropped.for_each(Dropped::let_go);
}

fn flush_all<P: before::RunQueue>(cx: &mut Cx<P>, domain: &Domain) {
    domain.tlb_epoch.fetch_add(1, Ordering::SeqCst);
    fence(Ordering::SeqCst); // pairs with the one in `entering`
    for vcpu in &domain.vcpus {
        let Some(cpu) = sched::running_on(cx, vcpu.key) else { continue };
        if cpu == this_cpu() {
            continue;
        }
        let visits = &VISITS[cpu.0 as usize];
        let seen = visits.load(Ordering::Acquire);
        if seen % 2 == 1 {
            irq::kick(cpu);
            while visits.load(Ordering::Acquire) == seen {
                cpu::relax();
            }
        }
    }
}
