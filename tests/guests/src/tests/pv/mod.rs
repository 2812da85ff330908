//! The tests of a PV guest.

use guest::start::Boot;
use guest::{check, pv};

pub mod cost;
pub mod hello;
pub mod mmu;
pub mod traps;

/// Runs a test if the guest was started as PV.
pub fn only(boot: &Boot, test: fn(&Boot)) {
    if pv::is_pv() {
        test(boot);
    } else {
        check!(false, "the guest was started as PV");
    }
}
