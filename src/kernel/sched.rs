//! The scheduler as the rest of the kernel sees it: virtual CPUs by key, waking, sleeping.
//!
//! The policy is [`model::sched::credit`]; this file has the queues and their locks, and carries the kicks out.

use alloc::boxed::Box;
use alloc::sync::Arc;

use machine::cpu::features;
use machine::irq::lapic;
use machine::percpu::{MAX_CPUS, this_cpu};
use machine::{smp, start, time};
use model::ids::{CpuId, VcpuId};
use model::sched::credit::{self, Account, AddError, BadParams, Board, Location, MAX_KEYS, Params, Queue, Queues};
use model::sched::{CpuSet, Decision, Key, Runstate};
use sync::place::{self, before};
use sync::{Cx, Lock, Pair};

use crate::cpus::{self, Apart};
use crate::domain::{Domain, Vcpu};
use crate::run::Running;
use crate::slots::{CHUNK, Slots};

static BOARD: Board = Board::new();
/// By CPU; each lock in a cache line of its own.
static QUEUES: [Apart<Lock<place::RunQueue, Option<Box<Queue>>>>; MAX_CPUS] =
    [const { Apart(Lock::new(None)) }; MAX_CPUS];

/// The CPUs that an operator has taken offline.
static OFFLINE: Lock<place::RunQueue, CpuSet> = Lock::new(CpuSet::EMPTY);

/// What keys stand for.
static KEYS: Slots<place::RunQueue, Slot, { MAX_KEYS / CHUNK }> = Slots::new();

/// What a key stands for.
#[derive(Default)]
enum Slot {
    /// Nothing.
    #[default]
    Free,
    /// A virtual CPU that is being made.
    Reserved,
    /// This one, with what the CPU that runs it has of it, while none does.
    Bound(VcpuRef, Option<Box<Running>>),
}

/// A virtual CPU with its domain.
#[derive(Clone)]
pub struct VcpuRef {
    /// The domain.
    pub domain: Arc<Domain>,
    /// The number within it.
    pub id: VcpuId,
}

impl VcpuRef {
    /// The virtual CPU.
    pub fn vcpu(&self) -> &Vcpu {
        self.domain.vcpu(self.id).expect("a reference names a virtual CPU that its domain has")
    }
}

/// The queues of this machine, to one who may lock them.
struct Machine<'a, 'c, P: place::Place>(&'a mut Cx<'c, P>);

impl<P: before::RunQueue> Queues for Machine<'_, '_, P> {
    #[inline]
    fn board(&self) -> &'static Board {
        &BOARD
    }

    #[inline]
    fn one<R>(&mut self, cpu: CpuId, f: impl FnOnce(&mut Queue) -> R) -> Option<R> {
        self.0.lock(&QUEUES[cpu.0 as usize].0).0.as_deref_mut().map(f)
    }

    fn two<R>(&mut self, one: CpuId, other: CpuId, f: impl FnOnce(&mut Queue, &mut Queue) -> R) -> Option<R> {
        match self.0.lock_pair(&QUEUES[one.0 as usize].0, &QUEUES[other.0 as usize].0).0 {
            Pair::Both(mut one, mut other) => Some(f(one.as_deref_mut()?, other.as_deref_mut()?)),
            Pair::Same(_) => None,
        }
    }

    fn kick(&mut self, cpu: CpuId) {
        cpus::kick(cpu);
    }

    fn look_by(&mut self, cpu: CpuId, at_ns: u64, now_ns: u64) {
        if cpu == this_cpu() && at_ns > now_ns { crate::time::arm_by(self.0, at_ns) } else { cpus::kick(cpu) }
    }
}

#[inline]
fn slot(key: Key) -> Option<&'static Lock<place::RunQueue, Slot>> {
    KEYS.get(key.0 as usize)
}

/// Gives a key to a virtual CPU that is being made, which is to run on some CPUs and would rather on others. [`bind`] says
/// later which one it is. `None` if there is no memory for another, or no key.
pub fn reserve<P: before::RunQueue>(cx: &mut Cx<P>, account: Arc<Account>, affinity: (CpuSet, CpuSet)) -> Option<Key> {
    let key = free_key(cx)?;
    match credit::add(&mut Machine(cx), key, account, affinity, time::now()) {
        Ok(()) => Some(key),
        Err(AddError::BadKey | AddError::NoMemory) => {
            free(cx, key);
            None
        }
    }
}

/// The lowest key that nobody has, which is no longer free.
fn free_key<P: before::RunQueue>(cx: &mut Cx<P>) -> Option<Key> {
    for key in (0..MAX_KEYS as u32).map(Key) {
        let (mut slot, _) = cx.lock(KEYS.get_or_make(key.0 as usize)?);
        if matches!(*slot, Slot::Free) {
            *slot = Slot::Reserved;
            return Some(key);
        }
    }
    None
}

fn free<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) {
    let Some(slot) = slot(key) else { return };
    let gone = core::mem::replace(&mut *cx.lock(slot).0, Slot::Free);
    drop(gone); // outside the lock, as it may be the last reference to its domain
}

/// Says which virtual CPU its key is.
pub fn bind<P: before::RunQueue>(cx: &mut Cx<P>, run: Box<Running>) {
    let vcpu = VcpuRef { domain: run.domain.clone(), id: run.id };
    if let Some(slot) = slot(run.vcpu().key) {
        *cx.lock(slot).0 = Slot::Bound(vcpu, Some(run));
    }
}

/// Takes out what the CPU that is to run it has of it.
pub fn take<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) -> Option<Box<Running>> {
    match &mut *cx.lock(slot(key)?).0 {
        Slot::Bound(_, run) => run.take(),
        _ => None,
    }
}

/// Puts it back, and says so to the scheduler: its registers are in memory, after what [`schedule`] said at `now_ns`.
pub fn put_back<P: before::RunQueue>(cx: &mut Cx<P>, run: Box<Running>, now_ns: u64) {
    let key = run.vcpu().key;
    if let Some(slot) = slot(key)
        && let Slot::Bound(_, rests) = &mut *cx.lock(slot).0
    {
        let nothing = rests.replace(run);
        debug_assert!(nothing.is_none(), "a CPU has it");
        core::mem::forget(nothing); // which the compiler cannot know
    }
    credit::saved(&mut Machine(cx), key, now_ns);
}

/// Takes a key back; its virtual CPU is off.
pub fn release<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) {
    credit::remove(&mut Machine(cx), key).expect("a virtual CPU is off before it is forgotten");
    free(cx, key);
}

/// The virtual CPU of a key.
pub fn lookup<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) -> Option<VcpuRef> {
    match &*cx.lock(slot(key)?).0 {
        Slot::Bound(vcpu, _) => Some(vcpu.clone()),
        _ => None,
    }
}

/// This CPU has a queue from now on, in which virtual CPUs can wait until some CPU is there to run them.
pub fn prepare_this_cpu<P: before::RunQueue>(cx: &mut Cx<P>) {
    let cpu = this_cpu();
    cx.lock(&QUEUES[cpu.0 as usize].0).0.get_or_insert_with(|| Box::new(Queue::new(cpu)));
}

/// This CPU is there to run virtual CPUs.
pub fn add_this_cpu<P: before::RunQueue>(cx: &mut Cx<P>) {
    prepare_this_cpu(cx);
    let location = Location::of_processor(features::leaf);
    let location = Location { node: node_of(this_cpu()).unwrap_or(location.node), ..location };
    {
        // One CPU at a time says where it is.
        let (_offline, _) = cx.lock(&OFFLINE);
        BOARD.locate(this_cpu(), location);
    }
    credit::online(&mut Machine(cx), this_cpu(), time::now());
}

/// The NUMA node of a CPU, if the SRAT says it.
fn node_of(cpu: CpuId) -> Option<u16> {
    start::board().node_of(lapic::id_of(cpu))
}

fn all_cpus() -> impl Iterator<Item = CpuId> {
    (0..smp::online()).map(CpuId)
}

/// The CPUs of a NUMA node; none if the SRAT names no such.
pub fn node_cpus(node: u32) -> CpuSet {
    let mut set = CpuSet::EMPTY;
    all_cpus().filter(|&cpu| node_of(cpu).map(u32::from) == Some(node)).for_each(|cpu| set.insert(cpu));
    set
}

/// The CPUs that run virtual CPUs, or will as soon as they have come up.
pub fn usable_cpus<P: before::RunQueue>(cx: &mut Cx<P>) -> CpuSet {
    let mut set = CpuSet::EMPTY;
    all_cpus().for_each(|cpu| set.insert(cpu));
    set.without(&cx.lock(&OFFLINE).0)
}

/// A CPU that was taken offline runs virtual CPUs again.
pub fn online<P: before::RunQueue>(cx: &mut Cx<P>, cpu: CpuId) {
    cx.lock(&OFFLINE).0.remove(cpu);
    credit::online(&mut Machine(cx), cpu, time::now());
}

/// A CPU runs no virtual CPUs from now on; those that it has go elsewhere.
///
/// # Errors
/// A virtual CPU that may run on no other that is online; then nothing has changed.
pub fn offline<P: before::RunQueue>(cx: &mut Cx<P>, cpu: CpuId) -> Result<(), VcpuRef> {
    let left = usable_cpus(cx).without(&CpuSet::only(cpu));
    for key in (0..MAX_KEYS as u32).map(Key) {
        let Some(vcpu) = lookup(cx, key) else { continue };
        if affinity(cx, key).is_some_and(|(hard, _)| hard.and(&left).is_empty()) {
            return Err(vcpu);
        }
    }
    cx.lock(&OFFLINE).0.insert(cpu);
    let mut from = Some(Key(0));
    while let Some(key) = from {
        from = credit::offline(&mut Machine(cx), cpu, key, time::now());
    }
    Ok(())
}

/// The parameters.
pub fn params() -> Params {
    BOARD.params()
}

/// Changes the parameters.
///
/// # Errors
/// What is out of range; then nothing has changed.
pub fn set_params(params: Params) -> Result<(), BadParams> {
    BOARD.set_params(params)
}

/// Where it may run, and where it would rather.
pub fn affinity<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) -> Option<(CpuSet, CpuSet)> {
    credit::affinity(&mut Machine(cx), key)
}

/// Changes where it may run, and where it would rather.
pub fn set_affinity<P: before::RunQueue>(cx: &mut Cx<P>, key: Key, hard: CpuSet, soft: CpuSet) {
    credit::set_affinity(&mut Machine(cx), key, hard, soft, time::now());
}

/// The account of its domain has another weight or cap.
pub fn reweigh<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) {
    credit::reweigh(&mut Machine(cx), key, time::now());
}

/// What this CPU does from `now_ns` on, which is now. `yields` says that the one that it runs lets another go first.
pub fn schedule<P: before::RunQueue>(cx: &mut Cx<P>, yields: bool, now_ns: u64) -> Decision {
    credit::schedule(&mut Machine(cx), this_cpu(), yields, now_ns)
}

/// It has something to do, which was written where it will look: wakes it, or has the CPU that runs it look.
#[inline]
pub fn wake<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) {
    has_to_look(credit::wake(&mut Machine(cx), key, time::now));
}

/// As [`wake`], where nothing has to be waited for. Says whether that was enough: not for one that sleeps.
#[inline(always)]
pub fn try_wake(key: Key) -> bool {
    credit::who_has(&BOARD, key).map(has_to_look).is_ok()
}

#[inline(always)]
fn has_to_look(cpu: Option<CpuId>) {
    if let Some(cpu) = cpu
        && cpu != this_cpu()
    {
        cpus::poke(cpu);
    }
}

/// As [`wake`], for one that was seen asleep after that.
#[inline]
pub fn wake_sleeper<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) {
    credit::wake_sleeper(&mut Machine(cx), key, time::now());
}

/// As [`wake`], for what was posted to it: in the guest its processor takes it, without an exit.
#[inline]
pub fn notify<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) {
    if let Some(cpu) = credit::wake(&mut Machine(cx), key, time::now)
        && cpu != this_cpu()
    {
        cpus::notify(cpu);
    }
}

/// It has nothing to do. For the CPU that runs it, which then looks once more for what would wake it.
pub fn sleep<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) {
    credit::sleep(&mut Machine(cx), this_cpu(), key);
}

/// It was taken down. As [`sleep`].
pub fn go_down<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) {
    credit::go_down(&mut Machine(cx), this_cpu(), key);
}

/// Whether this CPU runs one for which nobody waits, so that nothing follows when it yields.
#[inline]
pub fn is_alone() -> bool {
    BOARD.runs_alone(this_cpu())
}

/// The one that runs lets another go first. Says whether the scheduler is to be asked.
pub fn yield_(run: &mut Running) -> bool {
    run.yields = !is_alone();
    run.yields
}

/// Stops it, from its next look at the scheduler on.
pub fn pause<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) {
    credit::pause(&mut Machine(cx), key, time::now());
}

/// Lets it run again.
pub fn unpause<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) {
    credit::unpause(&mut Machine(cx), key, time::now());
}

/// Whether no CPU runs it or holds its registers.
pub fn is_off(key: Key) -> bool {
    held_by(key).is_none()
}

/// Which CPU runs it or still holds its registers, and so may use its memory on its behalf.
#[inline]
pub fn held_by(key: Key) -> Option<CpuId> {
    BOARD.whereabouts(key)?.held_by()
}

/// Its time account.
pub fn runstate<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) -> Option<Runstate> {
    credit::runstate(&mut Machine(cx), key)
}
