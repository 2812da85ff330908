//! What all virtual CPUs of a domain share: weight, cap, and how many of them compete.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Virtual time that a virtual CPU of weight 1 spends in one ns.
const SCALE: u64 = 4096;
/// The longest stretch that is charged in full, in ns: about a minute. Longer ones are run by nobody who is waited for.
const LONGEST_NS: u64 = 1 << 36;
/// The shortest stretch for which one whose cap is nearly used up is run, in ns.
const LEAST_RUN_NS: u64 = 100_000;

/// What a capped domain may save up while it waits, in slices. What it did not use while it slept is one slice at most.
const SAVED: u64 = 8;

/// The share of a domain that says nothing else.
pub const WEIGHT_DEFAULT: u32 = 256;
/// The greatest weight; the least is 1.
pub const WEIGHT_MAX: u32 = 65_535;

/// A domain's account with the scheduler. Shared by the queues in which its virtual CPUs are; nothing else changes it.
#[derive(Debug)]
pub struct Account {
    /// The weight in the upper half, and in the lower how many of its virtual CPUs compete: those that run or wait, and
    /// those that sleep with a debt.
    shares: AtomicU64,
    /// Percent of one CPU; 0 for no cap.
    cap: AtomicU32,
    /// With a cap: what was run has been paid for when this time comes, in ns.
    paid_at: AtomicU64,
    /// How many of its virtual CPUs are on CPUs.
    running: AtomicU32,
}

/// A value that an [`Account`] cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange;

impl Account {
    /// An account with a weight from 1 to [`WEIGHT_MAX`] and a cap in percent of one CPU, 0 for none.
    ///
    /// # Errors
    /// [`OutOfRange`] for another weight.
    pub fn new(weight: u32, cap: u32) -> Result<Self, OutOfRange> {
        let account = Self {
            shares: AtomicU64::new(0),
            cap: AtomicU32::new(cap),
            paid_at: AtomicU64::new(0),
            running: AtomicU32::new(0),
        };
        account.set_weight(weight)?;
        Ok(account)
    }

    /// The weight.
    pub fn weight(&self) -> u32 {
        (self.shares.load(Ordering::Relaxed) >> 32) as u32
    }

    /// The weight, and how many of its virtual CPUs compete, as one word.
    #[inline]
    pub(super) fn shares(&self) -> u64 {
        self.shares.load(Ordering::Relaxed)
    }

    /// How many of its virtual CPUs compete.
    pub fn competing(&self) -> u32 {
        self.shares.load(Ordering::Relaxed) as u32
    }

    /// The cap in percent of one CPU; 0 for none.
    pub fn cap(&self) -> u32 {
        self.cap.load(Ordering::Relaxed)
    }

    /// Gives it another weight, from now on.
    ///
    /// # Errors
    /// [`OutOfRange`], and nothing is changed.
    pub fn set_weight(&self, weight: u32) -> Result<(), OutOfRange> {
        if !(1..=WEIGHT_MAX).contains(&weight) {
            return Err(OutOfRange);
        }
        let change = |shares: u64| Some(u64::from(weight) << 32 | shares & 0xffff_ffff);
        let _ = self.shares.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
        Ok(())
    }

    /// Gives it another cap, from now on.
    pub fn set_cap(&self, cap: u32, now_ns: u64) {
        self.paid_at.fetch_max(now_ns, Ordering::Relaxed);
        self.cap.store(cap, Ordering::Relaxed);
    }

    /// One more competes.
    #[inline]
    pub(super) fn join(&self, now_ns: u64, slice_ns: u64) {
        let before = self.shares.fetch_add(1, Ordering::Relaxed);
        if before as u32 == 0 && self.cap() != 0 {
            self.paid_at.fetch_max(now_ns.saturating_sub(slice_ns), Ordering::Relaxed);
        }
    }

    pub(super) fn leave(&self) {
        self.shares.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn starts(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stops(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// The virtual time of `ns` run by one of its virtual CPUs, rounded up: the domain's weight is divided among those
    /// that compete.
    #[inline]
    pub(super) fn virtual_time(&self, ns: u64) -> u64 {
        let shares = self.shares.load(Ordering::Relaxed);
        let (weight, competing) = (shares >> 32, (shares & 0xffff_ffff).max(1));
        (ns.min(LONGEST_NS) * competing * SCALE).div_ceil(weight)
    }

    /// How long one of its virtual CPUs runs until it has spent so much virtual time.
    pub(super) fn ns_of(&self, virtual_time: u64) -> u64 {
        let shares = self.shares.load(Ordering::Relaxed);
        let (weight, competing) = (shares >> 32, (shares & 0xffff_ffff).max(1));
        (virtual_time / (competing * SCALE)).saturating_mul(weight)
    }

    /// Notes that one of its virtual CPUs ran for `ns` until `now_ns`. What a capped domain did not use for longer than
    /// [`SAVED`] slices is lost.
    #[inline]
    pub(super) fn spend(&self, ns: u64, now_ns: u64, slice_ns: u64) {
        let cap = u64::from(self.cap());
        if cap == 0 {
            return;
        }
        let price = ns.saturating_mul(100) / cap;
        // Those that run have spent what they ran up to now, so the loss is counted from before.
        let floor = now_ns.saturating_sub(SAVED * slice_ns).saturating_sub(ns);
        let pay = |paid_at: u64| Some(paid_at.max(floor).saturating_add(price));
        let _ = self.paid_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay);
    }

    /// If its cap is used up: when that is looked at again, in ns, as the cap may be another by then.
    #[inline]
    pub(super) fn parked_until(&self, now_ns: u64, slice_ns: u64) -> Option<u64> {
        if self.cap() == 0 {
            return None;
        }
        let paid_at = self.paid_at.load(Ordering::Relaxed);
        (paid_at > now_ns).then(|| paid_at.saturating_add(slice_ns / 2).min(now_ns.saturating_add(slice_ns)))
    }

    /// How long one of those that are on CPUs runs on before its cap is looked at, in ns; `None` for ever.
    pub(super) fn budget_ns(&self, now_ns: u64, slice_ns: u64) -> Option<u64> {
        let cap = u64::from(self.cap());
        if cap == 0 {
            return None;
        }
        let price = 100 * u64::from(self.running.load(Ordering::Relaxed).max(1));
        if price <= cap {
            return Some(slice_ns); // more of them may come, which spend what this one has
        }
        let left = now_ns.saturating_sub(self.paid_at.load(Ordering::Relaxed)).min(SAVED * slice_ns);
        Some((left * cap / (price - cap)).clamp(LEAST_RUN_NS, slice_ns))
    }
}
