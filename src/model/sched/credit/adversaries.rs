//! What is promised in docs/scheduling.md, measured: the worst that was seen is printed beside the bound.

use super::simulation::{Does, MS, US, World};
use super::*;

/// Prints a figure beside its bound, and fails beyond it.
fn within(what: &str, seen: f64, bound: f64) {
    println!("{what}: {seen:.3} of at most {bound:.3}");
    assert!(seen <= bound, "{what}: {seen:.3}, and at most {bound:.3} is promised");
}

/// How far shares are off, in percent of the share that was due.
fn worst_error(world: &World, before: &[u64], due: &[(usize, f64)], time: u64) -> f64 {
    let off = |&(n, share): &(usize, f64)| ((world.ran(n) - before[n]) as f64 / (share * time as f64) - 1.0).abs();
    due.iter().map(off).fold(0.0, f64::max) * 100.0
}

fn ran(world: &World) -> Vec<u64> {
    (0..world.vcpus.len()).map(|n| world.ran(n)).collect()
}

/// Domains that spin, by weight and number of virtual CPUs.
fn spinning(world: &mut World, domains: &[(u32, usize)]) -> Vec<Vec<usize>> {
    let make = |&(weight, count): &(u32, usize)| {
        let account = World::account(weight, 0);
        (0..count).map(|_| world.add(&account, CpuSet::ALL, Does::Spins)).collect()
    };
    domains.iter().map(make).collect()
}

fn share_error(cpus: u32, domains: &[(u32, usize)], due: &[f64], seconds: u64) -> f64 {
    let mut world = World::new(cpus);
    let made = spinning(&mut world, domains);
    world.run(1000 * MS);
    let before = ran(&world);
    world.run(seconds * 1000 * MS);
    let each = |(vcpus, share): (&Vec<usize>, &f64)| vcpus.iter().map(|&n| (n, share / vcpus.len() as f64)).collect();
    let due: Vec<Vec<_>> = made.iter().zip(due).map(each).collect();
    worst_error(&world, &before, &due.concat(), seconds * 1000 * MS)
}

#[test]
fn domains_get_two_cpus_by_their_weights() {
    let third = 1.0 / 3.0;
    for (what, domains, due) in [
        ("1:2:4, 1, 2 and 4 virtual CPUs", [(256, 1), (512, 2), (1024, 4)], [2.0 / 7.0, 4.0 / 7.0, 8.0 / 7.0]),
        ("1:2:4, 4, 2 and 1", [(256, 4), (512, 2), (1024, 1)], [third, 2.0 * third, 1.0]),
        ("1:2:4, 2 each", [(256, 2), (512, 2), (1024, 2)], [2.0 / 7.0, 4.0 / 7.0, 8.0 / 7.0]),
        ("1:1:1, 1, 2 and 4", [(256, 1), (256, 2), (256, 4)], [2.0 * third; 3]),
        ("1:2:4, 1 each", [(256, 1), (512, 1), (1024, 1)], [third, 2.0 * third, 1.0]),
    ] {
        within(&format!("share error in % over 30 s, {what}"), share_error(2, &domains, &due, 30), 2.0);
    }
}

#[test]
fn domains_get_many_cpus_by_their_weights() {
    for (cpus, domains, due) in [
        (1, vec![(1, 1), (2, 1), (4, 1)], vec![1.0 / 7.0, 2.0 / 7.0, 4.0 / 7.0]),
        (4, vec![(256, 5)], vec![4.0]),
        (3, vec![(256, 4)], vec![3.0]),
        (8, vec![(256, 8), (512, 8)], vec![8.0 / 3.0, 16.0 / 3.0]),
        (16, vec![(256, 33)], vec![16.0]),
        (8, vec![(256, 64)], vec![8.0]),
    ] {
        let error = share_error(cpus, &domains, &due, 60);
        within(&format!("share error in % over 60 s, {cpus} CPUs, {domains:?}"), error, 2.0);
    }
}

#[test]
fn whoever_is_pinned_shares_by_weight_where_it_is() {
    let mut world = World::new(2);
    let (low, high) = (World::account(256, 0), World::account(512, 0));
    let first = CpuSet::only(CpuId(0));
    let a = world.add(&low, first, Does::Spins);
    let b = world.add(&high, first, Does::Spins);
    let c = world.add(&World::account(256, 0), CpuSet::only(CpuId(1)), Does::Spins);
    world.run(30_000 * MS);
    let due = [(a, 1.0 / 3.0), (b, 2.0 / 3.0), (c, 1.0)];
    within("share error in % over 30 s, pinned", worst_error(&world, &[0; 3], &due, 30_000 * MS), 2.0);
}

#[test]
fn a_cap_holds() {
    for (cap, vcpus) in [(50, 1), (10, 1), (150, 2), (150, 4), (33, 3), (1, 1)] {
        let mut world = World::new(4);
        let account = World::account(256, cap);
        let capped: Vec<_> = (0..vcpus).map(|_| world.add(&account, CpuSet::ALL, Does::Spins)).collect();
        spinning(&mut world, &[(256, 2)]);
        world.run(30_000 * MS);
        let ran: u64 = capped.iter().map(|&n| world.ran(n)).sum();
        let due = 30_000.0 * MS as f64 * f64::from(cap) / 100.0;
        let error = (ran as f64 / due - 1.0).abs() * 100.0;
        within(&format!("cap error in % over 30 s, cap {cap}, {vcpus} virtual CPUs"), error, 2.0);
    }
}

/// Beside busy ones: how long one that needs less than its share waits after it woke, in ms.
#[test]
fn one_below_its_share_runs_soon_after_it_wakes() {
    for (cpus, busy) in [(1, 1), (1, 4), (1, 16), (2, 4), (4, 16), (16, 64)] {
        let mut world = World::new(cpus);
        spinning(&mut world, &vec![(256, 1); busy]);
        let share = f64::from(cpus) / (busy as f64 + 1.0);
        let work = (5.0 * MS as f64 * share / 2.0) as u64;
        let ticks = Does::Ticks { period: 5 * MS, work: work.min(2 * MS) };
        let n = world.add(&World::account(256, 0), CpuSet::ALL, ticks);
        world.run(1000 * MS);
        world.vcpus[n].worst_wait = 0;
        world.run(10_000 * MS);
        let what = format!("wake-up latency in ms below half a share, {cpus} CPUs, {busy} busy");
        within(&what, world.vcpus[n].worst_wait as f64 / MS as f64, 1.0);
    }
}

#[test]
fn of_several_that_wake_each_waits_for_a_turn_of_each_other() {
    let mut world = World::new(1);
    spinning(&mut world, &[(256, 1); 4]);
    let ticks = Does::Ticks { period: 50 * MS, work: 2 * MS };
    let all: Vec<_> = (0..4).map(|_| world.add(&World::account(256, 0), CpuSet::ALL, ticks)).collect();
    world.run(10_000 * MS);
    let worst = all.iter().map(|&n| world.vcpus[n].worst_wait).max().unwrap_or(0);
    within("wake-up latency in ms, four that wake at once", worst as f64 / MS as f64, 4.0);
}

/// What an honest one gets beside an adversary of the same weight, in percent too little of its half.
fn loss(cpus: u32, honest: usize, adversary: impl FnOnce(&mut World)) -> f64 {
    let mut world = World::new(cpus);
    let made = spinning(&mut world, &[(256, honest)]);
    adversary(&mut world);
    world.run(1000 * MS);
    let before = ran(&world);
    world.run(20_000 * MS);
    let got: u64 = made[0].iter().map(|&n| world.ran(n) - before[n]).sum();
    (1.0 - got as f64 / (20_000.0 * MS as f64 * f64::from(cpus) / 2.0)) * 100.0
}

#[test]
fn nobody_gains_by_sleeping_before_the_tick() {
    for tick in [1, 10, 30] {
        let lost = loss(1, 1, |world| {
            world.add(&World::account(256, 0), CpuSet::ALL, Does::Dodges { tick: tick * MS });
        });
        within(&format!("% lost to one that sleeps before each {tick} ms"), lost, 2.0);
    }
}

#[test]
fn nobody_gains_by_passing_the_turn_among_siblings() {
    for (cpus, count, work) in
        [(1, 2, 100 * US), (1, 4, 5 * MS), (1, 4, 30 * MS), (1, 16, 30 * MS), (1, 4, 200 * MS), (2, 8, 30 * MS)]
    {
        let lost = loss(cpus, cpus as usize, |world| {
            let account = World::account(256, 0);
            let first = world.vcpus.len();
            for n in 0..count {
                world.add(&account, CpuSet::ALL, Does::Passes { to: first + (n + 1) % count, work });
            }
        });
        let what = format!("% lost to {count} siblings that pass the turn after {} us, {cpus} CPUs", work / US);
        within(&what, lost, 4.0);
    }
}

#[test]
fn nobody_gains_by_yielding() {
    let lost = loss(1, 1, |world| {
        world.add(&World::account(256, 0), CpuSet::ALL, Does::Yields { work: 20 * US });
    });
    within("% lost to one that yields", lost, 2.0);
}

#[test]
fn a_cpu_that_runs_one_or_none_asks_for_no_deadline() {
    let mut world = World::new(4);
    spinning(&mut world, &[(256, 3)]);
    world.run(100 * MS);
    let before = world.decisions;
    world.run(10_000 * MS);
    assert_eq!(world.decisions, before);
}

#[test]
fn soft_affinity_is_kept_while_there_is_room() {
    let mut world = World::new(4);
    let made = spinning(&mut world, &[(256, 2)]);
    let there = CpuSet::only(CpuId(2)).or(&CpuSet::only(CpuId(3)));
    made[0].iter().for_each(|&n| world.set_affinity(n, CpuSet::ALL, there));
    let late = world.add(&World::account(256, 0), CpuSet::ALL, Does::Ticks { period: MS, work: 100 * US });
    world.run(100 * MS);
    let _ = late;
    for n in &made[0] {
        world.pause(*n);
        world.settle();
        world.unpause(*n);
        world.settle();
    }
    assert!((2..4).all(|cpu| world.running[cpu].is_some_and(|n| made[0].contains(&n))));
}

#[test]
fn one_that_wakes_takes_a_whole_core_before_a_thread_and_a_near_one_before_a_far_one() {
    // Two nodes of two cores of two threads.
    let location = |cpu: u32| Location { core: (cpu / 2) as u16, cache: (cpu / 4) as u16, node: (cpu / 4) as u16 };
    let mut world = World::with_locations(8, location);
    let account = World::account(256, 0);
    let only = |cpu| CpuSet::only(CpuId(cpu));
    let pinned = |world: &mut World, cpu| world.add(&account, only(cpu), Does::Spins);
    pinned(&mut world, 0);
    let n = world.add(&account, only(1), Does::Nothing);
    world.set_affinity(n, CpuSet::ALL, CpuSet::ALL);
    world.unpause(n);
    world.settle();
    assert!(matches!(world.running[2].or(world.running[3]), Some(found) if found == n), "{:?}", world.running);
    // With a busy thread in each core of the node, one of the other node's cores is better than half of one here.
    let other = world.add(&account, only(1), Does::Nothing);
    world.set_affinity(other, CpuSet::ALL, CpuSet::ALL);
    world.unpause(other);
    world.settle();
    assert!((4..8).any(|cpu| world.running[cpu] == Some(other)), "{:?}", world.running);
}
