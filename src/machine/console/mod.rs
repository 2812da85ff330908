//! The hypervisor's console: the serial port, the screen, and a ring that keeps the log.

mod ring;
mod screen;

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU8, Ordering};

use model::time::Rate;
use spin::{Mutex, MutexGuard};
use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::IER;
use uart_16550::{BaudRate, Config, Uart16550};

use crate::boot::Framebuffer;
use crate::{cpu, ports};

struct Console {
    serial: Option<Uart16550<PioBackend>>,
    screen: Option<screen::Screen>,
    ring: ring::Ring,
    /// Whose line is not ended yet, if one is not.
    open_line: Option<u32>,
}

static CONSOLE: Mutex<Console> =
    Mutex::new(Console { serial: None, screen: None, ring: ring::Ring::new(), open_line: None });

/// How often a full transmitter is asked before the byte is given up: a port that is not there must not hang us.
const PATIENCE: u32 = 200_000;

impl Console {
    fn put(&mut self, byte: u8) {
        self.ring.push(byte);
        if byte == b'\n' {
            self.send(b'\r');
        }
        self.send(byte);
        if let Some(screen) = &mut self.screen {
            screen.put(byte);
        }
    }

    /// Ends a line that somebody else has begun.
    fn break_line(&mut self, owner: Option<u32>) {
        if self.open_line.is_some() && self.open_line != owner {
            self.put(b'\n');
            self.open_line = None;
        }
    }

    fn send(&mut self, byte: u8) {
        let Some(serial) = &mut self.serial else { return };
        for _ in 0..PATIENCE {
            if serial.try_send_byte(byte).is_ok() {
                return;
            }
            cpu::relax();
        }
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.put(byte));
        Ok(())
    }
}

/// Opens the serial port at I/O port `base`. Says whether there is one.
pub fn open_serial(base: u16, baud: u32) -> bool {
    // SAFETY: the port is the operator's word for a 16550; nothing else in the hypervisor touches it.
    let Ok(mut uart) = (unsafe { Uart16550::new_port(base) }) else { return false };
    let config = Config { baud_rate: BaudRate::from_integer(baud), ..Config::default() };
    let is_open = uart.init(config).is_ok();
    if is_open {
        ports::keep_serial(base);
        CONSOLE.lock().serial = Some(uart);
    }
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

/// Lets the serial port raise its interrupt when a byte has come.
pub fn listen() {
    if let Some(serial) = &mut CONSOLE.lock().serial {
        serial.enable_interrupts(IER::DATA_READY);
    }
}

/// A byte that was typed, if any.
pub fn read() -> Option<u8> {
    CONSOLE.lock().serial.as_mut()?.try_receive_byte().ok()
}

/// Writes a line, or a part of one, with a prefix at its start. Parts of one `owner` join to a line as long as nobody
/// else writes.
pub fn line(owner: u32, prefix: &str, bytes: &[u8], is_end: bool) {
    let mut console = CONSOLE.lock();
    console.break_line(Some(owner));
    if console.open_line.is_none() {
        // The console itself never fails.
        let _ = write!(console, "({prefix}) ");
    }
    bytes.iter().for_each(|&byte| console.put(byte));
    console.open_line = Some(owner);
    if is_end {
        console.put(b'\n');
        console.open_line = None;
    }
}

/// Writes formatted text in one piece.
pub fn print(text: fmt::Arguments<'_>) {
    // The console itself never fails.
    let mut console = CONSOLE.lock();
    console.break_line(None);
    let _ = console.write_fmt(text);
}

/// Writes formatted text even when the lock is held by a CPU that has been stopped.
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
        let _ = console.write_fmt(text);
    }
}

/// Copies up to `out.len()` bytes of the log that start at or after position `from`; gives back the position
/// of the first byte copied and how many.
pub fn read_log(from: u64, out: &mut [u8]) -> (u64, usize) {
    CONSOLE.lock().ring.copy(from, out)
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
