//! Locks whose order the compiler checks, and cells that are written once.
//!
//! Every [`Lock`] has a [`Place`], and the list of places in [`place`] is the order in which locks are taken. A
//! [`Cx`] is what one path of execution carries: its type names the place of the innermost lock held. Locking
//! through it gives the guard and the `Cx` for what may come next, so that a wrong order does not compile.
//!
//! Interrupts are off wherever the hypervisor itself runs, so a lock need not turn them off.
#![cfg_attr(not(any(test, loom)), no_std)]

mod cell;
pub mod counts;
mod cx;
mod lock;
mod once;
pub mod place;

pub use cx::{Cx, Pair};
pub use lock::{Guard, Lock};
pub use once::Once;
pub use place::{Before, Place, before};

#[cfg(all(test, loom))]
mod loom_tests;
