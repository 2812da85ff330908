//! The serial port: a 16550, whose FIFO takes 16 bytes when it is empty.

use model::console::Log;
use uart_16550::backend::PioBackend;
use uart_16550::spec::FIFO_SIZE;
use uart_16550::spec::registers::{IER, LSR};
use uart_16550::{BaudRate, Config, Uart16550};

use crate::{cpu, ports};

/// How often a port that takes nothing is asked before it is no longer waited for: one that is broken must not hang us.
const PATIENCE: u32 = 1_000_000;
/// How often the port is served at once: an emulator's can be ready again as soon as it has been filled.
const ROUNDS: u32 = 64;

/// A serial port.
pub struct SerialPort {
    uart: Uart16550<PioBackend>,
    /// Bytes that it takes when it is empty.
    depth: usize,
    /// It was given bytes, and has not said that it is empty.
    is_busy: bool,
    /// How often it was asked in vain since it last took something, up to [`PATIENCE`].
    refusals: u32,
}

impl SerialPort {
    /// Opens the port at I/O port `base`, if there is one.
    pub fn open(base: u16, baud: u32) -> Option<Self> {
        // SAFETY: the port is the operator's word for a 16550; nothing else in the hypervisor touches it.
        let mut uart = unsafe { Uart16550::new_port(base) }.ok()?;
        let config = Config { baud_rate: BaudRate::from_integer(baud), ..Config::default() };
        uart.init(config).ok()?;
        ports::keep_serial(base);
        let depth = if uart.fifo_enabled() { FIFO_SIZE } else { 1 };
        Some(Self { uart, depth, is_busy: false, refusals: 0 })
    }

    /// Has it interrupt when a byte has come, and when it is empty.
    pub fn enable_interrupts(&mut self) {
        self.uart.enable_interrupts(IER::DATA_READY | IER::THR_EMPTY);
    }

    /// Gives it what waits, if it does nothing; else it says when it is empty.
    #[inline]
    pub fn start<const SIZE: usize>(&mut self, log: &mut Log<SIZE>) {
        if !self.is_busy {
            self.fill(log);
        }
    }

    /// It has taken nothing for so long that it is not waited for.
    pub fn is_stuck(&self) -> bool {
        self.refusals == PATIENCE
    }

    /// Gives it as much of what waits as it takes now. Says whether it takes anything.
    pub fn fill<const SIZE: usize>(&mut self, log: &mut Log<SIZE>) -> bool {
        let is_ready = self.has(LSR::THR_EMPTY);
        if is_ready {
            let mut bytes = [0; FIFO_SIZE];
            let count = log.take(&mut bytes[..self.depth]);
            self.uart.send_bytes(&bytes[..count]);
            self.is_busy = count != 0;
        }
        is_ready
    }

    /// Does what its interrupt asks for: gives it what waits, and takes what was typed. Says how many bytes of `typed`
    /// that is; if it is all of them, there may be more.
    pub fn serve<const SIZE: usize>(&mut self, log: &mut Log<SIZE>, typed: &mut [u8]) -> usize {
        let mut count = 0;
        for _ in 0..ROUNDS {
            // Reading this register ends the interrupt of an empty FIFO. The line must fall before it can rise again.
            let is_pending = self.uart.isr().has_pending_interrupt();
            count += self.uart.receive_bytes(&mut typed[count..]);
            self.fill(log);
            if !is_pending || count == typed.len() {
                break;
            }
        }
        count
    }

    /// Waits until no more than `left` bytes wait for it, as long as it takes any.
    pub fn drain<const SIZE: usize>(&mut self, log: &mut Log<SIZE>, left: usize) {
        while log.waiting() > left && (self.fill(log) || !self.is_stuck()) {
            cpu::relax();
        }
    }

    /// Waits until all that it was given is on the wire.
    pub fn finish(&mut self) {
        while !self.has(LSR::TRANSMITTER_EMPTY) && !self.is_stuck() {
            cpu::relax();
        }
    }

    /// Whether a bit of its status is set.
    fn has(&mut self, bit: LSR) -> bool {
        let is_set = self.uart.lsr().contains(bit);
        self.refusals = if is_set { 0 } else { (self.refusals + 1).min(PATIENCE) };
        is_set
    }
}
