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
type Queue = Lock<place::Timer, Option<TimerQueue<Event>>>;

static QUEUES: [Queue; MAX_CPUS] = [const { Lock::new(None) }; MAX_CPUS];

/// Where a timer is queued, if it is.
#[derive(Default)]
pub struct Timer(Option<(CpuId, Handle)>);

impl Timer {
    /// A timer that is not queued.
    pub const fn new() -> Self {
        Self(None)
    }

    /// Fires at `deadline_ns` since boot, in place of what was set before. `false` when there is no memory for it.
    pub fn set<P: before::Timer>(&mut self, cx: &mut Cx<P>, deadline_ns: u64, event: Event) -> bool {
        self.stop(cx);
        let cpu = this_cpu();
        let (mut queue, _) = cx.lock(&QUEUES[cpu.0 as usize]);
        let queue = queue.get_or_insert_with(TimerQueue::new);
        self.0 = queue.add(deadline_ns, event).ok().map(|handle| (cpu, handle));
        self.0.is_some()
    }

    /// Does not fire.
    pub fn stop<P: before::Timer>(&mut self, cx: &mut Cx<P>) {
        if let Some((cpu, handle)) = self.0.take() {
            let (mut queue, _) = cx.lock(&QUEUES[cpu.0 as usize]);
            if let Some(queue) = queue.as_mut() {
                queue.cancel(handle);
            }
        }
    }
}

/// The next timer of this CPU that is due, taken off its queue.
pub fn pop_due<P: before::Timer>(cx: &mut Cx<P>) -> Option<Event> {
    let (mut queue, _) = cx.lock(&QUEUES[this_cpu().0 as usize]);
    queue.as_mut()?.pop_due(time::now()).map(|(_, event)| event)
}

/// Sets this CPU's hardware timer to the first of its timers and `until_ns`.
pub fn arm<P: before::Timer>(cx: &mut Cx<P>, until_ns: Option<u64>) {
    let next = cx.lock(&QUEUES[this_cpu().0 as usize]).0.as_ref().and_then(TimerQueue::next_deadline);
    let first = match (next, until_ns) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    time::set_deadline(first);
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
