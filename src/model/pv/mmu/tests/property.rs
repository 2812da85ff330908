//! Random operations on small machines, with everything recomputed after each.

use crate::pv::mmu::testing::{Answer, Source, World, frames};
use std::collections::HashMap;
use std::mem::discriminant;

struct Random(u64);

impl Source for Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as u32) % limit
    }
}

/// How many operations are done in all: `EUXEN_OPERATIONS`.
fn operations() -> u64 {
    std::env::var("EUXEN_OPERATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000)
}

/// How many in one world.
const IN_ONE: u64 = 400;

#[test]
fn whatever_is_done_every_count_is_what_a_twin_recomputes_and_no_processor_remembers_what_it_must_not() {
    let first: u64 = std::env::var("EUXEN_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut ended = HashMap::new();
    for seed in first..first + operations().div_ceil(IN_ONE) {
        let records = frames();
        let mut world = if seed % 3 == 0 { World::new(&records, seed) } else { World::with_guests(&records, seed) };
        world.machine.interrupts = [0, 1, 2, 8][(seed / 3 % 4) as usize];
        let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5eed);
        let run = std::panic::AssertUnwindSafe(|| {
            for _ in 0..4 {
                world.run_some(IN_ONE as usize / 4, &mut random, |operation, answer| {
                    let name = || format!("{operation:?}").split(' ').next().unwrap_or_default().to_owned();
                    let (_, times) = ended.entry(discriminant(&operation)).or_insert_with(|| (name(), [0u64; 4]));
                    times[match answer {
                        Answer::Done => 0,
                        Answer::Refused(_) => 1,
                        Answer::Again => 2,
                        Answer::Nothing => 3,
                    }] += 1;
                });
                world.check_as_hypervisor();
            }
            world.end(seed % 2 == 0);
        });
        if let Err(panic) = std::panic::catch_unwind(run) {
            println!("EUXEN_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
    println!("{:>20} {:>10} {:>10} {:>10} {:>10}", "", "done", "refused", "again", "nothing");
    for (name, [done, refused, again, nothing]) in ended.values() {
        println!("{name:>20} {done:>10} {refused:>10} {again:>10} {nothing:>10}");
        assert!(*done > 0, "{name} never succeeds");
    }
}
