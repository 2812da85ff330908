//! The start of day of a 64-bit PV guest: what lies where, its first page tables, start info and registers.
//!
//! [`Start::build`] takes a kernel, a ramdisk's size and a number of frames and gives the whole of it as data, in
//! frames of the guest's own numbering; whoever builds knows which frames of the machine those are. The truth is
//! xen/include/public/xen.h, "Start-of-day memory layout", elfnote.h, and what Xen's own builders do.

mod error;
mod info;
mod layout;
mod numbering;
mod tables;
#[cfg(test)]
mod tests;

pub use error::PvError;
pub use info::{Ring, Shared, fits, hypercall_page};
pub use layout::{Frames, Layout};
pub use numbering::Numbering;
pub use tables::{ENTRIES, Table};

pub use crate::pvh::{Copy, Source};

use crate::addr::{GuestPhys, PAGE_SIZE, Pfn};
use crate::image::Elf;
use crate::regs::{Regs, Rflags};
use abi::pv_vcpu::{FLAT_KERNEL_CS64, FLAT_KERNEL_SS64};
use abi::xen::VMASST_TYPE_PAE_EXTENDED_CR3;
use alloc::vec::Vec;

/// What a PV guest is made of.
#[derive(Clone, Copy, Debug)]
pub struct Guest<'a> {
    /// Its kernel.
    pub kernel: &'a Elf,
    /// Bytes of its ramdisk, if it has one.
    pub ramdisk_len: Option<u64>,
    /// Its kernel's command line.
    pub cmdline: &'a str,
    /// Frames of memory.
    pub nr_pages: u64,
    /// Whether it is the initial domain.
    pub is_initial: bool,
}

/// A PV guest ready to be written to memory that is otherwise zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// What lies where.
    pub layout: Layout,
    /// What to copy from the modules, to addresses in the guest's own numbering.
    pub copies: Vec<Copy>,
    /// The page to fill with [`hypercall_page`], if the kernel has one.
    pub hypercall_page: Option<Pfn>,
    /// How virtual CPU 0 starts: in 64-bit mode, with DS, ES, FS and GS null. CR3 is [`Layout::root`].
    pub registers: Regs,
    /// `VMASST_TYPE_*` that are enabled from the start, as bits.
    pub assists: u64,
}

impl Start {
    /// Lays out `guest`.
    ///
    /// # Errors
    /// [`PvError`] when the kernel is none for PV, or something does not fit.
    pub fn build(guest: &Guest<'_>) -> Result<Self, PvError> {
        layout::check_kernel(guest)?;
        let notes = &guest.kernel.notes;
        let base = base(guest.kernel)?;
        let offset = notes.paddr_offset.unwrap_or(0);
        let (mut copies, kernel_end) = kernel(guest.kernel, offset)?;
        let layout = Layout::new(guest, base, kernel_end)?;
        if let (Some(frames), Some(len)) = (layout.ramdisk, guest.ramdisk_len) {
            let to = GuestPhys::new(frames.first.raw() * PAGE_SIZE);
            // A module's length fits.
            copies.push(Copy { source: Source::Ramdisk, bytes: 0..len as usize, to });
        }
        let entry = notes.entry.unwrap_or(guest.kernel.entry);
        let is_inside = |part: &crate::image::Segment| {
            let start = base.wrapping_add(part.paddr - offset);
            entry.wrapping_sub(start) < part.mem_len
        };
        if !guest.kernel.segments.iter().any(is_inside) {
            return Err(PvError::EntryOutside { entry });
        }
        let hypercall_page = notes.hypercall_page.map(|at| hypercall_pfn(&layout, at)).transpose()?;
        let registers = Regs {
            rip: entry,
            cs: u64::from(FLAT_KERNEL_CS64),
            rflags: (Rflags::IF | Rflags::RESERVED_1).bits(),
            rsp: layout.address(layout.stack).raw().wrapping_add(PAGE_SIZE),
            ss: u64::from(FLAT_KERNEL_SS64),
            rsi: layout.address(layout.start_info).raw(),
            ..Regs::default()
        };
        Ok(Self { layout, copies, hypercall_page, registers, assists: assists(guest) })
    }
}

/// As in Xen, whose builder of the initial domain heeds this note of 64-bit kernels too, and whose toolstack does not.
fn assists(guest: &Guest<'_>) -> u64 {
    let is_extended = guest.is_initial && guest.kernel.notes.pae_mode.as_deref() == Some("yes");
    if is_extended { 1 << VMASST_TYPE_PAE_EXTENDED_CR3 } else { 0 }
}

/// Where frame 0 is mapped.
fn base(kernel: &Elf) -> Result<u64, PvError> {
    let base = kernel.notes.virt_base.unwrap_or(0);
    if base.is_multiple_of(PAGE_SIZE) {
        return Ok(base);
    }
    Err(PvError::BadNote { note: "VIRT_BASE", value: base, expected: "a multiple of 4096" })
}

/// The kernel's copies, and where in the guest's memory it ends.
fn kernel(elf: &Elf, offset: u64) -> Result<(Vec<Copy>, u64), PvError> {
    let mut copies = Vec::new();
    let mut end = 0;
    for part in &elf.segments {
        let Some(to) = part.paddr.checked_sub(offset) else { return Err(PvError::BelowBase { paddr: part.paddr }) };
        end = end.max(to + part.mem_len);
        if !part.file.is_empty() {
            copies.push(Copy { source: Source::Kernel, bytes: part.file.clone(), to: GuestPhys::new(to) });
        }
    }
    Ok((copies, end))
}

fn hypercall_pfn(layout: &Layout, at: u64) -> Result<Pfn, PvError> {
    let from_base = at.wrapping_sub(layout.base);
    if at.is_multiple_of(PAGE_SIZE) && from_base / PAGE_SIZE < layout.mapped {
        return Ok(Pfn::new(from_base / PAGE_SIZE));
    }
    Err(PvError::BadNote { note: "HYPERCALL_PAGE", value: at, expected: "a page within the initial mapping" })
}
