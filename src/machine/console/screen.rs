//! The screen: text mode, or a linear framebuffer of 32 bits a pixel with a font of 8 by 8.

use core::ptr;

use font8x8::legacy::BASIC_LEGACY;
use model::addr::MachineAddr;

use crate::boot::Framebuffer;
use crate::mem::map::{self, Rights};

/// Light grey on black, as a text-mode attribute and as a pixel.
const ATTRIBUTE: u16 = 0x0700;
const PIXEL: u32 = 0x00aa_aaaa;

/// Height of a character cell in a framebuffer.
const CELL: u32 = 10;

/// A screen that characters are written to.
pub struct Screen {
    base: *mut u8,
    info: Framebuffer,
    columns: u32,
    rows: u32,
    column: u32,
    row: u32,
}

// SAFETY: the memory is a device's, reached only through this one object.
unsafe impl Send for Screen {}

impl Screen {
    /// Maps the screen; `None` where its form is not one of ours.
    pub fn open(info: Framebuffer) -> Option<Self> {
        if !info.is_text && info.bits != 32 {
            return None;
        }
        let bytes = u64::from(info.pitch) * u64::from(info.height);
        let base = map::device(MachineAddr::new(info.address), bytes, Rights::DEVICE)?;
        let (columns, rows) =
            if info.is_text { (info.width, info.height) } else { (info.width / 8, info.height / CELL) };
        (columns > 0 && rows > 0).then_some(Self { base, info, columns, rows, column: 0, row: 0 })
    }

    /// Writes text at the cursor; the screen starts again at the top when it is full.
    #[inline(never)]
    pub fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.put(byte));
    }

    fn put(&mut self, byte: u8) {
        match byte {
            b'\n' => self.next_row(),
            b'\r' => self.column = 0,
            0x08 => self.column = self.column.saturating_sub(1),
            _ => {
                if self.column == self.columns {
                    self.next_row();
                }
                self.draw(byte);
                self.column += 1;
            }
        }
    }

    fn next_row(&mut self) {
        self.column = 0;
        self.row = (self.row + 1) % self.rows;
        for column in 0..self.columns {
            self.column = column;
            self.draw(b' ');
        }
        self.column = 0;
    }

    fn draw(&self, byte: u8) {
        if self.info.is_text {
            let at = self.row * self.info.pitch + self.column * 2;
            // SAFETY: row and column lie on the screen, which is mapped whole.
            unsafe { ptr::write_volatile(self.base.add(at as usize).cast(), ATTRIBUTE | u16::from(byte)) };
            return;
        }
        let glyph = BASIC_LEGACY.get(usize::from(byte)).unwrap_or(&BASIC_LEGACY[usize::from(b'?')]);
        for (y, bits) in (0u32..).zip(glyph) {
            for x in 0..8u32 {
                let at = (self.row * CELL + y) * self.info.pitch + (self.column * 8 + x) * 4;
                let pixel = if bits & 1 << x != 0 { PIXEL } else { 0 };
                // SAFETY: as above; a cell is 8 pixels by 10 of the framebuffer.
                unsafe { ptr::write_volatile(self.base.add(at as usize).cast(), pixel) };
            }
        }
    }
}
