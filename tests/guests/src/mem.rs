//! Physical memory, which is mapped one to one below 4 GiB.

use zerocopy::{FromBytes, IntoBytes};

use crate::pv;

/// Reads a value at an address of any alignment.
pub fn read<T: FromBytes + Copy>(addr: u64) -> T {
    // SAFETY: the guest owns its memory, every bit pattern is a `T`, and a fault is caught or reported.
    unsafe { core::ptr::read_unaligned(core::hint::black_box(addr) as *const T) }
}

/// Reads an integer, once, as a device or another CPU may change it.
pub fn peek32(addr: u64) -> u32 {
    // SAFETY: as for `read`.
    unsafe { core::ptr::read_volatile(addr as *const u32) }
}

/// Writes an integer, once.
pub fn poke32(addr: u64, value: u32) {
    // SAFETY: the guest owns its memory; the tests write what they know to be theirs.
    unsafe { core::ptr::write_volatile(addr as *mut u32, value) }
}

/// Reads an integer, once.
pub fn peek64(addr: u64) -> u64 {
    // SAFETY: as for `read`.
    unsafe { core::ptr::read_volatile(addr as *const u64) }
}

/// Writes an integer, once.
pub fn poke64(addr: u64, value: u64) {
    // SAFETY: as for `poke32`.
    unsafe { core::ptr::write_volatile(addr as *mut u64, value) }
}

/// Reads a byte, once.
pub fn peek8(addr: u64) -> u8 {
    // SAFETY: as for `read`.
    unsafe { core::ptr::read_volatile(addr as *const u8) }
}

/// Writes a byte, once.
pub fn poke8(addr: u64, value: u8) {
    // SAFETY: as for `poke32`.
    unsafe { core::ptr::write_volatile(addr as *mut u8, value) }
}

/// The text at an address up to its NUL, at most `limit` bytes.
pub fn text(addr: u64, limit: usize) -> &'static str {
    let mut len = 0;
    while len < limit && peek8(addr + len as u64) != 0 {
        len += 1;
    }
    // SAFETY: the bytes were just read, and nobody writes them while a test runs.
    let bytes = unsafe { core::slice::from_raw_parts(addr as *const u8, len) };
    core::str::from_utf8(bytes).unwrap_or("<not UTF-8>")
}

/// The sum of the bytes, modulo 256, as ACPI tables have it.
pub fn byte_sum(addr: u64, len: u64) -> u8 {
    (0..len).fold(0, |sum, i| sum.wrapping_add(peek8(addr + i)))
}

/// The address of a structure, for a hypercall that reads it.
pub fn addr_of<T: IntoBytes>(value: &T) -> u64 {
    core::ptr::from_ref(value) as u64
}

/// The address of a structure, for a hypercall that writes it.
pub fn addr_of_mut<T: FromBytes + IntoBytes>(value: &mut T) -> u64 {
    core::ptr::from_mut(value) as u64
}

unsafe extern "C" {
    static boot_pt: Page;
}

/// Maps or unmaps a page below 2 MiB at its own address; page 0 unmapped makes a null pointer bad.
pub fn map_low_page(page: u64, present: bool) {
    if pv::is_pv() {
        let entry = if present { pv::p2m(page) << 12 | pv::mmu::KERNEL } else { 0 };
        pv::mmu::update_va(page << 12, entry, pv::mmu::UVMF_INVLPG);
        return;
    }
    // SAFETY: only the table's address is taken.
    let table = unsafe { boot_pt.addr() };
    poke64(table + page * 8, page << 12 | if present { 3 } else { 0 });
    // SAFETY: a flush of one translation has no other effect.
    unsafe { core::arch::asm!("invlpg [{}]", in(reg) page << 12, options(nostack)) };
}

/// A frame of the guest's own RAM.
#[repr(C, align(4096))]
pub struct Page(core::cell::UnsafeCell<[u8; 4096]>);

// SAFETY: a page is reached by `peek` and `poke` at its address, as memory shared with the hypervisor is.
unsafe impl Sync for Page {}

impl Page {
    /// A page of zeroes.
    pub const fn new() -> Self {
        Self(core::cell::UnsafeCell::new([0; 4096]))
    }
    /// Its address, virtual and physical.
    pub fn addr(&self) -> u64 {
        self.0.get() as u64
    }
    /// Its frame number as the hypervisor's calls take it: a PV guest's is the machine frame.
    pub fn gfn(&self) -> u64 {
        if pv::is_pv() { pv::p2m(self.addr() >> 12) } else { self.addr() >> 12 }
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::new()
    }
}
