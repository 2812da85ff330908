//! From bytes to an instruction, by iced-x86.

use super::{Cpu, Fault, exception};
use crate::addr::{GuestVirt, PAGE_SIZE};
use crate::regs::{Event, Segment, SegmentName, vector};
use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction};

/// The longest instruction in bytes (SDM 2A 2.3.11).
pub const MAX_LEN: u8 = 15;

/// The size of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bitness {
    /// Real mode, virtual-8086 mode, and segments without the D bit.
    Bits16,
    /// Segments with the D bit.
    Bits32,
    /// 64-bit mode.
    Bits64,
}

impl Bitness {
    /// The size of the code in segment `cs`; `long_mode` is EFER.LMA.
    pub fn of(cs: Segment, long_mode: bool) -> Self {
        match (long_mode && cs.is_long(), cs.is_big()) {
            (true, _) => Self::Bits64,
            (false, true) => Self::Bits32,
            (false, false) => Self::Bits16,
        }
    }

    fn bits(self) -> u32 {
        match self {
            Self::Bits16 => 16,
            Self::Bits32 => 32,
            Self::Bits64 => 64,
        }
    }
}

/// Why bytes are no instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// It goes on after the last byte given.
    Short,
    /// It is longer than [`MAX_LEN`]: `#GP`.
    TooLong,
    /// There is none, or none that the decoder is built for (VEX, EVEX, XOP, 3DNow!): `#UD` in the first case.
    Undefined,
}

/// Decodes the instruction at `rip` that `bytes` begin with.
pub fn decode(bytes: &[u8], bitness: Bitness, rip: u64) -> Result<Instruction, DecodeError> {
    let len = bytes.len().min(usize::from(MAX_LEN));
    let bytes = &bytes[..len];
    let mut decoder =
        Decoder::try_with_ip(bitness.bits(), bytes, rip, DecoderOptions::NONE).map_err(|_| DecodeError::Undefined)?;
    let instruction = decoder.decode();
    match decoder.last_error() {
        DecoderError::None => Ok(instruction),
        DecoderError::NoMoreBytes if len < usize::from(MAX_LEN) => Err(DecodeError::Short),
        // The decoder has one error for both; an undefined opcode of all 15 bytes counts as too long.
        _ if instruction.len() >= usize::from(MAX_LEN) => Err(DecodeError::TooLong),
        _ => Err(DecodeError::Undefined),
    }
}

/// The length in bytes of the instruction that `bytes` begin with, if it is one.
pub fn length(bytes: &[u8], bitness: Bitness) -> Option<u8> {
    decode(bytes, bitness, 0).ok().map(|instruction| len_of(&instruction))
}

pub(super) fn len_of(instruction: &Instruction) -> u8 {
    u8::try_from(instruction.len()).unwrap_or(MAX_LEN).min(MAX_LEN)
}

/// Makes the decoder build its tables, which it allocates at its first use: call it once at boot.
pub fn prepare() {
    const NOP: u8 = 0x90;
    assert_eq!(length(&[NOP], Bitness::Bits64), Some(1), "the decoder knows NOP");
}

/// Reads and decodes the instruction at CS:RIP. Of the next page only what the instruction needs is read.
pub fn fetch<C: Cpu>(cpu: &mut C) -> Result<Instruction, Fault> {
    let cs = cpu.segment(SegmentName::Cs);
    let bitness = Bitness::of(cs, cpu.long_mode());
    let rip = cpu.regs().rip;
    let start = code_address(cs, rip, bitness);
    let mut bytes = [0; MAX_LEN as usize];
    let left = usize::try_from(PAGE_SIZE).unwrap_or(0) - start.offset();
    let first = left.min(bytes.len());
    cpu.fetch(start, &mut bytes[..first])?;
    let mut decoded = decode(&bytes[..first], bitness, rip);
    if decoded == Err(DecodeError::Short) {
        let next = code_address(cs, rip.wrapping_add(u64::try_from(first).unwrap_or(0)), bitness);
        cpu.fetch(next, &mut bytes[first..])?;
        decoded = decode(&bytes, bitness, rip);
    }
    decoded.map_err(|error| match error {
        DecodeError::Undefined => Fault::Event(Event::UD),
        DecodeError::TooLong | DecodeError::Short => Fault::Event(exception(cpu, vector::GP)),
    })
}

fn code_address(cs: Segment, rip: u64, bitness: Bitness) -> GuestVirt {
    GuestVirt::new(match bitness {
        Bitness::Bits64 => rip,
        _ => cs.base.wrapping_add(rip) & u64::from(u32::MAX),
    })
}
