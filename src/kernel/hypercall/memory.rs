//! `memory_op` (`xen/include/public/memory.h`), of what a translated guest may do to itself.

use alloc::vec::Vec;

use abi::errno::Errno;
use abi::memory::*;
use model::addr::Gfn;
use model::ids::DomId;
use sync::Cx;
use sync::place::Root;

use super::{Answer, Args, Outcome, physmap};
use crate::domain::{self, flush};
use crate::guest_memory::GuestPtr;
use crate::pv;
use crate::run::Running;

/// Where a command keeps how far it came (`MEMOP_EXTENT_SHIFT`).
pub(crate) const PROGRESS_SHIFT: u32 = 6;
/// Frames after which pending work is looked for, and extents.
const STEP: u64 = 64;
/// Where in a call's first argument it stands how many frames of the extent that the call has come to are gone.
pub(crate) const GONE_SHIFT: u32 = 32;
/// The largest extent that a guest may ask for, as for Xen's domains without devices (`CONFIG_DOMU_MAX_ORDER`).
const MAX_ORDER: u32 = 9;

/// `XENMEM_*`: `args[0]` the command with its progress, `args[1]` its argument.
pub(super) fn op(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    if run.domain.pv.is_some() {
        return pv::memory::op(cx, run, args);
    }
    let (command, done) = progress(args);
    match command {
        XENMEM_INCREASE_RESERVATION | XENMEM_DECREASE_RESERVATION | XENMEM_POPULATE_PHYSMAP => {
            reservation(cx, run, args, command, done)
        }
        XENMEM_MAXIMUM_RAM_PAGE => {
            no_progress(done)?;
            Ok(Outcome::Done(machine::mem::frames::count()))
        }
        XENMEM_CURRENT_RESERVATION | XENMEM_MAXIMUM_RESERVATION | XENMEM_MAXIMUM_GPFN => {
            no_progress(done)?;
            amount(cx, run, args[1], command)
        }
        XENMEM_ADD_TO_PHYSMAP => physmap::add_64(cx, run, args, done),
        XENMEM_ADD_TO_PHYSMAP_BATCH => physmap::batch(cx, run, args, done),
        XENMEM_REMOVE_FROM_PHYSMAP => physmap::remove_64(cx, run, args[1], done),
        XENMEM_MEMORY_MAP => memory_map(cx, run, args[1]),
        XENMEM_CLAIM_PAGES => claim_pages(cx, run, args[1], done),
        XENMEM_GET_VNUMAINFO => vnuma_info(cx, run, args[1], done),
        // A translated domain maps no other's resources, unless it has the hardware.
        XENMEM_ACQUIRE_RESOURCE => Err(Errno::EACCES),
        // For control domains alone.
        XENMEM_SET_MEMORY_MAP | XENMEM_SET_POD_TARGET | XENMEM_GET_POD_TARGET => Err(Errno::EPERM),
        _ => Err(Errno::ENOSYS),
    }
}

/// The command of a call, and how far earlier parts of it came.
#[inline]
pub(crate) fn progress(args: &Args) -> (u32, u64) {
    ((args[0] & ((1 << PROGRESS_SHIFT) - 1)) as u32, (args[0] & 0xffff_ffff) >> PROGRESS_SHIFT)
}

/// An operation that is done in one step has no progress to go on from.
pub(super) fn no_progress(done: u64) -> Result<(), Errno> {
    if done == 0 { Ok(()) } else { Err(Errno::EINVAL) }
}

/// The command is to be executed again, with `done` of it done.
pub(super) fn again(args: &Args, command: u32, done: u64) -> Outcome {
    let first = u64::from(command) | done << PROGRESS_SHIFT;
    Outcome::Again([first, args[1], args[2], args[3], args[4], args[5]])
}

/// How many frames a domain has and may have, and the highest place.
pub(crate) fn amount(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64, command: u32) -> Answer {
    let arg = GuestPtr::<MemoryDomain>::new(at).read(cx, run)?;
    domain::own_from_guest(cx, &run.domain, arg.domid)?;
    let pages = run.domain.pages(cx);
    let (memory, _) = cx.lock(&run.domain.memory);
    Ok(Outcome::Done(match command {
        XENMEM_CURRENT_RESERVATION => pages,
        XENMEM_MAXIMUM_RESERVATION => memory.max_pages(),
        _ => memory.max_gfn().raw(),
    }))
}

/// Gives frames back or gets new ones, one extent after the other; the result is how many went well.
fn reservation(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args, command: u32, done: u64) -> Answer {
    // Xen answers how many extents were done, whatever went wrong; at the start that is none.
    let Ok(arg) = GuestPtr::<MemoryReservation>::new(args[1]).read(cx, run) else { return Ok(Outcome::Done(done)) };
    // A translated guest could not reach frames without a place: it gets none.
    if command == XENMEM_INCREASE_RESERVATION {
        return Ok(Outcome::Done(done));
    }
    if arg.nr_extents < done || arg.nr_extents >= 1 << (32 - PROGRESS_SHIFT) || arg.extent_order > MAX_ORDER {
        return Ok(Outcome::Done(done));
    }
    if domain::own_from_guest(cx, &run.domain, arg.domid).is_err() {
        return Ok(Outcome::Done(done));
    }
    let extents = GuestPtr::<u64>::new(arg.extent_start);
    let mut gone = if command == XENMEM_DECREASE_RESERVATION { args[0] >> GONE_SHIFT } else { 0 };
    for index in done..arg.nr_extents {
        if (index - done) << arg.extent_order >= STEP {
            return Ok(again(args, command, index));
        }
        let Ok(gfn) = extents.at(index).read(cx, run) else { return Ok(Outcome::Done(index)) };
        let result = if command == XENMEM_POPULATE_PHYSMAP {
            let populated = cx.lock(&run.domain.memory).0.populate(Gfn::new(gfn), arg.extent_order as u8);
            if populated == Ok(false) {
                return Ok(again(args, command, index));
            }
            populated.map(|_| ())
        } else {
            let part = decrease(cx, run, Gfn::new(gfn), arg.extent_order, &mut gone);
            if part == Ok(false) {
                let first = u64::from(command) | index << PROGRESS_SHIFT | gone << GONE_SHIFT;
                return Ok(Outcome::Again([first, args[1], args[2], args[3], args[4], args[5]]));
            }
            part.map(|_| ())
        };
        if result.is_err() {
            return Ok(Outcome::Done(index));
        }
        if command == XENMEM_POPULATE_PHYSMAP && extents.at(index).write(cx, run, &gfn).is_err() {
            return Ok(Outcome::Done(index));
        }
    }
    Ok(Outcome::Done(arg.nr_extents))
}

/// Gives up an extent, frame after frame, as far as there is memory; one flush does for all of a part. `gone`: how many
/// of its frames have gone. `false`: not all of them are.
fn decrease(cx: &mut Cx<'_, Root>, run: &mut Running, gfn: Gfn, order: u32, gone: &mut u64) -> Result<bool, Errno> {
    let until = (1 << order).min(gone.saturating_add(STEP));
    let mut dropped = Vec::new();
    dropped.try_reserve_exact(STEP as usize).map_err(|_| Errno::ENOMEM)?;
    let result: Result<(), Errno> = {
        let (mut memory, _) = cx.lock(&run.domain.memory);
        (*gone..until).try_for_each(|n| {
            let gfn = gfn.checked_add(n).ok_or(Errno::EINVAL)?;
            dropped.push(memory.remove(gfn)?.ok_or(Errno::EINVAL)?);
            Ok(())
        })
    };
    flush::after_change(cx, run, dropped);
    result?;
    if until < 1 << order {
        *gone = until;
        return Ok(false);
    }
    *gone = 0;
    Ok(true)
}

/// A claim of memory is for control domains; what is wrong with it is said first, as in Xen.
fn claim_pages(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64, done: u64) -> Answer {
    no_progress(done)?;
    let arg = GuestPtr::<MemoryReservation>::new(at).read(cx, run)?;
    let is_good = arg.extent_start == 0 && arg.extent_order == 0 && arg.mem_flags == 0;
    let is_there = domain::find(cx, DomId(arg.domid)).is_some();
    Err(if is_good && is_there { Errno::EPERM } else { Errno::EINVAL })
}

/// No domain has NUMA nodes.
fn vnuma_info(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64, done: u64) -> Answer {
    no_progress(done)?;
    let arg = GuestPtr::<VnumaTopologyInfo>::new(at).read(cx, run)?;
    if arg.pad != 0 {
        return Err(Errno::EINVAL);
    }
    domain::own_from_guest(cx, &run.domain, arg.domid)?;
    Err(Errno::EOPNOTSUPP)
}

/// `XENMEM_memory_map`: the domain's own.
pub(crate) fn memory_map(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let ptr = GuestPtr::<MemoryMap>::new(at);
    let mut arg = ptr.read(cx, run)?;
    arg.nr_entries = write_map(cx, run, arg.nr_entries, arg.buffer)?;
    ptr.write(cx, run, &arg)?;
    Ok(Outcome::DONE)
}

/// Writes as much of the map as there is room for, and answers how many entries that are.
pub(super) fn write_map(cx: &mut Cx<'_, Root>, run: &Running, room: u32, buffer: u64) -> Result<u32, Errno> {
    let entries: Vec<E820Entry> = {
        let (memory, _) = cx.lock(&run.domain.memory);
        memory.map().iter().map(|entry| e820(entry.addr.raw(), entry.size, entry.kind)).collect()
    };
    let count = room.min(u32::try_from(entries.len()).unwrap_or(u32::MAX));
    for (index, entry) in (0..u64::from(count)).zip(&entries) {
        GuestPtr::<E820Entry>::new(buffer).at(index).write(cx, run, entry)?;
    }
    Ok(count)
}

/// An entry of a memory map.
pub(crate) fn e820(addr: u64, size: u64, kind: u32) -> E820Entry {
    E820Entry {
        addr_low: addr as u32,
        addr_high: (addr >> 32) as u32,
        size_low: size as u32,
        size_high: (size >> 32) as u32,
        kind,
    }
}
