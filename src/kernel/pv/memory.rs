//! The frames of a PV domain: it knows them by their machine numbers, and has them until their last reference is gone.
//!
//! `memory_op` of a domain that is not translated (`xen/include/public/memory.h`), and the end of its memory.

mod exchange;
mod op;
mod relinquish;

pub use exchange::Exchange;
pub use op::op;
pub use relinquish::{Relinquish, relinquish_all};

use machine::mem::frames::{self, Again};
use model::addr::{Mfn, PAGE_SHIFT};
use sync::Cx;
use sync::place::before;

use crate::domain::Domain;
use crate::domain::memory::FILL_STEP;

/// Bits of an address, from which on none is too high for a frame.
const ADDRESS_BITS: u32 = 64;

/// `2^order` new frames of zeros, below frame `below` if given. `None` if the domain may not have so many more, or there
/// are none. [`Again`]: a bounded part of the work is done.
pub fn allocate<P: before::P2m>(
    cx: &mut Cx<P>,
    domain: &Domain,
    order: u8,
    below: Option<Mfn>,
) -> Result<Option<Mfn>, Again> {
    let Some(pv) = &domain.pv else { return Ok(None) };
    let max_pages = cx.lock(&domain.memory).0.max_pages();
    if !pv.pages.take(1 << order, max_pages) {
        return Ok(None);
    }
    let mut most = FILL_STEP;
    let first = frames::allocate_part(domain.id, order, below, &mut most);
    if !matches!(first, Ok(Some(_))) {
        forget(domain, 1 << order);
    }
    first
}

/// So many frames of a PV domain's RAM are its own no more.
pub fn forget(domain: &Domain, count: u64) {
    if domain.pv.as_ref().is_some_and(|pv| pv.pages.give_back(count).is_err()) {
        log::error!("({}) a frame was given back that never counted as its own", domain.name);
    }
}

/// The frame below which all are whose addresses have so many bits; 0 is no limit.
fn below(address_bits: u32) -> Option<Mfn> {
    (1..ADDRESS_BITS).contains(&address_bits).then(|| Mfn::new((1 << address_bits) >> PAGE_SHIFT))
}
