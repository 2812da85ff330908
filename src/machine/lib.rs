//! The processor and the board: the only hardware, and nearly all the unsafe code.
//!
//! A safe function here may fail, and may panic on our own mistake, but no sequence of safe calls and
//! nothing a guest does may break memory.
#![no_std]

extern crate alloc;

pub mod acpi;
pub mod boot;
pub mod console;
pub mod cpu;
pub mod exit;
pub mod frame;
pub mod hw;
pub mod irq;
pub mod mem;
pub mod panic;
pub mod percpu;
pub mod ports;
pub mod pv;
pub mod smp;
pub mod start;
pub mod svm;
pub mod time;
pub mod virt;
pub mod vmx;
