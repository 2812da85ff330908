//! PVH and HVM virtual CPUs: what the hypervisor does when one leaves the guest, and before it enters.

pub mod apic;
mod control;
mod cpuid;
pub mod emulate;
pub mod events;
pub mod exit;
mod io;
mod msr;
pub mod startup;
