//! A machine that runs the scheduler itself: CPUs with deadlines and kicks, virtual CPUs that run, sleep and misbehave.

use super::*;
use crate::time::earlier;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

pub const US: u64 = 1000;
pub const MS: u64 = 1_000_000;

/// The queues, without locks: the tests are one thread, and check that nobody locks twice.
pub struct Cpus {
    board: &'static Board,
    queues: Vec<Option<Queue>>,
    pub kicked: Vec<bool>,
    pub kicks: u64,
    deadline: Vec<Option<u64>>,
}

impl Queues for Cpus {
    fn board(&self) -> &'static Board {
        self.board
    }

    fn one<R>(&mut self, cpu: CpuId, f: impl FnOnce(&mut Queue) -> R) -> Option<R> {
        self.queues[cpu.0 as usize].as_mut().map(f)
    }

    fn two<R>(&mut self, one: CpuId, other: CpuId, f: impl FnOnce(&mut Queue, &mut Queue) -> R) -> Option<R> {
        assert_ne!(one, other);
        let mut first = self.queues[one.0 as usize].take()?;
        let result = self.queues[other.0 as usize].as_mut().map(|second| f(&mut first, second));
        self.queues[one.0 as usize] = Some(first);
        result
    }

    fn kick(&mut self, cpu: CpuId) {
        self.kicked[cpu.0 as usize] = true;
        self.kicks += 1;
    }

    /// Every other time as another CPU does it, which cannot set this one's timer.
    fn look_by(&mut self, cpu: CpuId, at_ns: u64, now_ns: u64) {
        let deadline = &mut self.deadline[cpu.0 as usize];
        if at_ns <= now_ns || at_ns.is_multiple_of(2) {
            return self.kick(cpu);
        }
        *deadline = earlier(*deadline, Some(at_ns));
    }
}

/// What a virtual CPU does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// Only what the test tells it.
    Nothing,
    /// It runs whenever it can.
    Spins,
    /// It wakes every `period` and runs for `work`.
    Ticks { period: u64, work: u64 },
    /// It sleeps for a moment before each multiple of `tick`.
    Dodges { tick: u64 },
    /// It runs for `work`, then wakes another and sleeps.
    Passes { to: usize, work: u64 },
    /// It yields after each `work`.
    Yields { work: u64 },
    /// It runs for `work`, then sleeps for `rest`.
    Naps { work: u64, rest: u64 },
}

pub struct Vcpu {
    pub does: Does,
    pub ran: u64,
    pub asleep: bool,
    pub pauses: u32,
    pub hard: CpuSet,
    pub holder: Option<u32>,
    /// What it has left to do before it does something else than run.
    left: u64,
    woke_at: Option<u64>,
    pub worst_wait: u64,
}

impl Vcpu {
    pub fn wants(&self) -> bool {
        !self.asleep && self.pauses == 0
    }
}

pub struct World {
    pub cpus: Cpus,
    pub now: u64,
    pub vcpus: Vec<Vcpu>,
    pub running: Vec<Option<usize>>,
    unsaved: Vec<Option<usize>>,
    timers: BinaryHeap<Reverse<(u64, usize)>>,
    pub decisions: u64,
    /// Registers are saved at once.
    pub saves_at_once: bool,
}

impl World {
    pub fn new(nr_cpus: u32) -> Self {
        Self::with_locations(nr_cpus, |cpu| Location { core: cpu as u16, ..Location::default() })
    }

    pub fn with_locations(nr_cpus: u32, location: impl Fn(u32) -> Location) -> Self {
        let board: &'static Board = Box::leak(Box::default());
        let queues = (0..nr_cpus).map(|cpu| Some(Queue::new(CpuId(cpu)))).collect();
        let all = nr_cpus as usize;
        let cpus = Cpus { board, queues, kicked: vec![false; all], kicks: 0, deadline: vec![None; all] };
        let mut world = Self {
            cpus,
            now: 0,
            vcpus: Vec::new(),
            running: vec![None; all],
            unsaved: vec![None; all],
            timers: BinaryHeap::new(),
            decisions: 0,
            saves_at_once: true,
        };
        for cpu in 0..nr_cpus {
            board.locate(CpuId(cpu), location(cpu));
            online(&mut world.cpus, CpuId(cpu), 0);
        }
        world.settle();
        world
    }

    pub fn board(&self) -> &'static Board {
        self.cpus.board
    }

    pub fn account(weight: u32, cap: u32) -> Arc<Account> {
        Arc::new(Account::new(weight, cap).expect("a weight in range"))
    }

    /// Adds a virtual CPU that runs as soon as it can, or is paused once where it does nothing by itself.
    pub fn add(&mut self, account: &Arc<Account>, hard: CpuSet, does: Does) -> usize {
        let n = self.vcpus.len();
        add(&mut self.cpus, Key(n as u32), account.clone(), (hard, CpuSet::ALL), self.now).expect("the key is new");
        let asleep = false;
        let vcpu =
            Vcpu { does, ran: 0, asleep, pauses: 1, hard, holder: None, left: u64::MAX, woke_at: None, worst_wait: 0 };
        self.vcpus.push(vcpu);
        self.begin(n);
        if does != Does::Nothing {
            self.unpause(n);
            self.settle();
        }
        n
    }

    /// What it does next takes so long.
    fn begin(&mut self, n: usize) {
        let now = self.now;
        let vcpu = &mut self.vcpus[n];
        vcpu.left = match vcpu.does {
            Does::Nothing | Does::Spins => u64::MAX,
            Does::Ticks { work, .. } | Does::Passes { work, .. } => work,
            Does::Yields { work } | Does::Naps { work, .. } => work,
            Does::Dodges { tick } => (tick - now % tick).saturating_sub(100 * US).max(10 * US),
        };
    }

    pub fn wake(&mut self, n: usize) {
        let vcpu = &mut self.vcpus[n];
        if vcpu.asleep {
            vcpu.asleep = false;
            vcpu.woke_at = Some(self.now);
        }
        let now = self.now;
        let _ = wake(&mut self.cpus, Key(n as u32), || now);
    }

    pub fn pause(&mut self, n: usize) {
        self.vcpus[n].pauses += 1;
        pause(&mut self.cpus, Key(n as u32), self.now);
    }

    pub fn unpause(&mut self, n: usize) {
        let pauses = &mut self.vcpus[n].pauses;
        *pauses = pauses.saturating_sub(1);
        unpause(&mut self.cpus, Key(n as u32), self.now);
    }

    pub fn set_affinity(&mut self, n: usize, hard: CpuSet, soft: CpuSet) {
        self.vcpus[n].hard = hard;
        set_affinity(&mut self.cpus, Key(n as u32), hard, soft, self.now);
    }

    pub fn sleep(&mut self, cpu: usize, n: usize) {
        self.vcpus[n].asleep = true;
        sleep(&mut self.cpus, CpuId(cpu as u32), Key(n as u32));
        self.schedule(cpu);
    }

    pub fn yield_(&mut self, cpu: usize) {
        self.decide(cpu, true);
    }

    pub fn save(&mut self, cpu: usize) {
        if let Some(n) = self.unsaved[cpu].take() {
            self.vcpus[n].holder = None;
            saved(&mut self.cpus, Key(n as u32), self.now);
        }
    }

    pub fn schedule(&mut self, cpu: usize) {
        self.decide(cpu, false);
    }

    fn decide(&mut self, cpu: usize, yields: bool) {
        self.save(cpu);
        self.cpus.kicked[cpu] = false;
        self.decisions += 1;
        let decision = schedule(&mut self.cpus, CpuId(cpu as u32), yields, self.now);
        let new = decision.run.map(|key| key.0 as usize);
        let old = core::mem::replace(&mut self.running[cpu], new);
        self.cpus.deadline[cpu] = decision.until_ns;
        if old != new {
            self.unsaved[cpu] = old;
        }
        if let Some(n) = new {
            let vcpu = &mut self.vcpus[n];
            assert!(vcpu.holder.is_none_or(|holder| holder == cpu as u32), "{n} is on two CPUs");
            assert!(vcpu.wants(), "{n} runs and does not want to");
            assert!(vcpu.hard.contains(CpuId(cpu as u32)), "{n} runs where it may not");
            vcpu.holder = Some(cpu as u32);
            if let Some(at) = vcpu.woke_at.take() {
                vcpu.worst_wait = vcpu.worst_wait.max(self.now - at);
            }
        }
        if self.saves_at_once {
            self.save(cpu);
        }
    }

    /// All that were kicked look.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            for cpu in 0..self.running.len() {
                self.save(cpu);
            }
            let Some(cpu) = self.cpus.kicked.iter().position(|&kicked| kicked) else { return };
            self.schedule(cpu);
        }
        panic!("the kicks do not end");
    }

    /// When something happens next, and on which CPU; without a CPU it is a timer.
    fn next(&self) -> (u64, Option<usize>) {
        let timer = self.timers.peek().map_or(u64::MAX, |&Reverse((at, _))| at);
        let mut next = (timer, None);
        for (cpu, running) in self.running.iter().enumerate() {
            let left = running.map_or(u64::MAX, |n| self.now.saturating_add(self.vcpus[n].left));
            let at = self.cpus.deadline[cpu].map_or(left, |deadline| deadline.max(self.now).min(left));
            if at < next.0 {
                next = (at, Some(cpu));
            }
        }
        next
    }

    fn pass(&mut self, to: u64) {
        let time = to - self.now;
        for &n in self.running.iter().flatten() {
            let vcpu = &mut self.vcpus[n];
            vcpu.ran += time;
            if vcpu.left != u64::MAX {
                vcpu.left -= time;
            }
        }
        self.now = to;
    }

    /// Runs for so long, or until so many decisions have been made.
    pub fn run(&mut self, time: u64) {
        let end = self.now + time;
        loop {
            let (at, cpu) = self.next();
            if at >= end {
                return self.pass(end);
            }
            self.pass(at);
            match cpu {
                None => {
                    let Reverse((_, n)) = self.timers.pop().expect("it was seen");
                    self.wake(n);
                }
                Some(cpu) => match self.running[cpu] {
                    Some(n) if self.vcpus[n].left == 0 => self.act(cpu, n),
                    _ => self.schedule(cpu),
                },
            }
            self.settle();
        }
    }

    /// It has run as long as it wanted.
    fn act(&mut self, cpu: usize, n: usize) {
        match self.vcpus[n].does {
            Does::Ticks { period, .. } => {
                let at = (self.now / period + 1) * period;
                self.timers.push(Reverse((at, n)));
                self.begin(n);
                self.sleep(cpu, n);
            }
            Does::Dodges { .. } => {
                self.timers.push(Reverse((self.now + 200 * US, n)));
                self.now += 200 * US; // what it does next is reckoned from when it wakes
                self.begin(n);
                self.now -= 200 * US;
                self.sleep(cpu, n);
            }
            Does::Passes { to, .. } => {
                self.begin(n);
                if to == n {
                    return;
                }
                self.wake(to);
                self.sleep(cpu, n);
            }
            Does::Yields { .. } => {
                self.begin(n);
                self.yield_(cpu);
            }
            Does::Naps { rest, .. } => {
                self.timers.push(Reverse((self.now + rest, n)));
                self.begin(n);
                self.sleep(cpu, n);
            }
            Does::Nothing | Does::Spins => {}
        }
    }

    /// After all kicks: no CPU idles beside one that waits and may run there, and each account adds up.
    pub fn check(&mut self) {
        let mut idle = CpuSet::EMPTY;
        let online = self.board().online();
        for cpu in online.iter().filter(|cpu| self.running[cpu.0 as usize].is_none()) {
            idle.insert(cpu);
        }
        for n in 0..self.vcpus.len() {
            let vcpu = &self.vcpus[n];
            let is_on = self.running.contains(&Some(n));
            if vcpu.wants() && !is_on {
                let could = vcpu.hard.and(&idle);
                let home = self.board().home(Key(n as u32)).expect("it was added");
                let place = self.cpus.one(home, |queue| format!("{:?}", queue.units.get(Key(n as u32))));
                let times = (self.now, self.cpus.deadline[home.0 as usize]);
                assert!(could.is_empty(), "{could:?} idle beside {n}: on {home} at {times:?} {place:?}");
            }
            let home = self.board().home(Key(n as u32)).expect("it was added");
            assert!(self.cpus.one(home, |queue| queue.units.get(Key(n as u32)).is_some()).expect("a CPU"));
        }
    }

    pub fn ran(&self, n: usize) -> u64 {
        self.vcpus[n].ran
    }
}

/// Numbers that look random.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % end
    }
}

pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A mask that is mostly everything, sometimes a few, sometimes one, seldom none.
fn mask(random: &mut Random, cpus: u64) -> CpuSet {
    let mut set = CpuSet::EMPTY;
    match random.below(20) {
        0 => {}
        1..=6 => set.insert(CpuId(random.below(cpus) as u32)),
        7..=12 => (0..1 + random.below(4)).for_each(|_| set.insert(CpuId(random.below(cpus) as u32))),
        _ => return CpuSet::ALL,
    }
    set
}

/// One history: everything that can happen, in any order, kicks and saves late.
fn history(cpus: u64, vcpus: u64, decisions: u64, seed: u64) -> u64 {
    let mut random = Random(seed | 1);
    let mut world = World::new(cpus as u32);
    world.saves_at_once = false;
    let accounts: Vec<_> =
        (0..1 + vcpus / 4).map(|n| World::account(1 << (n % 12), if n % 7 == 3 { 60 } else { 0 })).collect();
    for n in 0..vcpus {
        let hard = mask(&mut random, cpus);
        world.add(&accounts[(n % accounts.len() as u64) as usize], hard, Does::Nothing);
        if random.below(4) != 0 {
            world.unpause(n as usize);
        }
    }
    let mut ops = 0;
    while world.decisions < decisions {
        ops += 1;
        let (n, cpu) = (random.below(vcpus) as usize, random.below(cpus) as usize);
        let running = world.running[cpu];
        match random.below(30) {
            0..=5 => world.wake(n),
            6..=8 => {
                if let Some(n) = running {
                    world.sleep(cpu, n)
                }
            }
            9 | 10 => {
                if running.is_some() {
                    world.yield_(cpu)
                }
            }
            11 => world.pause(n),
            12..=15 => world.unpause(n),
            16 => {
                let (hard, soft) = (mask(&mut random, cpus), mask(&mut random, cpus));
                world.set_affinity(n, hard, soft);
            }
            17..=19 => world.schedule(cpu),
            20 | 21 => world.save(cpu),
            22..=24 => {
                if let Some(cpu) = world.cpus.kicked.iter().position(|&kicked| kicked) {
                    world.schedule(cpu)
                }
            }
            25 | 26 => world.run(random.below(3 * MS)),
            27 if cpus > 1 && random.below(20) == 0 => {
                let cpu = CpuId(cpu as u32);
                if !world.board().online().contains(cpu) {
                    online(&mut world.cpus, cpu, world.now);
                } else if world.board().online().iter().count() > 1 {
                    let mut from = Some(Key(0));
                    while let Some(key) = from {
                        from = offline(&mut world.cpus, cpu, key, world.now);
                    }
                }
            }
            28 => {
                let account = &accounts[random.below(accounts.len() as u64) as usize];
                account.set_weight(1 + random.below(65_535) as u32).expect("in range");
                (0..vcpus as u32).for_each(|n| reweigh(&mut world.cpus, Key(n), world.now));
                account.set_cap(if random.below(3) == 0 { 1 + random.below(200) as u32 } else { 0 }, world.now);
            }
            _ => {}
        }
        if ops % 64 == 0 {
            accounts.iter().for_each(|account| account.set_cap(0, world.now));
            world.run(40 * MS); // those that are parked come back
            world.settle();
            world.check();
        }
    }
    for n in 0..vcpus as usize {
        let account = runstate(&mut world.cpus, Key(n as u32)).expect("it was added");
        let times = account.times_at(world.now);
        assert_eq!(times[0], world.ran(n), "what {n} ran");
        assert_eq!(times.iter().sum::<u64>(), world.now, "the account of {n}");
    }
    for account in &accounts {
        account.set_weight(WEIGHT_DEFAULT).expect("in range");
    }
    (0..vcpus as u32).for_each(|n| reweigh(&mut world.cpus, Key(n), world.now));
    finish(&mut world, vcpus as usize);
    world.decisions
}

/// All may run again, and do; then all go, and nobody competes.
fn finish(world: &mut World, vcpus: usize) {
    for cpu in 0..world.running.len() as u32 {
        if !world.board().online().contains(CpuId(cpu)) {
            online(&mut world.cpus, CpuId(cpu), world.now);
        }
    }
    for n in 0..vcpus {
        while world.vcpus[n].pauses > 0 {
            world.unpause(n);
        }
        world.wake(n);
        world.set_affinity(n, CpuSet::ALL, CpuSet::ALL);
    }
    world.settle();
    world.saves_at_once = true;
    let before: Vec<u64> = (0..vcpus).map(|n| world.ran(n)).collect();
    let rounds = vcpus / world.running.len() + 1;
    for _ in 0..60 {
        world.run(30 * MS * rounds as u64);
        if (0..vcpus).all(|n| world.ran(n) > before[n]) {
            break;
        }
    }
    for (n, before) in before.iter().enumerate() {
        assert!(world.ran(n) > *before, "{n} never runs");
    }
    for n in 0..vcpus {
        world.pause(n);
    }
    world.settle();
    for n in 0..vcpus as u32 {
        assert_eq!(remove(&mut world.cpus, Key(n)), Ok(()));
        assert_eq!(world.board().home(Key(n)), None);
    }
}

#[test]
fn no_history_breaks_the_contract() {
    let all = number("EUXEN_OPERATIONS", 100_000);
    let seed = number("EUXEN_SEED", 1);
    let shapes = [(1, 3), (2, 7), (3, 6), (4, 40), (8, 8), (16, 100), (64, 64), (256, 300), (32, 4096)];
    let mut done = 0;
    for n in 0.. {
        let (cpus, vcpus) = shapes[n as usize % shapes.len()];
        let part = if all <= 100_000 { all / 9 } else { 50_000 };
        let began = std::time::Instant::now();
        done += history(cpus, vcpus, part, seed.wrapping_add(n).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        println!("{cpus} CPUs, {vcpus} virtual: {:?}", began.elapsed());
        if n + 1 >= shapes.len() as u64 && done >= all {
            break;
        }
    }
    println!("{done} decisions");
}
