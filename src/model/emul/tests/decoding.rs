//! Decoding, lengths, fetching, and the operands of control-register accesses.

use super::*;

#[test]
fn lengths_follow_the_size_of_code() {
    prepare();
    for (bytes, b16, b32, b64) in [
        (&[0x90][..], Some(1), Some(1), Some(1)),
        (&[0xb8, 1, 2, 3, 4], Some(3), Some(5), Some(5)),
        (&[0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8], Some(1), Some(1), Some(10)),
        (&[0x0f, 0xa2], Some(2), Some(2), Some(2)),
        (&[0x0f, 0x01, 0xd9], Some(3), Some(3), Some(3)),
        (&[0x0f, 0x01, 0xc1], Some(3), Some(3), Some(3)),
        (&[0x0f, 0x01, 0xd1], Some(3), Some(3), Some(3)),
        (&[0xf3, 0x90], Some(2), Some(2), Some(2)),
        (&[0x0f, 0x09], Some(2), Some(2), Some(2)),
        (&[0x66, 0xef], Some(2), Some(2), Some(2)),
        (&[0x0f, 0x30], Some(2), Some(2), Some(2)),
        (&[0xf4], Some(1), Some(1), Some(1)),
        (&[0x06], Some(1), Some(1), None),
        (&[], None, None, None),
        (&[0x0f, 0x0b], Some(2), Some(2), Some(2)),
        (&[0x0f, 0xff], None, None, None),
        (&[0xf0, 0x90], None, None, None),
    ] {
        let lengths = [Bitness::Bits16, Bitness::Bits32, Bitness::Bits64].map(|bitness| length(bytes, bitness));
        assert_eq!(lengths, [b16, b32, b64], "{bytes:02x?}");
    }
}

#[test]
fn an_instruction_has_at_most_15_bytes() {
    let mut bytes = [0x66; 16];
    bytes[14] = 0x90;
    assert_eq!(length(&bytes, Bitness::Bits64), Some(15));
    bytes[14] = 0x66;
    bytes[15] = 0x90;
    assert_eq!(decode(&bytes, Bitness::Bits64, 0), Err(DecodeError::TooLong));
    assert_eq!(decode(&bytes[..10], Bitness::Bits64, 0), Err(DecodeError::Short));
    assert_eq!(Fake::bits64().run(&bytes), gp());
}

#[test]
fn undefined_bytes_raise_ud() {
    assert_eq!(Fake::bits64().run(&[0x06]), Outcome::Fault(Fault::Event(Event::UD)));
}

#[test]
fn the_next_page_is_read_only_when_the_instruction_reaches_it() {
    let mut cpu = Fake::bits64();
    cpu.regs.rip = 0x1ffe;
    cpu.absent.insert(2);
    cpu.regs.rbx = DATA;
    cpu.done(&[0x89, 0x03]);
    let fault = Fault::Page { address: GuestVirt::new(0x2000), error: 0 };
    assert_eq!(cpu.run(&[0x89, 0x43, 0x08]), Outcome::Fault(fault));
    cpu.absent.clear();
    cpu.done(&[0x89, 0x43, 0x08]);
}

#[test]
fn the_size_of_code_comes_from_cs_and_lma() {
    let cs = |attributes| Segment { attributes, ..Segment::default() };
    assert_eq!(Bitness::of(cs(0x29b), true), Bitness::Bits64);
    assert_eq!(Bitness::of(cs(0x29b), false), Bitness::Bits16);
    assert_eq!(Bitness::of(cs(0x49b), true), Bitness::Bits32);
    assert_eq!(Bitness::of(cs(0x09b), false), Bitness::Bits16);
}

fn control_op(cpu: &mut Fake, bytes: &[u8]) -> Result<Option<ControlOp>, Fault> {
    cpu.poke(CODE, bytes);
    let instruction = fetch(cpu).expect("a defined instruction");
    control(cpu, &instruction)
}

#[test]
fn control_register_accesses_tell_their_operands() {
    let mut cpu = Fake::bits64();
    let write = |cr, gpr| Ok(Some(ControlOp::Write { cr, gpr }));
    let read = |cr, gpr| Ok(Some(ControlOp::Read { cr, gpr }));
    assert_eq!(control_op(&mut cpu, &[0x0f, 0x22, 0xc0]), write(0, 0));
    assert_eq!(control_op(&mut cpu, &[0x0f, 0x22, 0xdf]), write(3, 7));
    assert_eq!(control_op(&mut cpu, &[0x44, 0x0f, 0x22, 0xc1]), write(8, 1));
    assert_eq!(control_op(&mut cpu, &[0x41, 0x0f, 0x20, 0xe4]), read(4, 12));
    assert_eq!(control_op(&mut cpu, &[0x44, 0x0f, 0x20, 0xc0]), read(8, 0));
    assert_eq!(control_op(&mut cpu, &[0x0f, 0x06]), Ok(Some(ControlOp::Clts)));
    assert_eq!(control_op(&mut cpu, &[0x89, 0xc3]), Ok(None));
    assert_eq!(control_op(&mut cpu, &[0x0f, 0x23, 0xc0]), Ok(None), "a debug register");
    assert_eq!(control_op(&mut Fake::bits32(), &[0x0f, 0x22, 0xe1]), write(4, 1));
}

#[test]
fn lmsw_takes_16_bits_from_a_register_or_from_memory() {
    let mut cpu = Fake::bits64();
    (cpu.regs.rax, cpu.regs.rbx) = (0xffff_1234, DATA);
    cpu.put(DATA, 4, 0xffff_000b);
    assert_eq!(control_op(&mut cpu, &[0x0f, 0x01, 0xf0]), Ok(Some(ControlOp::Lmsw { value: 0x1234 })));
    assert_eq!(control_op(&mut cpu, &[0x0f, 0x01, 0x33]), Ok(Some(ControlOp::Lmsw { value: 0xb })));
    cpu.absent.insert(page(DATA));
    assert!(control_op(&mut cpu, &[0x0f, 0x01, 0x33]).is_err());
}
