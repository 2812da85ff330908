//! The tests of a PV guest.

use guest::start::Boot;
use guest::{check, pv};

pub mod cost;
pub mod die;
pub mod failsafe;
pub mod hello;
pub mod hostile;
pub mod memory;
pub mod mmu;
pub mod privileged;
pub mod traps;
pub mod vcpu;

/// Runs a test if the guest was started as PV.
pub fn only(boot: &Boot, test: fn(&Boot)) {
    if pv::is_pv() {
        test(boot);
    } else {
        check!(false, "the guest was started as PV");
    }
}
