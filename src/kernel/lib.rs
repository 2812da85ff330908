//! The hypervisor proper: owns the locks and joins the model to the machine.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod boot;
