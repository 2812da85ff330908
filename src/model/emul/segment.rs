//! From segment and offset to a linear address (SDM 1 3.3.7, SDM 3A 5.3 to 5.5).

use super::operand::Access;
use super::register::Width;
use super::{Cpu, Step, Stop};
use crate::addr::GuestVirt;
use crate::regs::{Cr0, Rflags, Segment, SegmentName, vector};
use iced_x86::Register;

const CODE: u16 = 1 << 3;
/// Data: expand-down.
const EXPAND_DOWN: u16 = 1 << 2;
/// Data: writable; code: readable.
const RW: u16 = 1 << 1;

/// The segment register of this name.
pub(super) fn name_of(register: Register) -> Option<SegmentName> {
    Some(match register {
        Register::ES => SegmentName::Es,
        Register::CS => SegmentName::Cs,
        Register::SS => SegmentName::Ss,
        Register::DS => SegmentName::Ds,
        Register::FS => SegmentName::Fs,
        Register::GS => SegmentName::Gs,
        _ => return None,
    })
}

/// Whether the segment's type allows the access.
fn type_allows(segment: Segment, access: Access) -> bool {
    let kind = segment.attributes;
    let present = kind & Segment::PRESENT != 0;
    let writable = kind & (CODE | RW) == RW;
    let readable = kind & CODE == 0 || kind & RW != 0;
    present && if access == Access::Read { readable } else { writable }
}

/// Whether all bytes from `first` to `last` lie within the limit.
fn within_limit(segment: Segment, first: u64, last: u64) -> bool {
    let limit = u64::from(segment.limit);
    if segment.attributes & (CODE | EXPAND_DOWN) == EXPAND_DOWN {
        let top = if segment.is_big() { u64::from(u32::MAX) } else { 0xffff };
        first > limit && last <= top
    } else {
        last <= limit
    }
}

impl<C: Cpu> Step<'_, C> {
    /// The linear address of an operand. `#GP`, or `#SS` for the stack segment, where there is none.
    pub(super) fn linear(
        &self,
        name: SegmentName,
        offset: u64,
        width: Width,
        access: Access,
    ) -> Result<GuestVirt, Stop> {
        let segment = self.cpu.segment(name);
        let last = u64::from(width.bytes()) - 1;
        let address = if self.long {
            self.flat(name, segment, offset, last)
        } else {
            self.segmented(segment, offset, last, access)
        };
        let refusal = if name == SegmentName::Ss { vector::SS } else { vector::GP };
        address.ok_or_else(|| self.fault(refusal))
    }

    /// 64-bit mode: only FS and GS have a base, and nothing has a limit.
    fn flat(&self, name: SegmentName, segment: Segment, offset: u64, last: u64) -> Option<GuestVirt> {
        let based = matches!(name, SegmentName::Fs | SegmentName::Gs);
        let first = if based { segment.base.wrapping_add(offset) } else { offset };
        let canonical = |address| GuestVirt::new(address).is_canonical();
        (canonical(first) && canonical(first.wrapping_add(last))).then(|| GuestVirt::new(first))
    }

    fn segmented(&self, segment: Segment, offset: u64, last: u64, access: Access) -> Option<GuestVirt> {
        let typed = self.cpu.cr(0) & Cr0::PE.bits() != 0 && !self.flag(Rflags::VM);
        let end = offset.checked_add(last)?;
        let allowed = (!typed || type_allows(segment, access)) && within_limit(segment, offset, end);
        let address = segment.base.wrapping_add(offset) & u64::from(u32::MAX);
        allowed.then(|| GuestVirt::new(address))
    }
}
