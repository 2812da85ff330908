//! Locks and their order.
#![cfg_attr(not(any(test, loom)), no_std)]
