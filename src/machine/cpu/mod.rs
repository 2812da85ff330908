//! The processor: its registers and tables.

pub mod msr;
