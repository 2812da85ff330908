//! `com1=` and `com2=`: how a serial port is set up.
//!
//! `<baud>[/<clock>][,[<data bits><parity><stop bits>][,[<io-base>][,[<irq>]]]]`, where an empty field keeps its
//! default and `auto` keeps the speed that firmware has set.

use super::value::number;

/// A serial port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uart {
    /// Bits per second; `None` keeps what is set.
    pub baud: Option<u32>,
    /// The speed at divisor 1, in bits per second.
    pub clock: u32,
    /// 5 to 8.
    pub data_bits: u8,
    /// How bits are guarded.
    pub parity: Parity,
    /// 1 or 2.
    pub stop_bits: u8,
    /// First I/O port.
    pub io_base: u16,
    /// ISA interrupt; `None` for 0, which asks for polling.
    pub irq: Option<u8>,
}

/// A serial port's parity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Parity {
    None,
    Odd,
    Even,
    Mark,
    Space,
}

impl Uart {
    /// The speed at divisor 1 of a PC's serial port.
    const CLOCK: u32 = 115_200;

    /// The PC's `com1` (0) or `com2` (1), 8 data bits, no parity, 1 stop bit.
    pub const fn standard(port: usize) -> Self {
        let (io_base, irq) = if port == 0 { (0x3f8, 4) } else { (0x2f8, 3) };
        Self {
            baud: None,
            clock: Self::CLOCK,
            data_bits: 8,
            parity: Parity::None,
            stop_bits: 1,
            io_base,
            irq: Some(irq),
        }
    }

    /// Reads the value of `com1=` (`port` 0) or `com2=` (1).
    pub(super) fn parse(port: usize, text: &str) -> Option<Self> {
        let mut uart = Self::standard(port);
        for (n, field) in text.split(',').enumerate() {
            match n {
                _ if field.is_empty() => {}
                0 => uart.set_speed(field)?,
                1 => uart.set_frame(field)?,
                2 => uart.io_base = u16::try_from(number(field)?).ok().filter(|&base| base <= u16::MAX - 7)?,
                3 => uart.irq = Some(u8::try_from(number(field)?).ok()?).filter(|&irq| irq != 0),
                _ => return None,
            }
        }
        Some(uart)
    }

    fn set_speed(&mut self, field: &str) -> Option<()> {
        let (baud, clock) = field.split_once('/').map_or((field, None), |(baud, clock)| (baud, Some(clock)));
        let speed = |text| u32::try_from(number(text)?).ok().filter(|&speed| speed > 0);
        if let Some(clock) = clock {
            self.clock = speed(clock)?;
        }
        self.baud = if baud == "auto" { None } else { Some(speed(baud)?) };
        Some(())
    }

    fn set_frame(&mut self, field: &str) -> Option<()> {
        let &[data_bits @ b'5'..=b'8', parity, stop_bits @ b'1'..=b'2'] = field.as_bytes() else { return None };
        self.data_bits = data_bits - b'0';
        self.stop_bits = stop_bits - b'0';
        self.parity = match parity {
            b'n' => Parity::None,
            b'o' => Parity::Odd,
            b'e' => Parity::Even,
            b'm' => Parity::Mark,
            b's' => Parity::Space,
            _ => return None,
        };
        Some(())
    }
}
