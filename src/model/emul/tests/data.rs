//! Moves, exchanges, bits and the stack.

use super::*;

fn with_rbx() -> Fake {
    let mut cpu = Fake::bits64();
    cpu.regs.rbx = DATA;
    cpu
}

#[test]
fn mov_stores_each_width_and_no_more() {
    for (bytes, width) in
        [(&[0x88, 0x03][..], 1), (&[0x66, 0x89, 0x03], 2), (&[0x89, 0x03], 4), (&[0x48, 0x89, 0x03], 8)]
    {
        let mut cpu = with_rbx();
        cpu.regs.rax = 0x1122_3344_5566_7788;
        cpu.put(DATA, 8, u64::MAX);
        cpu.done(bytes);
        let mask = u64::MAX >> (64 - width * 8);
        assert_eq!(cpu.peek(DATA, 8), cpu.regs.rax & mask | !mask);
    }
}

#[test]
fn mov_loads_each_width_as_the_register_takes_it() {
    let old = 0x1122_3344_5566_7788;
    for (bytes, expected) in [
        (&[0x8a, 0x03][..], 0x1122_3344_5566_77f8),
        (&[0x8a, 0x23], 0x1122_3344_5566_f888),
        (&[0x66, 0x8b, 0x03], 0x1122_3344_5566_f7f8),
        (&[0x8b, 0x03], 0xf5f6_f7f8),
        (&[0x48, 0x8b, 0x03], 0xf1f2_f3f4_f5f6_f7f8),
    ] {
        let mut cpu = with_rbx();
        cpu.regs.rax = old;
        cpu.put(DATA, 8, 0xf1f2_f3f4_f5f6_f7f8);
        cpu.done(bytes);
        assert_eq!(cpu.regs.rax, expected, "{bytes:02x?}");
    }
}

#[test]
fn mov_takes_immediates_and_plain_offsets() {
    let mut cpu = with_rbx();
    cpu.done(&[0x48, 0xc7, 0x03, 0xfe, 0xff, 0xff, 0xff]);
    assert_eq!(cpu.peek(DATA, 8), 0xffff_ffff_ffff_fffe);
    cpu.done(&[0xc6, 0x03, 0x5a]);
    assert_eq!(cpu.peek(DATA, 2), 0xff5a);
    cpu.done(&[0xa1, 0, 0x80, 0, 0, 0, 0, 0, 0]);
    assert_eq!(cpu.regs.rax, 0xffff_ff5a);
    cpu.done(&[0xa2, 4, 0x80, 0, 0, 0, 0, 0, 0]);
    assert_eq!(cpu.peek(DATA, 8), 0xffff_ff5a_ffff_ff5a);
    cpu.regs.rcx = 0x77;
    cpu.done(&[0x0f, 0xc3, 0x0b]);
    assert_eq!(cpu.peek(DATA, 4), 0x77, "MOVNTI");
}

#[test]
fn extensions_fill_with_zeroes_or_the_sign() {
    for (bytes, expected) in [
        (&[0x0f, 0xb6, 0x03][..], 0x84),
        (&[0x0f, 0xb7, 0x03], 0x8384),
        (&[0x0f, 0xbe, 0x03], 0xffff_ff84),
        (&[0x48, 0x0f, 0xbf, 0x03], 0xffff_ffff_ffff_8384),
        (&[0x48, 0x63, 0x03], 0xffff_ffff_8182_8384),
    ] {
        let mut cpu = with_rbx();
        cpu.regs.rax = u64::MAX;
        cpu.put(DATA, 4, 0x8182_8384);
        cpu.done(bytes);
        assert_eq!(cpu.regs.rax, expected, "{bytes:02x?}");
    }
}

#[test]
fn xchg_and_xadd_swap() {
    let mut cpu = with_rbx();
    cpu.regs.rax = 5;
    cpu.put(DATA, 4, 7);
    cpu.done(&[0x87, 0x03]);
    assert_eq!((cpu.regs.rax, cpu.peek(DATA, 4)), (7, 5));
    cpu.done(&[0xf0, 0x0f, 0xc1, 0x03]);
    assert_eq!((cpu.regs.rax, cpu.peek(DATA, 4)), (5, 12));
    cpu.done(&[0x0f, 0xc1, 0xc0]);
    assert_eq!(cpu.regs.rax, 10, "XADD of a register with itself");
}

#[test]
fn cmpxchg_stores_on_equality_and_loads_otherwise() {
    let zf = Rflags::ZF.bits();
    let mut cpu = with_rbx();
    (cpu.regs.rax, cpu.regs.rcx) = (7, 9);
    cpu.put(DATA, 4, 7);
    cpu.done(&[0xf0, 0x0f, 0xb1, 0x0b]);
    assert_eq!((cpu.peek(DATA, 4), cpu.regs.rax, cpu.regs.rflags & zf), (9, 7, zf));
    cpu.done(&[0xf0, 0x0f, 0xb1, 0x0b]);
    assert_eq!((cpu.peek(DATA, 4), cpu.regs.rax, cpu.regs.rflags & zf), (9, 9, 0));
}

#[test]
fn bit_instructions_reach_along_the_string_of_bits() {
    let cf = Rflags::CF.bits();
    let mut cpu = with_rbx();
    cpu.regs.rcx = 37;
    cpu.done(&[0x0f, 0xab, 0x0b]);
    assert_eq!((cpu.peek(DATA + 4, 4), cpu.regs.rflags & cf), (0x20, 0));
    cpu.done(&[0x0f, 0xa3, 0x0b]);
    assert_eq!(cpu.regs.rflags & cf, cf);
    cpu.done(&[0x0f, 0xb3, 0x0b]);
    assert_eq!((cpu.peek(DATA + 4, 4), cpu.regs.rflags & cf), (0, cf));
    cpu.regs.rcx = u64::MAX;
    cpu.done(&[0x48, 0x0f, 0xbb, 0x0b]);
    assert_eq!(cpu.peek(DATA - 8, 8), 1 << 63, "an index of -1");
    cpu.done(&[0x0f, 0xba, 0x2b, 0x21]);
    assert_eq!(cpu.peek(DATA, 8), 2, "an immediate index stays within the operand");
}

#[test]
fn push_and_pop_move_memory_over_the_stack() {
    let mut cpu = with_rbx();
    cpu.put(DATA, 8, 0x0102_0304_0506_0708);
    cpu.done(&[0xff, 0x33]);
    assert_eq!((cpu.regs.rsp, cpu.peek(0x3ff8, 8)), (0x3ff8, 0x0102_0304_0506_0708));
    cpu.done(&[0x8f, 0x43, 0x08]);
    assert_eq!((cpu.regs.rsp, cpu.peek(DATA + 8, 8)), (0x4000, 0x0102_0304_0506_0708));
    cpu.put(0x4000, 8, 0x99);
    cpu.done(&[0x8f, 0x04, 0x24]);
    assert_eq!((cpu.regs.rsp, cpu.peek(0x4008, 8)), (0x4008, 0x99), "RSP counts after the pop");
}

#[test]
fn a_16_bit_stack_wraps_in_its_16_bits() {
    let mut cpu = Fake::real();
    cpu.regs.rsp = 0xabcd_0000;
    cpu.regs.rbx = DATA;
    cpu.put(DATA, 2, 0x1234);
    cpu.done(&[0xff, 0x37]);
    assert_eq!((cpu.regs.rsp, cpu.peek(0xfffe, 2)), (0xabcd_fffe, 0x1234));
}

#[test]
fn a_refused_write_changes_nothing() {
    for bytes in [
        &[0x89, 0x03][..],
        &[0x01, 0x03],
        &[0x87, 0x03],
        &[0x0f, 0xc1, 0x03],
        &[0x0f, 0xb1, 0x0b],
        &[0x0f, 0xab, 0x0b],
        &[0xff, 0x03],
        &[0x8f, 0x03],
        &[0xa4],
        &[0x6c],
    ] {
        let mut cpu = with_rbx();
        (cpu.regs.rdi, cpu.regs.rsi) = (DATA, DATA + 0x1000);
        cpu.fixed.insert(page(DATA));
        cpu.poke(CODE, bytes);
        let before = cpu.clone();
        let fault = Fault::Page { address: GuestVirt::new(DATA), error: 3 };
        assert_eq!(cpu.run(bytes), Outcome::Fault(fault), "{bytes:02x?}");
        assert_eq!((cpu.regs, cpu.memory, cpu.ports), (before.regs, before.memory, before.ports));
    }
}

#[test]
fn what_is_not_emulated_is_unhandled() {
    // HLT, MOV CR3, MOV DS, SSE MOVSD, SSE CMPSD, CALL, PUSH RAX, MOV [rbx] from DS.
    for bytes in [
        &[0xf4][..],
        &[0x0f, 0x22, 0xd8],
        &[0x8e, 0xd8],
        &[0xf2, 0x0f, 0x10, 0x03],
        &[0xf2, 0x0f, 0xc2, 0x03, 0],
        &[0xff, 0x13],
        &[0x50],
        &[0x8c, 0x1b],
    ] {
        assert_eq!(with_rbx().run(bytes), Outcome::Unhandled, "{bytes:02x?}");
    }
}
