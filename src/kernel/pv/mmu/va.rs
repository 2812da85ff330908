//! Entries of level 1 by the linear address that they map: `update_va_mapping`, and stores of the guest's to its
//! page tables.

use alloc::sync::Arc;

use abi::errno::Errno;
use abi::xen::*;
use machine::mem::page_table;
use machine::pv;
use machine::virt::Virt;
use model::addr::Mfn;
use model::ids::{DomId, VcpuId};
use model::pv::mmu::{Stop, entry, update_quickly};
use sync::Cx;
use sync::place::Root;

use super::batch::{Owner, is_privileged};
use super::{Budget, Plain, Session, check, forget_frames, session};
use crate::domain::{Domain, flush};
use crate::guest_memory::GuestPtr;
use crate::hypercall::{Answer, Args, Outcome};
use crate::run::Running;

/// Where a walk ended that found no entry of level 1: the level of the entry that leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTable(pub u8);

const fn index(va: u64, level: u32) -> usize {
    (va >> (3 + 9 * level) & 0x1ff) as usize
}

/// Whether a page at this address can be a guest's (`__addr_ok`).
pub(super) const fn is_guests(va: u64) -> bool {
    va < 0x0000_8000_0000_0000 || va >= machine::mem::layout::HOLE_END
}

/// The table of level 1, and the entry of it, that maps an address in the page tables below `base`. The lock of the
/// domain's page tables is held, and `base` is held by a reference.
#[inline]
pub fn find(base: Mfn, va: u64) -> Result<(Mfn, usize), NoTable> {
    // The hypervisor's slots, and what is no address but would name an entry by its low bits.
    if !is_guests(va) {
        return Err(NoTable(4));
    }
    let mut table = base;
    for level in [4, 3, 2] {
        let value = page_table::read(table, index(va, level));
        if !entry::is_present(value) {
            return Err(NoTable(level as u8));
        }
        table = entry::frame(value);
    }
    Ok((table, index(va, 1)))
}

/// `update_va_mapping`: writes the entry of level 1 that maps the address `args[0]`, and flushes as `args[2]` says.
pub fn update_va_mapping(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    let owner = run.domain.id;
    update_mapping(cx, run, args, owner)
}

/// `update_va_mapping_otherdomain`: likewise, to map a frame of domain `args[3]`.
pub fn update_va_mapping_other(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    let owner = Owner::from_guest(cx, run, args[3] as u16)?.id(run.domain.id);
    update_mapping(cx, run, args, owner)
}

#[inline]
fn update_mapping(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args, owner: DomId) -> Answer {
    let [va, value, flags, ..] = *args;
    if let Err(stop) = update_entry(cx, run, va, value, owner) {
        return match stop {
            Stop::Refused(errno) => Err(errno),
            Stop::Again => Ok(Outcome::Again(*args)),
        };
    }
    if flags & UVMF_FLUSHTYPE_MASK != UVMF_NONE {
        flush_mapping(cx, run, va, flags)?;
    }
    Ok(Outcome::DONE)
}

/// The commonest changes of entries of level 1, of the domain's own frames ([`model::pv::mmu::update_quickly`]). `false` if this
/// one is not like that, or if it is to be looked at afterwards. The lock is held.
#[inline]
pub(super) fn change_quickly(domain: &Domain, table: Mfn, index: usize, value: u64) -> bool {
    !check::is_on() && update_quickly(&mut Plain(domain), domain.id, table, index, value, domain.id)
}

#[inline]
fn update_entry(cx: &mut Cx<'_, Root>, run: &Running, va: u64, value: u64, owner: DomId) -> Result<(), Stop> {
    const INVALID: Stop = Stop::Refused(Errno::EINVAL);
    let domain = &*run.domain;
    let pv = domain.pv.as_ref().ok_or(INVALID)?;
    let (answer, others) = {
        let (mut state, cx) = cx.lock(&pv.mmu);
        let base = state.vcpus.get(run.id.0 as usize).and_then(|tables| tables.kernel).ok_or(INVALID)?;
        let (table, index) = find(base, va).map_err(|_| INVALID)?;
        if owner == domain.id && change_quickly(domain, table, index, value) {
            return Ok(());
        }
        let update = |session: &mut Session<'_>| session.mmu().update(table, index, value, false, owner);
        session(&mut state, cx, domain, pv, is_privileged(run), &Budget::new(), update)
    };
    forget_frames(cx, others);
    answer
}

fn flush_mapping(cx: &mut Cx<'_, Root>, run: &mut Running, va: u64, flags: u64) -> Result<(), Errno> {
    let is_one = match flags & UVMF_FLUSHTYPE_MASK {
        UVMF_TLB_FLUSH => false,
        UVMF_INVLPG => true,
        _ => return Ok(()),
    };
    match flags & !UVMF_FLUSHTYPE_MASK {
        UVMF_LOCAL if is_one => pv::invlpg(va),
        UVMF_LOCAL => run.context.hw.flush(),
        UVMF_ALL => flush::all(cx, &run.domain),
        mask => flush_mask(cx, run, mask)?,
    }
    Ok(())
}

/// Flushes what the virtual CPUs know that are in the bitmap at `mask`.
pub(super) fn flush_mask(cx: &mut Cx<'_, Root>, run: &Running, mask: u64) -> Result<(), Errno> {
    let words = GuestPtr::<u64>::new(mask);
    let vcpus = run.domain.vcpus.len() as u64;
    let mut wanted = [0u64; 4];
    for (at, word) in (0..vcpus.div_ceil(64)).zip(&mut wanted) {
        *word = words.at(at).read(cx, run)?;
    }
    let is_wanted = |VcpuId(id): VcpuId| wanted.get(id as usize / 64).is_none_or(|word| word & 1 << (id % 64) != 0);
    flush::some(cx, &run.domain, run.domain.vcpus.iter().map(Arc::as_ref).filter(|vcpu| is_wanted(vcpu.id)));
    Ok(())
}
