//! `xl.cfg` files, in the syntax of xl.cfg(5) of Xen 4.17.
//!
//! ```text
//! text ── syntax ── settings with their lines ── keys ── DomainConfig and warnings
//! ```
//!
//! A key that `xl` knows and Euxen does not act on is a warning; one that nobody knows is an error, as it is most
//! likely misspelt. Every error names its line.

mod domain;
mod error;
mod keys;
mod syntax;
#[cfg(test)]
mod tests;

pub use domain::{Action, DomainConfig, DomainKind};
pub use error::{Problem, XlError};

use crate::config::cpus::Nodes;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A domain's configuration, and what in it has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// What was asked for.
    pub config: DomainConfig,
    /// What is not acted on, in the order of the file.
    pub warnings: Vec<Warning>,
}

/// A key that has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Its line, from 1.
    pub line: usize,
    /// Its name.
    pub key: String,
    /// Why it has no effect.
    pub why: &'static str,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: {}", self.line, self.key, self.why)
    }
}

/// Reads a module that holds an `xl.cfg` file, which may name the CPUs of these nodes.
///
/// # Errors
/// [`XlError`], which names the line, the key and what to do.
pub fn parse(file: &[u8], nodes: Nodes<'_>) -> Result<Parsed, XlError> {
    let settings = syntax::settings(file)?;
    domain::domain(&settings, nodes)
}
