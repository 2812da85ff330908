//! The places of locks, in the order in which they are taken.

#[cfg(feature = "locks")]
use crate::counts::Counts;

/// Where in the order a lock stands. A type without values.
pub trait Place {
    /// The place's name.
    const NAME: &'static str;

    /// What is counted of its locks.
    #[cfg(feature = "locks")]
    fn counts() -> &'static Counts;
}

/// Says of the innermost lock held that one at `Next` may be taken now.
///
/// A function that takes locks at several places bounds its parameter by the first, from [`before`]: that
/// implies all the later ones.
pub trait Before<Next: Place>: Place {}

/// No lock held: where every path of execution starts.
pub enum Root {}

impl Place for Root {
    const NAME: &'static str = "Root";

    #[cfg(feature = "locks")]
    fn counts() -> &'static Counts {
        static COUNTS: Counts = Counts::new(Root::NAME);
        &COUNTS
    }
}

macro_rules! lock_order {
    ($($(#[$doc:meta])* $place:ident)+) => {
        $(
            $(#[$doc])*
            pub enum $place {}
            impl Place for $place {
                const NAME: &'static str = stringify!($place);

                #[cfg(feature = "locks")]
                fn counts() -> &'static Counts {
                    static COUNTS: Counts = Counts::new($place::NAME);
                    &COUNTS
                }
            }
            impl<Held: before::$place> Before<$place> for Held {}
        )+

        /// What is counted at each place, in the order.
        #[cfg(feature = "locks")]
        pub const COUNTS: &[fn() -> &'static Counts] = &[$($place::counts),+];

        /// A trait for each place: that of a lock which is held while one at the place is taken. The trait of a
        /// place implies those of all places after it.
        pub mod before {
            use super::Place;
            lock_order!(@traits $($place)+);
        }

        lock_order!(@implement Root $($place)+);
    };
    (@traits $last:ident) => {
        #[doc = concat!("Held while a lock at [`", stringify!($last), "`](super::", stringify!($last), ") is taken.")]
        pub trait $last: Place {}
    };
    (@traits $first:ident $second:ident $($rest:ident)*) => {
        #[doc = concat!("Held while a lock at [`", stringify!($first), "`](super::", stringify!($first), ") is taken.")]
        pub trait $first: $second {}
        lock_order!(@traits $second $($rest)*);
    };
    (@implement $held:ident $($after:ident)*) => {
        $(impl before::$after for $held {})*
        lock_order!(@implement $($after)*);
    };
    (@implement) => {};
}

lock_order! {
    /// One privileged control call at a time.
    Domctl
    /// Which domains there are.
    DomainList
    /// A domain's life: built, running, shut down, dying.
    Domain
    /// XenStore.
    Store
    /// A domain's grant table.
    Grants
    /// A domain's event channels.
    Channels
    /// A domain's guest-physical memory.
    P2m
    /// The types of a PV guest's frames.
    PageType
    /// A virtual CPU's state that others may change.
    Vcpu
    /// A physical CPU's run queue.
    RunQueue
    /// A physical CPU's timers.
    Timer
    /// The allocators of frames and of the hypervisor's own memory.
    Heap
    /// The console's output and its ring.
    Console
}
