//! System instructions by their bytes.

use super::*;

fn regs() -> Regs {
    Regs { rdx: 0xffff_03f8, rax: 0x1000, ..Regs::default() }
}

fn of_bits(bytes: &[u8], bitness: Bitness) -> Option<(System, u8)> {
    let insn = decode(bytes, bitness, CODE).ok()?;
    Some((system(&insn, &regs())?, super::super::decode::len_of(&insn)))
}

fn of(bytes: &[u8]) -> Option<(System, u8)> {
    of_bits(bytes, Bitness::Bits64)
}

#[test]
fn instructions_without_operands_are_known() {
    let table: [(&[u8], System); 11] = [
        (&[0x0f, 0xa2], System::Cpuid),
        (&[0x0f, 0x32], System::Rdmsr),
        (&[0x0f, 0x30], System::Wrmsr),
        (&[0x0f, 0x31], System::Rdtsc),
        (&[0x0f, 0x01, 0xf9], System::Rdtscp),
        (&[0x0f, 0x01, 0xd1], System::Xsetbv),
        (&[0xf4], System::Hlt),
        (&[0x0f, 0x09], System::Wbinvd),
        (&[0xf3, 0x0f, 0x09], System::Wbinvd),
        (&[0xfa], System::SetInterrupts),
        (&[0x0f, 0x06], System::Control(ControlOp::Clts)),
    ];
    for (bytes, what) in table {
        assert_eq!(of(bytes), Some((what, bytes.len() as u8)), "{bytes:02x?}");
    }
}

#[test]
fn moves_to_and_from_control_and_debug_registers_name_both() {
    assert_eq!(of(&[0x0f, 0x20, 0xc0]), Some((System::Control(ControlOp::Read { cr: 0, gpr: 0 }), 3)));
    assert_eq!(of(&[0x41, 0x0f, 0x22, 0xdf]), Some((System::Control(ControlOp::Write { cr: 3, gpr: 15 }), 4)));
    assert_eq!(of(&[0x44, 0x0f, 0x20, 0xc1]), Some((System::Control(ControlOp::Read { cr: 8, gpr: 1 }), 4)));
    assert_eq!(of(&[0x0f, 0x21, 0xf2]), Some((System::ReadDebug { dr: 6, gpr: 2 }, 3)));
    assert_eq!(of(&[0x0f, 0x23, 0xfb]), Some((System::WriteDebug { dr: 7, gpr: 3 }, 3)));
    assert_eq!(of(&[0x89, 0xd8]), None, "between general registers");
    assert_eq!(of(&[0x8e, 0xd8]), None, "to a segment register");
}

#[test]
fn ports_come_from_dx_or_from_the_instruction() {
    let port = |number, size| Port { number, size };
    assert_eq!(of(&[0xec]), Some((System::In(port(0x3f8, 1)), 1)));
    assert_eq!(of(&[0x66, 0xed]), Some((System::In(port(0x3f8, 2)), 2)));
    assert_eq!(of(&[0xe5, 0x70]), Some((System::In(port(0x70, 4)), 2)));
    assert_eq!(of(&[0xe6, 0xed]), Some((System::Out(port(0xed, 1)), 2)));
    assert_eq!(of(&[0xef]), Some((System::Out(port(0x3f8, 4)), 1)));
    assert_eq!(of(&[0xf3, 0x6d]), Some((System::StringIo(port(0x3f8, 4)), 2)));
    assert_eq!(of(&[0x6e]), Some((System::StringIo(port(0x3f8, 1)), 1)));
    assert_eq!(of_bits(&[0x66, 0xef], Bitness::Bits32), Some((System::Out(port(0x3f8, 2)), 2)));
}

#[test]
fn invlpg_has_an_offset_and_a_segment() {
    let at = |offset, segment| System::Invlpg { offset, segment };
    assert_eq!(of(&[0x0f, 0x01, 0x38]), Some((at(0x1000, SegmentName::Ds), 3)));
    assert_eq!(of(&[0x65, 0x0f, 0x01, 0x78, 0xf0]), Some((at(0xff0, SegmentName::Gs), 5)));
}

#[test]
fn what_is_no_system_instruction_is_none() {
    let others: [&[u8]; 7] =
        [&[0x90], &[0x0f, 0x0b], &[0x0f, 0x01, 0xe0], &[0x0f, 0x33], &[0x0f, 0x08], &[0x0f, 0x01, 0xd0], &[0xcc]];
    for bytes in others {
        assert_eq!(of(bytes), None, "{bytes:02x?}");
    }
}

#[test]
fn the_front_says_what_the_decoder_says() {
    let mut known = 0;
    for rex in (0x3f..=0x4f).chain([0x66, 0xf0, 0xf2, 0xf3]) {
        for second in 0..=255 {
            for third in 0..=255 {
                let bytes = match rex {
                    0x3f => [0x0f, second, third, 0, 0, 0, 0, 0],
                    _ => [rex, 0x0f, second, third, 0, 0, 0, 0],
                };
                if let Some(answer) = frequent(&bytes) {
                    known += 1;
                    assert_eq!(of(&bytes), Some(answer), "{bytes:02x?}");
                }
            }
        }
    }
    assert!(known > 5 * 256, "{known}");
}
