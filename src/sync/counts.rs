//! How often the locks of each place are taken, how long CPUs wait for them, and how long they are held, in ticks of the
//! TSC. Only with the feature `locks`; else nothing of this is in the image.

#[cfg(feature = "locks")]
mod counting {
    use crate::place::Place;
    use core::marker::PhantomData;
    use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

    /// What is counted at a place. Loom does not see these atomics: they order nothing.
    pub struct Counts {
        name: &'static str,
        taken: AtomicU64,
        missed: AtomicU64,
        spins: AtomicU64,
        longest: AtomicU64,
    }

    /// What was counted at a place.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Counted {
        /// The place's name.
        pub name: &'static str,
        /// How often a lock was taken.
        pub taken: u64,
        /// How often one that was held was tried.
        pub missed: u64,
        /// Looks at a lock that was not free yet, of all that waited.
        pub spins: u64,
        /// The longest time that one was held.
        pub longest_ticks: u64,
    }

    impl Counts {
        /// Nothing counted yet.
        pub(crate) const fn new(name: &'static str) -> Self {
            let [taken, missed, spins, longest] = [const { AtomicU64::new(0) }; 4];
            Self { name, taken, missed, spins, longest }
        }

        /// What was counted since this was asked last.
        pub fn take(&self) -> Counted {
            Counted {
                name: self.name,
                taken: self.taken.swap(0, Relaxed),
                missed: self.missed.swap(0, Relaxed),
                spins: self.spins.swap(0, Relaxed),
                longest_ticks: self.longest.swap(0, Relaxed),
            }
        }
    }

    fn now() -> u64 {
        // SAFETY: every processor that the hypervisor runs on has a TSC, which may be read at any time.
        unsafe { core::arch::x86_64::_rdtsc() }
    }

    /// A lock of the place was tried, and is held.
    pub fn missed<P: Place>(_: PhantomData<fn() -> P>) {
        P::counts().missed.fetch_add(1, Relaxed);
    }

    /// Since when a lock is held.
    pub struct Hold {
        counts: &'static Counts,
        since: u64,
    }

    impl Hold {
        /// It was taken now, after so many looks.
        pub fn begin<P: Place>(_: PhantomData<fn() -> P>, spins: u64) -> Self {
            let counts = P::counts();
            counts.taken.fetch_add(1, Relaxed);
            if spins != 0 {
                counts.spins.fetch_add(spins, Relaxed);
            }
            Self { counts, since: now() }
        }

        /// It is let go.
        pub fn end(&self) {
            self.counts.longest.fetch_max(now().saturating_sub(self.since), Relaxed);
        }
    }
}

#[cfg(not(feature = "locks"))]
mod counting {
    use core::marker::PhantomData;

    #[inline(always)]
    pub fn missed<P>(_: PhantomData<fn() -> P>) {}

    pub struct Hold;

    impl Hold {
        #[inline(always)]
        pub fn begin<P>(_: PhantomData<fn() -> P>, _: u64) -> Self {
            Self
        }

        #[inline(always)]
        pub fn end(&self) {}
    }
}

#[cfg(feature = "locks")]
pub use counting::{Counted, Counts};
pub(crate) use counting::{Hold, missed};

#[cfg(all(test, feature = "locks", not(loom)))]
mod tests {
    use crate::place::{Place, Store};
    use crate::{Cx, Lock};

    #[test]
    fn what_is_taken_missed_and_held_is_counted_at_its_place() {
        let lock = Lock::<Store, _>::new(());
        let guard = lock.try_lock().expect("free");
        assert!(lock.try_lock().is_none());
        drop(guard);
        drop(Cx::root().lock(&lock));
        let counted = Store::counts().take();
        assert_eq!((counted.name, counted.taken, counted.missed, counted.spins), ("Store", 2, 1, 0));
        assert!(counted.longest_ticks > 0);
        assert_eq!(Store::counts().take().taken, 0);
    }
}
