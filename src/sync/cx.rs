//! What one path of execution carries: the place of the innermost lock it holds.

use crate::lock::{Guard, Lock};
use crate::place::{Before, Place, Root};
use core::marker::PhantomData;

/// The right to take locks at the places after `P`.
///
/// A `Cx` that was used to lock rests, borrowed, until the guard is dropped; the one it gave goes on:
///
/// ```
/// use sync::place::{Channels, Domain, before};
/// use sync::{Cx, Lock};
///
/// /// Needs nothing at or after `Channels` to be held; a lock at an earlier place may be.
/// fn pend<P: before::Channels>(cx: &mut Cx<P>, channels: &Lock<Channels, u32>) {
///     let (mut pending, _) = cx.lock(channels);
///     *pending += 1;
/// }
///
/// let (domain, channels) = (Lock::<Domain, _>::new("web"), Lock::new(0));
/// let mut cx = Cx::root();
/// pend(&mut cx, &channels);
/// let (name, mut cx) = cx.lock(&domain);
/// pend(&mut cx, &channels);
/// assert_eq!(*name, "web");
/// ```
///
/// A lock whose place comes before one that is held does not compile:
///
/// ```compile_fail,E0277
/// use sync::place::{Channels, Domain};
/// use sync::{Cx, Lock};
/// let (domain, channels) = (Lock::<Domain, _>::new(()), Lock::<Channels, _>::new(()));
/// let mut cx = Cx::root();
/// let (_channels, mut cx) = cx.lock(&channels);
/// let _ = cx.lock(&domain);
/// ```
///
/// Nor does the same place twice, nor the way around it by the outer `Cx`:
///
/// ```compile_fail,E0277
/// use sync::place::Domain;
/// use sync::{Cx, Lock};
/// let (one, other) = (Lock::<Domain, _>::new(()), Lock::<Domain, _>::new(()));
/// let mut cx = Cx::root();
/// let (_one, mut cx) = cx.lock(&one);
/// let _ = cx.lock(&other);
/// ```
///
/// ```compile_fail,E0499
/// use sync::place::{Channels, Domain};
/// use sync::{Cx, Lock};
/// let (domain, channels) = (Lock::<Domain, _>::new(()), Lock::<Channels, _>::new(()));
/// let mut outer = Cx::root();
/// let (guard, _) = outer.lock(&channels);
/// let _ = outer.lock(&domain);
/// drop(guard);
/// ```
pub struct Cx<'a, P: Place> {
    /// Borrows the `Cx` that it came from, and stays on its CPU.
    held: PhantomData<(&'a mut (), *const P)>,
}

impl Cx<'static, Root> {
    /// The start of a path of execution, which holds no lock.
    ///
    /// There is one for each: an exit from a guest, an interrupt while idle, the boot of a CPU. A second one on
    /// the same path would let the order be broken, and so a CPU wait for itself; it cannot break memory.
    pub fn root() -> Self {
        Self { held: PhantomData }
    }
}

/// The guards of two locks of one place, in the order in which the locks were named.
pub enum Pair<'s, Q, T> {
    /// Both names were of the same lock.
    Same(Guard<'s, Q, T>),
    /// Two locks.
    Both(Guard<'s, Q, T>, Guard<'s, Q, T>),
}

impl<P: Place> Cx<'_, P> {
    /// Waits for the lock. The `Cx` in the answer takes locks at later places for as long as it is held.
    pub fn lock<'s, Q: Place, T>(&'s mut self, lock: &'s Lock<Q, T>) -> (Guard<'s, Q, T>, Cx<'s, Q>)
    where
        P: Before<Q>,
    {
        (lock.acquire(), Cx { held: PhantomData })
    }

    /// Waits for two locks of one place, as the two ends of a grant have. They are taken in the order of their
    /// addresses, and one lock named twice is taken once.
    pub fn lock_pair<'s, Q: Place, T>(
        &'s mut self,
        one: &'s Lock<Q, T>,
        other: &'s Lock<Q, T>,
    ) -> (Pair<'s, Q, T>, Cx<'s, Q>)
    where
        P: Before<Q>,
    {
        let (first, second) = (core::ptr::from_ref(one), core::ptr::from_ref(other));
        let pair = if first == second {
            Pair::Same(one.acquire())
        } else if first < second {
            let one = one.acquire();
            Pair::Both(one, other.acquire())
        } else {
            let other = other.acquire();
            Pair::Both(one.acquire(), other)
        };
        (pair, Cx { held: PhantomData })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::place::{Console, Domctl, Grants, Heap, before};

    fn count<P: before::Heap>(cx: &mut Cx<P>, heap: &Lock<Heap, u32>) -> u32 {
        let (mut value, _) = cx.lock(heap);
        *value += 1;
        *value
    }

    fn log_and_count<P: before::Grants>(cx: &mut Cx<P>, heap: &Lock<Heap, u32>, log: &Lock<Console, u32>) -> u32 {
        *cx.lock(log).0 += 1;
        count(cx, heap)
    }

    #[test]
    fn a_bound_on_the_first_place_implies_the_later_ones() {
        let (outer, heap, log) = (Lock::<Domctl, _>::new(()), Lock::new(0), Lock::new(0));
        let mut cx = Cx::root();
        let (_outer, mut cx) = cx.lock(&outer);
        assert_eq!(log_and_count(&mut cx, &heap, &log), 1);
        assert_eq!(log_and_count(&mut cx, &heap, &log), 2);
    }

    #[test]
    fn a_pair_is_given_in_the_order_in_which_it_was_named() {
        let locks = [Lock::<Grants, _>::new(1), Lock::new(2)];
        let mut cx = Cx::root();
        for (one, other) in [(0, 1), (1, 0)] {
            let (pair, _) = cx.lock_pair(&locks[one], &locks[other]);
            let Pair::Both(first, second) = pair else { panic!("two locks") };
            assert_eq!((*first, *second), (one + 1, other + 1));
        }
    }

    #[test]
    fn a_pair_of_one_lock_is_taken_once() {
        let lock = Lock::<Grants, _>::new(5);
        let mut cx = Cx::root();
        let (pair, _) = cx.lock_pair(&lock, &lock);
        assert!(matches!(&pair, Pair::Same(guard) if **guard == 5));
        assert!(lock.try_lock().is_none());
        drop(pair);
        assert!(lock.try_lock().is_some());
    }

    #[test]
    fn pairs_named_in_opposite_orders_do_not_wait_for_each_other() {
        let locks = [Lock::<Grants, _>::new(0u32), Lock::new(0)];
        let work = |one: usize, other: usize| {
            for _ in 0..5000 {
                let mut cx = Cx::root();
                let (pair, _) = cx.lock_pair(&locks[one], &locks[other]);
                let Pair::Both(mut first, mut second) = pair else { panic!("two locks") };
                *first += 1;
                *second += 1;
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| work(0, 1));
            scope.spawn(|| work(1, 0));
        });
        assert!(locks.iter().all(|lock| *lock.try_lock().expect("free") == 10_000));
    }
}
