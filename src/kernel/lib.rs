//! The hypervisor proper: owns the locks and joins the model to the machine.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod blocking;
pub mod boot;
mod builder;
mod caches;
mod console;
mod cpus;
mod domain;
mod events;
mod guest_memory;
mod hvm;
mod hypercall;
mod idle;
mod pv;
mod run;
mod runstate;
mod sched;
mod slots;
mod stretch;
mod time;
mod updown;
