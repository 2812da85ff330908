//! The hypervisor's console: the serial port, the screen, and the log, which keeps what was printed.
//!
//! Until interrupts are taken, and with `sync_console`, who prints waits until the serial port has it all. Afterwards the port
//! follows by its interrupt, or where that has no line by the clock, and who prints waits only when the log is full.

mod port;
mod screen;

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use model::console::Log;
use model::time::Rate;
use spin::{Mutex, MutexGuard};

use crate::boot::Framebuffer;
use crate::cpu;
use port::SerialPort;

/// Bytes of the log.
const SIZE: usize = 64 << 10;
/// Guests do not print while more than this waits for the serial port: two thirds of a second at the usual rate.
const GUESTS_WAIT: usize = 8 << 10;

struct Console {
    serial: Option<SerialPort>,
    screen: Option<screen::Screen>,
    log: Log<SIZE>,
    /// Whose line is not ended yet, if one is not.
    open_line: Option<u32>,
    /// Who prints waits for the serial port.
    is_synchronous: bool,
}

static CONSOLE: Mutex<Console> =
    Mutex::new(Console { serial: None, screen: None, log: Log::new(), open_line: None, is_synchronous: true });

/// The serial port has no interrupt.
static IS_POLLED: AtomicBool = AtomicBool::new(false);

/// How often a lock is tried before it is broken.
const PATIENCE: u32 = 1_000_000;

impl Console {
    /// Adds to the log. [`Self::send`] follows when a line or a piece of one is complete.
    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        if bytes.len() > self.log.room() {
            self.make_room();
        }
        self.log.push(bytes);
        if let Some(screen) = &mut self.screen {
            screen.write(bytes);
        }
    }

    #[cold]
    fn make_room(&mut self) {
        if let Some(serial) = &mut self.serial {
            serial.drain(&mut self.log, SIZE / 2);
        }
    }

    /// Waits until all that was printed is on the wire.
    fn flush(&mut self) {
        if let Some(serial) = &mut self.serial {
            serial.drain(&mut self.log, 0);
            serial.finish();
        }
    }

    /// Has the serial port go on with what is in the log.
    fn send(&mut self) {
        match &mut self.serial {
            None => self.log.take_all(),
            Some(serial) if self.is_synchronous => serial.drain(&mut self.log, 0),
            Some(serial) => serial.start(&mut self.log),
        }
    }

    /// A line, or a part of one.
    #[inline(always)]
    fn line(&mut self, owner: u32, label: &str, bytes: &[u8], is_end: bool) {
        self.break_line(Some(owner));
        if self.open_line.is_none() {
            self.put(label.as_bytes());
        }
        if !bytes.is_empty() {
            self.put(bytes);
        }
        if is_end {
            self.put(b"\n");
        }
        self.open_line = (!is_end).then_some(owner);
        self.send();
    }

    /// Ends a line that somebody else has begun, and says what was lost.
    #[inline]
    fn break_line(&mut self, owner: Option<u32>) {
        if self.open_line.is_some() && self.open_line != owner {
            self.put(b"\n");
            self.open_line = None;
        }
        if self.log.has_lost() && self.open_line.is_none() && self.log.room() > SIZE / 2 {
            self.say_what_was_lost();
        }
    }

    #[cold]
    fn say_what_was_lost(&mut self) {
        let lost = self.log.take_lost();
        // The console itself never fails.
        let _ = writeln!(self, "(euxen) warning: {lost} bytes were lost: the serial port did not take them");
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes());
        Ok(())
    }
}

/// Opens the serial port at I/O port `base`. Says whether there is one.
pub fn open_serial(base: u16, baud: u32) -> bool {
    let serial = SerialPort::open(base, baud);
    let is_open = serial.is_some();
    CONSOLE.lock().serial = serial;
    is_open
}

/// Whether there is a serial console.
pub fn is_open() -> bool {
    CONSOLE.lock().serial.is_some()
}

/// Writes to the screen from now on, too. Says whether it is of a kind that we can write to.
pub fn open_screen(framebuffer: Framebuffer) -> bool {
    let screen = screen::Screen::open(framebuffer);
    let is_open = screen.is_some();
    CONSOLE.lock().screen = screen;
    is_open
}

/// Interrupts are taken from now on: the serial port's too, if they have a line. Who prints does not wait any more unless
/// `is_synchronous`.
pub fn start(has_line: bool, is_synchronous: bool) {
    let mut console = CONSOLE.lock();
    if let Some(serial) = &mut console.serial {
        IS_POLLED.store(!has_line, Ordering::Relaxed);
        if has_line {
            serial.enable_interrupts();
        }
    }
    console.is_synchronous = is_synchronous;
}

/// Whether the serial port has to be looked at from time to time, as it has no interrupt.
#[inline]
pub fn is_polled() -> bool {
    IS_POLLED.load(Ordering::Relaxed)
}

/// Does what the serial port asks for, and takes what was typed. Says how many bytes of `typed` that is; if it is all of
/// them, there may be more.
pub fn serve(typed: &mut [u8]) -> usize {
    let mut console = CONSOLE.lock();
    let Console { serial, log, .. } = &mut *console;
    serial.as_mut().map_or(0, |serial| serial.serve(log, typed))
}

/// Whether guests may print now: not too much waits for the serial port, or it takes nothing any more.
pub fn has_room() -> bool {
    let mut console = CONSOLE.lock();
    let Console { serial, log, .. } = &mut *console;
    log.waiting() < GUESTS_WAIT || serial.as_mut().is_none_or(|serial| serial.fill(log) || serial.is_stuck())
}

/// Waits until everything is on the wire: the machine is about to end.
pub fn flush() {
    CONSOLE.lock().flush();
}

/// Writes a line, or a part of one, with a label at its start. Parts of one `owner` join to a line as long as nobody
/// else writes.
pub fn line(owner: u32, label: &str, bytes: &[u8], is_end: bool) {
    CONSOLE.lock().line(owner, label, bytes, is_end);
}

/// As [`line`] for a guest, without waiting. `false`, and nothing has been done, if it would have to wait.
pub fn try_line(owner: u32, label: &str, bytes: &[u8], is_end: bool) -> bool {
    let Some(mut console) = CONSOLE.try_lock() else { return false };
    let has_room = !console.is_synchronous && console.log.waiting() < GUESTS_WAIT;
    if has_room {
        console.line(owner, label, bytes, is_end);
    }
    has_room
}

/// Writes formatted text in one piece.
pub fn print(text: fmt::Arguments<'_>) {
    let mut console = CONSOLE.lock();
    console.break_line(None);
    // The console itself never fails.
    let _ = console.write_fmt(text);
    console.send();
}

/// Writes formatted text even when the lock is held by a CPU that has been stopped, and waits until it is out.
pub fn print_forced(text: fmt::Arguments<'_>) {
    let mut guard: Option<MutexGuard<'_, Console>> = None;
    for _ in 0..PATIENCE {
        guard = CONSOLE.try_lock();
        if guard.is_some() {
            break;
        }
        cpu::relax();
    }
    if guard.is_none() {
        // SAFETY: only a panic comes here, after every other CPU was told to stop; the holder is among them.
        unsafe { CONSOLE.force_unlock() };
        guard = CONSOLE.try_lock();
    }
    if let Some(mut console) = guard {
        console.is_synchronous = true;
        let _ = console.write_fmt(text);
        console.flush();
    }
}

/// Copies up to `out.len()` bytes of the log that start at or after position `from`; gives back the position
/// of the first byte copied and how many.
pub fn read_log(from: u64, out: &mut [u8]) -> (u64, usize) {
    CONSOLE.lock().log.copy(from, out)
}

/// The target of messages that guests cause.
pub const GUEST: &str = "guest";

/// The most verbose levels that are printed, as [`log::LevelFilter`].
struct Filter {
    /// Up to here each message is.
    always: AtomicU8,
    /// Up to here at a limited rate.
    limited: AtomicU8,
}

/// For the hypervisor's own messages, and for those that guests cause.
static FILTERS: [Filter; 2] = [const { Filter::new() }; 2];
static RATE: Mutex<Rate> = Mutex::new(Rate::new());

impl Filter {
    const fn new() -> Self {
        let info = log::LevelFilter::Info as u8;
        Self { always: AtomicU8::new(info), limited: AtomicU8::new(info) }
    }

    fn of(metadata: &log::Metadata<'_>) -> &'static Self {
        &FILTERS[usize::from(metadata.target() == GUEST)]
    }

    fn set(&self, levels: Levels) {
        self.always.store(levels.always as u8, Ordering::Relaxed);
        self.limited.store(levels.limited as u8, Ordering::Relaxed);
    }
}

/// What is printed always, and what at a limited rate.
#[derive(Clone, Copy, Debug)]
pub struct Levels {
    /// Up to here each message is.
    pub always: log::LevelFilter,
    /// Up to here at a limited rate.
    pub limited: log::LevelFilter,
}

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        let (filter, level) = (Filter::of(metadata), metadata.level() as u8);
        level <= filter.always.load(Ordering::Relaxed)
            || (level <= filter.limited.load(Ordering::Relaxed) && RATE.lock().admit(crate::time::now()))
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        match record.level() {
            log::Level::Error => print(format_args!("(euxen) error: {}\n", record.args())),
            log::Level::Warn => print(format_args!("(euxen) warning: {}\n", record.args())),
            _ => print(format_args!("(euxen) {}\n", record.args())),
        }
    }

    fn flush(&self) {}
}

/// Sends what [`log`]'s macros say to the console, up to these levels: of the hypervisor's own messages, and of those
/// that guests cause.
pub fn start_log(own: Levels, guest: Levels) {
    FILTERS[0].set(own);
    FILTERS[1].set(guest);
    // A second call changes the levels alone.
    let _ = log::set_logger(&Logger);
    log::set_max_level(own.limited.max(own.always).max(guest.limited).max(guest.always));
}
