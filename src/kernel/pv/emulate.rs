//! Privileged instructions of PV guests, and their stores to page tables.

use model::addr::GuestVirt;
use sync::Cx;
use sync::place::Root;

use crate::domain::life::Death;
use crate::run::{Next, Running};

/// What an emulated instruction leads to; `None` when the guest gets the exception as it is.
pub type Emulated = Option<Result<Next, Death>>;

/// After `#GP(0)`: a privileged instruction.
pub fn general_protection(_: &mut Cx<'_, Root>, _: &mut Running) -> Emulated {
    None
}

/// After `#UD`: CPUID behind the prefix that forces its emulation.
pub fn undefined(_: &mut Cx<'_, Root>, _: &mut Running) -> Emulated {
    None
}

/// After a fault of the guest's kernel by a store to a page that is there: a store to a page table.
pub fn write_fault(_: &mut Cx<'_, Root>, _: &mut Running, _: GuestVirt) -> Emulated {
    None
}
