//! Instructions that the hypervisor executes for a guest: accesses to emulated devices, string I/O, and what the
//! processor did not decode for us.

use machine::console::GUEST;
use machine::exit::NestedFault;
use machine::virt::{GuestMsr, Virt};
use model::addr::{GuestPhys, GuestVirt};
use model::emul::{self, Bitness, ControlOp, Cpu, Fault, Outcome};
use model::paging::guest::{Access, Fault as WalkFault};
use model::pvh::LOCAL_APIC;
use model::regs::{Efer, Event, Regs, Rflags, Segment, SegmentName};
use sync::Cx;
use sync::place::Root;

use super::exit::{end, inject};
use super::{apic, io};
use crate::domain::life::Death;
use crate::guest_memory::{self, pin, walk};
use crate::run::{Next, Running};

/// An access that the nested page tables do not allow: a device's page, or no memory at all.
#[inline(never)]
pub fn nested_fault(cx: &mut Cx<'_, Root>, run: &mut Running, fault: NestedFault) -> Next {
    // Another virtual CPU may have put memory there meanwhile.
    if !is_served(run, fault.gpa) && cx.lock(&run.domain.memory).0.ram(fault.gpa.frame(), fault.is_write).is_some() {
        return Next::Enter;
    }
    if fault.is_fetch || fault.in_walk {
        return end(cx, run, Death::NoMemory { at: fault.gpa, is_fetch: fault.is_fetch });
    }
    instruction(cx, run)
}

/// Whether an address lies in the local APIC's page and the processor serves that: then there is memory under it.
fn is_served(run: &Running, gpa: GuestPhys) -> bool {
    run.context.has_apic_page && gpa.frame() == LOCAL_APIC.frame()
}

/// Executes the instruction at CS:RIP.
pub fn instruction(cx: &mut Cx<'_, Root>, run: &mut Running) -> Next {
    let mut cpu = GuestCpu { cx, run, next: Next::Enter };
    let instruction = match emul::fetch(&mut cpu) {
        Ok(instruction) => instruction,
        Err(fault) => return deliver(cpu.run, fault),
    };
    let outcome = emul::execute(&mut cpu, &instruction);
    let GuestCpu { run, next, .. } = cpu;
    match outcome {
        Outcome::Done { len } if next == Next::Enter => {
            run.context.hw.skip(&mut run.context.regs, len);
            Next::Enter
        }
        Outcome::Done { .. } | Outcome::Again => next,
        Outcome::Fault(fault) => deliver(run, fault),
        Outcome::Unhandled => {
            let mnemonic = instruction.mnemonic();
            log::warn!(target: GUEST, "({}) {}: {mnemonic:?} is not emulated: #UD", run.domain.name, run.id);
            inject(run, Event::UD)
        }
    }
}

/// The length of the instruction at CS:RIP.
pub fn length(cx: &mut Cx<'_, Root>, run: &mut Running) -> Result<u8, Fault> {
    let mut cpu = GuestCpu { cx, run, next: Next::Enter };
    Ok(emul::fetch(&mut cpu)?.len() as u8)
}

/// The control-register access at CS:RIP, with its length; `None` if there is none by now.
pub fn control(cx: &mut Cx<'_, Root>, run: &mut Running) -> Result<Option<(ControlOp, u8)>, Fault> {
    let mut cpu = GuestCpu { cx, run, next: Next::Enter };
    let instruction = emul::fetch(&mut cpu)?;
    Ok(emul::control(&mut cpu, &instruction)?.map(|op| (op, instruction.len() as u8)))
}

/// Delivers a fault of an emulated instruction.
pub fn deliver(run: &mut Running, fault: Fault) -> Next {
    if let Fault::Page { address, .. } = fault {
        run.context.hw.set_cr(2, address.raw());
    }
    inject(run, fault.event())
}

/// The virtual CPU as the emulator sees it.
struct GuestCpu<'a, 'c> {
    cx: &'a mut Cx<'c, Root>,
    run: &'a mut Running,
    /// What follows beside the instruction.
    next: Next,
}

/// A piece of linear memory within one page.
enum Place {
    Ram(machine::mem::PinnedFrame, usize),
    Apic(u16),
    Nothing,
}

impl GuestCpu<'_, '_> {
    fn access(&self, write: bool, fetch: bool) -> Access {
        let context = &self.run.context;
        let user = context.hw.cpl() == 3;
        let ac = context.regs.rflags & Rflags::AC.bits() != 0;
        Access { write, fetch, user, smap: !user && !ac }
    }

    fn place(&mut self, at: GuestVirt, access: Access) -> Result<Place, Fault> {
        let gpa = walk(self.cx, &self.run.domain, &self.run.context, at, access).map_err(|fault| match fault {
            WalkFault::Page { error } => Fault::Page { address: at, error },
            WalkFault::NonCanonical | WalkFault::Table(_) => Fault::Event(Event::GP),
        })?;
        Ok(self.physical(gpa, access.write))
    }

    fn physical(&mut self, gpa: GuestPhys, write: bool) -> Place {
        if is_served(self.run, gpa) {
            return Place::Apic(gpa.offset() as u16);
        }
        if let Some(frame) = pin(self.cx, &self.run.domain, gpa.frame(), write) {
            return Place::Ram(frame, gpa.offset());
        }
        apic::page_offset(self.cx, self.run, gpa).map_or(Place::Nothing, Place::Apic)
    }

    /// Splits an access at the page boundary.
    fn parts(at: GuestVirt, len: usize) -> [(GuestVirt, usize, usize); 2] {
        let first = len.min(4096 - at.offset());
        let second = GuestVirt::new(at.raw().wrapping_add(first as u64));
        [(at, 0, first), (second, first, len)]
    }

    fn read_with(&mut self, at: GuestVirt, out: &mut [u8], access: Access) -> Result<(), Fault> {
        for (at, start, end) in Self::parts(at, out.len()) {
            let part = &mut out[start..end];
            if part.is_empty() {
                continue;
            }
            match self.place(at, access)? {
                Place::Ram(frame, offset) => frame.read(offset, part),
                Place::Apic(offset) => {
                    let value = apic::read_page(self.cx, self.run, offset, part.len());
                    let len = part.len().min(8);
                    part[..len].copy_from_slice(&value.to_le_bytes()[..len]);
                }
                Place::Nothing => part.fill(0xff),
            }
        }
        Ok(())
    }
}

impl Cpu for GuestCpu<'_, '_> {
    fn regs(&self) -> &Regs {
        &self.run.context.regs
    }
    fn regs_mut(&mut self) -> &mut Regs {
        &mut self.run.context.regs
    }
    fn segment(&self, name: SegmentName) -> Segment {
        self.run.context.hw.segment(name)
    }
    fn cr(&self, n: u8) -> u64 {
        self.run.context.hw.cr(n)
    }
    fn long_mode(&self) -> bool {
        self.run.context.hw.msr(GuestMsr::Efer) & Efer::LMA.bits() != 0
    }
    fn read(&mut self, at: GuestVirt, out: &mut [u8]) -> Result<(), Fault> {
        self.read_with(at, out, self.access(false, false))
    }
    fn fetch(&mut self, at: GuestVirt, out: &mut [u8]) -> Result<(), Fault> {
        self.read_with(at, out, self.access(false, true))
    }

    fn write(&mut self, at: GuestVirt, bytes: &[u8]) -> Result<(), Fault> {
        self.probe_write(at, bytes.len())?;
        for (at, start, end) in Self::parts(at, bytes.len()) {
            let part = &bytes[start..end];
            if part.is_empty() {
                continue;
            }
            match self.place(at, self.access(true, false))? {
                Place::Ram(frame, offset) => frame.write(offset, part),
                Place::Apic(offset) => {
                    let mut value = [0; 8];
                    let len = part.len().min(8);
                    value[..len].copy_from_slice(&part[..len]);
                    apic::write_page(self.cx, self.run, offset, part.len(), u64::from_le_bytes(value));
                }
                Place::Nothing => {}
            }
        }
        Ok(())
    }

    fn probe_write(&mut self, at: GuestVirt, len: usize) -> Result<(), Fault> {
        for (at, start, end) in Self::parts(at, len) {
            if start < end {
                self.place(at, self.access(true, false))?;
            }
        }
        Ok(())
    }

    fn io_in(&mut self, port: u16, size: u8) -> Result<u32, Fault> {
        self.check_port(port, size)?;
        Ok(io::read(port))
    }

    fn io_out(&mut self, port: u16, size: u8, value: u32) -> Result<(), Fault> {
        self.check_port(port, size)?;
        if io::write(self.cx, self.run, port, value) == Next::Schedule {
            self.next = Next::Schedule;
        }
        Ok(())
    }
}

impl GuestCpu<'_, '_> {
    /// Whether the guest's own rules allow the port: IOPL, or the bitmap in its TSS (SDM 1 19.5).
    fn check_port(&mut self, port: u16, size: u8) -> Result<(), Fault> {
        let hw = &self.run.context.hw;
        let iopl = (self.run.context.regs.rflags >> 12 & 3) as u8;
        if hw.cr(0) & 1 == 0 || hw.cpl() <= iopl {
            return Ok(());
        }
        let tss = hw.segment(SegmentName::Tr);
        let system = Access { write: false, fetch: false, user: false, smap: false };
        let at = |offset: u64| GuestVirt::new(tss.base.wrapping_add(offset));
        let mut base = [0; 2];
        self.read_with(at(0x66), &mut base, system)?;
        let first = u64::from(u16::from_le_bytes(base)) + u64::from(port / 8);
        let mut bits = [0; 2];
        if first + 1 > u64::from(tss.limit) {
            return Err(Fault::Event(Event::GP));
        }
        self.read_with(at(first), &mut bits, system)?;
        let mask = ((1u16 << size) - 1) << (port % 8);
        if u16::from_le_bytes(bits) & mask == 0 { Ok(()) } else { Err(Fault::Event(Event::GP)) }
    }
}

/// The mode of the code that runs.
pub fn bitness(run: &Running) -> Bitness {
    let hw = &run.context.hw;
    Bitness::of(hw.segment(SegmentName::Cs), hw.msr(GuestMsr::Efer) & Efer::LMA.bits() != 0)
}

/// The bytes at CS:RIP for a crash report, as far as they can be read.
pub fn code_bytes(cx: &mut Cx<'_, Root>, run: &Running) -> ([u8; 15], usize) {
    let base = if bitness(run) == Bitness::Bits64 { 0 } else { run.context.hw.segment(SegmentName::Cs).base };
    let mut bytes = [0; 15];
    let readable = (0..bytes.len()).take_while(|&n| {
        let at = base.wrapping_add(run.context.regs.rip).wrapping_add(n as u64);
        guest_memory::copy_in(cx, run, at, &mut bytes[n..=n]).is_ok()
    });
    let count = readable.count();
    (bytes, count)
}
