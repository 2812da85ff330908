//! `make run`: a bed whose serial port is the person's terminal.

use crate::bed::{Bed, Host, Pace};
use crate::machine::{Machine, Output};
use crate::words;
use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Ctrl-], which leaves; every other key goes to the serial port, Ctrl-C too.
const LEAVE: u8 = 0x1d;

/// Boots an image and joins its serial port to the terminal until either side ends.
pub fn run(bed: Bed, iso: &Path) -> io::Result<()> {
    let dir = Path::new("build/run");
    fs::create_dir_all(dir)?;
    let host = Host { cpus: 2, memory_mib: 1024, ..Host::small(bed) };
    let wait = if bed.is_bochs() { "half a minute or more" } else { "about 15 seconds" };
    eprintln!("-- booting in {}: GRUB, then Euxen, then the guest; its prompt takes {wait}", bed.name());
    eprintln!(
        "-- at the prompt try: uname -a, then poweroff. Ctrl-] leaves, Ctrl-A three times talks to Euxen itself (h lists its keys)"
    );
    let mut machine = Machine::start(&host, &iso.canonicalize()?, &dir.canonicalize()?, Pace::Person)?;
    let raw = RawTerminal::enter();
    let left = Arc::new(AtomicBool::new(false));
    forward_keys(machine.take_input(), left.clone());
    let result = print_output(&mut machine, &left);
    drop(raw);
    eprintln!("\n-- the emulator has ended");
    result
}

fn print_output(machine: &mut Machine, left: &AtomicBool) -> io::Result<()> {
    let mut screen = io::stdout();
    let mut recent = String::new();
    while !left.load(Ordering::Relaxed) {
        match machine.read(Duration::from_millis(100)) {
            Output::Bytes(bytes) => {
                screen.write_all(&bytes)?;
                screen.flush()?;
                hint_at_end(&mut recent, &bytes);
            }
            Output::Silence => {}
            Output::End => break,
        }
    }
    Ok(())
}

/// Says how to leave when the hypervisor has no domain any more.
fn hint_at_end(recent: &mut String, bytes: &[u8]) {
    recent.push_str(&String::from_utf8_lossy(bytes));
    if recent.contains(words::NOTHING_LEFT) && recent.ends_with('\n') {
        eprint!("-- the guest has ended; Ctrl-] leaves\r\n");
        recent.clear();
    }
    let keep = recent.rfind('\n').map_or(0, |end| end + 1);
    if !recent.contains(words::NOTHING_LEFT) {
        recent.drain(..keep);
    }
}

/// Copies keys on a thread that ends with the program, as reading a terminal cannot be cut short.
fn forward_keys(mut serial: Box<dyn Write + Send>, left: Arc<AtomicBool>) {
    thread::spawn(move || {
        let mut keys = [0; 64];
        while let Ok(count @ 1..) = io::stdin().read(&mut keys) {
            if keys[..count].contains(&LEAVE) {
                left.store(true, Ordering::Relaxed);
                break;
            }
            if serial.write_all(&keys[..count]).and_then(|()| serial.flush()).is_err() {
                break;
            }
        }
        // The serial port stays open when the keys end: the machine goes on.
        std::mem::forget(serial);
    });
}

/// The terminal without echo, line editing and signals, until this value ends.
struct RawTerminal {
    before: Option<String>,
}

impl RawTerminal {
    fn enter() -> RawTerminal {
        let before = if io::stdin().is_terminal() { stty(&["-g"]) } else { None };
        if before.is_some() {
            stty(&["raw", "-echo"]);
        }
        RawTerminal { before }
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(settings) = &self.before {
            stty(&[settings.trim()]);
        }
    }
}

fn stty(arguments: &[&str]) -> Option<String> {
    let output = Command::new("stty").args(arguments).stdin(Stdio::inherit()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
