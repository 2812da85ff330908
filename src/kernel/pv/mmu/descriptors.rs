//! GDT and LDT of PV virtual CPUs: frames of the guest's, checked, that are mapped for the processor in the hole.

use abi::errno::Errno;
use machine::virt::Virt;
use model::addr::{MachineAddr, Mfn};
use model::ids::VcpuId;
use model::pv::mmu::{Stop, entry};
use model::pv::state::Ldt;
use sync::Cx;
use sync::place::Root;

use super::va::find;
use super::{Budget, Session, with};
use crate::domain::Domain;
use crate::guest_memory::GuestPtr;
use crate::hypercall::{Answer, Args, Outcome};
use crate::run::Running;

/// Pages of a virtual CPU's GDT that are the guest's; the next is the hypervisor's (`FIRST_RESERVED_GDT_PAGE`).
pub const GDT_PAGES: usize = 14;
/// Pages of a virtual CPU's LDT.
pub const LDT_PAGES: usize = 16;
/// Descriptors in a page.
const PER_PAGE: usize = 512;

/// `set_gdt`: `args[1]` descriptors, in the frames of the list at `args[0]`.
pub fn set_gdt(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    let entries = args[1] as u32;
    if entries as usize > GDT_PAGES * PER_PAGE {
        return Err(Errno::EINVAL);
    }
    let count = (entries as usize).div_ceil(PER_PAGE);
    let mut frames = [Mfn::new(0); GDT_PAGES];
    let list = GuestPtr::<u64>::new(args[0]);
    for (at, frame) in (0..).zip(&mut frames[..count]) {
        *frame = Mfn::new(list.at(at).read(cx, run)?);
    }
    match load_gdt(cx, &run.domain, run.id, &frames[..count]) {
        Ok(()) => {
            run.context.hw.flush();
            Ok(Outcome::DONE)
        }
        Err(Stop::Refused(errno)) => Err(errno),
        Err(Stop::Again) => Ok(Outcome::Again(*args)),
    }
}

/// Makes frames the GDT of a virtual CPU that this CPU runs, or that does not run. Who runs it flushes.
pub fn load_gdt(cx: &mut Cx<'_, Root>, domain: &Domain, vcpu: VcpuId, frames: &[Mfn]) -> Result<(), Stop> {
    let Some(pv) = &domain.pv else { return Err(Errno::EINVAL.into()) };
    let answer = with(cx, domain, false, &Budget::new(), |session| {
        for (done, &frame) in frames.iter().enumerate() {
            if let Err(stop) = session.mmu().get_descriptor_page(frame) {
                frames[..done].iter().for_each(|&frame| session.mmu().put_descriptor_page(frame));
                return Err(stop);
            }
        }
        for at in 0..GDT_PAGES {
            let new = frames.get(at).copied();
            let old = core::mem::replace(&mut session.vcpus[vcpu.0 as usize].gdt[at], new);
            if old.is_some() || new.is_some() {
                pv.space.set_gdt_page(vcpu, at as u32, new);
            }
            if let Some(old) = old {
                session.mmu().put_descriptor_page(old);
            }
        }
        Ok(())
    });
    answer.unwrap_or(Err(Errno::EINVAL.into()))
}

/// `MMUEXT_SET_LDT`: so many descriptors at a linear address.
pub(super) fn set_ldt(session: &mut Session<'_>, run: &mut Running, base: u64, entries: u32) -> Result<(), Errno> {
    if entries as usize > LDT_PAGES * PER_PAGE
        || entries != 0 && (!base.is_multiple_of(4096) || !super::va::is_guests(base))
    {
        return Err(Errno::EINVAL);
    }
    let tables = &mut session.vcpus[run.id.0 as usize];
    let base = if entries == 0 { 0 } else { base };
    if (tables.ldt_base, tables.ldt_entries) != (base, entries) {
        drop_ldt(session, run);
        let tables = &mut session.vcpus[run.id.0 as usize];
        (tables.ldt_base, tables.ldt_entries) = (base, entries);
        map_ldt(session, run);
        run.context.hw.pv_mut().set_ldt(entries);
    }
    Ok(())
}

/// Maps anew the running virtual CPU's LDT, by its page tables as they are. A page that is not there, or is no page of
/// descriptors, is left out: who loads a selector of it faults, and [`map_ldt_page`] looks again.
pub(super) fn map_ldt(session: &mut Session<'_>, run: &mut Running) {
    let tables = &session.vcpus[run.id.0 as usize];
    if tables.ldt_entries == 0 {
        return;
    }
    let (base, entries) = (tables.ldt_base, tables.ldt_entries as usize);
    drop_ldt(session, run);
    for at in 0..entries.div_ceil(PER_PAGE) {
        map_page(session, run, base, at);
    }
}

/// Says where a virtual CPU that does not run yet has its LDT. Its pages are mapped when they are used.
pub fn note_ldt(cx: &mut Cx<'_, Root>, domain: &Domain, vcpu: VcpuId, ldt: Ldt) {
    let Some(pv) = &domain.pv else { return };
    if let Some(tables) = cx.lock(&pv.mmu).0.vcpus.get_mut(vcpu.0 as usize) {
        (tables.ldt_base, tables.ldt_entries) = (ldt.base, ldt.entries);
    }
}

/// Maps a page of the running virtual CPU's LDT that a selector was loaded from and that was not there. `false` if there
/// is none, or none of descriptors, and the guest has to know.
pub fn map_ldt_page(cx: &mut Cx<'_, Root>, run: &Running, at: usize) -> bool {
    let mapped = with(cx, &run.domain, false, &Budget::new(), |session| {
        let tables = &session.vcpus[run.id.0 as usize];
        let (base, entries) = (tables.ldt_base, tables.ldt_entries as usize);
        at < entries.div_ceil(PER_PAGE) && tables.ldt[at].is_none() && map_page(session, run, base, at)
    });
    mapped.unwrap_or(false)
}

fn map_page(session: &mut Session<'_>, run: &Running, base: u64, at: usize) -> bool {
    let Some(frame) = frame_at(session, run.id, base + at as u64 * 4096) else { return false };
    let is_mapped = session.mmu().get_descriptor_page(frame).is_ok();
    if is_mapped {
        session.vcpus[run.id.0 as usize].ldt[at] = Some(frame);
        set_page(run, at, Some(frame));
    }
    is_mapped
}

/// The frame that the kernel of a virtual CPU has at an address.
fn frame_at(session: &Session<'_>, vcpu: VcpuId, va: u64) -> Option<Mfn> {
    let (table, index) = find(session.vcpus[vcpu.0 as usize].kernel?, va).ok()?;
    let value = machine::mem::page_table::read(table, index);
    entry::is_present(value).then(|| entry::frame(value))
}

fn drop_ldt(session: &mut Session<'_>, run: &mut Running) {
    for at in 0..LDT_PAGES {
        if let Some(old) = session.vcpus[run.id.0 as usize].ldt[at].take() {
            set_page(run, at, None);
            session.mmu().put_descriptor_page(old);
            run.context.hw.flush();
        }
    }
}

fn set_page(run: &Running, at: usize, frame: Option<Mfn>) {
    if let Some(pv) = &run.domain.pv {
        pv.space.set_ldt_page(run.id, at as u32, frame);
    }
}

/// `update_descriptor`: writes the descriptor `args[1]` at the machine address `args[0]`.
pub fn update_descriptor(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    let at = MachineAddr::new(args[0]);
    let answer = with(cx, &run.domain, false, &Budget::new(), |session| {
        session.mmu().update_descriptor(at.frame(), at.offset(), args[1])
    });
    match answer.unwrap_or(Err(Errno::EINVAL.into())) {
        Ok(()) => Ok(Outcome::DONE),
        Err(Stop::Refused(errno)) => Err(errno),
        Err(Stop::Again) => Ok(Outcome::Again(*args)),
    }
}
