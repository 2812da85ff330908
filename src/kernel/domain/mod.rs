//! Domains: what each owns, and how one is found by its number.

pub mod flush;
pub mod life;
pub mod memory;
mod shared;
mod vcpu;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use abi::errno::Errno;
use abi::hvm_params::HVM_NR_PARAMS;
use abi::xen::DOMID_SELF;
use model::evtchn::Channels;
use model::grant::GrantTable;
use model::ids::{DomId, VcpuId};
use model::policy::control::ControlPolicy;
use model::policy::{CpuidPolicy, MsrPolicy};
use model::sched::credit::Account;
use sync::place::{self, before};
use sync::{Cx, Lock};

pub use shared::{Info, Shared, Words};
pub use vcpu::{Context, Remembered, Start, StartState, Vcpu, VcpuState, attention};

use crate::builder::Source;
use crate::pv::PvDomain;
use crate::slots::{CHUNK, Slots};
use life::Life;
use memory::Memory;

/// A domain.
pub struct Domain {
    /// Its number.
    pub id: DomId,
    /// Its UUID (`XENVER_guest_handle`).
    pub handle: [u8; 16],
    /// What its operator calls it.
    pub name: String,
    /// What its lines on the console begin with.
    pub label: String,
    /// What it was made from, to make it again.
    pub config: Source,
    /// Its virtual CPUs, by number.
    pub vcpus: Vec<Arc<Vcpu>>,
    /// Its weight and cap.
    pub account: Arc<Account>,
    /// `shared_info`, and each virtual CPU's `vcpu_info`.
    pub shared: Shared,
    /// Its event channels.
    pub channels: Lock<place::Channels, Channels>,
    /// What it has as a PV domain, if it is one.
    pub pv: Option<PvDomain>,
    /// Its memory.
    pub memory: Lock<place::P2m, Memory>,
    /// Its grant table.
    pub grants: Lock<place::Grants, GrantTable>,
    /// `HVM_PARAM_*` by number.
    pub params: Lock<place::Domain, [u64; HVM_NR_PARAMS as usize]>,
    /// What CPUID tells it.
    pub cpuid: CpuidPolicy,
    /// What its control registers may be, by its CPUID.
    pub controls: ControlPolicy,
    /// Bits of its physical addresses, and whether its page tables may have pages of 1 GiB: by its CPUID.
    pub phys_bits: u8,
    /// See `phys_bits`.
    pub has_gib_pages: bool,
    /// What its MSRs are.
    pub msrs: MsrPolicy,
    /// The vector of the event-channel upcall, by `HVM_PARAM_CALLBACK_IRQ`; 0 for none.
    pub callback_vector: AtomicU8,
    /// Goes up with each change of its memory that processors may have cached.
    pub tlb_epoch: AtomicU64,
    /// `VMASST_TYPE_*` that are enabled, as bits.
    pub assists: AtomicU64,
    /// Virtual CPUs that are up.
    pub nr_up: AtomicU32,
    /// Whether it runs, and why not.
    pub life: Life,
    /// The domain's own end of the console, if it has one.
    pub console: Lock<place::Store, crate::console::Guest>,
}

impl Domain {
    /// The virtual CPU of this number.
    pub fn vcpu(&self, id: VcpuId) -> Option<&Vcpu> {
        self.vcpus.get(usize::try_from(id.0).ok()?).map(|vcpu| &**vcpu)
    }

    /// The number of a virtual CPU as a guest gave it.
    pub fn vcpu_from_guest(&self, raw: u64) -> Result<&Vcpu, Errno> {
        u32::try_from(raw).ok().and_then(|id| self.vcpu(VcpuId(id))).ok_or(Errno::ENOENT)
    }

    /// Frames of RAM that it owns.
    pub fn pages<P: before::P2m>(&self, cx: &mut Cx<P>) -> u64 {
        match &self.pv {
            Some(pv) => pv.pages.count(),
            None => cx.lock(&self.memory).0.pages(),
        }
    }

    /// Whether an assist (`VMASST_TYPE_*`) is enabled.
    pub fn assists(&self, kind: u32) -> bool {
        self.assists.load(Ordering::Relaxed) & 1 << kind != 0
    }
}

/// All of them, in the order of their numbers.
static DOMAINS: Lock<place::DomainList, Vec<Arc<Domain>>> = Lock::new(Vec::new());

/// Each by its number, so that who looks for one disturbs only those who look for the same.
static BY_NUMBER: Slots<place::DomainList, Option<Arc<Domain>>, { NR_IDS / CHUNK }> = Slots::new();

/// Numbers that a domain can have are below this.
const NR_IDS: usize = 0x8000;

fn number(id: DomId) -> usize {
    usize::from(id.0)
}

/// All domains, in the order of their numbers.
pub fn all<P: before::DomainList>(cx: &mut Cx<P>) -> Vec<Arc<Domain>> {
    cx.lock(&DOMAINS).0.clone()
}

/// The domain of this number.
pub fn find<P: before::DomainList>(cx: &mut Cx<P>, id: DomId) -> Option<Arc<Domain>> {
    cx.lock(BY_NUMBER.get(number(id))?).0.clone()
}

/// Does something with the domain of this number, without waiting. `None` if its slot is not free, or there is none.
pub fn try_with<R>(id: DomId, f: impl FnOnce(&Domain) -> R) -> Option<R> {
    BY_NUMBER.get(number(id))?.try_lock()?.as_deref().map(f)
}

/// The domain that a guest names, which may only be its own: [`Errno::ESRCH`] if there is none, [`Errno::EPERM`] if it is
/// another's.
pub fn own_from_guest<P: before::DomainList>(cx: &mut Cx<P>, own: &Arc<Domain>, raw: u16) -> Result<(), Errno> {
    if raw == DOMID_SELF || raw == own.id.0 {
        return Ok(());
    }
    if find(cx, DomId(raw)).is_some() { Err(Errno::EPERM) } else { Err(Errno::ESRCH) }
}

/// Makes a domain known.
pub fn publish<P: before::DomainList>(cx: &mut Cx<P>, domain: Arc<Domain>) {
    let slot = BY_NUMBER.get_or_make(number(domain.id)).expect("there is memory for what leads to a domain");
    *cx.lock(slot).0 = Some(domain.clone());
    let (mut domains, _) = cx.lock(&DOMAINS);
    let at = domains.partition_point(|other| other.id < domain.id);
    domains.insert(at, domain);
}

/// Forgets a domain.
pub fn withdraw<P: before::DomainList>(cx: &mut Cx<P>, id: DomId) {
    let gone = BY_NUMBER.get(number(id)).and_then(|slot| cx.lock(slot).0.take());
    drop(gone); // outside the lock
    cx.lock(&DOMAINS).0.retain(|domain| domain.id != id);
}

/// A number that no domain has, from 1 on; 0 is the initial domain's.
pub fn free_id<P: before::DomainList>(cx: &mut Cx<P>) -> Option<DomId> {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let (domains, _) = cx.lock(&DOMAINS);
    for _ in 0..0x7ff0 {
        let id = DomId((LAST.fetch_add(1, Ordering::Relaxed) % 0x7fef + 1) as u16);
        if domains.iter().all(|domain| domain.id != id) {
            return Some(id);
        }
    }
    None
}
