//! Machine memory: the address space, the frame table and the allocator.

pub mod layout;
mod owned;

pub use owned::OwnedPages;
