//! A ticket lock that holds its data.

use crate::cell::{AtomicU32, Ordering, UnsafeCell, const_fn, pause};
use crate::counts::{self, Hold};
use crate::place::Place;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

/// Data that one CPU at a time may touch, in the order in which they came. `P` is its place in the lock order.
///
/// It is taken through a [`Cx`](crate::Cx), which keeps the order, or by [`Lock::try_lock`], which does not wait.
pub struct Lock<P, T> {
    /// The next ticket to give out.
    next: AtomicU32,
    /// The ticket whose holder may go on. The lock is free when the two are equal.
    serving: AtomicU32,
    data: UnsafeCell<T>,
    place: PhantomData<fn() -> P>,
}

// SAFETY: a guard, of which there is one at a time, gives the only access to `data`; it moves from CPU to CPU.
unsafe impl<P, T: Send> Sync for Lock<P, T> {}
// SAFETY: a lock that moves takes its data along, and has no other state tied to a CPU.
unsafe impl<P, T: Send> Send for Lock<P, T> {}

impl<P: Place, T> Lock<P, T> {
    const_fn! {
        /// A free lock around `data`.
        pub const fn new(data: T) -> Self {
            Self { next: AtomicU32::new(0), serving: AtomicU32::new(0), data: UnsafeCell::new(data), place: PhantomData }
        }
    }

    /// Takes a ticket and waits for its turn.
    pub(crate) fn acquire(&self) -> Guard<'_, P, T> {
        // Relaxed: the ticket orders nothing; the load that sees our turn does.
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        let mut spins = 0;
        // Acquire: pairs with the release in `Guard::drop`.
        while self.serving.load(Ordering::Acquire) != ticket {
            spins += 1;
            pause();
        }
        Guard { lock: self, hold: Hold::begin(self.place, spins), unshared: PhantomData }
    }

    /// Takes the lock if it is free at this moment. It never waits, so no order binds it: it is for paths that
    /// may have interrupted anything, as panics and NMIs do.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, P, T>> {
        // Acquire: pairs with the release in `Guard::drop`. If `next` still equals what we read, the lock is free.
        let ticket = self.serving.load(Ordering::Acquire);
        let taken = self.next.compare_exchange(ticket, ticket.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
        let taken = taken.inspect_err(|_| counts::missed(self.place)).ok();
        taken.map(|_| Guard { lock: self, hold: Hold::begin(self.place, 0), unshared: PhantomData })
    }

    /// [`Lock::try_lock`] up to `attempts` times, for a path that should not give up while another CPU is about
    /// to let go.
    pub fn try_lock_for(&self, attempts: u32) -> Option<Guard<'_, P, T>> {
        (0..attempts).find_map(|_| {
            let guard = self.try_lock();
            if guard.is_none() {
                pause();
            }
            guard
        })
    }

    /// The data, of a lock that nobody else can reach.
    pub fn get_mut(&mut self) -> &mut T {
        // SAFETY: `&mut self` shows that there is no guard.
        self.data.with_mut(|data| unsafe { &mut *data })
    }
}

/// Access to the data of a [`Lock`], which is let go when this is dropped.
#[must_use]
pub struct Guard<'a, P, T> {
    lock: &'a Lock<P, T>,
    hold: Hold,
    /// A guard stays on the CPU that took it, and is shared only as `&T` could be.
    unshared: PhantomData<(*const (), &'a mut T)>,
}

// SAFETY: a shared guard gives `&T` and nothing else.
unsafe impl<P, T: Sync> Sync for Guard<'_, P, T> {}

impl<P, T> Deref for Guard<'_, P, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: this is the only guard, and it is borrowed for as long as the reference lives.
        self.lock.data.with(|data| unsafe { &*data })
    }
}

impl<P, T> DerefMut for Guard<'_, P, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this is the only guard, and it is borrowed alone for as long as the reference lives.
        self.lock.data.with_mut(|data| unsafe { &mut *data })
    }
}

impl<P, T> Drop for Guard<'_, P, T> {
    fn drop(&mut self) {
        self.hold.end();
        // Relaxed: only the holder writes `serving`.
        let ticket = self.lock.serving.load(Ordering::Relaxed);
        // Release: what the holder wrote is seen by whoever sees its turn.
        self.lock.serving.store(ticket.wrapping_add(1), Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::Cx;
    use crate::place::Console;

    #[test]
    fn increments_by_many_are_all_counted() {
        let lock = Lock::<Console, _>::new(0u32);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..2000).for_each(|_| *Cx::root().lock(&lock).0 += 1));
            }
        });
        assert_eq!(*lock.try_lock().expect("free"), 8000);
    }

    #[test]
    fn a_lock_that_is_held_is_not_taken_by_trying() {
        let mut lock = Lock::<Console, _>::new(1);
        let guard = lock.try_lock().expect("free");
        assert!(lock.try_lock().is_none());
        assert!(lock.try_lock_for(3).is_none());
        drop(guard);
        *lock.try_lock_for(1).expect("free") += 1;
        assert_eq!(*lock.get_mut(), 2);
    }

    #[test]
    fn the_tickets_go_on_after_they_wrap() {
        let lock = Lock::<Console, _>::new(());
        lock.next.store(u32::MAX, Ordering::Relaxed);
        lock.serving.store(u32::MAX, Ordering::Relaxed);
        drop(lock.try_lock().expect("free"));
        drop(Cx::root().lock(&lock));
        assert_eq!(lock.serving.load(Ordering::Relaxed), 1);
    }
}
