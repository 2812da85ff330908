//! What an operator says: the hypervisor's command line, the boot modules, and the domains' `xl.cfg` files.
//!
//! [`cmdline::Options::parse`] reads the command line. [`modules::configs`] says which modules are `xl.cfg` files,
//! [`xl::parse`] reads each of them, and [`modules::plan`] then says which module is what.

pub mod cmdline;
pub mod command;
pub mod cpus;
pub mod modules;
pub mod scheduling;
pub mod xl;
