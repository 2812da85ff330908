//! The guest: one image, many tests, chosen by `test=NAME` on the command line.
#![no_std]
#![no_main]

use guest::println;
use guest::start::Boot;

mod tests;

#[unsafe(no_mangle)]
fn guest_main(boot: &Boot) {
    let name = boot.option("test").unwrap_or("hello");
    println!("GUEST-START {}", name);
    match tests::ALL.iter().find(|(known, _)| *known == name) {
        Some((_, test)) => test(boot),
        None => guest::check!(false, "the test exists"; "{}", name),
    }
}
