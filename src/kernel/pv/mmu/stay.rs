//! The commonest calls about memory within a stay in the guest ([`crate::pv::stay`]): this CPU's translations, and changes
//! of one entry of level 1 that take no more than a look at a record.
//!
//! The lock of the page tables is tried and never waited for: who has it may be waiting for this CPU to end its stay.

use abi::memory::XENMEM_MAXIMUM_RAM_PAGE;
use abi::nr;
use abi::xen::*;
use machine::mem::frames;
use machine::pv::{self, Vcpu};
use machine::virt::Virt;
use model::addr::{GuestVirt, MachineAddr, Mfn};

use super::batch::is_single;
use super::va::{change_quickly, find};
use crate::domain::Domain;

/// Does a hypercall of the guest's kernel. `None`, and nothing has been done, if it has to be done elsewhere.
#[inline(always)]
pub fn call(domain: &Domain, vcpu: &mut Vcpu, number: u64, args: [u64; 4]) -> Option<u64> {
    let [first, second, third, fourth] = args;
    let is_single = is_single(&[first, second, third, fourth, 0, 0]);
    match number {
        nr::UPDATE_VA_MAPPING => update_va_mapping(domain, vcpu, first, second, third),
        nr::MMU_UPDATE if is_single => mmu_update(domain, first),
        nr::MMUEXT_OP if is_single => mmuext_op(vcpu, first),
        nr::MEMORY_OP if first as u32 == XENMEM_MAXIMUM_RAM_PAGE => Some(frames::count()),
        _ => None,
    }
}

#[inline(always)]
fn update_va_mapping(domain: &Domain, vcpu: &mut Vcpu, va: u64, value: u64, flags: u64) -> Option<u64> {
    if flags & !UVMF_FLUSHTYPE_MASK != UVMF_LOCAL {
        return None;
    }
    {
        let _state = domain.pv.as_ref()?.mmu.try_lock()?;
        let [kernel, _] = vcpu.bases();
        let (table, index) = find(kernel?, va).ok()?;
        if !change_quickly(domain, table, index, value) {
            return None;
        }
    }
    match flags {
        UVMF_INVLPG => pv::invlpg(va),
        UVMF_TLB_FLUSH => vcpu.flush(),
        _ => {}
    }
    Some(0)
}

#[inline(always)]
fn mmu_update(domain: &Domain, at: u64) -> Option<u64> {
    let [at, value] = pv::read2(GuestVirt::new(at))?;
    if at & 7 != MMU_NORMAL_PT_UPDATE {
        return None;
    }
    let at = MachineAddr::new(at);
    let table: Mfn = at.frame();
    let _state = domain.pv.as_ref()?.mmu.try_lock()?;
    change_quickly(domain, table, at.offset() / 8, value).then_some(0)
}

#[inline(always)]
fn mmuext_op(vcpu: &mut Vcpu, at: u64) -> Option<u64> {
    let [command, address] = pv::read2(GuestVirt::new(at))?;
    match command as u32 {
        MMUEXT_TLB_FLUSH_LOCAL => vcpu.flush(),
        MMUEXT_INVLPG_LOCAL => pv::invlpg(address),
        _ => return None,
    }
    Some(0)
}
