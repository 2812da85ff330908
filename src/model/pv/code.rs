//! Which bytes a PV guest was about to execute when it left.
//!
//! They may have changed since, and lie anywhere: beyond the segment, in the hypervisor's part of the address space, or
//! on a page that is gone. What of an instruction cannot be read is the fault that the guest gets, as in Xen.

use super::is_guests;
use crate::addr::{GuestVirt, PAGE_SIZE};
use crate::emul::{self, Bitness, DecodeError, Fault, Instruction, MAX_LEN};
use crate::regs::Event;

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

const CODE: u64 = 1 << 43;
const NOT_SYSTEM: u64 = 1 << 44;
const PRESENT: u64 = 1 << 47;
const LONG: u64 = 1 << 53;
const BIG: u64 = 1 << 54;
const PAGES: u64 = 1 << 55;

impl Code {
    /// 64-bit code, which has neither base nor limit.
    pub const LONG: Self = Self { bitness: Bitness::Bits64, base: 0, limit: u64::MAX };

    /// By the descriptor that the selector in CS names (SDM 3A 3.4.5); `None` if that is no code that could run.
    pub fn from_descriptor(raw: u64) -> Option<Self> {
        let needed = CODE | NOT_SYSTEM | PRESENT;
        if raw & needed != needed {
            return None;
        }
        if raw & LONG != 0 {
            return Some(Self::LONG);
        }
        let base = (raw >> 16) & 0xff_ffff | (raw >> 56) << 24;
        let units = raw & 0xffff | (raw >> 32) & 0xf_0000;
        let limit = if raw & PAGES != 0 { units << 12 | 0xfff } else { units };
        let bitness = if raw & BIG != 0 { Bitness::Bits32 } else { Bitness::Bits16 };
        Some(Self { bitness, base, limit })
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

    #[test]
    fn a_descriptor_says_how_code_is_decoded_and_where_it_ends() {
        assert_eq!(Code::from_descriptor(0x00af_fb00_0000_ffff), Some(Code::LONG));
        let flat = Code::from_descriptor(0x00cf_fb00_0000_ffff).expect("code");
        assert_eq!((flat.bitness, flat.base, flat.limit), (Bitness::Bits32, 0, 0xffff_ffff));
        let small = Code::from_descriptor(0x1240_fb34_5678_0010).expect("code");
        assert_eq!((small.bitness, small.base, small.limit), (Bitness::Bits32, 0x1234_5678, 0x10));
        assert_eq!((small.span(0xf), small.span(0x11)), (Some((0x1234_5687, 2)), None));
        assert_eq!(Code::from_descriptor(0x0000_fb00_0000_ffff).map(|code| code.bitness), Some(Bitness::Bits16));
        for other in [0, 0x00cf_f300_0000_ffff, 0x00cf_7b00_0000_ffff, 0x0000_8900_0000_0067] {
            assert_eq!(Code::from_descriptor(other), None, "{other:#x}");
        }
    }

    #[test]
    fn addresses_of_32_bit_code_wrap_at_4_gib() {
        let code = Code::from_descriptor(0xffcf_fbff_fff0_ffff).expect("code");
        assert_eq!(code.span(0x20), Some((0x10, 0xff0)));
    }
}
