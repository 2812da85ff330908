//! The CMOS clock of the PC (MC146818A).

use x86_64::instructions::port::Port;

/// The clock's registers as they are: seconds, minutes, hours, day, month, year, century (register 0x32), status B.
pub type Registers = [u8; 8];

fn read(register: u8) -> u8 {
    // SAFETY: the index and data ports are the clock's; bit 7 keeps NMIs enabled as they are.
    unsafe {
        Port::<u8>::new(0x70).write(register);
        Port::<u8>::new(0x71).read()
    }
}

fn read_all() -> Registers {
    [0x00, 0x02, 0x04, 0x07, 0x08, 0x09, 0x32, 0x0b].map(read)
}

/// Reads the clock outside an update: twice the same. `None` where there is no clock.
pub fn read_stable() -> Option<Registers> {
    for _ in 0..1000 {
        let is_updating = read(0x0a) & 0x80 != 0;
        let first = read_all();
        if !is_updating && first == read_all() {
            return Some(first).filter(|registers| registers[0] != 0xff);
        }
    }
    None
}
