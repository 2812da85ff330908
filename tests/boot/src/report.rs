//! One line for each test, and the closing count.

use crate::case::Case;
use crate::run::{self, Outcome};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// How many emulators run at once.
const AT_ONCE: usize = 2;

/// Passed and failed so far.
#[derive(Default)]
pub struct Count {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
}

impl Count {
    /// Counts one result and prints its line.
    pub fn note(&mut self, outcome: &Outcome) {
        let seconds = outcome.took.as_secs_f64();
        match &outcome.wrong {
            None => {
                self.passed += 1;
                let instructions =
                    outcome.instructions.map_or(String::new(), |n| format!(", {:.2} G instructions", n as f64 / 1e9));
                let seen = outcome.seen.as_ref().map_or(String::new(), |seen| format!(": {seen}"));
                println!("ok   {} ({seconds:.1} s{instructions}){seen}", outcome.name);
            }
            Some(reason) => {
                self.failed += 1;
                println!("FAIL {} ({seconds:.1} s): {reason}; log: {}", outcome.name, log_of(&outcome.name));
            }
        }
    }

    /// Prints the closing line, and says whether all is well.
    pub fn close(&self) -> bool {
        println!("{} passed, {} failed", self.passed, self.failed);
        self.failed == 0 && self.passed > 0
    }
}

fn log_of(name: &str) -> String {
    run::folder(name).join("serial.log").display().to_string()
}

/// Runs the cases, two at a time, the lines in the order in which they end; `ended` gets the outcome of each.
pub fn run_all(cases: &[Case], count: &mut Count, ended: impl FnMut(&Outcome) + Send) {
    let next = AtomicUsize::new(0);
    let results = Mutex::new((count, ended));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run::run(case);
                    let mut results = results.lock().expect("no thread panics while it prints");
                    let (count, ended) = &mut *results;
                    count.note(&outcome);
                    ended(&outcome);
                }
            });
        }
    });
}
