//! The rules, one by one.

use super::simulation::{Does, MS, World};
use super::*;
use crate::sched::RunState;

const C0: CpuId = CpuId(0);
const C1: CpuId = CpuId(1);

/// A machine with virtual CPUs of one domain each, all paused.
fn world(cpus: u32, vcpus: u32) -> World {
    let mut world = World::new(cpus);
    for _ in 0..vcpus {
        world.add(&World::account(WEIGHT_DEFAULT, 0), CpuSet::ALL, Does::Nothing);
    }
    world
}

fn start(world: &mut World, n: usize) {
    world.unpause(n);
    world.settle();
}

fn held_by(world: &World, key: Key) -> Option<CpuId> {
    world.board().whereabouts(key)?.held_by()
}

fn state(world: &mut World, n: u32) -> RunState {
    runstate(&mut world.cpus, Key(n)).expect("it was added").state()
}

#[test]
fn parameters_out_of_range_change_nothing() {
    let board = world(1, 0).board();
    let good = Params::default();
    for (params, why) in [
        (Params { tslice_ms: 0, ..good }, BadParams::Slice),
        (Params { tslice_ms: 1001, ..good }, BadParams::Slice),
        (Params { ratelimit_us: 99, ..good }, BadParams::RateLimit),
        (Params { ratelimit_us: 30_000, ..good }, BadParams::RateLimit),
        (Params { tslice_ms: 1000, ratelimit_us: 500_001, ..good }, BadParams::RateLimit),
        (Params { vcpu_migr_delay_us: 100_001, ..good }, BadParams::MigrationDelay),
    ] {
        assert_eq!(board.set_params(params), Err(why));
        assert_eq!(board.params(), good);
    }
    let other = Params { tslice_ms: 1, ratelimit_us: 0, vcpu_migr_delay_us: 5 };
    assert_eq!(board.set_params(other), Ok(()));
    assert_eq!(board.params(), other);
}

#[test]
fn weights_are_from_1_to_65535() {
    let account = Account::new(WEIGHT_MAX, 0).expect("in range");
    for weight in [0, WEIGHT_MAX + 1, u32::MAX] {
        assert_eq!(account.set_weight(weight), Err(OutOfRange));
        assert!(Account::new(weight, 0).is_err());
    }
    assert_eq!((account.weight(), account.set_weight(1)), (WEIGHT_MAX, Ok(())));
    assert_eq!(account.weight(), 1);
}

#[test]
fn a_new_one_runs_when_it_is_unpaused_and_alone_without_a_deadline() {
    let mut world = world(1, 1);
    assert_eq!(state(&mut world, 0), RunState::Offline);
    world.unpause(0);
    assert!(world.cpus.kicked[0]);
    let decision = schedule(&mut world.cpus, C0, false, 0);
    assert_eq!(decision, Decision { run: Some(Key(0)), until_ns: None });
    assert_eq!(held_by(&world, Key(0)), Some(C0));
}

#[test]
fn two_share_a_cpu_by_slices() {
    let mut world = world(1, 2);
    start(&mut world, 0);
    start(&mut world, 1);
    world.run(300 * MS);
    assert!(world.ran(0).abs_diff(world.ran(1)) <= 30 * MS);
    assert!((8..14).contains(&world.decisions), "{}", world.decisions);
}

#[test]
fn a_wake_between_sleep_and_schedule_is_not_lost() {
    let mut world = world(1, 1);
    start(&mut world, 0);
    sleep(&mut world.cpus, C0, Key(0));
    assert_eq!(wake(&mut world.cpus, Key(0), || 1), None);
    assert_eq!(schedule(&mut world.cpus, C0, false, 2).run, Some(Key(0)));
}

#[test]
fn one_runs_nowhere_else_until_it_is_saved() {
    let mut world = world(2, 1);
    start(&mut world, 0);
    let cpu = held_by(&world, Key(0)).expect("it runs");
    let other = if cpu == C0 { C1 } else { C0 };
    sleep(&mut world.cpus, cpu, Key(0));
    assert_eq!(schedule(&mut world.cpus, cpu, false, 1).run, None);
    assert_eq!(wake(&mut world.cpus, Key(0), || 2), None);
    assert_eq!(schedule(&mut world.cpus, other, false, 3).run, None);
    assert_eq!(held_by(&world, Key(0)), Some(cpu));
    assert_eq!(remove(&mut world.cpus, Key(0)), Err(cpu));
    saved(&mut world.cpus, Key(0), 4);
    let found = [other, cpu].map(|cpu| schedule(&mut world.cpus, cpu, false, 5).run);
    assert!(found.contains(&Some(Key(0))), "{found:?}");
}

#[test]
fn one_that_yields_lets_another_go_first_or_goes_on_alone() {
    let mut world = world(1, 2);
    start(&mut world, 0);
    assert_eq!(schedule(&mut world.cpus, C0, true, 1), Decision { run: Some(Key(0)), until_ns: None });
    world.unpause(1);
    assert_eq!(schedule(&mut world.cpus, C0, true, 2).run, Some(Key(1)));
}

#[test]
fn pauses_are_counted() {
    let mut world = world(1, 1);
    start(&mut world, 0);
    world.pause(0);
    world.pause(0);
    world.settle();
    assert_eq!((world.running[0], held_by(&world, Key(0))), (None, None));
    start(&mut world, 0);
    assert_eq!(world.running[0], None);
    start(&mut world, 0);
    assert_eq!(world.running[0], Some(0));
    start(&mut world, 0);
    world.pause(0);
    world.settle();
    assert_eq!(world.running[0], None);
}

#[test]
fn an_affinity_that_forbids_its_cpu_moves_one() {
    let mut world = world(2, 1);
    start(&mut world, 0);
    for cpu in [1, 0, 1] {
        world.set_affinity(0, CpuSet::only(CpuId(cpu)), CpuSet::ALL);
        world.settle();
        assert_eq!(world.running[cpu as usize], Some(0));
    }
    world.set_affinity(0, CpuSet::EMPTY, CpuSet::ALL);
    world.settle();
    assert_eq!(world.running, [None, None]);
    world.set_affinity(0, CpuSet::ALL, CpuSet::ALL);
    world.settle();
    assert!(world.running.contains(&Some(0)));
}

#[test]
fn one_that_was_taken_down_is_offline_and_not_blocked() {
    let mut world = world(1, 1);
    start(&mut world, 0);
    go_down(&mut world.cpus, C0, Key(0));
    world.schedule(0);
    assert_eq!(state(&mut world, 0), RunState::Offline);
    let _ = wake(&mut world.cpus, Key(0), || 0);
    world.settle();
    assert_eq!(world.running[0], Some(0));
    world.sleep(0, 0);
    assert_eq!(state(&mut world, 0), RunState::Blocked);
}

#[test]
fn keys_are_used_once_and_again_after_they_were_removed() {
    let mut world = world(1, 1);
    let mut add = |key| add(&mut world.cpus, key, World::account(1, 0), (CpuSet::ALL, CpuSet::ALL), 0);
    assert_eq!(add(Key(0)), Err(AddError::BadKey));
    assert_eq!(add(Key(MAX_KEYS as u32)), Err(AddError::BadKey));
    assert_eq!(remove(&mut world.cpus, Key(0)), Ok(()));
    assert_eq!(wake(&mut world.cpus, Key(0), || 0), None);
    let mut add = |key| super::add(&mut world.cpus, key, World::account(1, 0), (CpuSet::ALL, CpuSet::ALL), 0);
    assert_eq!(add(Key(0)), Ok(()));
}

#[test]
fn a_cpu_that_goes_offline_gives_its_virtual_cpus_away_and_gets_some_when_it_is_back() {
    let mut world = world(2, 4);
    (0..4).for_each(|n| start(&mut world, n));
    let _ = offline(&mut world.cpus, C1, Key(0), 0);
    world.settle();
    assert_eq!(world.running[1], None);
    world.run(200 * MS);
    assert!((0..4).all(|n| world.ran(n) > 0));
    online(&mut world.cpus, C1, world.now);
    world.settle();
    assert!(world.running[1].is_some());
}

#[test]
fn an_idle_cpu_is_found_where_the_one_that_was_kicked_takes_another() {
    // 0 may run on CPUs 0 and 2, 1 on 0 and 1: CPU 0 is kicked for 0, and takes 1.
    let mut world = world(3, 2);
    let set = |cpus: [u32; 2]| CpuSet::only(CpuId(cpus[0])).or(&CpuSet::only(CpuId(cpus[1])));
    world.set_affinity(0, set([0, 2]), CpuSet::ALL);
    world.set_affinity(1, set([0, 1]), CpuSet::ALL);
    world.unpause(0);
    world.unpause(1);
    world.schedule(0);
    world.settle();
    world.check();
}
