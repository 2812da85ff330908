//! AMD-V's control block (APM 2 chapter 15, appendix B): its layout, the guest's registers in it, and what of it the
//! processor may keep from one VMRUN to the next.

mod clean;
#[cfg(test)]
mod clean_tests;
mod state;
mod vmcb;

pub use clean::{Clean, Residence};
pub use vmcb::{IntCtl, Intercept3, Vmcb, tlb_control};
