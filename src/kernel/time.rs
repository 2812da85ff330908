//! Timers of virtual CPUs, and the clock that guests are given.
//!
//! Each physical CPU has a queue of deadlines and its hardware timer set to the first. A timer is queued on the CPU
//! that sets it and fires there, wherever its virtual CPU is by then.

use core::sync::atomic::{AtomicU64, Ordering};

use machine::percpu::{MAX_CPUS, this_cpu};
use machine::{cpu, time};
use model::ids::CpuId;
use model::sched::Key;
use model::time::{Clock, Handle, RtcFields, Scale, TimeInfo, TimerQueue, WallClock};
use sync::place::{self, before};
use sync::{Cx, Lock, Once};

use crate::cpus::Apart;
use crate::domain::{self, Domain};

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `VCPUOP_set_singleshot_timer`, `set_timer_op`: VIRQ_TIMER.
    Singleshot,
    /// `VCPUOP_set_periodic_timer`: VIRQ_TIMER.
    Periodic,
    /// The timeout of `SCHEDOP_poll`.
    Poll,
    /// The local APIC's timer.
    Apic,
    /// `SCHEDOP_watchdog`: the domain ends.
    Watchdog,
}

type Event = (Key, Kind);

/// No deadline.
const NEVER: u64 = u64::MAX;

/// The deadlines of a physical CPU, in ns since boot.
struct Deadlines {
    timers: TimerQueue<Event>,
    /// When the scheduler is to be asked, or [`NEVER`].
    until_ns: u64,
    /// What the hardware timer is set to, or [`NEVER`] if it rests. Not later than the first.
    set_ns: u64,
}

static DEADLINES: [Apart<Lock<place::Timer, Deadlines>>; MAX_CPUS] =
    [const { Apart(Lock::new(Deadlines::new())) }; MAX_CPUS];

impl Deadlines {
    const fn new() -> Self {
        Self { timers: TimerQueue::new(), until_ns: NEVER, set_ns: NEVER }
    }

    /// Sets the hardware timer to the first of them, if it would fire later. One that fires early is set anew then: that costs less
    /// than to set it at each switch. They are those of the CPU that executes this.
    #[inline]
    fn arm(&mut self) {
        let first = self.timers.next_deadline().map_or(self.until_ns, |next| next.min(self.until_ns));
        if first < self.set_ns {
            self.set_ns = first;
            time::set_deadline(first);
        }
    }

    /// Has a timer fire at `deadline_ns`, that is queued nowhere or among them, which are those of `here`, this CPU.
    /// `false` when there is no memory for it.
    #[inline]
    fn set(&mut self, timer: &mut Timer, here: CpuId, deadline_ns: u64, event: Event) -> bool {
        let is_queued = timer.0.is_some_and(|(_, handle)| self.timers.postpone(handle, deadline_ns))
            || self.add(timer, here, deadline_ns, event);
        self.arm();
        is_queued
    }

    #[inline(never)]
    fn add(&mut self, timer: &mut Timer, here: CpuId, deadline_ns: u64, event: Event) -> bool {
        timer.0 = self.timers.add(deadline_ns, event).ok().map(|handle| (here, handle));
        timer.0.is_some()
    }
}

/// Where a timer is queued, if it is.
#[derive(Default)]
pub struct Timer(Option<(CpuId, Handle)>);

impl Timer {
    /// A timer that is not queued.
    pub const fn new() -> Self {
        Self(None)
    }

    /// Fires at `deadline_ns` since boot, in place of what was set before. `event` is the same each time. `false` when there is
    /// no memory for it.
    pub fn set<P: before::Timer>(&mut self, cx: &mut Cx<P>, deadline_ns: u64, event: Event) -> bool {
        let here = this_cpu();
        if self.is_elsewhere(here) {
            self.stop(cx);
        }
        cx.lock(&DEADLINES[here.0 as usize].0).0.set(self, here, deadline_ns, event)
    }

    /// As [`Self::set`], without waiting. `None`, and nothing has been done, if this CPU's deadlines are locked or the timer is
    /// queued on another CPU.
    #[inline]
    pub fn try_set(&mut self, deadline_ns: u64, event: Event) -> Option<bool> {
        let here = this_cpu();
        if self.is_elsewhere(here) {
            return None;
        }
        Some(DEADLINES[here.0 as usize].0.try_lock()?.set(self, here, deadline_ns, event))
    }

    /// Does not fire.
    pub fn stop<P: before::Timer>(&mut self, cx: &mut Cx<P>) {
        if let Some((cpu, handle)) = self.0.take() {
            cx.lock(&DEADLINES[cpu.0 as usize].0).0.timers.cancel(handle);
        }
    }

    /// As [`Self::stop`], without waiting. `None`, and nothing has been done, if the deadlines that it is among are locked.
    #[inline]
    pub fn try_stop(&mut self) -> Option<()> {
        if let Some((cpu, handle)) = self.0 {
            DEADLINES[cpu.0 as usize].0.try_lock()?.timers.cancel(handle);
            self.0 = None;
        }
        Some(())
    }

    fn is_elsewhere(&self, here: CpuId) -> bool {
        self.0.is_some_and(|(cpu, _)| cpu != here)
    }
}

/// What follows when the hardware timer has fired.
pub enum Due {
    /// A timer is due, and is off its queue. Ask again.
    Timer(Key, Kind),
    /// None is due any more, and the hardware timer is set to what comes next.
    Nothing {
        /// The scheduler is to be asked.
        is_over: bool,
    },
}

/// The hardware timer of this CPU has fired.
pub fn pop_due<P: before::Timer>(cx: &mut Cx<P>) -> Due {
    let (mut deadlines, _) = cx.lock(&DEADLINES[this_cpu().0 as usize].0);
    deadlines.set_ns = NEVER;
    let now = time::now();
    if let Some((_, (key, kind))) = deadlines.timers.pop_due(now) {
        return Due::Timer(key, kind);
    }
    let is_over = deadlines.until_ns <= now;
    if !is_over {
        deadlines.arm();
    }
    Due::Nothing { is_over }
}

/// From now on the scheduler is to be asked on this CPU at `until_ns`: the hardware timer is set to that or the first of
/// the timers.
pub fn arm<P: before::Timer>(cx: &mut Cx<P>, until_ns: Option<u64>) {
    let (mut deadlines, _) = cx.lock(&DEADLINES[this_cpu().0 as usize].0);
    deadlines.until_ns = until_ns.unwrap_or(NEVER);
    deadlines.arm();
}

/// From now on the scheduler is to be asked on this CPU at `at_ns` at the latest.
pub fn arm_by<P: before::Timer>(cx: &mut Cx<P>, at_ns: u64) {
    let (mut deadlines, _) = cx.lock(&DEADLINES[this_cpu().0 as usize].0);
    if at_ns < deadlines.until_ns {
        deadlines.until_ns = at_ns;
        deadlines.arm();
    }
}

static CLOCK: Once<Clock> = Once::new();
static WALL_CLOCK: Lock<place::Timer, Option<WallClock>> = Lock::new(None);
static IS_TSC_STABLE: AtomicU64 = AtomicU64::new(0);

/// Starts the clock that guests are given, from the calibrated TSC and the battery clock.
pub fn start<P: before::Timer>(cx: &mut Cx<P>) {
    let scale = Scale::from_hz(time::tsc_hz()).expect("calibration leaves a rate above zero");
    let clock = Clock::new(scale, time::boot(), 0);
    let seconds = time::rtc::read_stable().and_then(|r| {
        RtcFields {
            second: r[0],
            minute: r[1],
            hour: r[2],
            day: r[3],
            month: r[4],
            year: r[5],
            century: Some(r[6]).filter(|&century| century != 0 && century != 0xff),
            status_b: r[7],
        }
        .unix_seconds()
    });
    if seconds.is_none() {
        log::warn!("the battery clock cannot be read: guests start on 1 January 1970");
    }
    let wall = WallClock::new(seconds.unwrap_or(0), clock.ns_at(cpu::rdtsc()));
    // Set once, by the first CPU.
    let _ = CLOCK.set(clock);
    *cx.lock(&WALL_CLOCK).0 = Some(wall);
    let [max, ..] = cpu::features::leaf(0x8000_0000, 0);
    let is_invariant = max >= 0x8000_0007 && cpu::features::leaf(0x8000_0007, 0)[3] & 1 << 8 != 0;
    IS_TSC_STABLE.store(u64::from(is_invariant), Ordering::Relaxed);
}

/// The clock.
pub fn clock() -> &'static Clock {
    CLOCK.get().expect("the clock is started before any domain")
}

/// The time of day at system time zero.
pub fn wall_clock<P: before::Timer>(cx: &mut Cx<P>) -> WallClock {
    cx.lock(&WALL_CLOCK).0.expect("the clock is started before any domain")
}

/// Tells a domain the time of day.
pub fn tell_wall_clock<P: before::Timer>(cx: &mut Cx<P>, domain: &Domain) {
    let (clock, _) = cx.lock(&WALL_CLOCK);
    if let Some(clock) = &*clock {
        domain.shared.write_wall_clock(clock);
    }
}

/// The time of day is another from now on, for all domains.
pub fn set_wall_clock<P: before::DomainList>(cx: &mut Cx<P>, new: WallClock) {
    *cx.lock(&WALL_CLOCK).0 = Some(new);
    // A domain that is published after this look is told then.
    domain::all(cx).iter().for_each(|domain| tell_wall_clock(cx, domain));
}

/// What guests are told of the time; they read the TSC as it is.
pub fn time_info() -> TimeInfo {
    clock().time_info(0, IS_TSC_STABLE.load(Ordering::Relaxed) != 0)
}

/// Nanoseconds of system time.
#[inline]
pub fn now() -> u64 {
    time::now()
}
