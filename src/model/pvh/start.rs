//! Where kernel, ramdisk and start info go, and how the first virtual CPU starts.
//!
//! The kernel's segments lie where its ELF file says. Behind the highest of them come the ramdisk and then a
//! few pages with the start info, module list, memory map and command line, all in RAM below 4 GiB.

use super::acpi;
use super::layout::{ACPI_BASE, Layout, MapEntry};
use crate::addr::{GuestPhys, PAGE_SIZE};
use crate::image::{Elf, ImageError};
use crate::regs::{Cr0, Regs, Rflags, Segment, SegmentName};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

/// What a PVH guest is made of.
#[derive(Clone, Copy, Debug)]
pub struct Guest<'a> {
    /// Its kernel.
    pub kernel: &'a Elf,
    /// Bytes of its ramdisk, if it has one.
    pub ramdisk_len: Option<u64>,
    /// Its kernel's command line.
    pub cmdline: &'a str,
    /// Bytes of RAM.
    pub ram_bytes: u64,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// `SIF_*` of start_info.h; 0 for a plain domain.
    pub flags: u32,
}

/// Where bytes to copy come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The kernel's (unpacked) ELF file.
    Kernel,
    /// The ramdisk's module.
    Ramdisk,
}

/// Bytes of a module to copy to the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Which file.
    pub source: Source,
    /// Which bytes of the file.
    pub bytes: Range<usize>,
    /// Where they go.
    pub to: GuestPhys,
}

/// Bytes to write to the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Where they go.
    pub to: GuestPhys,
    /// What they are.
    pub bytes: Vec<u8>,
}

/// The first state of virtual CPU 0: 32-bit protected mode without paging (docs/misc/pvh.pandoc). CR3, CR4, EFER and
/// the descriptor tables are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// EIP, EBX and EFLAGS; the others are zero.
    pub regs: Regs,
    /// CR0.
    pub cr0: Cr0,
    /// All eight segment registers.
    pub segments: [(SegmentName, Segment); 8],
}

/// A PVH guest ready to be written to memory that is otherwise zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The address space: which frames to give it.
    pub layout: Layout,
    /// What to copy from the modules. All of it is RAM.
    pub copies: Vec<Copy>,
    /// What to write beside that: start info and ACPI tables.
    pub writes: Vec<Write>,
    /// How virtual CPU 0 starts.
    pub registers: Registers,
}

/// Why a guest cannot be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PvhError {
    /// The kernel has no PVH entry.
    Image(ImageError),
    /// The RAM below 4 GiB is too small.
    NoRoom {
        /// What does not fit.
        what: &'static str,
        /// Bytes of RAM that it would take from address 0 on.
        needs: u64,
        /// Bytes of RAM below 4 GiB.
        has: u64,
    },
    /// The entry lies outside of all segments.
    EntryOutside {
        /// The entry's physical address.
        entry: u32,
    },
}

impl fmt::Display for PvhError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1 << 20;
        match self {
            Self::Image(why) => why.fmt(f),
            Self::NoRoom { what, needs, has } if *has >= ACPI_BASE.raw() => {
                write!(f, "the {what} does not fit below the hole at {ACPI_BASE}: it would end at {needs:#x}")
            }
            Self::NoRoom { what, needs, has } => write!(
                f,
                "memory is too small: the {what} ends at {} MiB and the domain has {} MiB; raise memory=",
                needs.div_ceil(MIB),
                has / MIB
            ),
            Self::EntryOutside { entry } => {
                write!(f, "the kernel's PVH entry {entry:#x} lies in none of its segments")
            }
        }
    }
}

impl core::error::Error for PvhError {}

impl From<ImageError> for PvhError {
    fn from(why: ImageError) -> Self {
        Self::Image(why)
    }
}

/// `XEN_HVM_START_MAGIC_VALUE`.
const MAGIC: u32 = 0x336e_c578;
const VERSION: u32 = 1;
const START_INFO_LEN: u64 = 56;
const MODULE_LEN: u64 = 32;
const MAP_ENTRY_LEN: u64 = 24;

impl Start {
    /// Lays out `guest`.
    ///
    /// # Errors
    /// [`PvhError`] when the kernel has no PVH entry or something does not fit in the RAM.
    pub fn build(guest: &Guest<'_>) -> Result<Self, PvhError> {
        let layout = Layout::new(guest.ram_bytes, guest.vcpus);
        let entry = guest.kernel.pvh_entry()?;
        if !guest.kernel.segments.iter().any(|part| (part.paddr..part.end()).contains(&u64::from(entry))) {
            return Err(PvhError::EntryOutside { entry });
        }
        let mut room = Room { next: 0, end: layout.low_end().raw() };
        let mut copies = kernel(guest.kernel, &mut room)?;
        let mut ramdisk = None;
        if let Some(len) = guest.ramdisk_len {
            let to = room.take("ramdisk", len)?;
            // It fits below 4 GiB, so its length fits.
            copies.push(Copy { source: Source::Ramdisk, bytes: 0..len as usize, to });
            ramdisk = Some((to, len));
        }
        let info = start_info(guest, &layout.memory_map(), ramdisk, &mut room)?;
        let registers = registers(entry, info.to);
        let writes = alloc::vec![info, Write { to: ACPI_BASE, bytes: acpi::tables(guest.vcpus) }];
        Ok(Self { layout, copies, writes, registers })
    }
}

/// The RAM that is still free: from `next`, a page's start, to `end`.
struct Room {
    next: u64,
    end: u64,
}

impl Room {
    fn take(&mut self, what: &'static str, len: u64) -> Result<GuestPhys, PvhError> {
        let start = self.next;
        self.use_up_to(what, start.saturating_add(len))?;
        Ok(GuestPhys::new(start))
    }

    fn use_up_to(&mut self, what: &'static str, end: u64) -> Result<(), PvhError> {
        if end > self.end {
            return Err(PvhError::NoRoom { what, needs: end, has: self.end });
        }
        // `end` is below 4 GiB.
        self.next = self.next.max(end.next_multiple_of(PAGE_SIZE));
        Ok(())
    }
}

fn kernel(elf: &Elf, room: &mut Room) -> Result<Vec<Copy>, PvhError> {
    let mut copies = Vec::new();
    for part in &elf.segments {
        room.use_up_to("kernel", part.end())?;
        if !part.file.is_empty() {
            copies.push(Copy { source: Source::Kernel, bytes: part.file.clone(), to: GuestPhys::new(part.paddr) });
        }
    }
    Ok(copies)
}

/// `struct hvm_start_info`, then the module list, the memory map and the command line.
fn start_info(
    guest: &Guest<'_>,
    map: &[MapEntry],
    ramdisk: Option<(GuestPhys, u64)>,
    room: &mut Room,
) -> Result<Write, PvhError> {
    // A zero byte within the command line ends it for the guest, too.
    let modules_len = if ramdisk.is_some() { MODULE_LEN } else { 0 };
    let map_len = map.len() as u64 * MAP_ENTRY_LEN;
    let fixed_len = START_INFO_LEN + modules_len + map_len;
    let to = room.take("start info", fixed_len + guest.cmdline.len() as u64 + 1)?;
    let modules_at = to.raw() + START_INFO_LEN;
    let map_at = modules_at + modules_len;

    let mut bytes = Bytes::default();
    for word in [MAGIC, VERSION, guest.flags, u32::from(ramdisk.is_some())] {
        bytes.u32(word);
    }
    let modules = if ramdisk.is_some() { modules_at } else { 0 };
    for address in [modules, map_at + map_len, ACPI_BASE.raw(), map_at] {
        bytes.u64(address);
    }
    // The map has at most four entries.
    bytes.u32(map.len() as u32);
    bytes.u32(0);
    if let Some((start, len)) = ramdisk {
        for field in [start.raw(), len, 0, 0] {
            bytes.u64(field);
        }
    }
    for entry in map {
        bytes.u64(entry.addr.raw());
        bytes.u64(entry.size);
        bytes.u32(entry.kind);
        bytes.u32(0);
    }
    bytes.0.extend_from_slice(guest.cmdline.as_bytes());
    bytes.0.push(0);
    Ok(Write { to, bytes: bytes.0 })
}

/// Little-endian fields in a row.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u32(&mut self, field: u32) {
        self.0.extend_from_slice(&field.to_le_bytes());
    }
    fn u64(&mut self, field: u64) {
        self.0.extend_from_slice(&field.to_le_bytes());
    }
}

fn registers(entry: u32, start_info: GuestPhys) -> Registers {
    use SegmentName::{Cs, Ds, Es, Fs, Gs, Ldtr, Ss, Tr};
    let flat = |attributes| Segment { selector: 0, attributes, limit: u32::MAX, base: 0 };
    // Present, 32 bits, limit in pages; code: execute, read, accessed; data: read, write, accessed.
    let code = flat(0xc9b);
    let data = flat(0xc93);
    // Present busy 32-bit TSS of the smallest size.
    let task = Segment { selector: 0, attributes: 0x08b, limit: 0x67, base: 0 };
    Registers {
        regs: Regs {
            rip: u64::from(entry),
            rbx: start_info.raw(),
            rflags: Rflags::RESERVED_1.bits(),
            ..Regs::default()
        },
        cr0: Cr0::PE | Cr0::ET,
        segments: [
            (Es, data),
            (Cs, code),
            (Ss, data),
            (Ds, data),
            (Fs, data),
            (Gs, data),
            (Ldtr, Segment::default()),
            (Tr, task),
        ],
    }
}
