//! Which ports of the machine a PV guest reaches itself, and which the hypervisor answers for it.

use core::ops::RangeInclusive;

use crate::emul::Port;

/// What no domain reaches itself on any PC: interrupt controllers and their edge registers, the 8254 and its gate, CMOS, A20
/// and reset, PCI configuration.
pub const KEPT: [RangeInclusive<u16>; 8] =
    [0x20..=0x21, 0x40..=0x43, 0x61..=0x61, 0x70..=0x71, 0x92..=0x92, 0xa0..=0xa1, 0x4d0..=0x4d1, 0xcf8..=0xcff];

/// How many ports a serial port has.
pub const SERIAL_PORTS: u16 = 8;

impl Port {
    /// The last byte's number; `None` beyond 64 Ki.
    fn last(self) -> Option<u16> {
        self.number.checked_add(u16::from(self.size).checked_sub(1)?)
    }

    /// Whether one of the bytes is in a range, or none can be anywhere.
    pub fn touches(self, range: &RangeInclusive<u16>) -> bool {
        self.last().is_none_or(|last| last >= *range.start() && self.number <= *range.end())
    }
}

/// What answers a port that a guest does not reach itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The index register of the CMOS.
    CmosIndex,
    /// The data register of the CMOS.
    CmosData,
    /// The address register of PCI configuration.
    ConfigAddress,
    /// Its data register, from this byte.
    ConfigData(u8),
    /// Nothing: all ones are read, and writes are lost.
    Nothing,
}

/// Splits an access as Xen does, into what one register each answers, and how many bytes of it.
pub fn parts(port: Port) -> impl Iterator<Item = (Part, u8)> {
    let (mut number, mut left) = (port.number, port.size);
    core::iter::from_fn(move || {
        let (part, size) = match number {
            _ if left == 0 => return None,
            0x70 => (Part::CmosIndex, 1),
            0x71 => (Part::CmosData, 1),
            0xcf8 if left == 4 => (Part::ConfigAddress, 4),
            0xcfc..=0xcff => {
                let offset = (number & 3) as u8;
                // Of three bytes two are accessed first.
                let size = match left.min(4 - offset) {
                    3 => 2,
                    size => size,
                };
                (Part::ConfigData(offset), size)
            }
            _ => (Part::Nothing, 1),
        };
        number = number.wrapping_add(u16::from(size));
        left -= size;
        Some((part, size))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(number: u16, size: u8) -> Port {
        Port { number, size }
    }

    #[test]
    fn an_access_that_touches_a_kept_port_in_part_is_kept() {
        let is_kept = |number, size| KEPT.iter().any(|range| of(number, size).touches(range));
        for (port, size) in
            [(0x20, 1), (0x1f, 2), (0x21, 4), (0x3e, 4), (0x71, 1), (0xcf8, 4), (0xcff, 1), (0xcf9, 1), (0xffff, 2)]
        {
            assert!(is_kept(port, size), "{port:#x}");
        }
        for (port, size) in [(0x1f, 1), (0x22, 2), (0x60, 1), (0x64, 1), (0xd00, 4), (0xffff, 1), (0xcf4, 4)] {
            assert!(!is_kept(port, size), "{port:#x}");
        }
    }

    #[test]
    fn accesses_are_split_where_registers_end() {
        let all = |number, size| parts(of(number, size)).collect::<Vec<_>>();
        assert_eq!(all(0xcf8, 4), [(Part::ConfigAddress, 4)]);
        assert_eq!(all(0xcf8, 1), [(Part::Nothing, 1)]);
        assert_eq!(all(0xcfc, 4), [(Part::ConfigData(0), 4)]);
        assert_eq!(all(0xcfd, 4), [(Part::ConfigData(1), 2), (Part::ConfigData(3), 1), (Part::Nothing, 1)]);
        assert_eq!(all(0x70, 2), [(Part::CmosIndex, 1), (Part::CmosData, 1)]);
        assert_eq!(all(0x42, 1), [(Part::Nothing, 1)]);
        assert_eq!(all(0xffff, 4).len(), 4);
    }
}
