//! Xen's public interface as types and numbers; no logic.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
