//! The tests, each a file or a function of `ends.rs`.

use guest::start::Boot;

mod answers;
mod badregs;
pub mod compat;
mod cost;
mod debug;
mod ends;
mod events;
mod hello;
mod hostile;
mod lapic;
mod memory;
mod pairs;
pub mod pv;
mod scaling;
mod share;
mod smp;
mod storm;

/// A test's name on the command line, and the test.
pub type Test = (&'static str, fn(&Boot));

/// Every test.
pub const ALL: &[Test] = &[
    ("hello", hello::run),
    ("cost", cost::run),
    ("lapic", lapic::run),
    ("smp", smp::run),
    ("storm", storm::run),
    ("events", events::run),
    ("memory", memory::run),
    ("hostile", hostile::run),
    ("badregs", badregs::run),
    ("debug", debug::run),
    ("answers", answers::run),
    ("pairs", pairs::run),
    ("scaling", scaling::run),
    ("share", share::share),
    ("turns", share::turns),
    ("ticker", share::ticker),
    ("pest", share::pest),
    ("compat", compat::run),
    ("pv-hello", |boot| pv::only(boot, pv::hello::run)),
    ("pv-traps", |boot| pv::only(boot, pv::traps::run)),
    ("pv-steps", |boot| pv::only(boot, pv::traps::steps)),
    ("pv-mmu", |boot| pv::only(boot, pv::mmu::run)),
    ("pv-priv", |boot| pv::only(boot, pv::privileged::run)),
    ("pv-memory", |boot| pv::only(boot, pv::memory::run)),
    ("pv-vcpu", |boot| pv::only(boot, pv::vcpu::run)),
    ("pv-failsafe", |boot| pv::only(boot, pv::failsafe::run)),
    ("pv-hostile", |boot| pv::only(boot, pv::hostile::run)),
    ("pv-die-trap", |boot| pv::only(boot, pv::die::trap)),
    ("pv-die-stack", |boot| pv::only(boot, pv::die::stack)),
    ("pv-die-hole", |boot| pv::only(boot, pv::die::hole)),
    ("pv-die-iret", |boot| pv::only(boot, pv::die::iret)),
    ("pv-die-user", |boot| pv::only(boot, pv::die::user_table)),
    ("pv-die-kernel-stack", |boot| pv::only(boot, pv::die::kernel_stack)),
    ("pv-die-base", |boot| pv::only(boot, pv::die::base)),
    ("triple", ends::triple),
    ("wild", ends::wild),
    ("haltoff", ends::haltoff),
    ("spin", ends::spin),
    ("dog", ends::dog),
    ("reboot", ends::reboot),
    ("crash", ends::crash),
];
