//! Page tables of PV guests.
//!
//! What may become a page table, and what an entry may be, is decided by [`model::pv::mmu`]; this folder gives it the
//! machine's memory, holds the lock, and takes the hypercalls apart.
//!
//! | file | what |
//! |---|---|
//! | `tables` | the machine's memory as `model::pv::mmu` sees it |
//! | `batch` | calls with a list of operations, which go on where they stopped |
//! | `update` | `mmu_update` |
//! | `ext` | `mmuext_op` |
//! | `va` | `update_va_mapping`, stores of the guest to its page tables |
//! | `stay` | the commonest of these calls within a stay in the guest |
//! | `base` | which page tables a virtual CPU runs on |
//! | `descriptors` | GDT and LDT |
//! | `check` | a debug option that looks at the tables again |

mod base;
mod batch;
pub mod check;
mod descriptors;
mod ext;
pub mod stay;
mod tables;
mod update;
mod va;

pub use base::{new_base, pin, set_bases};
pub use batch::is_privileged;
pub use descriptors::{GDT_PAGES, LDT_PAGES, load_gdt, map_ldt_page, note_ldt, set_gdt, update_descriptor};
pub use ext::op as ext_op;
pub use tables::{Budget, Plain, Tables};
pub use update::update;
pub use va::{find, update_va_mapping, update_va_mapping_other};

use alloc::vec::Vec;

use model::addr::Mfn;
use model::ids::DomId;
use model::pv::mmu::{Mmu, Work};
use sync::Cx;
use sync::place::{PageType, Root};

use super::{PvDomain, memory};
use crate::domain::{self, Domain};
use tables::Rest;

/// What the lock of a domain's page tables guards, beside the tables themselves.
pub struct State {
    /// What each virtual CPU holds references to.
    pub vcpus: Vec<VcpuTables>,
    /// Frames that the hypervisor writes as long as the domain is there: it has a writable use of each.
    pub written: Vec<Mfn>,
    /// Page tables that are to be undone.
    work: Work,
    /// Frames whose last reference is gone, and that processors may know still.
    rest: Rest,
    /// What the debug option keeps.
    checks: check::Checks,
}

impl State {
    /// For so many virtual CPUs, which have no tables yet.
    pub fn new(nr_vcpus: u32) -> Self {
        let vcpus = (0..nr_vcpus).map(|_| VcpuTables::default()).collect();
        Self { vcpus, written: Vec::new(), work: Work::new(), rest: Rest::new(), checks: check::Checks::new() }
    }
}

/// The tables that a virtual CPU runs on. Each is held by a reference.
#[derive(Default)]
pub struct VcpuTables {
    /// The L4 table of kernel mode.
    pub kernel: Option<Mfn>,
    /// The L4 table of user mode.
    pub user: Option<Mfn>,
    /// The frames of its GDT.
    pub gdt: [Option<Mfn>; GDT_PAGES],
    /// The frames of its LDT.
    pub ldt: [Option<Mfn>; LDT_PAGES],
    /// Where the LDT is in the guest's address space.
    pub ldt_base: u64,
    /// Entries of the LDT.
    pub ldt_entries: u32,
}

/// A domain's page tables, while their lock is held.
pub struct Session<'a> {
    /// The machine's memory.
    pub tables: Tables<'a>,
    /// What each virtual CPU has.
    pub vcpus: &'a mut [VcpuTables],
    /// See [`State::written`].
    pub written: &'a mut Vec<Mfn>,
    work: &'a mut Work,
    is_privileged: bool,
}

impl<'a> Session<'a> {
    /// Whether page tables are left to be undone.
    #[inline]
    pub fn has_work(&self) -> bool {
        !self.work.is_empty()
    }

    /// What may be done to the tables.
    #[inline]
    pub fn mmu(&mut self) -> Mmu<'_, Tables<'a>> {
        Mmu {
            domain: self.tables.domain.id,
            memory: &mut self.tables,
            is_privileged: self.is_privileged,
            work: self.work,
        }
    }
}

/// Does something to a PV domain's page tables, on behalf of a caller with or without the right to map others' memory.
/// `None` if the domain is no PV domain.
#[inline]
pub fn with<R>(
    cx: &mut Cx<'_, Root>,
    domain: &Domain,
    is_privileged: bool,
    budget: &Budget,
    f: impl FnOnce(&mut Session<'_>) -> R,
) -> Option<R> {
    let pv = domain.pv.as_ref()?;
    let (result, others) = {
        let (mut state, cx) = cx.lock(&pv.mmu);
        session(&mut state, cx, domain, pv, is_privileged, budget, f)
    };
    forget_frames(cx, others);
    Some(result)
}

/// Likewise, by who has the lock. What comes back beside the result is for [`forget_frames`], without the lock.
#[inline]
fn session<R>(
    state: &mut State,
    cx: TablesCx<'_>,
    domain: &Domain,
    pv: &PvDomain,
    is_privileged: bool,
    budget: &Budget,
    f: impl FnOnce(&mut Session<'_>) -> R,
) -> (R, Option<Vec<DomId>>) {
    let State { vcpus, written, work, rest, checks } = state;
    let tables = Tables::new(cx, domain, pv, budget, rest);
    let mut session = Session { tables, vcpus, written, work, is_privileged };
    let result = f(&mut session);
    if session.tables.is_checked {
        let touched = session.tables.take_touched();
        checks.look(&session.tables, &touched, session.vcpus);
    }
    (result, if session.tables.has_rest() { Some(session.tables.settle()) } else { None })
}

/// Frames of other domains were given back by who had mapped them.
#[inline]
fn forget_frames(cx: &mut Cx<'_, Root>, owners: Option<Vec<DomId>>) {
    if let Some(owners) = owners {
        owners.into_iter().for_each(|owner| forget_frame(cx, owner));
    }
}

/// A frame of another domain's was given back by who had mapped it.
#[cold]
fn forget_frame(cx: &mut Cx<'_, Root>, owner: DomId) {
    if let Some(owner) = domain::find(cx, owner) {
        memory::forget(&owner, 1);
    }
}

/// The lock of page tables as the innermost one.
type TablesCx<'a> = Cx<'a, PageType>;
