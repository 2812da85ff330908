//! What of the machine an initial domain gets, from what the machine has.

use machine::cpu::features;
use machine::irq::lapic;
use machine::start;
use model::pv::rights::{Board, io_memory};
use model::rangeset::RangeSet;

/// The frames of devices' memory that an initial domain may map.
pub fn of_initial_domain() -> RangeSet {
    let [_, ebx, ..] = features::leaf(0, 0);
    let [max, ..] = features::leaf(0x8000_0000, 0);
    let board = Board {
        phys_bits: if max >= 0x8000_0008 { features::leaf(0x8000_0008, 0)[0] & 0xff } else { 36 },
        // "Auth" and "Hygo".
        is_amd: [0x6874_7541, 0x6f67_7948].contains(&ebx),
        local_apic: lapic::address(),
        io_apics: start::board().io_apics().iter().map(|chip| u64::from(chip.address)).collect(),
    };
    io_memory(&board, start::boot_info().ram().iter())
}
