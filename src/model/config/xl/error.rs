//! What can be wrong with an `xl.cfg` file, in an operator's words.

use crate::config::cpus::CpusError;
use alloc::string::String;
use core::fmt;

/// A fault in an `xl.cfg` file and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XlError {
    /// The line, from 1; 0 when the fault is that something is missing.
    pub line: usize,
    /// The fault.
    pub problem: Problem,
}

/// A fault in an `xl.cfg` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The text is not `key = value`.
    Syntax {
        /// What would have to be there.
        expected: &'static str,
    },
    /// A key that `xl` does not know.
    UnknownKey {
        /// The key.
        key: String,
    },
    /// A key for the second time.
    Duplicate {
        /// The key.
        key: String,
        /// The line on which it was before.
        first: usize,
    },
    /// A value that the key cannot have.
    BadValue {
        /// The key.
        key: &'static str,
        /// What it can have.
        expected: &'static str,
    },
    /// A list of CPUs that is none.
    Cpus {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        error: CpusError,
    },
    /// A key that must be there and is not.
    Missing {
        /// The key.
        key: &'static str,
        /// What to write.
        example: &'static str,
    },
    /// A domain of this type cannot be started.
    NotBuilt {
        /// The type.
        kind: &'static str,
    },
}

impl fmt::Display for XlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        match &self.problem {
            Problem::Syntax { expected } => write!(f, "syntax error: {expected}"),
            Problem::UnknownKey { key } => write!(f, "{key}: no such key in xl.cfg; check its spelling"),
            Problem::Duplicate { key, first } => {
                write!(f, "{key}: given a second time, first on line {first}; remove one of them")
            }
            Problem::BadValue { key, expected } => write!(f, "{key}: {expected}"),
            Problem::Cpus { key, error } => write!(f, "{key}: {error}"),
            Problem::Missing { key, example } => write!(f, "{key} is missing; add {example}"),
            Problem::NotBuilt { kind } => {
                write!(f, "type: domains of type \"{kind}\" are not built yet; use type = \"pvh\" or \"pv\"")
            }
        }
    }
}

impl core::error::Error for XlError {}
