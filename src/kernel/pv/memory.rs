//! The frames of a PV domain: it knows them by their machine numbers, and has them until their last reference is gone.
//!
//! `memory_op` of a domain that is not translated (`xen/include/public/memory.h`), and the end of its memory.

mod exchange;
mod op;
mod relinquish;

pub use op::op;
pub use relinquish::{Relinquish, relinquish_all};

use core::sync::atomic::Ordering;

use machine::mem::frames;
use model::addr::{Mfn, PAGE_SHIFT};
use sync::Cx;
use sync::place::before;

use crate::domain::Domain;
use crate::pv::PvDomain;

/// Bits of an address, from which on none is too high for a frame.
const ADDRESS_BITS: u32 = 64;

/// `2^order` new frames of zeros, below frame `below` if given. `None` if the domain may not have so many more, or there
/// are none.
pub fn allocate<P: before::P2m>(cx: &mut Cx<P>, domain: &Domain, order: u8, below: Option<Mfn>) -> Option<Mfn> {
    let pv = domain.pv.as_ref()?;
    let max_pages = cx.lock(&domain.memory).0.max_pages();
    take_pages(pv, 1 << order, max_pages)?;
    let first = frames::allocate(domain.id, order, below);
    if first.is_none() {
        pv.pages.fetch_sub(1 << order, Ordering::Relaxed);
    }
    first
}

/// Counts so many frames more, if there may be.
fn take_pages(pv: &PvDomain, count: u64, max_pages: u64) -> Option<()> {
    let more = |pages: u64| pages.checked_add(count).filter(|&pages| pages <= max_pages);
    pv.pages.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| ())
}

/// The frame below which all are whose addresses have so many bits; 0 is no limit.
fn below(address_bits: u32) -> Option<Mfn> {
    (1..ADDRESS_BITS).contains(&address_bits).then(|| Mfn::new((1 << address_bits) >> PAGE_SHIFT))
}
