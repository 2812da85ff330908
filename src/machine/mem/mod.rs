//! Machine memory: the address space, the frame table and the allocators.

pub mod frames;
mod guest;
pub mod heap;
pub mod layout;
pub mod m2p;
pub mod map;
mod nested;
mod owned;
pub mod page_table;
mod pinned;
mod setup;

pub use guest::GuestMemory;
pub use nested::NestedTables;
pub use owned::OwnedPages;
pub use pinned::{PartView, PinnedFrame, PinnedPart};
pub use setup::{first_block, image_phys, low_page, set_up};
