//! From a machine that is ready to domains that run.

use machine::start::{self, Settings};
use machine::{cpu, mem};

/// Reads the operator's wishes for the machine itself.
pub fn settings(command_line: &'static str) -> Settings {
    Settings {
        serial: Some((0x3f8, 115_200)),
        screen: true,
        level: log::LevelFilter::Info,
        memory_limit: u64::MAX,
        reboot: !command_line.split_whitespace().any(|word| word == "noreboot"),
    }
}

/// Starts everything, on the first CPU.
pub fn run() -> ! {
    log::info!("Euxen {}", env!("CARGO_PKG_VERSION"));
    log::info!("{} MiB of RAM, {} MiB free", start::ram() >> 20, mem::frames::free_frames() >> 8);
    start::start_others(256, idle);
    log::info!("nothing to run");
    idle()
}

fn idle() -> ! {
    loop {
        cpu::wait_for_interrupt();
    }
}
