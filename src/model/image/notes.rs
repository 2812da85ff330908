//! The notes by which a kernel tells Xen what it is (xen/include/public/elfnote.h).

use alloc::string::String;
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::note::{Note, NoteIterator};

/// Note types.
mod nt {
    pub const ENTRY: u64 = 1;
    pub const HYPERCALL_PAGE: u64 = 2;
    pub const VIRT_BASE: u64 = 3;
    pub const PADDR_OFFSET: u64 = 4;
    pub const XEN_VERSION: u64 = 5;
    pub const GUEST_OS: u64 = 6;
    pub const GUEST_VERSION: u64 = 7;
    pub const LOADER: u64 = 8;
    pub const PAE_MODE: u64 = 9;
    pub const FEATURES: u64 = 10;
    pub const BSD_SYMTAB: u64 = 11;
    pub const HV_START_LOW: u64 = 12;
    pub const L1_MFN_VALID: u64 = 13;
    pub const SUSPEND_CANCEL: u64 = 14;
    pub const INIT_P2M: u64 = 15;
    pub const MOD_START_PFN: u64 = 16;
    pub const SUPPORTED_FEATURES: u64 = 17;
    pub const PHYS32_ENTRY: u64 = 18;
}

/// What a kernel's notes say; a note that is not there, or has no value of the right kind, is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// PVH: the physical address of the entry in 32-bit mode.
    pub phys32_entry: Option<u32>,
    /// PV: the virtual address of the entry.
    pub entry: Option<u64>,
    /// PV: the virtual address of the page to fill with hypercalls.
    pub hypercall_page: Option<u64>,
    /// PV: the virtual address at which the image begins.
    pub virt_base: Option<u64>,
    /// PV: what to subtract from ELF's physical addresses.
    pub paddr_offset: Option<u64>,
    /// PV: the lowest virtual address at which the hypervisor's hole may begin.
    pub hv_start_low: Option<u64>,
    /// PV: the virtual address for the table of machine frames.
    pub init_p2m: Option<u64>,
    /// PV: mask and value of a page-table entry that is not present but holds a frame.
    pub l1_mfn_valid: Option<(u64, u64)>,
    /// The kernel survives a suspend that is called off.
    pub suspend_cancel: Option<u64>,
    /// PV: the kernel takes its ramdisk by frame number, unmapped.
    pub mod_start_pfn: Option<u64>,
    /// Bits of features.h that the kernel can do.
    pub supported_features: Option<u64>,
    /// Names of features.h that the kernel can do, `|` between them, `!` before those it needs.
    pub features: Option<String>,
    /// PV on 32 bits: `yes`, `no` or `bimodal`.
    pub pae_mode: Option<String>,
    /// The symbol table is to be loaded: `yes` or `no`.
    pub bsd_symtab: Option<String>,
    /// The loader to use: `generic`.
    pub loader: Option<String>,
    /// The system's name.
    pub guest_os: Option<String>,
    /// The system's version.
    pub guest_version: Option<String>,
    /// The Xen interface the kernel was made for: `xen-3.0`.
    pub xen_version: Option<String>,
}

impl Notes {
    /// Takes over Xen's notes from a segment or section. Damaged ones end the reading.
    ///
    /// Notes are aligned to 4 bytes whatever the header says, as Xen has it.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        for note in NoteIterator::new(LittleEndian, Class::ELF32, 4, bytes) {
            let Note::Unknown(note) = note else { continue };
            if note.name == b"Xen\0" {
                self.take(note.n_type, note.desc);
            }
        }
    }

    fn take(&mut self, kind: u64, value: &[u8]) {
        match kind {
            nt::PHYS32_ENTRY => self.phys32_entry = number(value).and_then(|entry| u32::try_from(entry).ok()),
            nt::ENTRY => self.entry = number(value),
            nt::HYPERCALL_PAGE => self.hypercall_page = number(value),
            nt::VIRT_BASE => self.virt_base = number(value),
            nt::PADDR_OFFSET => self.paddr_offset = number(value),
            nt::HV_START_LOW => self.hv_start_low = number(value),
            nt::INIT_P2M => self.init_p2m = number(value),
            nt::L1_MFN_VALID => self.l1_mfn_valid = pair(value),
            nt::SUSPEND_CANCEL => self.suspend_cancel = number(value),
            nt::MOD_START_PFN => self.mod_start_pfn = number(value),
            nt::SUPPORTED_FEATURES => self.supported_features = number(value),
            nt::FEATURES => self.features = text(value),
            nt::PAE_MODE => self.pae_mode = text(value),
            nt::BSD_SYMTAB => self.bsd_symtab = text(value),
            nt::LOADER => self.loader = text(value),
            nt::GUEST_OS => self.guest_os = text(value),
            nt::GUEST_VERSION => self.guest_version = text(value),
            nt::XEN_VERSION => self.xen_version = text(value),
            _ => {}
        }
    }
}

/// A number of one, two, four or eight bytes.
fn number(value: &[u8]) -> Option<u64> {
    if !matches!(value.len(), 1 | 2 | 4 | 8) {
        return None;
    }
    Some(value.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

/// Two numbers of four or of eight bytes.
fn pair(value: &[u8]) -> Option<(u64, u64)> {
    if !matches!(value.len(), 8 | 16) {
        return None;
    }
    let (mask, value) = value.split_at(value.len() / 2);
    Some((number(mask)?, number(value)?))
}

/// A text up to its first zero byte.
fn text(value: &[u8]) -> Option<String> {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    core::str::from_utf8(&value[..end]).ok().map(String::from)
}
