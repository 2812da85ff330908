//! Arithmetic through whole instructions, against a twin that computes with unbounded integers.

use super::*;

/// What an operation of the twin leaves: result, then CF, OF, AF where they are defined.
struct Twin {
    result: u64,
    carry: bool,
    overflow: bool,
    aux: Option<bool>,
}

fn signed(value: u64, bits: u32) -> i128 {
    let value = i128::from(value);
    if value >= 1 << (bits - 1) { value - (1 << bits) } else { value }
}

/// An exact sum or difference, given unsigned and signed.
fn wrapped(bits: u32, unsigned: i128, signed: i128, aux: bool) -> Twin {
    let result = unsigned.rem_euclid(1 << bits);
    let half = 1i128 << (bits - 1);
    Twin {
        result: u64::try_from(result).expect("a remainder fits"),
        carry: unsigned != result,
        overflow: !(-half..half).contains(&signed),
        aux: Some(aux),
    }
}

fn plain(result: u64) -> Twin {
    Twin { result, carry: false, overflow: false, aux: None }
}

/// The operation that opcodes 8 * n to 8 * n + 5 and /n of 0x80 to 0x83 encode.
fn twin(n: u8, bits: u32, a: u64, b: u64, carry: bool) -> Twin {
    let c = i128::from(if matches!(n, 2 | 3) { carry } else { false });
    let (sa, sb) = (signed(a, bits), signed(b, bits));
    let nibble = |value: u64| i128::from(value % 16);
    match n {
        0 | 2 => wrapped(bits, i128::from(a) + i128::from(b) + c, sa + sb + c, nibble(a) + nibble(b) + c > 15),
        3 | 5 | 7 => wrapped(bits, i128::from(a) - i128::from(b) - c, sa - sb - c, nibble(a) < nibble(b) + c),
        1 => plain(a | b),
        4 => plain(a & b),
        _ => plain(a ^ b),
    }
}

fn check(rflags: u64, bits: u32, expected: &Twin) {
    let flag = |flag: Rflags| rflags & flag.bits() != 0;
    assert_eq!(flag(Rflags::CF), expected.carry, "CF");
    assert_eq!(flag(Rflags::OF), expected.overflow, "OF");
    assert_eq!(flag(Rflags::ZF), expected.result == 0, "ZF");
    assert_eq!(flag(Rflags::SF), expected.result >= 1 << (bits - 1), "SF");
    assert_eq!(flag(Rflags::PF), (expected.result & 0xff).count_ones().is_multiple_of(2), "PF");
    if let Some(aux) = expected.aux {
        assert_eq!(flag(Rflags::AF), aux, "AF");
    }
}

/// Prefix and the low bit of the opcode for an operand of this many bytes.
fn sized(bytes: u32, opcode: u8) -> Vec<u8> {
    match bytes {
        1 => vec![opcode & !1],
        2 => vec![0x66, opcode],
        4 => vec![opcode],
        _ => vec![0x48, opcode],
    }
}

fn prepared(rbx_holds: u64, rcx: u64, bytes: u32, carry: bool) -> Fake {
    let mut cpu = Fake::bits64();
    cpu.regs.rbx = DATA;
    cpu.regs.rcx = rcx;
    cpu.put(DATA, bytes as usize, rbx_holds);
    cpu.regs.rflags = 0x202 | u64::from(carry);
    cpu
}

fn widths() -> impl Strategy<Value = u32> {
    prop::sample::select(vec![1u32, 2, 4, 8])
}

/// Numbers near the edges as often as others.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        prop::sample::select(vec![0, 1, 0xf, 0x10, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000]),
        prop::sample::select(vec![u64::MAX, 1 << 63, (1 << 63) - 1, u64::MAX - 1, 0xffff_ffff]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn binary_operations_are_those_of_the_twin(
        n in 0u8..8, bytes in widths(), a in number(), b in number(), carry: bool,
    ) {
        let (bits, mask) = (bytes * 8, u64::MAX >> (64 - bytes * 8));
        let expected = twin(n, bits, a & mask, b & mask, carry);
        let mut cpu = prepared(a, b, bytes, carry);
        let mut code = sized(bytes, n * 8 + 1);
        code.push(0x0b);
        cpu.done(&code);
        check(cpu.regs.rflags, bits, &expected);
        let stored = if n == 7 { a & mask } else { expected.result };
        prop_assert_eq!(cpu.peek(DATA, bytes as usize), stored);
        prop_assert_eq!(cpu.regs.rflags & 0x202, 0x202);
    }

    #[test]
    fn immediates_are_sign_extended(n in 0u8..8, bytes in widths(), a in number(), imm: i8, carry: bool) {
        let (bits, mask) = (bytes * 8, u64::MAX >> (64 - bytes * 8));
        let b = i64::from(imm).cast_unsigned() & mask;
        let expected = twin(n, bits, a & mask, b, carry);
        let mut cpu = prepared(a, 0, bytes, carry);
        let mut code = sized(bytes, 0x83);
        if bytes == 1 {
            code = vec![0x80];
        }
        code.extend([n << 3 | 3, imm.cast_unsigned()]);
        cpu.done(&code);
        check(cpu.regs.rflags, bits, &expected);
    }

    #[test]
    fn unary_operations_are_those_of_the_twin(bytes in widths(), a in number(), carry: bool) {
        let (bits, mask) = (bytes * 8, u64::MAX >> (64 - bytes * 8));
        let a = a & mask;
        let cases = [
            (0xff, 0x03, Some(Twin { carry, ..twin(0, bits, a, 1, false) })),
            (0xff, 0x0b, Some(Twin { carry, ..twin(5, bits, a, 1, false) })),
            (0xf7, 0x1b, Some(twin(5, bits, 0, a, false))),
            (0xf7, 0x13, None),
        ];
        for (opcode, modrm, expected) in cases {
            let mut cpu = prepared(a, 0, bytes, carry);
            let before = cpu.regs.rflags;
            let mut code = sized(bytes, opcode);
            code.push(modrm);
            cpu.done(&code);
            match expected {
                Some(expected) => {
                    check(cpu.regs.rflags, bits, &expected);
                    prop_assert_eq!(cpu.peek(DATA, bytes as usize), expected.result);
                }
                None => {
                    prop_assert_eq!(cpu.regs.rflags, before);
                    prop_assert_eq!(cpu.peek(DATA, bytes as usize), !a & mask);
                }
            }
        }
    }

    #[test]
    fn test_and_xadd_and_cmpxchg_set_their_flags(bytes in widths(), a in number(), b in number()) {
        let (bits, mask) = (bytes * 8, u64::MAX >> (64 - bytes * 8));
        let (a, b) = (a & mask, b & mask);
        let mut cpu = prepared(a, b, bytes, false);
        let mut code = sized(bytes, 0x85);
        code.push(0x0b);
        cpu.done(&code);
        check(cpu.regs.rflags, bits, &plain(a & b));
        for (opcode, expected) in [(0xc1, twin(0, bits, a, b, false)), (0xb1, twin(7, bits, b, a, false))] {
            let mut cpu = prepared(a, b, bytes, false);
            cpu.regs.rax = b;
            let mut code = sized(bytes, opcode);
            code.insert(code.len() - 1, 0x0f);
            code.push(0x0b);
            cpu.done(&code);
            check(cpu.regs.rflags, bits, &expected);
        }
    }
}
