//! The frames that a PV guest finds on its stack.
