//! Which bytes a PV guest was about to execute when it left.
//!
//! They may have changed since, and lie anywhere: beyond the segment, in the hypervisor's part of the address space, or
//! on a page that is gone. What of an instruction cannot be read is the fault that the guest gets, as in Xen.

use super::is_guests;
use crate::addr::{GuestVirt, PAGE_SIZE};
use crate::emul::{self, Bitness, DecodeError, Fault, Instruction, MAX_LEN};
use crate::regs::{Event, Segment};

/// A guest's code segment, by its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// What its instructions are decoded as.
    pub bitness: Bitness,
    /// Of 32-bit and 16-bit code.
    base: u64,
    /// The offset of the last byte.
    limit: u64,
}

/// Attributes of a segment: code, and not a system segment (SDM 3A 3.4.5).
const CODE: u16 = 1 << 3 | 1 << 4;

impl Code {
    /// 64-bit code, which has neither base nor limit.
    pub const LONG: Self = Self { bitness: Bitness::Bits64, base: 0, limit: u64::MAX };

    /// By the descriptor that the selector in CS names; `None` if that is no code that could run.
    pub fn of(segment: &Segment) -> Option<Self> {
        let needed = CODE | Segment::PRESENT;
        if segment.attributes & needed != needed {
            return None;
        }
        if segment.is_long() {
            return Some(Self::LONG);
        }
        Some(Self { bitness: Bitness::of(*segment, true), base: segment.base, limit: u64::from(segment.limit) })
    }

    /// The linear address of the byte at `rip`, and how many bytes of code follow in its page; `None` where there is none.
    fn span(&self, rip: u64) -> Option<(u64, u64)> {
        let (at, within) = match self.bitness {
            Bitness::Bits64 => (rip, u64::MAX),
            _ => (self.base.wrapping_add(rip) & u64::from(u32::MAX), self.limit.checked_sub(rip)?.saturating_add(1)),
        };
        is_guests(at, 1).then(|| (at, within.min(PAGE_SIZE - at % PAGE_SIZE)))
    }
}

/// Why there is no instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The guest gets this fault.
    Fault(Fault),
    /// The bytes are none: the guest gets the exception that made it leave.
    Undefined,
}

/// The bytes of code that were read.
struct Bytes {
    bytes: [u8; MAX_LEN as usize],
    have: usize,
}

impl Bytes {
    /// Reads on to the end of the page, or of what an instruction can have.
    fn more(&mut self, copy: &mut impl FnMut(u64, &mut [u8]) -> usize, code: &Code, rip: u64) -> Result<(), Fault> {
        let next = rip.wrapping_add(u64::try_from(self.have).unwrap_or(0));
        let (at, within) = code.span(next).ok_or(Fault::Event(Event::GP))?;
        let room = &mut self.bytes[self.have..];
        let count = usize::try_from(within).map_or(room.len(), |within| within.min(room.len()));
        let read = count.saturating_sub(copy(at, &mut room[..count]));
        if read == 0 {
            return Err(Fault::Page { address: GuestVirt::new(at), error: 0 });
        }
        self.have += read;
        Ok(())
    }
}

/// Reads the code at `rip` into `out`, or faults. `copy` copies from a linear address and answers how many bytes at the
/// end it could not.
pub fn read<const N: usize>(
    copy: &mut impl FnMut(u64, &mut [u8]) -> usize,
    code: &Code,
    rip: u64,
) -> Result<[u8; N], Fault> {
    let mut read = Bytes { bytes: [0; MAX_LEN as usize], have: 0 };
    while read.have < N {
        read.more(copy, code, rip)?;
    }
    let mut out = [0; N];
    out.copy_from_slice(&read.bytes[..N]);
    Ok(out)
}

/// The instruction at `rip`, read by `copy` as for [`read`].
pub fn instruction(
    copy: &mut impl FnMut(u64, &mut [u8]) -> usize,
    code: &Code,
    rip: u64,
) -> Result<Instruction, Missing> {
    let mut read = Bytes { bytes: [0; MAX_LEN as usize], have: 0 };
    loop {
        read.more(copy, code, rip).map_err(Missing::Fault)?;
        match emul::decode(&read.bytes[..read.have], code.bitness, rip) {
            Ok(instruction) => return Ok(instruction),
            Err(DecodeError::Short) if read.have < read.bytes.len() => {}
            Err(_) => return Err(Missing::Undefined),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Code that ends at 0x2000.
    fn at_the_end(bytes: &[u8]) -> impl FnMut(u64, &mut [u8]) -> usize {
        let start = 0x2000 - bytes.len() as u64;
        let bytes = bytes.to_vec();
        move |at, out| {
            for (n, byte) in out.iter_mut().enumerate() {
                match at.checked_add(n as u64).and_then(|at| at.checked_sub(start)).map(|at| bytes.get(at as usize)) {
                    Some(Some(&found)) => *byte = found,
                    _ => return out.len() - n,
                }
            }
            0
        }
    }

    #[test]
    fn an_instruction_at_the_end_of_the_last_page_is_read_whole() {
        let mut copy = at_the_end(&[0x0f, 0x20, 0xc0]);
        let insn = instruction(&mut copy, &Code::LONG, 0x1ffd).map(|insn| insn.len());
        assert_eq!(insn, Ok(3));
    }

    #[test]
    fn an_instruction_that_goes_on_where_nothing_is_faults_there() {
        let mut copy = at_the_end(&[0x0f, 0x01]);
        let fault = Fault::Page { address: GuestVirt::new(0x2000), error: 0 };
        assert_eq!(instruction(&mut copy, &Code::LONG, 0x1ffe).map(|_| ()), Err(Missing::Fault(fault)));
        assert_eq!(read::<4>(&mut copy, &Code::LONG, 0x1ffe), Err(fault));
    }

    #[test]
    fn code_in_the_hole_or_nowhere_is_gp() {
        let gp = Fault::Event(Event::GP);
        for rip in [0xffff_8000_0000_0000, 0xffff_87ff_ffff_ffff, 0x8000_0000_0000, 0x7fff_ffff_ffff] {
            let mut copy = |at: u64, _: &mut [u8]| if at == 0x7fff_ffff_ffff { 0 } else { panic!("not read") };
            assert_eq!(read::<2>(&mut copy, &Code::LONG, rip), Err(gp), "{rip:#x}");
        }
    }

    #[test]
    fn what_is_no_instruction_gets_the_exception_that_it_raised() {
        let mut copy = at_the_end(&[0x06; 16]);
        assert_eq!(instruction(&mut copy, &Code::LONG, 0x1ff0).map(|_| ()), Err(Missing::Undefined));
        let mut copy = at_the_end(&[0x66; 16]);
        assert_eq!(instruction(&mut copy, &Code::LONG, 0x1ff0).map(|_| ()), Err(Missing::Undefined));
    }

    fn segment(attributes: u16, base: u64, limit: u32) -> Segment {
        Segment { selector: 0x23, attributes, limit, base }
    }

    #[test]
    fn a_descriptor_says_how_code_is_decoded_and_where_it_ends() {
        assert_eq!(Code::of(&segment(0xafb, 0, u32::MAX)), Some(Code::LONG));
        let flat = Code::of(&segment(0xcfb, 0, u32::MAX)).expect("code");
        assert_eq!((flat.bitness, flat.base, flat.limit), (Bitness::Bits32, 0, 0xffff_ffff));
        let small = Code::of(&segment(0x4fb, 0x1234_5678, 0x10)).expect("code");
        assert_eq!((small.span(0xf), small.span(0x11)), (Some((0x1234_5687, 2)), None));
        assert_eq!(Code::of(&segment(0xfb, 0, 0xffff)).map(|code| code.bitness), Some(Bitness::Bits16));
        for other in [0, 0xcf3, 0xc7b, 0x89] {
            assert_eq!(Code::of(&segment(other, 0, u32::MAX)), None, "{other:#x}");
        }
    }

    #[test]
    fn addresses_of_32_bit_code_wrap_at_4_gib() {
        let code = Code::of(&segment(0xcfb, 0xffff_fff0, u32::MAX)).expect("code");
        assert_eq!(code.span(0x20), Some((0x10, 0xff0)));
    }
}
