//! Random histories of a whole machine against the contract of [`Scheduler`].

use super::*;
use proptest::prelude::*;

const SLICE: u64 = 1000;
const CPUS: u32 = 3;
const VCPUS: u32 = 6;

#[derive(Clone, Debug)]
enum Op {
    Wake(u32),
    Sleep(u32),
    Yield(u32),
    Pause(u32),
    Unpause(u32),
    Affinity(u32, u8),
    /// A CPU asks for no reason.
    Schedule(u32),
    /// A CPU that put a virtual CPU off saves it at last.
    Save(u32),
    /// One kicked CPU answers.
    Answer,
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..VCPUS).prop_map(Op::Wake),
        2 => (0..VCPUS).prop_map(Op::Sleep),
        1 => (0..VCPUS).prop_map(Op::Yield),
        1 => (0..VCPUS).prop_map(Op::Pause),
        3 => (0..VCPUS).prop_map(Op::Unpause),
        1 => (0..VCPUS, any::<u8>()).prop_map(|(key, mask)| Op::Affinity(key, mask)),
        1 => (0..CPUS).prop_map(Op::Schedule),
        2 => (0..CPUS).prop_map(Op::Save),
        2 => Just(Op::Answer),
        2 => (1..2 * SLICE).prop_map(Op::Pass),
    ]
}

fn mask(bits: u8) -> CpuSet {
    let mut set = CpuSet::EMPTY;
    (0..CPUS).filter(|cpu| bits & (1 << cpu) != 0).for_each(|cpu| set.insert(CpuId(cpu)));
    set
}

/// What the world knows of a virtual CPU without asking the policy.
#[derive(Clone)]
struct Vcpu {
    asleep: bool,
    pauses: u32,
    affinity: CpuSet,
    /// The CPU with its registers.
    held_by: Option<u32>,
}

struct World {
    policy: RoundRobin,
    now: u64,
    running: [Option<Key>; CPUS as usize],
    unsaved: [Option<Key>; CPUS as usize],
    deadline: [Option<u64>; CPUS as usize],
    kicks: Vec<u32>,
    vcpus: Vec<Vcpu>,
}

impl World {
    fn new() -> Self {
        let mut policy = RoundRobin::new(SLICE);
        (0..CPUS).for_each(|cpu| policy.add_cpu(CpuId(cpu)));
        (0..VCPUS).for_each(|key| policy.add(Key(key), CpuSet::ALL, 0).expect("the key is new"));
        let vcpu = Vcpu { asleep: false, pauses: 1, affinity: CpuSet::ALL, held_by: None };
        Self {
            policy,
            now: 0,
            running: [None; 3],
            unsaved: [None; 3],
            deadline: [None; 3],
            kicks: Vec::new(),
            vcpus: vec![vcpu; VCPUS as usize],
        }
    }

    fn woke(&mut self, wake: Wake) {
        if let Wake::Kick(cpu) = wake {
            self.kicks.push(cpu.0);
        }
    }

    fn save(&mut self, cpu: u32) {
        if let Some(key) = self.unsaved[cpu as usize].take() {
            self.vcpus[key.0 as usize].held_by = None;
            let wake = self.policy.saved(key, self.now);
            self.woke(wake);
        }
    }

    fn schedule(&mut self, cpu: u32) {
        self.save(cpu);
        self.kicks.retain(|&kicked| kicked != cpu);
        let decision = self.policy.schedule(CpuId(cpu), self.now);
        let overlooked = self.policy.overlooked();
        self.woke(overlooked);
        let before = core::mem::replace(&mut self.running[cpu as usize], decision.run);
        self.deadline[cpu as usize] = decision.until_ns;
        if before != decision.run {
            self.unsaved[cpu as usize] = before;
        }
        if let Some(key) = decision.run {
            let vcpu = &mut self.vcpus[key.0 as usize];
            assert!(vcpu.held_by.is_none_or(|holder| holder == cpu), "{key:?} is on two CPUs");
            assert!(!vcpu.asleep && vcpu.pauses == 0 && vcpu.affinity.contains(CpuId(cpu)));
            vcpu.held_by = Some(cpu);
        }
    }

    fn cpu_of(&self, key: u32) -> Option<u32> {
        (0..CPUS).find(|&cpu| self.running[cpu as usize] == Some(Key(key)))
    }

    fn apply(&mut self, op: Op) {
        let now = self.now;
        match op {
            Op::Wake(key) => {
                self.vcpus[key as usize].asleep = false;
                let wake = self.policy.wake(Key(key), now);
                self.woke(wake);
            }
            Op::Sleep(key) | Op::Yield(key) => {
                let Some(cpu) = self.cpu_of(key) else { return };
                if matches!(op, Op::Sleep(_)) {
                    self.vcpus[key as usize].asleep = true;
                    self.policy.sleep(Key(key));
                } else {
                    self.policy.yield_(Key(key));
                }
                self.schedule(cpu);
            }
            Op::Pause(key) => {
                self.vcpus[key as usize].pauses += 1;
                let wake = self.policy.pause(Key(key), now);
                self.woke(wake);
            }
            Op::Unpause(key) => {
                let pauses = &mut self.vcpus[key as usize].pauses;
                *pauses = pauses.saturating_sub(1);
                let wake = self.policy.unpause(Key(key), now);
                self.woke(wake);
            }
            Op::Affinity(key, bits) => {
                self.vcpus[key as usize].affinity = mask(bits);
                let wake = self.policy.set_affinity(Key(key), mask(bits), now);
                self.woke(wake);
            }
            Op::Schedule(cpu) => self.schedule(cpu),
            Op::Save(cpu) => self.save(cpu),
            Op::Answer => self.answer(),
            Op::Pass(ns) => self.pass(ns),
        }
    }

    fn answer(&mut self) {
        if let Some(&cpu) = self.kicks.first() {
            self.schedule(cpu);
        }
    }

    /// Time passes, and each CPU keeps its deadline.
    fn pass(&mut self, ns: u64) {
        let end = self.now + ns;
        let next = |world: &Self| (0..CPUS as usize).filter_map(|c| Some((world.deadline[c]?, c))).min();
        while let Some((at, cpu)) = next(self).filter(|&(at, _)| at <= end) {
            self.now = self.now.max(at);
            self.schedule(cpu as u32);
        }
        self.now = end;
    }

    /// All saves and kicks done.
    fn quiesce(&mut self) {
        for _ in 0..100 {
            (0..CPUS).for_each(|cpu| self.save(cpu));
            if self.kicks.is_empty() {
                return;
            }
            self.answer();
        }
        panic!("the kicks do not end");
    }

    fn check_work_conserving(&self) {
        for cpu in (0..CPUS).filter(|&cpu| self.running[cpu as usize].is_none()) {
            for key in (0..VCPUS).filter(|&key| self.cpu_of(key).is_none()) {
                let v = &self.vcpus[key as usize];
                let could = !v.asleep && v.pauses == 0 && v.affinity.contains(CpuId(cpu));
                assert!(!could, "cpu {cpu} idles while {key} waits");
            }
        }
    }

    fn ran(&self, key: u32) -> u64 {
        self.policy.runstate(Key(key)).expect("it was added").times_at(self.now)[RunState::Running as usize]
    }
}

/// CPU 0 takes the one for which CPU 1 was kicked, and CPU 1 may not run the one for which CPU 0 was.
#[test]
fn one_that_is_overlooked_runs_on_an_idle_cpu() {
    let mut world = World::new();
    let [first, second] = [0, 1];
    world.apply(Op::Affinity(first, 0b010));
    world.apply(Op::Affinity(second, 0b101));
    world.apply(Op::Unpause(first));
    world.quiesce();
    world.apply(Op::Sleep(first));
    world.quiesce();
    world.apply(Op::Affinity(first, 0b011));
    world.apply(Op::Wake(first));
    world.apply(Op::Unpause(second));
    assert_eq!(world.kicks, [1, 0]);
    world.apply(Op::Schedule(0));
    world.quiesce();
    world.check_work_conserving();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_history_breaks_the_contract(ops in proptest::collection::vec(op(), 1..200)) {
        let mut world = World::new();
        for op in ops {
            world.apply(op);
        }
        world.quiesce();
        world.check_work_conserving();
    }

    #[test]
    fn no_virtual_cpu_is_lost(ops in proptest::collection::vec(op(), 1..150)) {
        let mut world = World::new();
        for op in ops {
            world.apply(op);
        }
        for key in 0..VCPUS {
            while world.vcpus[key as usize].pauses > 0 {
                world.apply(Op::Unpause(key));
            }
            world.apply(Op::Wake(key));
            world.apply(Op::Affinity(key, 0xff));
        }
        world.quiesce();
        let before: Vec<u64> = (0..VCPUS).map(|key| world.ran(key)).collect();
        for _ in 0..VCPUS * 4 {
            world.pass(SLICE);
            world.quiesce();
        }
        for key in 0..VCPUS {
            prop_assert!(world.ran(key) > before[key as usize], "{} never runs", key);
        }
    }

    #[test]
    fn those_who_always_want_to_run_get_equal_shares(vcpus in 1..VCPUS, slices in 100u64..300) {
        let mut world = World::new();
        (0..vcpus).for_each(|key| world.apply(Op::Unpause(key)));
        world.quiesce();
        for _ in 0..slices {
            world.pass(SLICE);
            world.quiesce();
        }
        let cpus = u64::from(CPUS.min(vcpus));
        let share = world.now * cpus / u64::from(vcpus);
        for key in 0..vcpus {
            let ran = world.ran(key);
            prop_assert!(ran.abs_diff(share) <= 3 * SLICE, "{} ran {} of {}", key, ran, share);
        }
    }

    #[test]
    fn the_account_of_each_adds_up(ops in proptest::collection::vec(op(), 1..100)) {
        let mut world = World::new();
        for op in ops {
            world.apply(op);
        }
        for key in 0..VCPUS {
            let times = world.policy.runstate(Key(key)).expect("it was added").times_at(world.now);
            prop_assert_eq!(times.iter().sum::<u64>(), world.now);
        }
    }
}
