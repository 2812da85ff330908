//! The virtual CPU as the emulator of INS and OUTS sees it.

use machine::virt::Virt;
use model::addr::GuestVirt;
use model::emul::{Cpu, Fault, Port};
use model::pv::is_guests;
use model::regs::{Cr0, Event, Regs, Segment, SegmentName};

use super::ports;
use crate::guest_memory::{copy_in_part, copy_out_part};
use crate::run::Running;

/// A PV guest that executes an instruction.
pub struct Guest<'a> {
    /// The virtual CPU.
    pub run: &'a mut Running,
}

/// The bit of a page fault's error code that says that it was a write.
const WRITE: u32 = 1 << 1;

/// The fault of an access of which `left` bytes could not be made.
fn fault(at: GuestVirt, len: usize, left: usize, error: u32) -> Fault {
    let made = u64::try_from(len.saturating_sub(left)).unwrap_or(0);
    Fault::Page { address: GuestVirt::new(at.raw().wrapping_add(made)), error }
}

impl Cpu for Guest<'_> {
    fn regs(&self) -> &Regs {
        &self.run.context.regs
    }
    fn regs_mut(&mut self) -> &mut Regs {
        &mut self.run.context.regs
    }

    fn segment(&self, name: SegmentName) -> Segment {
        let context = &self.run.context;
        let of = |selector: u64| context.hw.pv().describe(selector as u16).unwrap_or_default();
        match name {
            SegmentName::Cs => of(context.regs.cs),
            SegmentName::Ss => of(context.regs.ss),
            _ => context.hw.segment(name),
        }
    }

    fn cr(&self, _: u8) -> u64 {
        Cr0::PE.bits()
    }
    fn long_mode(&self) -> bool {
        true
    }

    fn read(&mut self, at: GuestVirt, out: &mut [u8]) -> Result<(), Fault> {
        match copy_in_part(self.run, at.raw(), out) {
            0 => Ok(()),
            left => Err(fault(at, out.len(), left, 0)),
        }
    }

    fn write(&mut self, at: GuestVirt, bytes: &[u8]) -> Result<(), Fault> {
        match copy_out_part(self.run, at.raw(), bytes) {
            0 => Ok(()),
            left => Err(fault(at, bytes.len(), left, WRITE)),
        }
    }

    /// Only as far as it can be known without writing: as in Xen, what was read of a port is lost if the page is not there.
    fn probe_write(&mut self, at: GuestVirt, len: usize) -> Result<(), Fault> {
        if is_guests(at.raw(), len) { Ok(()) } else { Err(Fault::Event(Event::GP)) }
    }

    fn io_in(&mut self, port: u16, size: u8) -> Result<u32, Fault> {
        Ok(ports::read(self.run, Port { number: port, size }))
    }

    fn io_out(&mut self, port: u16, size: u8, value: u32) -> Result<(), Fault> {
        ports::write(self.run, Port { number: port, size }, value);
        Ok(())
    }
}
