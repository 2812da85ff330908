//! Results and flags of the arithmetic and logical instructions (SDM 1 3.4.3.1, appendix A).
//!
//! Flags that the manual leaves undefined are cleared.

use super::register::Width;
use crate::regs::Rflags;

/// An operation of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    Or,
    Adc,
    Sbb,
    And,
    Sub,
    Xor,
}

/// An operation of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unary {
    Inc,
    Dec,
    Not,
    Neg,
}

const STATUS: Rflags =
    Rflags::CF.union(Rflags::PF).union(Rflags::AF).union(Rflags::ZF).union(Rflags::SF).union(Rflags::OF);

/// A result and the RFLAGS after it.
pub(super) type Answer = (u64, u64);

/// RFLAGS with the given flag made so.
pub(super) fn with(rflags: u64, flag: Rflags, on: bool) -> u64 {
    if on { rflags | flag.bits() } else { rflags & !flag.bits() }
}

/// The three flags that follow from the result alone.
fn of_result(width: Width, result: u64) -> Rflags {
    let mut flags = Rflags::empty();
    flags.set(Rflags::ZF, result == 0);
    flags.set(Rflags::SF, result & width.sign() != 0);
    flags.set(Rflags::PF, result.to_le_bytes()[0].count_ones().is_multiple_of(2));
    flags
}

/// `a op b`, both cut to `width`.
pub(super) fn binary(op: Binary, width: Width, a: u64, b: u64, rflags: u64) -> Answer {
    let (a, b) = (a & width.mask(), b & width.mask());
    let carry = rflags & Rflags::CF.bits();
    match op {
        Binary::Add => add(width, a, b, 0, rflags),
        Binary::Adc => add(width, a, b, carry, rflags),
        Binary::Sub => sub(width, a, b, 0, rflags),
        Binary::Sbb => sub(width, a, b, carry, rflags),
        Binary::And => logical(width, a & b, rflags),
        Binary::Or => logical(width, a | b, rflags),
        Binary::Xor => logical(width, a ^ b, rflags),
    }
}

/// `op a`, cut to `width`. INC and DEC keep CF, NOT keeps every flag.
pub(super) fn unary(op: Unary, width: Width, a: u64, rflags: u64) -> Answer {
    let a = a & width.mask();
    let carry = rflags & Rflags::CF.bits() != 0;
    let keep_carry = |(result, flags): Answer| (result, with(flags, Rflags::CF, carry));
    match op {
        Unary::Inc => keep_carry(add(width, a, 1, 0, rflags)),
        Unary::Dec => keep_carry(sub(width, a, 1, 0, rflags)),
        Unary::Not => (!a & width.mask(), rflags),
        Unary::Neg => sub(width, 0, a, 0, rflags),
    }
}

fn add(width: Width, a: u64, b: u64, carry: u64, rflags: u64) -> Answer {
    let wide = u128::from(a) + u128::from(b) + u128::from(carry);
    let result = a.wrapping_add(b).wrapping_add(carry) & width.mask();
    let overflow = !(a ^ b) & (a ^ result);
    arithmetic(width, (a, b, result), wide > u128::from(width.mask()), overflow, rflags)
}

fn sub(width: Width, a: u64, b: u64, borrow: u64, rflags: u64) -> Answer {
    let taken = u128::from(b) + u128::from(borrow);
    let result = a.wrapping_sub(b).wrapping_sub(borrow) & width.mask();
    let overflow = (a ^ b) & (a ^ result);
    arithmetic(width, (a, b, result), taken > u128::from(a), overflow, rflags)
}

fn arithmetic(width: Width, (a, b, result): (u64, u64, u64), carry: bool, overflow: u64, rflags: u64) -> Answer {
    let mut flags = of_result(width, result);
    flags.set(Rflags::CF, carry);
    flags.set(Rflags::OF, overflow & width.sign() != 0);
    flags.set(Rflags::AF, (a ^ b ^ result) & 0x10 != 0);
    (result, rflags & !STATUS.bits() | flags.bits())
}

fn logical(width: Width, result: u64, rflags: u64) -> Answer {
    (result, rflags & !STATUS.bits() | of_result(width, result).bits())
}
