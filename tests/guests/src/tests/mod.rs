//! The tests, each a file or a function of `ends.rs`.

use guest::start::Boot;

mod hello;

/// Every test by its name on the command line.
pub const ALL: &[(&str, fn(&Boot))] = &[("hello", hello::run)];
