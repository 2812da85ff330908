//! What the hypervisor knows of each 4 KiB frame of RAM, and which frames are free.
//!
//! A [`Frame`] is the record of one frame. Its [`CountWord`] says who owns the frame and how many references
//! keep it alive: a domain reaches memory only through a counted reference, and the last one to go, nobody
//! else, gives the frame back to the [`Buddy`]. Its [`TypeWord`] says what a PV guest uses it as.
//!
//! ```text
//!            Buddy::allocate      CountWord::allocate        get, put
//!   free list ------------> taken -----------------> in use <--------.
//!       ^      (scrub if dirty)                        |  '----------'
//!       |  Buddy::free                                 | put of the last reference: Effect::Free
//!       '----------------------------------------------'
//! ```

mod buddy;
mod kind;
mod owned;
mod record;
mod word;

pub use buddy::{Buddy, Link, Links, MAX_ORDER};
pub use kind::{Stamp, Type, TypeEffect, TypeRefused, TypeWord};
pub use owned::{NeverCounted, Owned};
pub use record::{Frame, FrameLinks};
pub use word::{CountWord, Effect, Refused};

#[cfg(all(test, loom))]
mod loom_tests;
