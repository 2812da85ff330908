//! What the initial domain may do to the machine.
