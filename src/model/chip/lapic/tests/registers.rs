//! Registers and the two ways to reach them.

use super::*;
use crate::addr::GuestPhys;

#[test]
fn registers_have_their_reset_values() {
    let mut apic = lapic(3);
    for (offset, value) in [
        (0x20, 3 << 24),
        (0x30, 0x50014),
        (0x80, 0),
        (0xa0, 0),
        (0xd0, 0),
        (0xe0, 0xffff_ffff),
        (0xf0, 0xff),
        (0x100, 0),
        (0x280, 0),
        (0x300, 0),
        (0x320, 0x10000),
        (0x350, 0x10000),
        (0x370, 0x10000),
        (0x380, 0),
        (0x390, 0),
        (0x3e0, 0),
    ] {
        assert_eq!(get(&mut apic, offset), value, "offset {offset:#x}");
    }
}

#[test]
fn esr_shows_errors_only_after_it_is_written() {
    let mut apic = enabled(0);
    put(&mut apic, 0x370, 0x3f);
    apic.accept(5, Trigger::Edge);
    put(&mut apic, 0x40, 1);
    assert_eq!(get(&mut apic, 0x280), 0);
    assert_eq!(apic.highest_pending(), Some(0x3f), "the error entry was raised");
    put(&mut apic, 0x280, 0);
    assert_eq!(get(&mut apic, 0x280), 0xc0);
    put(&mut apic, 0x280, 0);
    assert_eq!(get(&mut apic, 0x280), 0);
    put(&mut apic, 0x300, 0x0f);
    put(&mut apic, 0x280, 0);
    assert_eq!(get(&mut apic, 0x280), 0x20, "an illegal vector was sent");
}

#[test]
fn short_and_misplaced_accesses_reach_their_bytes() {
    let mut apic = enabled(3);
    assert_eq!(apic.read(0x23, 1, T0), 3);
    assert_eq!(apic.read(0x20, 8, T0), 3 << 24);
    assert_eq!(apic.read(0x24, 4, T0), 0);
    assert_eq!(apic.read(0x22, 2, T0), 0x300);
    assert_eq!(apic.read(0x22, 4, T0), 0x300);
    assert_eq!(apic.read(0x1020, 4, T0), 0);
    assert_eq!(apic.write(0x351, 1, 0x07, T0), Effect::None);
    assert_eq!(get(&mut apic, 0x350), 0x10700);
    assert_eq!(apic.write(0x354, 4, 0, T0), Effect::None);
    assert_eq!(get(&mut apic, 0x350), 0x10700);
    assert_eq!(apic.mmio_offset(GuestPhys::new(0xfee0_0320)), Some(0x320));
    assert_eq!(apic.mmio_offset(GuestPhys::new(0xfee0_1000)), None);
}

#[test]
fn registers_that_are_only_read_drop_writes() {
    let mut apic = enabled(3);
    for offset in [0x20, 0x30, 0xa0, 0x100, 0x180, 0x200, 0x390] {
        let before = get(&mut apic, offset);
        put(&mut apic, offset, u64::MAX);
        assert_eq!(get(&mut apic, offset), before, "offset {offset:#x}");
    }
    put(&mut apic, 0x280, 0);
    assert_eq!(get(&mut apic, 0x280), 0);
}

#[test]
fn x2apic_msrs_fault_outside_x2apic_mode() {
    let mut apic = enabled(0);
    assert_eq!(apic.read_msr(0x802, T0), Err(Gp));
    assert_eq!(apic.write_msr(0x808, 0, T0), Err(Gp));
    assert!(Lapic::owns_msr(0x800) && Lapic::owns_msr(0x8ff) && !Lapic::owns_msr(0x900));
}

#[test]
fn x2apic_registers_have_their_directions() {
    let mut apic = enabled_x2(0);
    for msr in 0x7ff..=0x901 {
        let n = msr & 0xff;
        let write_only = matches!(n, 0x0b | 0x3f);
        let read_only = matches!(n, 0x02 | 0x03 | 0x0a | 0x0d | 0x10..=0x27 | 0x39);
        let both = matches!(n, 0x08 | 0x0f | 0x28 | 0x30 | 0x32..=0x38 | 0x3e);
        let inside = (0x800..0x900).contains(&msr);
        assert_eq!(apic.read_msr(msr, T0).is_ok(), inside && (read_only || both), "read {msr:#x}");
        let value = if n == 0x3f || n == 0x30 { 0x40 } else { 0 };
        assert_eq!(apic.clone().write_msr(msr, value, T0).is_ok(), inside && (write_only || both), "write {msr:#x}");
    }
    assert_eq!(apic.write_msr(0x83f, 0x55, T0), Ok(Effect::None));
    assert_eq!(apic.highest_pending(), Some(0x55));
}

#[test]
fn reserved_bits_of_x2apic_registers_fault() {
    let bits = [
        (0x808, 0xff),
        (0x80b, 0),
        (0x80f, 0x1ff),
        (0x828, 0),
        (0x830, 0xffff_ffff_000c_cfff),
        (0x832, 0x7_10ff),
        (0x833, 0x1_17ff),
        (0x834, 0x1_17ff),
        (0x835, 0x1_f7ff),
        (0x836, 0x1_f7ff),
        (0x837, 0x1_10ff),
        (0x838, 0xffff_ffff),
        (0x83e, 0xb),
        (0x83f, 0xff),
    ];
    for (msr, allowed) in bits {
        for bit in 0..64 {
            let written = enabled_x2(0).write_msr(msr, 1 << bit, T0);
            assert_eq!(written.is_ok(), allowed & 1u64 << bit != 0, "{msr:#x} bit {bit}");
        }
    }
}

#[test]
fn what_a_processor_serves_is_what_is_read_and_never_what_the_guest_writes_without_an_exit() {
    let mut apic = enabled(3);
    let mut seen = alloc::vec::Vec::new();
    apic.each_steady(|offset, value| seen.push((offset, value)));
    assert!(seen.iter().all(|&(offset, _)| ![0x80, 0xa0, 0x310, 0x390].contains(&offset)));
    assert!(seen.iter().any(|&(offset, _)| offset == 0x20) && seen.iter().any(|&(offset, _)| offset == 0x3e0));
    for (offset, value) in seen {
        assert_eq!(apic.read(offset, 4, T0), u64::from(value), "{offset:#x}");
    }
}
