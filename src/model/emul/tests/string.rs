//! String instructions.

use super::*;

fn strings() -> Fake {
    let mut cpu = Fake::bits64();
    (cpu.regs.rsi, cpu.regs.rdi) = (DATA, DATA + 0x1000);
    cpu.poke(DATA, b"the quick brown fox jumps over the lazy dog");
    cpu
}

#[test]
fn movs_copies_one_element_and_moves_on() {
    let mut cpu = strings();
    cpu.done(&[0x48, 0xa5]);
    assert_eq!(cpu.peek(DATA + 0x1000, 8), cpu.peek(DATA, 8));
    assert_eq!((cpu.regs.rsi, cpu.regs.rdi), (DATA + 8, DATA + 0x1008));
    cpu.regs.rflags |= Rflags::DF.bits();
    cpu.done(&[0xa5]);
    assert_eq!((cpu.regs.rsi, cpu.regs.rdi), (DATA + 4, DATA + 0x1004));
}

#[test]
fn rep_movs_copies_rcx_elements() {
    let mut cpu = strings();
    cpu.regs.rcx = 43;
    cpu.done(&[0xf3, 0xa4]);
    assert_eq!((cpu.regs.rcx, cpu.regs.rsi), (0, DATA + 43));
    assert_eq!(cpu.peek(DATA + 0x1000 + 40, 3), u64::from_le_bytes(*b"dog\0\0\0\0\0"));
    cpu.done(&[0xf3, 0xa4]);
    assert_eq!(cpu.regs.rsi, DATA + 43, "a count of zero does nothing");
}

#[test]
fn a_long_rep_stops_in_between_and_goes_on() {
    let mut cpu = strings();
    (cpu.regs.rcx, cpu.regs.rax) = (200, 0x5a);
    let mut calls = 0;
    while cpu.run(&[0xf3, 0xaa]) == Outcome::Again {
        calls += 1;
        assert_eq!(cpu.regs.rcx, 200 - calls * u64::from(MAX_ELEMENTS));
        assert_eq!(cpu.regs.rip, CODE);
    }
    assert_eq!((calls, cpu.regs.rcx, cpu.regs.rdi), (3, 0, DATA + 0x1000 + 200));
    assert_eq!(cpu.peek(DATA + 0x1000 + 199, 2), 0x5a);
}

#[test]
fn a_rep_that_ends_with_its_bound_is_done() {
    let mut cpu = strings();
    cpu.regs.rcx = u64::from(MAX_ELEMENTS);
    cpu.done(&[0xf3, 0xaa]);
    assert_eq!(cpu.regs.rcx, 0);
}

#[test]
fn a_fault_in_a_rep_keeps_the_elements_before_it() {
    let mut cpu = strings();
    (cpu.regs.rcx, cpu.regs.rdi) = (10, DATA + 0x1ffd);
    cpu.absent.insert(page(DATA + 0x2000));
    let fault = Fault::Page { address: GuestVirt::new(DATA + 0x2000), error: 2 };
    assert_eq!(cpu.run(&[0xf3, 0xa4]), Outcome::Fault(fault));
    assert_eq!((cpu.regs.rcx, cpu.regs.rdi, cpu.regs.rsi), (7, DATA + 0x2000, DATA + 3));
    assert_eq!(cpu.peek(DATA + 0x1ffd, 3), u64::from_le_bytes(*b"the\0\0\0\0\0"));
}

#[test]
fn narrow_addresses_use_the_narrow_registers() {
    let mut cpu = strings();
    cpu.regs.rcx = 0xffff_ffff_0000_0002;
    cpu.regs.rsi |= 0xabcd << 32;
    cpu.done(&[0x67, 0xf3, 0xa4]);
    assert_eq!((cpu.regs.rcx, cpu.regs.rsi), (0, DATA + 2), "32-bit writes clear the upper half");
    let mut cpu = Fake::real();
    (cpu.regs.rcx, cpu.regs.rdi, cpu.regs.rax) = (0x1_0002, 0x7_ffff, 0x42);
    cpu.done(&[0xf3, 0xaa]);
    assert_eq!((cpu.regs.rcx, cpu.regs.rdi), (0x1_0000, 0x7_0001));
    assert_eq!((cpu.peek(0xffff, 1), cpu.peek(0, 1)), (0x42, 0x42));
}

#[test]
fn lods_fills_the_accumulator_from_any_segment() {
    let mut cpu = strings();
    cpu.segments[5].base = 4;
    cpu.regs.rax = u64::MAX;
    cpu.done(&[0x65, 0xac]);
    assert_eq!(cpu.regs.rax, 0xffff_ffff_ffff_ff00 | u64::from(b'q'));
    cpu.done(&[0xad]);
    assert_eq!(cpu.regs.rax, u64::from(u32::from_le_bytes(*b"he q")));
}

#[test]
fn scas_finds_and_cmps_compares() {
    let mut cpu = strings();
    (cpu.regs.rdi, cpu.regs.rcx, cpu.regs.rax) = (DATA, 43, u64::from(b'q'));
    cpu.done(&[0xf2, 0xae]);
    assert_eq!((cpu.regs.rdi, cpu.regs.rcx), (DATA + 5, 38));
    assert_ne!(cpu.regs.rflags & Rflags::ZF.bits(), 0);
    cpu.poke(DATA + 0x1000, b"the quiet");
    (cpu.regs.rsi, cpu.regs.rdi, cpu.regs.rcx) = (DATA, DATA + 0x1000, 9);
    cpu.done(&[0xf3, 0xa6]);
    assert_eq!((cpu.regs.rsi, cpu.regs.rcx), (DATA + 8, 1));
    assert_ne!(cpu.regs.rflags & Rflags::CF.bits(), 0, "c is below e");
    assert_eq!(cpu.regs.rflags & Rflags::ZF.bits(), 0);
}

#[test]
fn ins_and_outs_reach_the_port() {
    let mut cpu = strings();
    (cpu.regs.rdx, cpu.regs.rcx) = (0xffff_03f8, 3);
    cpu.done(&[0xf3, 0x6e]);
    let sent = b"the".map(|byte| (0x3f8, 1, Some(u32::from(byte))));
    assert_eq!(cpu.ports, sent);
    cpu.done(&[0x6d]);
    assert_eq!(cpu.ports.last(), Some(&(0x3f8, 4, None)));
    assert_eq!((cpu.peek(DATA + 0x1000, 4), cpu.regs.rdi), (0xa1b2_c3d4, DATA + 0x1004));
    cpu.done(&[0x66, 0x6d]);
    assert_eq!(cpu.peek(DATA + 0x1004, 4), 0xc3d4);
}

#[test]
fn ins_into_memory_that_is_not_there_does_not_read_the_port() {
    let mut cpu = strings();
    cpu.absent.insert(page(DATA + 0x1000));
    assert!(matches!(cpu.run(&[0x6c]), Outcome::Fault(Fault::Page { .. })));
    assert!(cpu.ports.is_empty());
}
