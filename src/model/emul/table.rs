//! The one table from mnemonic to operation.

use super::alu::{Binary, Unary};
use super::bits::BitOp;
use super::string::StringOp;
use super::{Cpu, Flow, Step, Stop};
use iced_x86::Mnemonic;

/// What an instruction does, whatever its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Move,
    ZeroExtend,
    SignExtend,
    Binary(Binary),
    /// A binary operation of which only the flags are kept.
    Compare(Binary),
    Unary(Unary),
    Exchange,
    ExchangeAdd,
    CompareExchange,
    Bit(BitOp),
    Push,
    Pop,
    String(StringOp),
}

/// The operation of a mnemonic; `None` for one that is not emulated.
///
/// MOVSD and CMPSD name SSE instructions as well; those have no string operands and end as unhandled.
pub(super) fn operation(mnemonic: Mnemonic) -> Option<Operation> {
    use Operation as O;
    Some(match mnemonic {
        Mnemonic::Mov | Mnemonic::Movnti => O::Move,
        Mnemonic::Movzx => O::ZeroExtend,
        Mnemonic::Movsx | Mnemonic::Movsxd => O::SignExtend,
        Mnemonic::Add => O::Binary(Binary::Add),
        Mnemonic::Or => O::Binary(Binary::Or),
        Mnemonic::Adc => O::Binary(Binary::Adc),
        Mnemonic::Sbb => O::Binary(Binary::Sbb),
        Mnemonic::And => O::Binary(Binary::And),
        Mnemonic::Sub => O::Binary(Binary::Sub),
        Mnemonic::Xor => O::Binary(Binary::Xor),
        Mnemonic::Cmp => O::Compare(Binary::Sub),
        Mnemonic::Test => O::Compare(Binary::And),
        Mnemonic::Inc => O::Unary(Unary::Inc),
        Mnemonic::Dec => O::Unary(Unary::Dec),
        Mnemonic::Not => O::Unary(Unary::Not),
        Mnemonic::Neg => O::Unary(Unary::Neg),
        Mnemonic::Xchg => O::Exchange,
        Mnemonic::Xadd => O::ExchangeAdd,
        Mnemonic::Cmpxchg => O::CompareExchange,
        Mnemonic::Bt => O::Bit(BitOp::Test),
        Mnemonic::Bts => O::Bit(BitOp::Set),
        Mnemonic::Btr => O::Bit(BitOp::Reset),
        Mnemonic::Btc => O::Bit(BitOp::Complement),
        Mnemonic::Push => O::Push,
        Mnemonic::Pop => O::Pop,
        Mnemonic::Movsb | Mnemonic::Movsw | Mnemonic::Movsd | Mnemonic::Movsq => O::String(StringOp::Move),
        Mnemonic::Stosb | Mnemonic::Stosw | Mnemonic::Stosd | Mnemonic::Stosq => O::String(StringOp::Store),
        Mnemonic::Lodsb | Mnemonic::Lodsw | Mnemonic::Lodsd | Mnemonic::Lodsq => O::String(StringOp::Load),
        Mnemonic::Cmpsb | Mnemonic::Cmpsw | Mnemonic::Cmpsd | Mnemonic::Cmpsq => O::String(StringOp::Compare),
        Mnemonic::Scasb | Mnemonic::Scasw | Mnemonic::Scasd | Mnemonic::Scasq => O::String(StringOp::Scan),
        Mnemonic::Insb | Mnemonic::Insw | Mnemonic::Insd => O::String(StringOp::In),
        Mnemonic::Outsb | Mnemonic::Outsw | Mnemonic::Outsd => O::String(StringOp::Out),
        _ => return None,
    })
}

impl<C: Cpu> Step<'_, C> {
    pub(super) fn run(&mut self, operation: Operation) -> Result<Flow, Stop> {
        match operation {
            Operation::String(op) => return self.string(op),
            Operation::Move => self.mov()?,
            Operation::ZeroExtend => self.extend(false)?,
            Operation::SignExtend => self.extend(true)?,
            Operation::Binary(op) => self.binary(op)?,
            Operation::Compare(op) => self.compare(op)?,
            Operation::Unary(op) => self.unary(op)?,
            Operation::Exchange => self.exchange()?,
            Operation::ExchangeAdd => self.exchange_add()?,
            Operation::CompareExchange => self.compare_exchange()?,
            Operation::Bit(op) => self.bit(op)?,
            Operation::Push => self.push()?,
            Operation::Pop => self.pop()?,
        }
        Ok(Flow::Done)
    }
}
