//! What CPUs know of each other's queues without a lock.
//!
//! Two pairs of a store and a load keep a CPU from idling beside work, and from running on without a deadline while somebody
//! waits elsewhere: who makes somebody wait puts the queue on the board and then looks who idles; who idles says so and then
//! looks at the board. A fence stands between the two on both sides, so one of them sees the other. While one CPU is online there is
//! nobody to tell: who comes online puts the other's queue on the board, under its lock.

use super::calendar::{earlier, is_before};
use crate::ids::CpuId;
use crate::sched::{CpuSet, Key, MAX_CPUS};
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// The most virtual CPUs of all domains.
pub const MAX_KEYS: usize = 16_384;

const NOWHERE: u16 = u16::MAX;
const NR: usize = MAX_CPUS as usize;

/// A set of CPUs that all CPUs change.
#[derive(Debug)]
pub(super) struct SharedSet([AtomicU64; NR / 64]);

impl SharedSet {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; NR / 64])
    }

    pub(super) fn get(&self) -> CpuSet {
        CpuSet::from_words(core::array::from_fn(|n| self.0[n].load(Ordering::Relaxed)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().fold(0, |all, word| all | word.load(Ordering::Relaxed)) == 0
    }

    /// Whether it has any but this one.
    #[inline]
    pub(super) fn has_others(&self, cpu: CpuId) -> bool {
        const WORDS: usize = NR / 64;
        let word = |n: usize| self.0[(cpu.0 as usize / 64 + n) % WORDS].load(Ordering::Relaxed);
        (1..WORDS).fold(word(0) & !(1 << (cpu.0 % 64)), |all, n| all | word(n)) != 0
    }

    pub(super) fn contains(&self, cpu: CpuId) -> bool {
        self.0[cpu.0 as usize / 64].load(Ordering::Relaxed) & 1 << (cpu.0 % 64) != 0
    }

    pub(super) fn insert(&self, cpu: CpuId) {
        self.0[cpu.0 as usize / 64].fetch_or(1 << (cpu.0 % 64), Ordering::Release); // pairs with the fences of those that look
    }

    /// Takes it out, without a write where it is not in.
    #[inline]
    pub(super) fn take_out(&self, cpu: CpuId) {
        if self.contains(cpu) {
            self.remove(cpu);
        }
    }

    /// Takes it out. Says whether it was in: of all that try, one does.
    pub(super) fn remove(&self, cpu: CpuId) -> bool {
        let bit = 1 << (cpu.0 % 64);
        self.0[cpu.0 as usize / 64].fetch_and(!bit, Ordering::AcqRel) & bit != 0
    }
}

/// Where a CPU is in the machine: two are near that have the same numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Location {
    /// The core, of which there may be several threads.
    pub core: u16,
    /// The greatest cache that cores share.
    pub cache: u16,
    /// The NUMA node.
    pub node: u16,
}

impl Location {
    /// How far another CPU is: 1 for a thread of the same core, 2 for the same cache, 3 for the same node, 4 beyond.
    pub fn distance(self, other: Self) -> u32 {
        match (self.core == other.core, self.cache == other.cache, self.node == other.node) {
            (true, true, true) => 1,
            (_, true, true) => 2,
            (_, _, true) => 3,
            _ => 4,
        }
    }
}

/// The scheduler's parameters, with Xen's names. All can change while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// `tslice_ms`: how long one runs while others wait, 1 to 1000.
    pub tslice_ms: u32,
    /// `ratelimit_us`: how long one runs before one that wakes takes its CPU; 0, or 100 to 500,000, and less than the slice.
    pub ratelimit_us: u32,
    /// `vcpu_migr_delay_us`: one that ran more recently is left to its CPU by those that have others to run; up to 100,000.
    pub vcpu_migr_delay_us: u32,
}

impl Default for Params {
    fn default() -> Self {
        Self { tslice_ms: 30, ratelimit_us: 1000, vcpu_migr_delay_us: 0 }
    }
}

/// Why [`Board::set_params`] refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadParams {
    /// `tslice_ms` is not from 1 to 1000.
    Slice,
    /// `ratelimit_us` is neither 0 nor from 100 to 500,000, or is not less than the slice.
    RateLimit,
    /// `vcpu_migr_delay_us` is above 100,000.
    MigrationDelay,
}

impl Params {
    /// Whether all are in their ranges.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> Result<(), BadParams> {
        if !(1..=1000).contains(&self.tslice_ms) {
            return Err(BadParams::Slice);
        }
        let is_known = self.ratelimit_us == 0 || (100..=500_000).contains(&self.ratelimit_us);
        if !is_known || self.ratelimit_us >= self.tslice_ms * 1000 {
            return Err(BadParams::RateLimit);
        }
        if self.vcpu_migr_delay_us > 100_000 {
            return Err(BadParams::MigrationDelay);
        }
        Ok(())
    }
}

/// Where a virtual CPU is, as all see it without a lock: its queue's CPU, whether that has its registers, whether it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whereabouts(u32);

const NOBODY: u32 = u32::MAX;
const HELD: u32 = 1 << 16;
const ASLEEP: u32 = 1 << 17;
const LOST: u32 = 1 << 18;

impl Whereabouts {
    pub(super) fn new(home: CpuId, is_asleep: bool) -> Self {
        Self(home.0 & 0xffff | if is_asleep { ASLEEP } else { 0 })
    }

    /// The CPU has its registers.
    pub(super) fn held(self) -> Self {
        Self(self.0 | HELD)
    }

    /// It wants to run and may not where it is: it is to move when its registers are in memory.
    pub(super) fn lost(self) -> Self {
        Self(self.0 | LOST)
    }

    /// The CPU in whose queue it is.
    #[inline]
    pub fn home(self) -> CpuId {
        CpuId(self.0 & 0xffff)
    }

    /// The CPU that runs it or still holds its registers.
    #[inline]
    pub fn held_by(self) -> Option<CpuId> {
        (self.0 & HELD != 0).then(|| self.home())
    }

    /// Whether it has said that it sleeps and was not woken since.
    #[inline]
    pub fn is_asleep(self) -> bool {
        self.0 & ASLEEP != 0
    }

    pub(super) fn is_lost(self) -> bool {
        self.0 & LOST != 0
    }
}

/// What the others know of a CPU.
#[derive(Debug)]
#[repr(align(64))]
struct Hint {
    /// Of the first that waits, if some may run elsewhere: its virtual time by all queues' common measure, and what a slice costs it.
    first: AtomicU64,
    step: AtomicU64,
    /// The virtual time of the one that runs beside others at the end of its slice, by the common measure.
    end: AtomicU64,
    core: AtomicU16,
    cache: AtomicU16,
    node: AtomicU16,
    /// The next thread of the same core, in a ring.
    sibling: AtomicU16,
}

/// What the board says of those that wait first in the queues of other CPUs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Earliest {
    /// In whose queue the earliest is.
    pub cpu: CpuId,
    /// Its virtual time, by the common measure.
    pub spent: u64,
    /// The least virtual time of those and of who runs beside them, likewise: who waits may have run far more than that.
    pub hindmost: u64,
    /// What a slice costs the one of all that it costs most.
    pub dearest: u64,
}

/// What is shared among all queues.
#[derive(Debug)]
pub struct Board {
    hints: [Hint; NR],
    /// For each virtual CPU the number of its [`Whereabouts`]; [`NOBODY`] for none.
    whereabouts: [AtomicU32; MAX_KEYS],
    /// All keys that were ever in use are below this.
    nr_keys: AtomicU32,
    tslice_ms: AtomicU32,
    ratelimit_us: AtomicU32,
    migr_delay_us: AtomicU32,
    /// There to run virtual CPUs.
    pub(super) online: SharedSet,
    /// More than one CPU is online.
    has_company: AtomicBool,
    /// Idle, and nobody has kicked them.
    pub(super) idle: SharedSet,
    /// They run without a deadline, and nobody has kicked them.
    pub(super) lone: SharedSet,
    /// Those in whose queue one waits that may run elsewhere.
    pub(super) movable: SharedSet,
}

impl Board {
    /// Without CPUs, with Xen's parameters.
    pub const fn new() -> Self {
        Self {
            hints: [const {
                Hint {
                    first: AtomicU64::new(0),
                    step: AtomicU64::new(0),
                    end: AtomicU64::new(0),
                    core: AtomicU16::new(0),
                    cache: AtomicU16::new(0),
                    node: AtomicU16::new(0),
                    sibling: AtomicU16::new(NOWHERE),
                }
            }; NR],
            whereabouts: [const { AtomicU32::new(NOBODY) }; MAX_KEYS],
            nr_keys: AtomicU32::new(0),
            tslice_ms: AtomicU32::new(30),
            ratelimit_us: AtomicU32::new(1000),
            migr_delay_us: AtomicU32::new(0),
            online: SharedSet::new(),
            has_company: AtomicBool::new(false),
            idle: SharedSet::new(),
            lone: SharedSet::new(),
            movable: SharedSet::new(),
        }
    }

    /// The parameters.
    pub fn params(&self) -> Params {
        Params {
            tslice_ms: self.tslice_ms.load(Ordering::Relaxed),
            ratelimit_us: self.ratelimit_us.load(Ordering::Relaxed),
            vcpu_migr_delay_us: self.migr_delay_us.load(Ordering::Relaxed),
        }
    }

    /// Changes them, from the next decision on.
    ///
    /// # Errors
    /// What is out of range; nothing is changed then.
    pub fn set_params(&self, params: Params) -> Result<(), BadParams> {
        params.check()?;
        self.tslice_ms.store(params.tslice_ms, Ordering::Relaxed);
        self.ratelimit_us.store(params.ratelimit_us, Ordering::Relaxed);
        self.migr_delay_us.store(params.vcpu_migr_delay_us, Ordering::Relaxed);
        Ok(())
    }

    #[inline]
    pub(super) fn slice_ns(&self) -> u64 {
        u64::from(self.tslice_ms.load(Ordering::Relaxed)) * 1_000_000
    }

    #[inline]
    pub(super) fn ratelimit_ns(&self) -> u64 {
        u64::from(self.ratelimit_us.load(Ordering::Relaxed)) * 1000
    }

    pub(super) fn migr_delay_ns(&self) -> u64 {
        u64::from(self.migr_delay_us.load(Ordering::Relaxed)) * 1000
    }

    /// The CPUs that run virtual CPUs.
    pub fn online(&self) -> CpuSet {
        self.online.get()
    }

    /// Where a virtual CPU is. What is said of sleep and of registers is true for who has called [`fence`] between his own
    /// change and this, as those have who change it.
    #[inline]
    pub fn whereabouts(&self, key: Key) -> Option<Whereabouts> {
        // Acquire: who learns that no CPU has it sees what the last one left in memory.
        match self.whereabouts.get(key.0 as usize)?.load(Ordering::Acquire) {
            NOBODY => None,
            word => Some(Whereabouts(word)),
        }
    }

    /// In which CPU's queue a virtual CPU is.
    #[inline]
    pub(super) fn home(&self, key: Key) -> Option<CpuId> {
        self.whereabouts(key).map(Whereabouts::home)
    }

    /// Whether a CPU has its registers.
    #[inline]
    pub(super) fn is_held(&self, key: Key) -> bool {
        self.whereabouts(key).is_some_and(|at| at.held_by().is_some())
    }

    /// Changed with the lock of the queue that has it, and where it moves also of the one that gets it; by the CPU that has its
    /// registers, if one has.
    #[inline]
    pub(super) fn set_whereabouts(&self, key: Key, to: Option<Whereabouts>) {
        self.whereabouts[key.0 as usize].store(to.map_or(NOBODY, |to| to.0), Ordering::Release);
    }

    /// The same by any CPU. Whether it is held stays as it is.
    pub(super) fn change_whereabouts(&self, key: Key, to: Whereabouts) {
        let change = |old: u32| Some(to.0 | old & HELD);
        let _ = self.whereabouts[key.0 as usize].fetch_update(Ordering::Release, Ordering::Relaxed, change);
    }

    /// Its CPU no longer has its registers. Without a lock. Answers where it was, if it was held.
    pub(super) fn let_go(&self, key: Key) -> Option<Whereabouts> {
        self.whereabouts(key)?.held_by()?;
        // Release: who takes it sees its registers. The fence behind this is the caller's.
        Some(Whereabouts(self.whereabouts[key.0 as usize].fetch_and(!HELD, Ordering::Release)))
    }

    /// All keys that were ever in use are below this.
    pub(super) fn nr_keys(&self) -> u32 {
        self.nr_keys.load(Ordering::Relaxed)
    }

    pub(super) fn note_key(&self, key: Key) {
        self.nr_keys.fetch_max(key.0 + 1, Ordering::Relaxed);
    }

    /// Whether a CPU runs one without a deadline, as nobody waits for it, and has not been told otherwise.
    #[inline]
    pub fn runs_alone(&self, cpu: CpuId) -> bool {
        self.lone.contains(cpu)
    }

    /// Where a CPU is.
    pub fn location(&self, cpu: CpuId) -> Location {
        let hint = &self.hints[cpu.0 as usize];
        Location {
            core: hint.core.load(Ordering::Relaxed),
            cache: hint.cache.load(Ordering::Relaxed),
            node: hint.node.load(Ordering::Relaxed),
        }
    }

    /// Says where a CPU is, once, before it is added; one CPU at a time.
    pub fn locate(&self, cpu: CpuId, location: Location) {
        let hint = &self.hints[cpu.0 as usize];
        hint.core.store(location.core, Ordering::Relaxed);
        hint.cache.store(location.cache, Ordering::Relaxed);
        hint.node.store(location.node, Ordering::Relaxed);
        let is_sibling = |&other: &u16| {
            let ring = self.hints[usize::from(other)].sibling.load(Ordering::Relaxed);
            u32::from(other) != cpu.0 && ring != NOWHERE && self.location(CpuId(u32::from(other))) == location
        };
        let after = match (0..NR as u16).find(is_sibling) {
            Some(other) => self.hints[usize::from(other)].sibling.swap(cpu.0 as u16, Ordering::Relaxed),
            None => cpu.0 as u16,
        };
        hint.sibling.store(after, Ordering::Relaxed);
    }

    /// How far `to` is from `from`; 0 for the same.
    pub(super) fn distance(&self, from: CpuId, to: CpuId) -> u32 {
        if from == to { 0 } else { self.location(from).distance(self.location(to)) }
    }

    /// Whether another thread of its core is busy.
    #[inline]
    fn has_busy_sibling(&self, cpu: CpuId) -> bool {
        let next = |cpu: u16| self.hints[usize::from(cpu)].sibling.load(Ordering::Relaxed);
        let mut at = next(cpu.0 as u16);
        while at != NOWHERE && u32::from(at) != cpu.0 {
            let other = CpuId(u32::from(at));
            if self.online.contains(other) && !self.idle.contains(other) {
                return true;
            }
            at = next(at);
        }
        false
    }

    /// How well a CPU suits one that ran on `from`: less is better.
    fn rank(&self, from: CpuId, cpu: CpuId, soft: &CpuSet) -> u32 {
        u32::from(!soft.contains(cpu)) << 9 | u32::from(self.has_busy_sibling(cpu)) << 8 | self.distance(from, cpu)
    }

    /// The best of the idle CPUs that may run one, which no longer counts as idle: the caller kicks it.
    pub(super) fn claim_idle(&self, from: CpuId, hard: &CpuSet, soft: &CpuSet) -> Option<CpuId> {
        loop {
            if self.idle.is_empty() {
                return None;
            }
            let idle = self.idle.get().and(hard);
            let best = idle.iter().min_by_key(|&cpu| self.rank(from, cpu, soft))?;
            if self.idle.remove(best) {
                return Some(best);
            }
        }
    }

    /// The same for one that would rather be on none but the CPU that it is on, if that idles and no thread beside it is busy: no other
    /// can be better.
    #[inline]
    pub(super) fn claim_home(&self, home: CpuId) -> bool {
        self.idle.contains(home) && !self.has_busy_sibling(home) && self.idle.remove(home)
    }

    /// One of the CPUs that run without a deadline, the first after `from`; likewise.
    pub(super) fn claim_lone(&self, from: CpuId, hard: &CpuSet) -> Option<CpuId> {
        loop {
            if self.lone.is_empty() {
                return None;
            }
            let lone = self.lone.get().and(hard);
            let next = lone.iter().find(|cpu| cpu.0 > from.0).or(lone.first())?;
            if self.lone.remove(next) {
                return Some(next);
            }
        }
    }

    /// A CPU to which one can go that may not be where it is.
    pub(super) fn choose(&self, from: CpuId, hard: &CpuSet, soft: &CpuSet) -> Option<CpuId> {
        let online = self.online().and(hard);
        let is_busy = |cpu: CpuId| u32::from(!self.idle.contains(cpu));
        let rank = |&cpu: &CpuId| (is_busy(cpu), u32::from(self.movable.contains(cpu)), self.rank(from, cpu, soft));
        online.iter().min_by_key(rank)
    }

    /// Notes whether more than one CPU runs virtual CPUs.
    pub(super) fn count_online(&self) {
        self.has_company.store(self.online.get().iter().nth(1).is_some(), Ordering::Relaxed);
    }

    /// Whether there is another CPU to tell of anything.
    #[inline]
    pub(super) fn has_company(&self) -> bool {
        self.has_company.load(Ordering::Relaxed)
    }

    /// Whether one waits in the queue of another CPU that this one may take.
    #[inline]
    pub(super) fn has_work(&self, cpu: CpuId) -> bool {
        self.has_company() && self.movable.has_others(cpu)
    }

    /// Whether some CPU may be glad to have one that another has just saved.
    #[inline]
    pub(super) fn has_takers(&self) -> bool {
        self.has_company() && (!self.idle.is_empty() || !self.lone.is_empty())
    }

    /// Says what waits first in a CPU's queue: its virtual time, and what a slice costs it.
    #[inline]
    pub(super) fn publish(&self, cpu: CpuId, first: Option<(u64, u64)>) {
        match first {
            Some((spent, step)) => {
                let hint = &self.hints[cpu.0 as usize];
                hint.first.store(spent, Ordering::Relaxed);
                hint.step.store(step, Ordering::Relaxed);
                if !self.movable.contains(cpu) {
                    self.movable.insert(cpu);
                }
            }
            None => self.movable.take_out(cpu),
        }
    }

    /// Says where the one that runs beside others will be at the end of its slice.
    #[inline]
    pub(super) fn set_end(&self, cpu: CpuId, end: u64) {
        self.hints[cpu.0 as usize].end.store(end, Ordering::Relaxed);
    }

    /// Whether one of these CPUs, other than `cpu`, runs one beside others that will be beyond `than` at the end of its slice.
    pub(super) fn is_further(&self, cpu: CpuId, than: u64, among: &CpuSet) -> bool {
        let quiet = self.idle.get().or(&self.lone.get()).or(&CpuSet::only(cpu));
        let among = among.and(&self.online.get()).without(&quiet);
        among.iter().any(|other| is_before(than, self.hints[other.0 as usize].end.load(Ordering::Relaxed)))
    }

    /// Of what waits first in the queues of other CPUs the earliest.
    #[inline(always)]
    pub(super) fn earliest(&self, cpu: CpuId) -> Option<Earliest> {
        if self.has_work(cpu) { self.find_earliest(cpu) } else { None }
    }

    fn find_earliest(&self, cpu: CpuId) -> Option<Earliest> {
        let (mut earliest, mut hindmost, mut dearest) = (None, None, 0);
        for other in self.movable.get().without(&CpuSet::only(cpu)).iter() {
            let hint = &self.hints[other.0 as usize];
            let spent = hint.first.load(Ordering::Relaxed);
            let end = hint.end.load(Ordering::Relaxed);
            dearest = hint.step.load(Ordering::Relaxed).max(dearest);
            if earliest.is_none_or(|(before, _)| is_before(spent, before)) {
                earliest = Some((spent, other));
            }
            let least = earlier(end, spent);
            hindmost = Some(hindmost.map_or(least, |before| earlier(before, least)));
        }
        earliest.zip(hindmost).map(|((spent, cpu), hindmost)| Earliest { cpu, spent, hindmost, dearest })
    }
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}
