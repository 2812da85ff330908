//! Every interleaving of a few threads, by loom: `RUSTFLAGS="--cfg loom" cargo test -p sync --lib --release`.

use crate::place::{Console, Grants};
use crate::{Cx, Lock, Once, Pair};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

#[test]
fn two_that_lock_exclude_each_other() {
    loom::model(|| {
        let lock = Arc::new(Lock::<Console, _>::new(0));
        let other = lock.clone();
        let waiting = thread::spawn(move || *Cx::root().lock(&other).0 += 1);
        *Cx::root().lock(&lock).0 += 1;
        waiting.join().expect("no panic");
        assert_eq!(*Cx::root().lock(&lock).0, 2);
    });
}

#[test]
fn one_that_locks_and_one_that_tries_exclude_each_other() {
    loom::model(|| {
        let lock = Arc::new(Lock::<Console, _>::new(0));
        let other = lock.clone();
        let trying = thread::spawn(move || other.try_lock().map(|mut value| *value += 1).is_some());
        *Cx::root().lock(&lock).0 += 1;
        let tried = trying.join().expect("no panic");
        assert_eq!(*Cx::root().lock(&lock).0, 1 + i32::from(tried));
    });
}

#[test]
fn pairs_named_in_opposite_orders_end() {
    loom::model(|| {
        let locks = Arc::new([Lock::<Grants, _>::new(0), Lock::new(0)]);
        let both = |locks: &[Lock<Grants, i32>; 2], one: usize, other: usize| {
            let mut cx = Cx::root();
            let (pair, _) = cx.lock_pair(&locks[one], &locks[other]);
            let Pair::Both(mut first, mut second) = pair else { panic!("two locks") };
            *first += 1;
            *second += 1;
        };
        let theirs = locks.clone();
        let thread = thread::spawn(move || both(&theirs, 1, 0));
        both(&locks, 0, 1);
        thread.join().expect("no panic");
        assert!(locks.iter().all(|lock| lock.try_lock().is_some_and(|value| *value == 2)));
    });
}

#[test]
fn a_value_that_is_seen_is_whole_and_made_once() {
    loom::model(|| {
        let cell = Arc::new((Once::new(), AtomicUsize::new(0)));
        let make = |cell: &(Once<(usize, usize)>, AtomicUsize)| {
            let made = || cell.1.fetch_add(1, Ordering::Relaxed) + 1;
            *cell.0.get_or_init(|| (made(), 2))
        };
        let other = cell.clone();
        let making = thread::spawn(move || make(&other));
        let other = cell.clone();
        let reading = thread::spawn(move || other.0.get().copied());
        assert_eq!(make(&cell), (1, 2));
        assert_eq!(making.join().expect("no panic"), (1, 2));
        assert!(matches!(reading.join().expect("no panic"), None | Some((1, 2))));
    });
}

#[test]
fn of_two_that_set_one_succeeds() {
    loom::model(|| {
        let cell = Arc::new(Once::new());
        let other = cell.clone();
        let setting = thread::spawn(move || other.set(1).is_ok());
        let mine = cell.set(2).is_ok();
        assert!(mine != setting.join().expect("no panic"));
        assert_eq!(cell.get(), Some(if mine { &2 } else { &1 }));
    });
}
