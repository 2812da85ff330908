//! Effective addresses and segments.

use super::*;

#[test]
fn base_index_scale_and_displacement_add_up() {
    let mut cpu = Fake::bits64();
    (cpu.regs.rbx, cpu.regs.r9) = (0x8000, 0x10);
    cpu.put(0x8000 + 0x40 - 8, 4, 0x1234);
    cpu.done(&[0x42, 0x8b, 0x44, 0x8b, 0xf8]);
    assert_eq!(cpu.regs.rax, 0x1234);
}

#[test]
fn rip_relative_addresses_count_from_the_next_instruction() {
    let mut cpu = Fake::bits64();
    cpu.put(CODE + 6 + 0x100, 4, 0x77);
    cpu.done(&[0x8b, 0x05, 0, 1, 0, 0]);
    assert_eq!(cpu.regs.rax, 0x77);
}

#[test]
fn the_address_size_prefix_cuts_the_address() {
    let mut cpu = Fake::bits64();
    cpu.regs.rbx = 0xdead_0000_0000_8000;
    cpu.put(0x8000, 4, 5);
    cpu.done(&[0x67, 0x8b, 0x03]);
    assert_eq!(cpu.regs.rax, 5);
    let mut cpu = Fake::bits32();
    (cpu.regs.rbx, cpu.regs.rsi) = (0x1_ffff, 0x11);
    cpu.put(0x10, 4, 6);
    cpu.done(&[0x67, 0x8b, 0x00]);
    assert_eq!(cpu.regs.rax, 6, "[bx+si] in 16 bits");
}

#[test]
fn a_64_bit_absolute_address_is_sign_extended() {
    let mut cpu = Fake::bits64();
    cpu.put(0xffff_ffff_fee0_0020, 4, 9);
    cpu.done(&[0x8b, 0x04, 0x25, 0x20, 0, 0xe0, 0xfe]);
    assert_eq!(cpu.regs.rax, 9);
}

#[test]
fn only_fs_and_gs_have_a_base_in_64_bit_mode() {
    let mut cpu = Fake::bits64();
    cpu.segments.iter_mut().for_each(|segment| segment.base = 0x10_0000);
    cpu.regs.rbx = DATA;
    cpu.put(DATA, 4, 1);
    cpu.put(DATA + 0x10_0000, 4, 2);
    cpu.done(&[0x8b, 0x03]);
    assert_eq!(cpu.regs.rax, 1);
    cpu.done(&[0x65, 0x8b, 0x03]);
    assert_eq!(cpu.regs.rax, 2);
}

#[test]
fn segments_have_a_base_elsewhere_and_addresses_wrap_at_4_gib() {
    let mut cpu = Fake::bits32();
    cpu.segments[3].base = 0xffff_f000;
    cpu.regs.rbx = 0x2000;
    cpu.put(0x1000, 4, 0x0303_8b8b);
    cpu.regs.rip = 0x3000;
    cpu.done(&[0x8b, 0x03]);
    assert_eq!(cpu.regs.rax, 0x0303_8b8b);
}

#[test]
fn real_mode_adds_the_segment_and_faults_past_64_kib() {
    let mut cpu = Fake::real();
    cpu.segments[3].base = 0xf_fff0;
    cpu.regs.rbx = 0xfffc;
    cpu.put(0xf_fff0 + 0xfffc, 4, 0x1234_5678);
    cpu.done(&[0x66, 0x8b, 0x07]);
    assert_eq!(cpu.regs.rax, 0x1234_5678, "above 1 MiB");
    cpu.regs.rbx = 0xfffd;
    let no_code = Fault::Event(Event::Exception { vector: vector::GP, error: None });
    assert_eq!(cpu.run(&[0x66, 0x8b, 0x07]), Outcome::Fault(no_code));
    cpu.done(&[0x2e, 0x88, 0x07]);
    assert_eq!(cpu.peek(0xfffd, 1), 0x78, "CS can be written in real mode");
}

#[test]
fn addresses_that_are_not_canonical_fault() {
    let mut cpu = Fake::bits64();
    cpu.regs.rbx = 0x8000_0000_0000;
    assert_eq!(cpu.run(&[0x8b, 0x03]), gp());
    cpu.regs.rbx = 0x7fff_ffff_fffd;
    assert_eq!(cpu.run(&[0x8b, 0x03]), gp(), "its last byte");
    cpu.regs.rbp = 0x8000_0000_0000;
    let stack = Fault::Event(Event::Exception { vector: vector::SS, error: Some(0) });
    assert_eq!(cpu.run(&[0x8b, 0x45, 0x00]), Outcome::Fault(stack));
}

#[test]
fn segment_types_and_limits_are_checked_in_protected_mode() {
    let load = &[0x8b, 0x03];
    let store = &[0x89, 0x03];
    let with = |attributes, limit, rbx| {
        let mut cpu = Fake::bits32();
        cpu.segments[3] = Segment { attributes, limit, ..cpu.segments[3] };
        cpu.regs.rbx = rbx;
        cpu
    };
    let done = Outcome::Done { len: 2 };
    assert_eq!(with(0xc91, u32::MAX, DATA).run(load), done);
    assert_eq!(with(0xc91, u32::MAX, DATA).run(store), gp(), "data, only read");
    assert_eq!(with(0xc99, u32::MAX, DATA).run(load), gp(), "code, only executed");
    assert_eq!(with(0xc9b, u32::MAX, DATA).run(load), done, "code, readable");
    assert_eq!(with(0xc9b, u32::MAX, DATA).run(store), gp(), "code is not written");
    assert_eq!(with(0x0, u32::MAX, DATA).run(load), gp(), "null");
    assert_eq!(with(0x493, 0x8003, 0x8000).run(load), done);
    assert_eq!(with(0x493, 0x8002, 0x8000).run(load), gp());
    assert_eq!(with(0x497, 0x7fff, 0x8000).run(load), done, "expand-down");
    assert_eq!(with(0x497, 0x8000, 0x8000).run(load), gp());
    assert_eq!(with(0x097, 0x7fff, 0xfffd).run(load), gp(), "expand-down, 16 bits");
    assert_eq!(with(0xc93, u32::MAX, 0xffff_fffe).run(load), gp());
}
