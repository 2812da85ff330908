//! What each object of the hypervisor may do, as pure state: values in, decisions out.
//!
//! Nothing here knows the hardware, takes a lock or reads a clock. Time, memory and randomness come
//! in as arguments, so that every module runs on the host under unit and property tests.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod addr;
pub mod chip;
pub mod config;
pub mod console;
pub mod debug;
pub mod emul;
pub mod evtchn;
pub mod grant;
pub mod ids;
pub mod image;
pub mod numa;
pub mod p2m;
pub mod page;
pub mod paging;
pub mod policy;
pub mod pv;
pub mod pvh;
pub mod rangeset;
pub mod regions;
pub mod regs;
pub mod sched;
pub mod svm;
pub mod time;
pub mod typing;
