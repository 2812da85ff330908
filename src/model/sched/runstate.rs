//! The time account of a virtual CPU (`xen/include/public/vcpu.h`, `struct vcpu_runstate_info`).

/// What a virtual CPU is doing, with the header's `RUNSTATE_*` numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RunState {
    /// On a CPU.
    Running = 0,
    /// Could run and waits for a CPU.
    Runnable = 1,
    /// Sleeps until an event.
    Blocked = 2,
    /// Paused, or not brought up.
    Offline = 3,
}

impl RunState {
    /// The state of one that no CPU runs, as Xen has it: asleep counts before paused, unless it was taken down.
    pub(super) fn at_rest(asleep: bool, is_down: bool, is_paused: bool) -> Self {
        match (is_down, asleep, is_paused) {
            (true, ..) | (_, false, true) => Self::Offline,
            (_, true, _) => Self::Blocked,
            _ => Self::Runnable,
        }
    }
}

/// How long a virtual CPU has been in each state, in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runstate {
    state: RunState,
    entered_ns: u64,
    /// Completed stays, by [`RunState`]'s number.
    times_ns: [u64; 4],
}

impl Runstate {
    /// An account that begins now.
    pub const fn new(state: RunState, now_ns: u64) -> Self {
        Self { state, entered_ns: now_ns, times_ns: [0; 4] }
    }

    /// What it is doing now.
    pub const fn state(&self) -> RunState {
        self.state
    }

    /// When it began to (`state_entry_time`).
    pub const fn entered_ns(&self) -> u64 {
        self.entered_ns
    }

    /// Time in each state up to the last transition (`time[]` as the guest's area has it).
    pub const fn times_ns(&self) -> [u64; 4] {
        self.times_ns
    }

    /// Time in each state up to now, as `VCPUOP_get_runstate_info` answers it.
    pub fn times_at(&self, now_ns: u64) -> [u64; 4] {
        let mut times = self.times_ns;
        times[self.state as usize] += now_ns.saturating_sub(self.entered_ns);
        times
    }

    /// It begins to do `state`. Nothing changes if it is doing that already.
    pub fn transition(&mut self, state: RunState, now_ns: u64) {
        if state == self.state {
            return;
        }
        let now_ns = now_ns.max(self.entered_ns);
        self.times_ns[self.state as usize] += now_ns - self.entered_ns;
        self.state = state;
        self.entered_ns = now_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn time_goes_to_the_state_that_ends() {
        let mut account = Runstate::new(RunState::Offline, 100);
        account.transition(RunState::Running, 150);
        account.transition(RunState::Running, 170);
        account.transition(RunState::Blocked, 180);
        assert_eq!(account.times_ns(), [30, 0, 0, 50]);
        assert_eq!(account.times_at(190), [30, 0, 10, 50]);
        assert_eq!((account.state(), account.entered_ns()), (RunState::Blocked, 180));
    }

    proptest! {
        #[test]
        fn the_times_add_up_to_the_time_that_passed(steps in proptest::collection::vec((0u8..4, 0u64..1000), 0..50)) {
            let (mut account, mut now) = (Runstate::new(RunState::Offline, 7), 7);
            for (state, dt) in steps {
                now += dt;
                account.transition([RunState::Running, RunState::Runnable, RunState::Blocked, RunState::Offline][state as usize], now);
            }
            prop_assert_eq!(account.times_at(now).iter().sum::<u64>(), now - 7);
        }
    }
}
