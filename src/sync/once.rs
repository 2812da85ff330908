//! A cell that is written once and read ever after without a lock.

use crate::cell::{AtomicU8, Ordering, UnsafeCell, const_fn, pause};
use core::mem::MaybeUninit;

const EMPTY: u8 = 0;
const BUSY: u8 = 1;
const READY: u8 = 2;

/// A value that comes into being during boot: empty, then written by one CPU, then shared by all.
pub struct Once<T> {
    /// [`EMPTY`], then [`BUSY`] while one CPU writes, then [`READY`] for ever.
    state: AtomicU8,
    /// Initialized if the state is [`READY`].
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: the value may be made on one CPU and dropped on another, and is shared by reference in between.
unsafe impl<T: Send + Sync> Sync for Once<T> {}
// SAFETY: a cell that moves takes its value along.
unsafe impl<T: Send> Send for Once<T> {}

impl<T> Once<T> {
    const_fn! {
        /// An empty cell.
        pub const fn new() -> Self {
            Self { state: AtomicU8::new(EMPTY), value: UnsafeCell::new(MaybeUninit::uninit()) }
        }
    }

    /// The value, if it was written.
    pub fn get(&self) -> Option<&T> {
        // Acquire: pairs with the release in `write`.
        if self.state.load(Ordering::Acquire) != READY {
            return None;
        }
        // SAFETY: the value is initialized, and nobody writes it again.
        Some(self.value.with(|value| unsafe { (*value).assume_init_ref() }))
    }

    /// Writes the value, or gives it back if another was written or is being written.
    pub fn set(&self, value: T) -> Result<&T, T> {
        if self.claim() { Ok(self.write(value)) } else { Err(value) }
    }

    /// The value, made by `make` if there is none. A CPU that comes while another makes it waits.
    ///
    /// `make` must not come back to the same cell: it would wait for itself.
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if self.claim() {
            return self.write(make());
        }
        loop {
            match self.get() {
                Some(value) => return value,
                None => pause(),
            }
        }
    }

    /// Makes the caller, of all that try, the one that writes.
    fn claim(&self) -> bool {
        self.state.compare_exchange(EMPTY, BUSY, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Writes the value. The caller alone has claimed the cell.
    fn write(&self, value: T) -> &T {
        // SAFETY: one CPU claims the cell, and nobody reads it before the state says so.
        self.value.with_mut(|place| unsafe { (*place).write(value) });
        // Release: who sees the state sees the value.
        self.state.store(READY, Ordering::Release);
        // SAFETY: it is initialized, and nobody writes it again.
        self.value.with(|value| unsafe { (*value).assume_init_ref() })
    }
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for Once<T> {
    fn drop(&mut self) {
        if self.get().is_some() {
            // SAFETY: the value is initialized, and `&mut self` shows that nobody uses it.
            self.value.with_mut(|value| unsafe { (*value).assume_init_drop() });
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::rc::Rc;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn a_value_is_written_once() {
        let cell = Once::new();
        assert_eq!(cell.get(), None);
        assert_eq!(cell.set(1), Ok(&1));
        assert_eq!(cell.set(2), Err(2));
        assert_eq!(cell.get_or_init(|| 3), &1);
    }

    #[test]
    fn of_many_that_come_at_once_one_makes_the_value() {
        let (cell, made) = (Once::new(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_eq!(cell.get_or_init(|| made.fetch_add(1, Ordering::Relaxed) + 7), &7));
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn the_value_is_dropped_with_its_cell_and_an_empty_cell_drops_nothing() {
        let witness = Rc::new(());
        let cell = Once::new();
        assert!(cell.set(witness.clone()).is_ok());
        drop(cell);
        drop(Once::<Rc<()>>::new());
        assert_eq!(Rc::strong_count(&witness), 1);
    }
}
