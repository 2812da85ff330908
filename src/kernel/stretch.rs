//! How long a CPU goes without a look at what is pending, in ticks of its TSC. Only with the feature `stretch`; else nothing
//! of this is in the image.
//!
//! A stretch begins where the CPU leaves a guest or has looked, and ends where it enters one or looks. It is told by what
//! was done last in it, a hypercall or one of [`What`]; of each the longest is kept.

/// What a CPU does beside hypercalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A guest has left, for no hypercall.
    #[cfg(feature = "stretch")]
    Exit = 64,
    /// What interrupts have noted is served.
    Serve = 65,
    /// The scheduler is asked, another virtual CPU is loaded.
    Schedule = 66,
    /// A step of a domain's making or end.
    LongWork = 67,
}

#[cfg(feature = "stretch")]
mod counting {
    use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use machine::cpu::rdtsc;
    use machine::percpu::{MAX_CPUS, this_cpu};

    use super::What;
    use crate::hypercall::table;

    const KINDS: usize = 68;

    /// Of each CPU: when its stretch began, 0 for none; what it does, and with what argument.
    struct Stretch {
        began: AtomicU64,
        kind: AtomicU64,
        argument: AtomicU64,
    }

    static NOW: [Stretch; MAX_CPUS] =
        [const { Stretch { began: AtomicU64::new(0), kind: AtomicU64::new(0), argument: AtomicU64::new(0) } };
            MAX_CPUS];
    /// The longest of each kind, and its argument.
    static LONGEST: [[AtomicU64; 2]; KINDS] = [const { [const { AtomicU64::new(0) }; 2] }; KINDS];

    fn now() -> &'static Stretch {
        &NOW[this_cpu().0 as usize]
    }

    /// The CPU has left a guest, or has looked.
    pub fn begin() {
        now().kind.store(What::Exit as u64, Relaxed);
        now().began.store(rdtsc(), Relaxed);
    }

    /// What it does from here on.
    pub fn at(what: What) {
        now().kind.store(what as u64, Relaxed);
        now().argument.store(0, Relaxed);
    }

    /// Which part of it.
    pub fn part(argument: u64) {
        now().argument.store(argument, Relaxed);
    }

    /// It does this hypercall.
    pub fn at_call(number: u64, argument: u64) {
        now().kind.store(number & 63, Relaxed);
        now().argument.store(argument, Relaxed);
    }

    /// The CPU looks, or enters a guest.
    pub fn end() {
        let began = now().began.swap(0, Relaxed);
        let ticks = rdtsc().saturating_sub(began);
        let [longest, argument] = &LONGEST[now().kind.load(Relaxed) as usize % KINDS];
        if began != 0 && longest.fetch_max(ticks, Relaxed) < ticks {
            argument.store(now().argument.load(Relaxed), Relaxed);
        }
    }

    /// Says how long the longest were.
    pub fn report() {
        for (kind, [ticks, argument]) in (0..).zip(&LONGEST) {
            let (ticks, argument) = (ticks.load(Relaxed), argument.load(Relaxed));
            let other =
                [What::Exit, What::Serve, What::Schedule, What::LongWork].into_iter().find(|&what| what as u64 == kind);
            match (ticks, other, table::find(kind)) {
                (0, ..) => {}
                (_, Some(what), _) => log::info!("  {ticks} ticks without a look: {what:?}, {argument:#x}"),
                (_, _, Some(call)) => log::info!("  {ticks} ticks without a look: {}, {argument:#x}", call.name),
                _ => log::info!("  {ticks} ticks without a look: hypercall {kind}"),
            }
        }
    }
}

#[cfg(not(feature = "stretch"))]
mod counting {
    use super::What;

    #[inline(always)]
    pub fn begin() {}
    #[inline(always)]
    pub fn at(_: What) {}
    #[inline(always)]
    pub fn part(_: u64) {}
    #[inline(always)]
    pub fn at_call(_: u64, _: u64) {}
    #[inline(always)]
    pub fn end() {}
}

pub use counting::*;
