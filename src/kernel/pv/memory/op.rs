//! `memory_op` of PV domains.

use abi::errno::Errno;
use abi::memory::*;
use machine::mem::frames::Again;
use machine::mem::{frames, layout, m2p};
use model::addr::Mfn;
use model::pv::mmu::Stop;
use sync::Cx;
use sync::place::Root;

use super::{allocate, below, exchange};
use crate::domain::{self, Domain};
use crate::guest_memory::GuestPtr;
use crate::hypercall::memory::{GONE_SHIFT, PROGRESS_SHIFT, amount, memory_map, progress};
use crate::hypercall::{Answer, Args, Outcome};
use crate::pv::mmu::{Budget, with};
use crate::run::Running;

/// The largest extents of an initial domain and of others (`CONFIG_HWDOM_MAX_ORDER`, `CONFIG_DOMU_MAX_ORDER`).
const MAX_ORDERS: [u32; 2] = [12, 9];
/// Bytes of the machine-to-phys table (`MACH2PHYS_VIRT_END`).
const M2P_SIZE: u64 = 1 << 38;
/// Frames after which pending work is looked for.
const STEP: u64 = 64;

/// `XENMEM_*`: `args[0]` the command with its progress, `args[1]` its argument.
pub fn op(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    let (command, done) = progress(args);
    match command {
        XENMEM_MAXIMUM_RAM_PAGE if done == 0 => return Ok(Outcome::Done(frames::count())),
        XENMEM_INCREASE_RESERVATION | XENMEM_DECREASE_RESERVATION | XENMEM_POPULATE_PHYSMAP => {
            return Ok(reservation(cx, run, args, command, done));
        }
        XENMEM_ADD_TO_PHYSMAP | XENMEM_ADD_TO_PHYSMAP_BATCH if done > 0xffff => return Err(Errno::EDOM),
        XENMEM_ADD_TO_PHYSMAP | XENMEM_ADD_TO_PHYSMAP_BATCH => {}
        _ if done != 0 => return Err(Errno::EINVAL),
        _ => {}
    }
    match command {
        XENMEM_CURRENT_RESERVATION | XENMEM_MAXIMUM_RESERVATION => amount(cx, run, args[1], command),
        XENMEM_MAXIMUM_GPFN => maximum_gpfn(cx, run, args[1]),
        XENMEM_EXCHANGE => exchange::exchange(cx, run, args),
        XENMEM_MACHPHYS_MAPPING => machphys_mapping(cx, run, args[1]),
        XENMEM_MACHPHYS_MFN_LIST => machphys_mfn_list(cx, run, args[1]),
        XENMEM_MACHPHYS_COMPAT_MFN_LIST => Err(Errno::EOPNOTSUPP),
        XENMEM_MEMORY_MAP => own_memory_map(cx, run, args[1]),
        XENMEM_MACHINE_MEMORY_MAP if is_initial(run) => machine_memory_map(cx, run, args[1]),
        XENMEM_MACHINE_MEMORY_MAP | XENMEM_SET_MEMORY_MAP => Err(Errno::EPERM),
        XENMEM_ADD_TO_PHYSMAP => add_to_physmap(cx, run, args[1]),
        XENMEM_ADD_TO_PHYSMAP_BATCH => add_to_physmap_batch(cx, run, args[1]),
        XENMEM_REMOVE_FROM_PHYSMAP => {
            let arg = GuestPtr::<RemoveFromPhysmap>::new(args[1]).read(cx, run)?;
            not_translated(cx, run, arg.domid)
        }
        XENMEM_SET_POD_TARGET | XENMEM_GET_POD_TARGET => {
            let arg = GuestPtr::<PodTarget>::new(args[1]).read(cx, run)?;
            domain::own_from_guest(cx, &run.domain, arg.domid)?;
            Err(Errno::EINVAL)
        }
        XENMEM_GET_SHARING_FREED_PAGES | XENMEM_GET_SHARING_SHARED_PAGES => Ok(Outcome::DONE),
        XENMEM_GET_VNUMAINFO | XENMEM_ACQUIRE_RESOURCE => Err(Errno::EOPNOTSUPP),
        XENMEM_CLAIM_PAGES => Err(Errno::EPERM),
        _ => Err(Errno::ENOSYS),
    }
}

fn is_initial(run: &Running) -> bool {
    run.domain.pv.as_ref().is_some_and(|pv| pv.is_initial)
}

/// The largest extent that a domain may have.
pub(super) fn max_order(run: &Running) -> u32 {
    MAX_ORDERS[usize::from(!is_initial(run))]
}

/// What Xen answers about places, which a domain that is not translated has not.
fn not_translated(cx: &mut Cx<'_, Root>, run: &Running, domid: u16) -> Answer {
    match domain::own_from_guest(cx, &run.domain, domid) {
        Err(Errno::ESRCH) => Err(Errno::ESRCH),
        _ => Err(Errno::EACCES),
    }
}

fn add_to_physmap(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let arg = GuestPtr::<AddToPhysmap>::new(at).read(cx, run)?;
    if arg.space == XENMAPSPACE_GMFN_FOREIGN {
        return Err(Errno::ENOSYS);
    }
    not_translated(cx, run, arg.domid)
}

fn add_to_physmap_batch(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let arg = GuestPtr::<AddToPhysmapBatch>::new(at).read(cx, run)?;
    if u32::from(arg.space) == XENMAPSPACE_GMFN_RANGE {
        return Err(Errno::EOPNOTSUPP);
    }
    not_translated(cx, run, arg.domid)
}

/// The highest number that the domain has said it knows a frame by (`arch_get_max_pfn`).
fn maximum_gpfn(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let arg = GuestPtr::<MemoryDomain>::new(at).read(cx, run)?;
    domain::own_from_guest(cx, &run.domain, arg.domid)?;
    Ok(Outcome::Done(run.domain.shared.max_pfn().wrapping_sub(1)))
}

fn machphys_mapping(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let max_mfn = if is_initial(run) { frames::count() - 1 } else { M2P_SIZE / 8 - 1 };
    let mapping = MachphysMapping { v_start: layout::M2P, v_end: layout::M2P + M2P_SIZE, max_mfn };
    GuestPtr::new(at).write(cx, run, &mapping)?;
    Ok(Outcome::DONE)
}

/// Where the machine-to-phys table is, for any PV domain as with Xen. For a piece that is not there the one before stands.
fn machphys_mfn_list(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let ptr = GuestPtr::<MachphysMfnList>::new(at);
    let mut arg = ptr.read(cx, run)?;
    let list = GuestPtr::<u64>::new(arg.extent_start);
    let count = (frames::count() * size_of::<u64>() as u64).div_ceil(m2p::EXTENT).min(arg.max_extents.into());
    let mut last = Mfn::new(0);
    for index in 0..count {
        last = m2p::extent(index).unwrap_or(last);
        list.at(index).write(cx, run, &last.raw())?;
    }
    arg.nr_extents = count as u32;
    ptr.write(cx, run, &arg)?;
    Ok(Outcome::DONE)
}

fn own_memory_map(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let has_map = !cx.lock(&run.domain.memory).0.map().is_empty();
    if has_map {
        return memory_map(cx, run, at);
    }
    // A guest makes a map of its own then.
    GuestPtr::<MemoryMap>::new(at).read(cx, run)?;
    Err(Errno::ENOSYS)
}

fn machine_memory_map(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let ptr = GuestPtr::<MemoryMap>::new(at);
    let mut arg = ptr.read(cx, run)?;
    let map = machine::start::boot_info().memory_map();
    let count = u32::try_from(map.len()).unwrap_or(u32::MAX);
    if arg.buffer != 0 {
        if arg.nr_entries <= count {
            return Err(Errno::EINVAL);
        }
        let to = GuestPtr::<E820Entry>::new(arg.buffer);
        for (index, &(addr, size, kind)) in (0..).zip(&map) {
            to.at(index).write(cx, run, &crate::hypercall::memory::e820(addr, size, kind))?;
        }
    }
    arg.nr_entries = count;
    ptr.write(cx, run, &arg)?;
    Ok(Outcome::DONE)
}

/// Gives frames back or gets new ones, one extent after the other; the result is how many went well, as in Xen whatever
/// went wrong.
fn reservation(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args, command: u32, done: u64) -> Outcome {
    let Ok(arg) = GuestPtr::<MemoryReservation>::new(args[1]).read(cx, run) else { return Outcome::Done(done) };
    let is_own = domain::own_from_guest(cx, &run.domain, arg.domid).is_ok();
    let bits = arg.mem_flags & XENMEMF_ADDRESS_BITS_MASK;
    let has_no_place = arg.mem_flags & XENMEMF_POPULATE_ON_DEMAND != 0 && command == XENMEM_POPULATE_PHYSMAP;
    let is_exact = arg.mem_flags & XENMEMF_EXACT_NODE_REQUEST != 0 && !is_initial(run);
    if done >= arg.nr_extents
        || arg.nr_extents >= 1 << (32 - PROGRESS_SHIFT)
        || arg.extent_order > max_order(run)
        || !is_own
        || (1..=12).contains(&bits)
        || has_no_place
        || is_exact
    {
        return Outcome::Done(done);
    }
    let list = GuestPtr::<u64>::new(arg.extent_start);
    let mut gone = if command == XENMEM_DECREASE_RESERVATION { args[0] >> GONE_SHIFT } else { 0 };
    for index in done..arg.nr_extents {
        if (index - done) << arg.extent_order >= STEP {
            let first = u64::from(command) | index << PROGRESS_SHIFT;
            return Outcome::Again([first, args[1], args[2], args[3], args[4], args[5]]);
        }
        let is_done = match command {
            XENMEM_DECREASE_RESERVATION => match list.at(index).read(cx, run) {
                Ok(first) => decrease(cx, &run.domain, first, arg.extent_order, &mut gone),
                Err(_) => Ok(false),
            },
            XENMEM_INCREASE_RESERVATION => increase(cx, run, list.at(index), &arg),
            _ => populate(cx, run, list.at(index), &arg),
        };
        match is_done {
            Ok(true) => {}
            Ok(false) => return Outcome::Done(index),
            Err(Again) => {
                let first = u64::from(command) | index << PROGRESS_SHIFT | gone << GONE_SHIFT;
                return Outcome::Again([first, args[1], args[2], args[3], args[4], args[5]]);
            }
        }
    }
    Outcome::Done(arg.nr_extents)
}

/// New frames, whose number the guest is told if it has room for that.
fn increase(
    cx: &mut Cx<'_, Root>,
    run: &Running,
    extent: GuestPtr<u64>,
    arg: &MemoryReservation,
) -> Result<bool, Again> {
    let limit = below(arg.mem_flags & XENMEMF_ADDRESS_BITS_MASK);
    let Some(first) = allocate(cx, &run.domain, arg.extent_order as u8, limit)? else { return Ok(false) };
    Ok(arg.extent_start == 0 || extent.write(cx, run, &first.raw()).is_ok())
}

/// New frames, which the guest knows by the numbers from that of the extent on, and whose number it is told.
fn populate(
    cx: &mut Cx<'_, Root>,
    run: &Running,
    extent: GuestPtr<u64>,
    arg: &MemoryReservation,
) -> Result<bool, Again> {
    let limit = below(arg.mem_flags & XENMEMF_ADDRESS_BITS_MASK);
    let Ok(number) = extent.read(cx, run) else { return Ok(false) };
    let Some(first) = allocate(cx, &run.domain, arg.extent_order as u8, limit)? else { return Ok(false) };
    name_frames(first, number, arg.extent_order);
    Ok(extent.write(cx, run, &first.raw()).is_ok())
}

/// Says by which numbers the owner of `2^order` frames knows them.
pub(super) fn name_frames(first: Mfn, number: u64, order: u32) {
    for n in 0..1 << order {
        m2p::set(Mfn::new(first.raw() + n), number.wrapping_add(n));
    }
}

/// Gives up an extent, frame after frame; what is mapped still stays as long as it is. `gone`: how many of its frames have
/// gone. [`Again`]: those that have do not come again.
fn decrease(cx: &mut Cx<'_, Root>, domain: &Domain, first: u64, order: u32, gone: &mut u64) -> Result<bool, Again> {
    let frame = |n| Mfn::new(first.wrapping_add(n));
    let until = (1 << order).min(gone.saturating_add(STEP));
    let special = {
        let (memory, _) = cx.lock(&domain.memory);
        (*gone..until).find(|&n| memory.is_special(frame(n)))
    };
    let answer = with(cx, domain, false, &Budget::new(), |session| {
        while *gone < special.unwrap_or(until) {
            session.mmu().release(frame(*gone))?;
            *gone += 1;
        }
        Ok(())
    });
    match answer {
        Some(Ok(())) if special.is_some() => Ok(false),
        Some(Ok(())) if *gone >= 1 << order => {
            *gone = 0;
            Ok(true)
        }
        Some(Ok(()) | Err(Stop::Again)) => Err(Again),
        _ => Ok(false),
    }
}
