//! Atomics, the interior of locks and spinning: the real ones, or loom's, which try every interleaving.

#[cfg(loom)]
pub(crate) use loom::{
    cell::UnsafeCell,
    sync::atomic::{AtomicU8, AtomicU32, Ordering},
    thread::yield_now as pause,
};

#[cfg(not(loom))]
pub(crate) use core::{
    hint::spin_loop as pause,
    sync::atomic::{AtomicU8, AtomicU32, Ordering},
};

/// [`core::cell::UnsafeCell`] with the interface of loom's.
#[cfg(not(loom))]
pub(crate) struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }
    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// Declares a `const fn`, or under loom, whose atomics have no constant constructor, a plain one.
macro_rules! const_fn {
    ($(#[$meta:meta])* pub const fn $($rest:tt)*) => {
        #[cfg(not(loom))]
        $(#[$meta])*
        pub const fn $($rest)*
        #[cfg(loom)]
        $(#[$meta])*
        pub fn $($rest)*
    };
}
pub(crate) use const_fn;
