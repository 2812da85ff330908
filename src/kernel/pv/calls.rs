//! Hypercalls about a PV virtual CPU itself.
