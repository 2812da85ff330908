//! The parts of an ELF file that a loader needs: what goes where, where to enter, and Xen's notes.
//!
//! Everything is checked against the file's length here, so that a [`Segment`]'s range can be copied without
//! another look. ELF's physical addresses count, as Xen's PVH start does; virtual ones serve PV.

use super::{ImageError, Notes};
use alloc::vec::Vec;
use core::ops::Range;
use elf::abi::{EM_386, EM_X86_64, ET_DYN, ET_EXEC, PT_LOAD, PT_NOTE, SHT_NOTE};
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::segment::ProgramHeader;
use elf::{ElfBytes, ParseError};

type File<'a> = ElfBytes<'a, LittleEndian>;

/// The word size of an ELF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// ELF32 for the i386.
    Bits32,
    /// ELF64 for x86-64.
    Bits64,
}

/// One part of the kernel to place in memory: `file` bytes, then zeroes up to `mem_len`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Physical address of its first byte.
    pub paddr: u64,
    /// Virtual address of its first byte.
    pub vaddr: u64,
    /// Where in the file its bytes are; no more of them than `mem_len`.
    pub file: Range<usize>,
    /// Bytes in memory. `paddr` and `vaddr` plus this do not overflow.
    pub mem_len: u64,
}

impl Segment {
    /// The physical address after its last byte.
    pub fn end(&self) -> u64 {
        self.paddr + self.mem_len
    }
}

/// A kernel that can be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elf {
    /// Its word size.
    pub width: Width,
    /// `e_entry`, a virtual address.
    pub entry: u64,
    /// What to load, at least one, in the file's order.
    pub segments: Vec<Segment>,
    /// What the kernel says to Xen.
    pub notes: Notes,
}

impl Elf {
    /// Reads the headers and notes of `file`.
    ///
    /// # Errors
    /// `Truncated`, `BadElf`, `WrongMachine`; `NotKernel` when it is not ELF at all.
    pub fn parse(file: &[u8]) -> Result<Self, ImageError> {
        let elf = File::minimal_parse(file).map_err(|why| cannot(why, file))?;
        let header = &elf.ehdr;
        let width = match (header.e_machine, header.class) {
            (EM_X86_64, Class::ELF64) => Width::Bits64,
            (EM_386, Class::ELF32) => Width::Bits32,
            (EM_X86_64 | EM_386, _) => return Err(bad("its class does not fit its machine")),
            (machine, _) => return Err(ImageError::WrongMachine { machine }),
        };
        if !matches!(header.e_type, ET_EXEC | ET_DYN) {
            return Err(bad("it is not an executable; give the kernel, not a module or object file"));
        }
        let segments = segments(&elf, file)?;
        Ok(Self { width, entry: header.e_entry, segments, notes: notes(&elf, file) })
    }

    /// The physical address at which a PVH guest starts.
    ///
    /// # Errors
    /// `NoPvhEntry` when the kernel has none.
    pub fn pvh_entry(&self) -> Result<u32, ImageError> {
        self.notes.phys32_entry.ok_or(ImageError::NoPvhEntry)
    }
}

fn bad(why: &'static str) -> ImageError {
    ImageError::BadElf { why }
}

fn cannot(why: ParseError, file: &[u8]) -> ImageError {
    match why {
        ParseError::BadMagic(_) => ImageError::NotKernel,
        ParseError::SliceReadError((_, end)) => ImageError::Truncated { needs: end as u64, has: file.len() as u64 },
        ParseError::UnsupportedElfEndianness(_) => bad("it is big-endian"),
        ParseError::UnsupportedElfClass(_) => bad("its class is neither 32 nor 64 bits"),
        ParseError::UnsupportedVersion(_) => bad("its version is not 1"),
        ParseError::BadEntsize(_) => bad("its tables have entries of an unknown size"),
        _ => bad("its headers contradict each other"),
    }
}

fn segments(elf: &File<'_>, file: &[u8]) -> Result<Vec<Segment>, ImageError> {
    let table = elf.segments().ok_or_else(|| bad("it has no program headers"))?;
    let mut segments = Vec::new();
    for header in table.iter().filter(|header| header.p_type == PT_LOAD && header.p_memsz != 0) {
        segments.push(segment(&header, file)?);
    }
    if segments.is_empty() { Err(bad("it has nothing to load")) } else { Ok(segments) }
}

fn segment(header: &ProgramHeader, file: &[u8]) -> Result<Segment, ImageError> {
    if header.p_filesz > header.p_memsz {
        return Err(bad("a segment is larger in the file than in memory"));
    }
    if header.p_paddr.checked_add(header.p_memsz).is_none() || header.p_vaddr.checked_add(header.p_memsz).is_none() {
        return Err(bad("a segment ends after the last address"));
    }
    let has = file.len() as u64;
    let end =
        header.p_offset.checked_add(header.p_filesz).ok_or_else(|| bad("a segment ends after the last offset"))?;
    if end > has {
        return Err(ImageError::Truncated { needs: end, has });
    }
    // Both are at most the file's length, so they fit.
    let range = header.p_offset as usize..end as usize;
    Ok(Segment { paddr: header.p_paddr, vaddr: header.p_vaddr, file: range, mem_len: header.p_memsz })
}

/// Xen's notes from the note segments, and from the note sections when no segment has any.
fn notes(elf: &File<'_>, file: &[u8]) -> Notes {
    let mut notes = Notes::default();
    for header in elf.segments().into_iter().flatten().filter(|header| header.p_type == PT_NOTE) {
        notes.read(part(file, header.p_offset, header.p_filesz));
    }
    if notes == Notes::default() {
        for header in elf.section_headers().into_iter().flatten().filter(|header| header.sh_type == SHT_NOTE) {
            notes.read(part(file, header.sh_offset, header.sh_size));
        }
    }
    notes
}

/// `len` bytes of `file` at `offset`; none where they are not there.
fn part(file: &[u8], offset: u64, len: u64) -> &[u8] {
    let end = offset.checked_add(len).and_then(|end| usize::try_from(end).ok());
    match (usize::try_from(offset), end) {
        (Ok(start), Some(end)) => file.get(start..end).unwrap_or_default(),
        _ => &[],
    }
}
