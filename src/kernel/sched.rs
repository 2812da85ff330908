//! The scheduler as the rest of the kernel sees it: virtual CPUs by key, waking, sleeping.
//!
//! The policy is [`model::sched`]; this file serialises it and carries its kicks out.

use alloc::sync::Arc;
use alloc::vec::Vec;

use machine::percpu::this_cpu;
use machine::{irq, time};
use model::ids::{CpuId, VcpuId};
use model::sched::{CpuSet, DEFAULT_SLICE_NS, Decision, Key, RoundRobin, Runstate, Scheduler, Wake};
use sync::place::{self, before};
use sync::{Cx, Lock};

use crate::domain::{Domain, Vcpu};

static POLICY: Lock<place::RunQueue, Option<RoundRobin>> = Lock::new(None);
static KEYS: Lock<place::RunQueue, Vec<Slot>> = Lock::new(Vec::new());

/// What a key stands for.
enum Slot {
    /// Nothing.
    Free,
    /// A virtual CPU that is being made.
    Reserved,
    /// This one.
    Bound(VcpuRef),
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

fn policy<P: before::RunQueue, R>(cx: &mut Cx<P>, f: impl FnOnce(&mut RoundRobin) -> R) -> R {
    let (mut policy, _) = cx.lock(&POLICY);
    f(policy.get_or_insert_with(|| RoundRobin::new(DEFAULT_SLICE_NS)))
}

fn act(wake: Wake) {
    if let Wake::Kick(cpu) = wake {
        irq::kick(cpu);
    }
}

/// Gives a key to a virtual CPU that is being made. [`bind`] says later which one it is.
pub fn reserve<P: before::RunQueue>(cx: &mut Cx<P>, affinity: CpuSet) -> Option<Key> {
    let key = {
        let (mut keys, _) = cx.lock(&KEYS);
        let free = keys.iter().position(|slot| matches!(slot, Slot::Free));
        let at = free.unwrap_or(keys.len());
        if free.is_none() {
            keys.push(Slot::Free);
        }
        keys[at] = Slot::Reserved;
        Key(u32::try_from(at).ok()?)
    };
    policy(cx, |policy| policy.add(key, affinity, time::now())).ok()?;
    Some(key)
}

/// Says which virtual CPU a key is.
pub fn bind<P: before::RunQueue>(cx: &mut Cx<P>, key: Key, vcpu: VcpuRef) {
    let (mut keys, _) = cx.lock(&KEYS);
    if let Some(slot) = keys.get_mut(key.0 as usize) {
        *slot = Slot::Bound(vcpu);
    }
}

/// Takes a key back; its virtual CPU is off.
pub fn release<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) {
    policy(cx, |policy| policy.remove(key)).expect("a virtual CPU is off before it is forgotten");
    let gone = cx.lock(&KEYS).0.get_mut(key.0 as usize).map(|slot| core::mem::replace(slot, Slot::Free));
    drop(gone); // outside the lock, as it may be the last reference to its domain
}

/// The virtual CPU of a key.
pub fn lookup<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) -> Option<VcpuRef> {
    match cx.lock(&KEYS).0.get(key.0 as usize) {
        Some(Slot::Bound(vcpu)) => Some(vcpu.clone()),
        _ => None,
    }
}

/// This CPU is there to run virtual CPUs.
pub fn add_this_cpu<P: before::RunQueue>(cx: &mut Cx<P>) {
    policy(cx, |policy| policy.add_cpu(this_cpu()));
}

/// What this CPU does from now on.
pub fn schedule<P: before::RunQueue>(cx: &mut Cx<P>) -> Decision {
    let (decision, overlooked) = policy(cx, |policy| (policy.schedule(this_cpu(), time::now()), policy.overlooked()));
    act(overlooked);
    decision
}

/// The registers of a virtual CPU are in memory.
pub fn saved<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) {
    act(policy(cx, |policy| policy.saved(key, time::now())));
}

/// It has something to do: wakes it, or has the CPU that runs it look.
pub fn wake<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) {
    let (wake, running_on) = policy(cx, |policy| (policy.wake(key, time::now()), policy.running_on(key)));
    act(wake);
    if let (Wake::None, Some(cpu)) = (wake, running_on)
        && cpu != this_cpu()
    {
        irq::kick(cpu);
    }
}

/// It has nothing to do. For the CPU that runs it, which then looks once more for what would wake it.
pub fn sleep<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) {
    policy(cx, |policy| policy.sleep(key));
}

/// It was taken down. As [`sleep`].
pub fn go_down<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) {
    policy(cx, |policy| policy.go_down(key));
}

/// It lets others go first.
pub fn yield_<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) {
    policy(cx, |policy| policy.yield_(key));
}

/// Stops it, from its next look at the scheduler on.
pub fn pause<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) {
    act(policy(cx, |policy| policy.pause(key, time::now())));
}

/// Lets it run again.
pub fn unpause<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) {
    act(policy(cx, |policy| policy.unpause(key, time::now())));
}

/// Whether no CPU runs it or holds its registers.
pub fn is_off<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) -> bool {
    policy(cx, |policy| policy.is_off(key))
}

/// Which CPU runs it.
pub fn running_on<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) -> Option<CpuId> {
    policy(cx, |policy| policy.running_on(key))
}

/// Which CPU runs it or still holds its registers, and so may use its memory on its behalf.
pub fn held_by<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) -> Option<CpuId> {
    policy(cx, |policy| policy.held_by(key))
}

/// Its time account.
pub fn runstate<P: before::RunQueue>(cx: &mut Cx<P>, key: Key) -> Option<Runstate> {
    policy(cx, |policy| policy.runstate(key).cloned())
}
