//! The timer: one-shot, periodic and TSC-deadline (SDM 3A 10.5.4).
//!
//! While it counts, [`Timer`] knows the count at one instant; every other count follows from the time since.

use super::Lapic;
use super::lvt::Lvt;

/// Length of a cycle of the timer's bus in nanoseconds, before division; Xen's `APIC_BUS_CYCLE_NS`.
pub const BUS_CYCLE_NS: u64 = 10;

/// No periodic timer asks for its next expiry sooner than this after the last, in nanoseconds: a guest that
/// programs a shorter period loses ticks, and cannot keep the hypervisor busy.
pub const MIN_PERIOD_NS: u64 = 20_000;

/// The time of an access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds of a clock that never goes back.
    pub ns: u64,
    /// The TSC as the guest reads it.
    pub tsc: u64,
}

/// When to call [`Lapic::expire`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// At this many nanoseconds on the clock of [`Now::ns`].
    Ns(u64),
    /// At this value of the guest's TSC.
    Tsc(u64),
}

/// Counters of the timer.
#[derive(Clone, Debug)]
pub(super) struct Timer {
    initial: u32,
    divide: u32,
    /// The count at `at_ns`; zero when the timer stands.
    count: u32,
    at_ns: u64,
    /// A periodic timer does not expire before this.
    not_before_ns: u64,
    /// IA32_TSC_DEADLINE; zero when not armed.
    deadline: u64,
}

impl Timer {
    pub(super) const STOPPED: Self = Self { initial: 0, divide: 0, count: 0, at_ns: 0, not_before_ns: 0, deadline: 0 };

    /// Nanoseconds per count.
    fn tick_ns(&self) -> u64 {
        // Bits 3, 1 and 0 are one number: 0 to 6 divide by 2 to 128, 7 by 1 (SDM 3A figure 10-10).
        let code = self.divide & 3 | (self.divide & 8) >> 1;
        BUS_CYCLE_NS << ((code + 1) & 7)
    }

    fn expiry_ns(&self) -> u64 {
        self.at_ns.saturating_add(u64::from(self.count) * self.tick_ns())
    }

    fn count_at(&self, ns: u64, periodic: bool) -> u32 {
        let elapsed = ns.saturating_sub(self.at_ns) / self.tick_ns();
        let count = u64::from(self.count);
        if elapsed < count {
            return narrow(count - elapsed);
        }
        if !periodic || self.count == 0 || self.initial == 0 {
            return 0;
        }
        let initial = u64::from(self.initial);
        narrow(initial - (elapsed - count) % initial)
    }

    /// Moves the known instant to `ns`, so that another divisor or mode counts on from there.
    fn settle(&mut self, ns: u64, periodic: bool) {
        self.count = self.count_at(ns, periodic);
        self.at_ns = ns;
    }

    /// One expiry, however many periods have passed.
    fn expire_count(&mut self, ns: u64, periodic: bool) -> bool {
        let expiry = self.expiry_ns();
        if self.count == 0 || ns < expiry || periodic && ns < self.not_before_ns {
            return false;
        }
        let period = u64::from(self.initial) * self.tick_ns();
        if periodic && period != 0 {
            self.at_ns = expiry + (ns - expiry) / period * period;
            self.count = self.initial;
            self.not_before_ns = ns.saturating_add(MIN_PERIOD_NS);
        } else {
            self.count = 0;
        }
        true
    }
}

/// A count, which never exceeds the 32-bit count it was made from.
fn narrow(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl Lapic {
    pub(super) fn initial_count(&self) -> u32 {
        self.timer.initial
    }

    pub(super) fn current_count(&self, now: Now) -> u32 {
        if self.timer_is_deadline() { 0 } else { self.timer.count_at(now.ns, self.timer_is_periodic()) }
    }

    pub(super) fn set_initial_count(&mut self, value: u32, now: Now) {
        if self.timer_is_deadline() {
            return;
        }
        self.timer.initial = value;
        self.timer.count = value;
        self.timer.at_ns = now.ns;
    }

    pub(super) fn divide(&self) -> u32 {
        self.timer.divide
    }

    pub(super) fn set_divide(&mut self, value: u32, now: Now) {
        self.timer.settle(now.ns, self.timer_is_periodic());
        self.timer.divide = value & 0xb;
    }

    /// Writes the timer's LVT entry. Going to or from TSC-deadline mode disarms the timer.
    pub(super) fn set_timer_lvt(&mut self, value: u32, now: Now) {
        let (was_deadline, was_periodic) = (self.timer_is_deadline(), self.timer_is_periodic());
        self.set_lvt(Lvt::Timer, value);
        if was_deadline != self.timer_is_deadline() {
            self.timer.count = 0;
            self.timer.deadline = 0;
        } else if was_periodic != self.timer_is_periodic() {
            self.timer.settle(now.ns, was_periodic);
        }
    }

    /// Reads IA32_TSC_DEADLINE, MSR 0x6e0: zero unless armed.
    pub fn tsc_deadline(&self) -> u64 {
        self.timer.deadline
    }

    /// Writes IA32_TSC_DEADLINE: zero disarms. Outside TSC-deadline mode it does nothing (SDM 3A 10.5.4.1).
    pub fn set_tsc_deadline(&mut self, tsc: u64) {
        if self.timer_is_deadline() {
            self.timer.deadline = tsc;
        }
    }

    /// When the timer next expires; `None` when it stands.
    pub fn next_deadline(&self) -> Option<Deadline> {
        let timer = &self.timer;
        if self.timer_is_deadline() {
            return (timer.deadline != 0).then_some(Deadline::Tsc(timer.deadline));
        }
        let floor = if self.timer_is_periodic() { timer.not_before_ns } else { 0 };
        (timer.count != 0).then(|| Deadline::Ns(timer.expiry_ns().max(floor)))
    }

    /// Lets the timer expire if it is due, and answers whether that made an interrupt pending.
    ///
    /// A periodic timer that is several periods late expires once and keeps its phase.
    pub fn expire(&mut self, now: Now) -> bool {
        let periodic = self.timer_is_periodic();
        let due = if self.timer_is_deadline() {
            let due = self.timer.deadline != 0 && now.tsc >= self.timer.deadline;
            if due {
                self.timer.deadline = 0;
            }
            due
        } else {
            self.timer.expire_count(now.ns, periodic)
        };
        due && self.raise(Lvt::Timer) == super::Wakeup::Interrupt
    }
}
