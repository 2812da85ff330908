//! Every processor writes its caches back (`MMUEXT_FLUSH_CACHE_GLOBAL`).
//!
//! A CPU is asked by a kick and does it when it looks at what is pending. Who waits for others does meanwhile what others
//! ask of it: so no two wait for each other.

use core::sync::atomic::{AtomicU64, Ordering};

use machine::percpu::{MAX_CPUS, this_cpu};
use machine::{cpu, smp};
use model::ids::CpuId;

use crate::cpus;

/// How often all CPUs were asked.
static ASKED: AtomicU64 = AtomicU64::new(0);
/// For each CPU what [`ASKED`] was when it last wrote its caches back.
static DONE: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// Returns when every CPU has written its caches back. Holds no lock.
pub fn write_back_everywhere() {
    let number = ASKED.fetch_add(1, Ordering::SeqCst) + 1;
    let all = || (0..smp::online()).map(CpuId);
    all().filter(|&cpu| cpu != this_cpu()).for_each(cpus::kick);
    for cpu in all() {
        // Acquire: pairs with the release in `serve`.
        while DONE[cpu.0 as usize].load(Ordering::Acquire) < number {
            serve();
            cpu::relax();
        }
    }
}

/// This CPU does what it was asked for, if it was.
pub fn serve() {
    let asked = ASKED.load(Ordering::SeqCst);
    let done = &DONE[this_cpu().0 as usize];
    if done.load(Ordering::Relaxed) < asked {
        cpu::write_back_caches();
        done.store(asked, Ordering::Release);
    }
}
