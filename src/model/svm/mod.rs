//! AMD-V's control block (APM 2 chapter 15, appendix B): its layout, the guest's registers in it, and what of it the
//! processor may keep from one VMRUN to the next.

mod state;
mod vmcb;

pub use vmcb::{IntCtl, Intercept3, Intercept4, Seg, Vmcb, tlb_control};
