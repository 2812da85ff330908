//! What a guest may see of its processor, and which values it may put into its registers.
//!
//! All of it is data made once per domain from what the host has: [`CpuidPolicy`] answers CPUID, [`MsrPolicy`] says what
//! RDMSR and WRMSR do, [`control`] checks control registers. A feature appears in one list, [`features`]; what the
//! guest may set in CR4, EFER and XCR0, and which MSRs exist, follows from the CPUID that it sees.

pub mod control;
pub mod cpuid;
pub mod features;
pub mod idle;
pub mod isolation;
pub mod mitigation;
pub mod msr;
mod msr_pv;
mod topology;
mod xen_leaves;
mod xstate;

pub use cpuid::{CpuidPolicy, Dynamic, Kind, Leaf, Offer, Vendor};
pub use msr::{Managed, MsrHost, MsrPolicy, Read, Write};
pub use msr_pv::PAT as PV_PAT;
pub use xen_leaves::XenLeaves;
