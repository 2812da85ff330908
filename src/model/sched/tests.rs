//! The rules of the plain policy, one by one.

use super::*;

const C0: CpuId = CpuId(0);
const C1: CpuId = CpuId(1);
const SLICE: u64 = 1000;

/// A policy with `cpus` CPUs, all idle, and `vcpus` virtual CPUs, all paused.
fn policy(cpus: u32, vcpus: u32) -> RoundRobin {
    let mut s = RoundRobin::new(SLICE);
    (0..cpus).for_each(|cpu| s.add_cpu(CpuId(cpu)));
    for cpu in 0..cpus {
        assert_eq!(s.schedule(CpuId(cpu), 0), Decision { run: None, until_ns: None });
    }
    (0..vcpus).for_each(|key| s.add(Key(key), CpuSet::ALL, 0).expect("the key is new"));
    s
}

/// `schedule`, and the saving of what it displaced.
fn step(s: &mut RoundRobin, cpu: CpuId, now: u64) -> (Option<u32>, Option<u64>) {
    let before = s.current(cpu);
    let decision = s.schedule(cpu, now);
    if let Some(key) = before
        && decision.run != before
    {
        let _ = s.saved(key, now);
    }
    (decision.run.map(|key| key.0), decision.until_ns)
}

#[test]
fn a_new_virtual_cpu_runs_when_it_is_unpaused_and_until_nobody_waits_without_a_deadline() {
    let mut s = policy(1, 1);
    assert_eq!(s.runstate(Key(0)).unwrap().state(), RunState::Offline);
    assert_eq!(s.unpause(Key(0), 5), Wake::Kick(C0));
    assert_eq!(step(&mut s, C0, 6), (Some(0), None));
    assert_eq!(s.running_on(Key(0)), Some(C0));
    assert_eq!(step(&mut s, C0, 6 + 10 * SLICE), (Some(0), None));
}

#[test]
fn two_share_a_cpu_by_turns_of_one_slice() {
    let mut s = policy(1, 2);
    let _ = s.unpause(Key(0), 0);
    let _ = s.unpause(Key(1), 0);
    assert_eq!(step(&mut s, C0, 0), (Some(0), Some(SLICE)));
    assert_eq!(step(&mut s, C0, SLICE / 2), (Some(0), Some(SLICE)));
    assert_eq!(step(&mut s, C0, SLICE), (Some(1), Some(2 * SLICE)));
    assert_eq!(step(&mut s, C0, 2 * SLICE), (Some(0), Some(3 * SLICE)));
}

#[test]
fn one_who_wakes_beside_a_lone_runner_gives_it_a_deadline() {
    let mut s = policy(1, 2);
    let _ = s.unpause(Key(0), 0);
    let _ = step(&mut s, C0, 0);
    assert_eq!(s.unpause(Key(1), SLICE / 2), Wake::Kick(C0));
    assert_eq!(step(&mut s, C0, SLICE / 2), (Some(0), Some(SLICE)));
}

#[test]
fn one_who_wakes_beside_a_runner_past_its_slice_takes_over() {
    let mut s = policy(1, 2);
    let _ = s.unpause(Key(0), 0);
    let _ = step(&mut s, C0, 0);
    assert_eq!(s.unpause(Key(1), 5 * SLICE), Wake::Kick(C0));
    assert_eq!(step(&mut s, C0, 5 * SLICE), (Some(1), Some(6 * SLICE)));
}

#[test]
fn an_idle_cpu_is_kicked_first_and_the_last_one_used_before_another() {
    let mut s = policy(2, 2);
    assert_eq!(s.unpause(Key(0), 0), Wake::Kick(C0));
    assert_eq!(s.unpause(Key(1), 0), Wake::Kick(C1));
    assert_eq!(step(&mut s, C1, 0).0, Some(0));
    assert_eq!(step(&mut s, C0, 0).0, Some(1));
    s.sleep(Key(0));
    s.sleep(Key(1));
    assert_eq!(step(&mut s, C0, 1), (None, None));
    assert_eq!(step(&mut s, C1, 1), (None, None));
    assert_eq!(s.wake(Key(0), 2), Wake::Kick(C1));
}

#[test]
fn a_wake_between_sleep_and_schedule_is_not_lost() {
    let mut s = policy(1, 1);
    let _ = s.unpause(Key(0), 0);
    let _ = step(&mut s, C0, 0);
    s.sleep(Key(0));
    assert_eq!(s.wake(Key(0), 1), Wake::None);
    assert_eq!(step(&mut s, C0, 2).0, Some(0));
}

#[test]
fn a_virtual_cpu_runs_nowhere_else_until_it_is_saved() {
    let mut s = policy(2, 1);
    let _ = s.unpause(Key(0), 0);
    let _ = s.schedule(C0, 0);
    s.sleep(Key(0));
    let _ = s.schedule(C0, 1);
    let _ = s.wake(Key(0), 2);
    assert_eq!(s.schedule(C1, 3).run, None);
    assert!(!s.is_off(Key(0)));
    assert_eq!(s.remove(Key(0)), Err(C0));
    assert_eq!(s.saved(Key(0), 4), Wake::Kick(C1));
    assert_eq!(s.schedule(C1, 5).run, Some(Key(0)));
}

#[test]
fn one_who_yields_lets_the_others_go_first_or_goes_on_alone() {
    let mut s = policy(1, 2);
    let _ = s.unpause(Key(0), 0);
    let _ = step(&mut s, C0, 0);
    s.yield_(Key(0));
    assert_eq!(step(&mut s, C0, 1), (Some(0), None));
    let _ = s.unpause(Key(1), 1);
    s.yield_(Key(0));
    assert_eq!(step(&mut s, C0, 2), (Some(1), Some(2 + SLICE)));
}

#[test]
fn pauses_are_counted() {
    let mut s = policy(1, 1);
    let _ = s.unpause(Key(0), 0);
    let _ = step(&mut s, C0, 0);
    assert_eq!(s.pause(Key(0), 1), Wake::Kick(C0));
    let _ = s.pause(Key(0), 1);
    assert_eq!(step(&mut s, C0, 2).0, None);
    assert!(s.is_off(Key(0)));
    assert_eq!(s.unpause(Key(0), 3), Wake::None);
    assert_eq!(s.unpause(Key(0), 3), Wake::Kick(C0));
    assert_eq!(s.unpause(Key(0), 3), Wake::None);
}

#[test]
fn an_affinity_that_forbids_the_current_cpu_moves_the_virtual_cpu() {
    let mut s = policy(2, 1);
    let _ = s.unpause(Key(0), 0);
    let _ = step(&mut s, C0, 0);
    assert_eq!(s.set_affinity(Key(0), CpuSet::only(C1), 1), Wake::Kick(C0));
    assert_eq!(s.schedule(C0, 2).run, None);
    assert_eq!(s.saved(Key(0), 2), Wake::Kick(C1));
    assert_eq!(step(&mut s, C1, 3).0, Some(0));
}

#[test]
fn a_removed_virtual_cpu_is_gone_and_its_key_free() {
    let mut s = policy(1, 3);
    for key in 0..3 {
        let _ = s.unpause(Key(key), 0);
    }
    assert_eq!(s.remove(Key(1)), Ok(()));
    assert_eq!(s.wake(Key(1), 0), Wake::None);
    assert_eq!(step(&mut s, C0, 0).0, Some(0));
    assert_eq!(step(&mut s, C0, SLICE).0, Some(2));
    assert_eq!(step(&mut s, C0, 2 * SLICE).0, Some(0));
    assert_eq!(s.add(Key(1), CpuSet::ALL, 0), Ok(()));
    assert_eq!(s.add(Key(1), CpuSet::ALL, 0), Err(AddError::Exists));
}

#[test]
fn the_account_follows_the_virtual_cpu() {
    let mut s = policy(1, 2);
    let _ = s.unpause(Key(0), 10);
    let _ = step(&mut s, C0, 15);
    s.sleep(Key(0));
    let _ = step(&mut s, C0, 35);
    let _ = s.wake(Key(0), 75);
    let _ = step(&mut s, C0, 76);
    assert_eq!(s.runstate(Key(0)).unwrap().times_ns(), [20, 5 + 1, 40, 10]);
}

#[test]
fn one_that_was_taken_down_is_offline_and_not_blocked() {
    let mut s = policy(1, 1);
    let _ = s.unpause(Key(0), 0);
    let _ = step(&mut s, C0, 0);
    s.go_down(Key(0));
    assert_eq!(step(&mut s, C0, 5), (None, None));
    assert_eq!(s.runstate(Key(0)).unwrap().state(), RunState::Offline);
    assert_eq!(s.wake(Key(0), 6), Wake::Kick(C0));
    let _ = step(&mut s, C0, 6);
    s.sleep(Key(0));
    let _ = step(&mut s, C0, 7);
    assert_eq!(s.runstate(Key(0)).unwrap().state(), RunState::Blocked);
}
