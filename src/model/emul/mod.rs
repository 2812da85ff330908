//! Emulation of single instructions over a [`Cpu`], for what a guest does to memory and ports that are not
//! there: device pages, unmapped frames, string I/O; and decoding where the processor does not tell operands.
//!
//! [`fetch`] decodes the instruction at RIP, [`execute`] does it and answers an [`Outcome`]. RIP itself is
//! the caller's: it moves past a [`Outcome::Done`] instruction, and leaves it where it is for all else. What
//! can fail comes before the first change that shows; of a repeated instruction each element is committed.
//!
//! Another virtual CPU may have rewritten the instruction since it left the guest. So nothing here trusts that
//! it is the one that exited, and the [`Cpu`] checks each access with the guest's own rights.
//!
//! | file | what it holds |
//! |---|---|
//! | `decode`, `control`, `system` | bytes to instruction; operands of accesses to control registers; a kernel's instructions |
//! | `table` | the one table from mnemonic to operation |
//! | `operand`, `register`, `segment` | where operands are (SDM 1 3.7) |
//! | `alu` | results and flags, pure |
//! | `data`, `bits`, `stack`, `string` | the families of operations |

mod alu;
mod bits;
mod control;
mod data;
mod decode;
mod operand;
mod register;
mod segment;
mod stack;
mod string;
mod system;
mod table;
#[cfg(test)]
mod tests;

pub use control::{ControlOp, control};
pub use decode::{Bitness, DecodeError, MAX_LEN, decode, fetch, length, prepare};
pub use iced_x86::{Instruction, Mnemonic};
pub use string::MAX_ELEMENTS;
pub use system::{Port, System, frequent, system};

use crate::addr::GuestVirt;
use crate::regs::{Cr0, Event, Regs, Rflags, Segment, SegmentName, vector};

/// The virtual CPU whose instruction is emulated.
///
/// Memory is reached as the guest would at its current privilege, through its page tables; a span may cross
/// a page and is at most 15 bytes long. An access that fails has changed nothing.
pub trait Cpu {
    /// The general registers.
    fn regs(&self) -> &Regs;
    /// The general registers, to write.
    fn regs_mut(&mut self) -> &mut Regs;
    /// A segment register with its hidden part.
    fn segment(&self, name: SegmentName) -> Segment;
    /// Control register `n` as the guest believes it to be.
    fn cr(&self, n: u8) -> u64;
    /// EFER.LMA.
    fn long_mode(&self) -> bool;
    /// Reads memory.
    fn read(&mut self, at: GuestVirt, buf: &mut [u8]) -> Result<(), Fault>;
    /// Writes memory. Succeeds where [`Cpu::probe_write`] just did.
    fn write(&mut self, at: GuestVirt, bytes: &[u8]) -> Result<(), Fault>;
    /// Whether `len` bytes could be written, without doing so.
    fn probe_write(&mut self, at: GuestVirt, len: usize) -> Result<(), Fault>;
    /// Reads memory as code.
    fn fetch(&mut self, at: GuestVirt, buf: &mut [u8]) -> Result<(), Fault> {
        self.read(at, buf)
    }
    /// Reads `size` bytes, 1, 2 or 4, from a port, if the guest may (SDM 1 19.5).
    fn io_in(&mut self, port: u16, size: u8) -> Result<u32, Fault>;
    /// Writes `size` bytes, 1, 2 or 4, to a port, if the guest may.
    fn io_out(&mut self, port: u16, size: u8, value: u32) -> Result<(), Fault>;
}

/// Why an instruction cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An exception other than `#PF`.
    Event(Event),
    /// `#PF`: the caller sets CR2 to the address and delivers [`Fault::event`].
    Page {
        /// The byte that could not be reached.
        address: GuestVirt,
        /// Error code (SDM 3A 4.7).
        error: u32,
    },
}

impl Fault {
    /// What to deliver to the guest.
    pub fn event(self) -> Event {
        match self {
            Fault::Event(event) => event,
            Fault::Page { error, .. } => Event::Exception { vector: vector::PF, error: Some(error) },
        }
    }
}

/// How an instruction went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// It is done: skip its `len` bytes.
    Done {
        /// Length in bytes, 1 to 15.
        len: u8,
    },
    /// A repeated instruction is not finished: run the guest again where it is.
    Again,
    /// It faults; registers are as before the instruction, or before the element of a repeated one.
    Fault(Fault),
    /// It is none that is emulated, and nothing has changed.
    Unhandled,
}

/// Does one instruction that [`fetch`] or [`decode`] gave.
pub fn execute<C: Cpu>(cpu: &mut C, instruction: &Instruction) -> Outcome {
    let Some(operation) = table::operation(instruction.mnemonic()) else {
        return Outcome::Unhandled;
    };
    match Step::new(cpu, instruction).run(operation) {
        Ok(Flow::Done) => Outcome::Done { len: decode::len_of(instruction) },
        Ok(Flow::Again) => Outcome::Again,
        Err(Stop::Fault(fault)) => Outcome::Fault(fault),
        Err(Stop::Unhandled) => Outcome::Unhandled,
    }
}

/// Whether an instruction has reached its end.
enum Flow {
    Done,
    Again,
}

/// Why an instruction is not done.
#[derive(Debug)]
enum Stop {
    Fault(Fault),
    Unhandled,
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Stop::Fault(fault)
    }
}

/// One instruction on its way.
struct Step<'a, C> {
    cpu: &'a mut C,
    insn: &'a Instruction,
    /// 64-bit code.
    long: bool,
}

impl<'a, C: Cpu> Step<'a, C> {
    fn new(cpu: &'a mut C, insn: &'a Instruction) -> Self {
        let long = insn.code_size() == iced_x86::CodeSize::Code64;
        Self { cpu, insn, long }
    }

    fn flag(&self, flag: Rflags) -> bool {
        self.cpu.regs().rflags & flag.bits() != 0
    }

    /// An exception with error code zero, where the mode has error codes.
    fn fault(&self, vector: u8) -> Stop {
        Stop::Fault(Fault::Event(exception(self.cpu, vector)))
    }
}

/// Exceptions push no error code in real mode (SDM 3A 20.1.4).
fn exception<C: Cpu>(cpu: &C, vector: u8) -> Event {
    let protected = cpu.cr(0) & Cr0::PE.bits() != 0;
    Event::Exception { vector, error: protected.then_some(0) }
}
