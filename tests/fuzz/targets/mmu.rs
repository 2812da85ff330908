//! Bytes as a sequence of what guests, their processors and the hypervisor do with page tables, from two valid guests on.
//!
//! Everything about the small machine (`model::pv::mmu::testing`) is recomputed after each operation.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::pv::mmu::testing::{Source, World, frames};

/// Choices from bytes, one for each.
struct Bytes<'a> {
    left: &'a [u8],
}

impl Source for Bytes<'_> {
    fn below(&mut self, limit: u32) -> u32 {
        let Some((first, rest)) = self.left.split_first() else { return 0 };
        self.left = rest;
        u32::from(*first) % limit
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((how, data)) = data.split_first() else { return };
    let records = frames();
    let mut world = World::with_guests(&records, u64::from(*how));
    world.machine.interrupts = u32::from(how % 4);
    let mut bytes = Bytes { left: data };
    while !bytes.left.is_empty() {
        world.run_some(1, &mut bytes, |_, _| ());
    }
    world.check_as_hypervisor();
    world.end(how & 0x80 != 0);
});
