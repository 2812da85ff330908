//! What the boot loader hands over (Multiboot2 specification 2.0, chapter 3.6), kept for good.
//!
//! The loader's own copy lies somewhere in RAM that will be given out, so all of it is copied to the image first.

pub mod symbols;

use alloc::vec::Vec;
use core::ptr::addr_of_mut;

use model::addr::MachineAddr;
use model::regions::{Regions, Span};
use multiboot2::{BootInformation, BootInformationHeader, FramebufferType};

/// Bytes of boot information that we keep; the EFI memory map is the largest part.
const MAX_INFO: usize = 128 << 10;

#[repr(C, align(8))]
struct Buffer([u8; MAX_INFO]);

static mut INFO: Buffer = Buffer([0; MAX_INFO]);

/// A boot module: bytes in RAM and the string of its menu line.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    /// Where it lies.
    pub span: Span,
    /// The words after its path.
    pub string: &'static str,
}

/// The linear framebuffer or text screen that the loader set up.
#[derive(Clone, Copy, Debug)]
pub struct Framebuffer {
    /// Physical address of the first byte.
    pub address: u64,
    /// Bytes from one line to the next.
    pub pitch: u32,
    /// Pixels, or characters in text mode.
    pub width: u32,
    /// Pixels, or characters in text mode.
    pub height: u32,
    /// Bits of a pixel; 16 in text mode.
    pub bits: u8,
    /// Characters with attributes instead of pixels.
    pub is_text: bool,
}

/// What the loader said.
pub struct BootInfo {
    info: BootInformation<'static>,
}

impl BootInfo {
    /// Copies and checks the boot information at physical address `addr`.
    ///
    /// # Safety
    /// `addr` is what the loader gave, physical memory below 4 GiB is mapped to itself, and this is called once.
    pub unsafe fn take(addr: u64) -> Result<Self, &'static str> {
        // SAFETY: the loader put its information there, and the identity map covers it.
        let size = unsafe { (addr as *const u32).read() } as usize;
        if size > MAX_INFO {
            return Err("the boot loader's information is larger than 128 KiB");
        }
        let buffer = addr_of_mut!(INFO).cast::<u8>();
        // SAFETY: `size` bytes were given by the loader and fit; nobody else uses the buffer.
        unsafe { core::ptr::copy_nonoverlapping(addr as *const u8, buffer, size) };
        // SAFETY: the copy is aligned, complete and never written again.
        let info = unsafe { BootInformation::load(buffer.cast::<BootInformationHeader>()) };
        info.map(|info| Self { info }).map_err(|_| "the boot loader's information is malformed")
    }

    /// The hypervisor's command line.
    pub fn command_line(&'static self) -> &'static str {
        self.info.command_line_tag().and_then(|tag| tag.cmdline().ok()).unwrap_or("")
    }

    /// The modules in the order of the menu entry.
    pub fn modules(&'static self) -> impl Iterator<Item = Module> {
        self.info.module_tags().map(|tag| Module {
            span: Span { start: u64::from(tag.start_address()), end: u64::from(tag.end_address()) },
            string: tag.cmdline().unwrap_or(""),
        })
    }

    /// Started by EFI firmware.
    pub fn is_efi(&self) -> bool {
        self.info.efi_memory_map_tag().is_some() || self.info.efi_sdt64_tag().is_some()
    }

    /// The RAM that the firmware reports free, by the EFI memory map where there is one.
    pub fn ram(&self) -> Regions {
        let mut regions = Regions::new();
        if let Some(tag) = self.info.efi_memory_map_tag() {
            for area in tag.memory_areas().filter(|area| is_usable_efi(area.ty.0)) {
                regions.add(Span { start: area.phys_start, end: area.phys_start + area.page_count * 4096 });
            }
        } else if let Some(tag) = self.info.memory_map_tag() {
            for area in tag.memory_areas().iter().filter(|area| u32::from(area.typ()) == 1) {
                regions.add(Span { start: area.start_address(), end: area.end_address() });
            }
        }
        regions
    }

    /// The firmware's memory map as a PC's firmware tells it, in ascending order: first byte, bytes, and type (1 RAM,
    /// 2 reserved, 3 ACPI tables, 4 kept by ACPI, 5 bad).
    pub fn memory_map(&self) -> Vec<(u64, u64, u32)> {
        let mut map: Vec<(u64, u64, u32)> = Vec::new();
        if let Some(tag) = self.info.efi_memory_map_tag() {
            map.extend(tag.memory_areas().map(|area| (area.phys_start, area.page_count * 4096, e820_kind(area.ty.0))));
        } else if let Some(tag) = self.info.memory_map_tag() {
            let areas = tag.memory_areas().iter();
            map.extend(areas.map(|area| (area.start_address(), area.size(), u32::from(area.typ()))));
        }
        map.sort_unstable();
        let joins = |one: &(u64, u64, u32), next: &(u64, u64, u32)| one.2 == next.2 && one.0 + one.1 == next.0;
        map.dedup_by(|next, one| {
            let is_one = joins(one, next);
            one.1 += if is_one { next.1 } else { 0 };
            is_one
        });
        map
    }

    /// The RSDP: a copy of it, as the tags hold it. The newer one first.
    pub fn rsdp(&'static self) -> Option<Rsdp> {
        let new = self.info.rsdp_v2_tag().filter(|tag| tag.checksum_is_valid());
        let new = new.map(|tag| Rsdp { root: MachineAddr::new(tag.xsdt_address() as u64), is_xsdt: true });
        let old = self.info.rsdp_v1_tag().filter(|tag| tag.checksum_is_valid());
        let old = old.map(|tag| Rsdp { root: MachineAddr::new(tag.rsdt_address() as u64), is_xsdt: false });
        new.filter(|rsdp| rsdp.root.raw() != 0).or(old)
    }

    /// The screen.
    pub fn framebuffer(&self) -> Option<Framebuffer> {
        let tag = self.info.framebuffer_tag()?.ok()?;
        let is_text = match tag.buffer_type().ok()? {
            FramebufferType::Text => true,
            FramebufferType::RGB { .. } => false,
            FramebufferType::Indexed { .. } => return None,
        };
        Some(Framebuffer {
            address: tag.address(),
            pitch: tag.pitch(),
            width: tag.width(),
            height: tag.height(),
            bits: tag.bpp(),
            is_text,
        })
    }

    /// The ELF section headers of the image, with the addresses to which the loader put the sections.
    pub fn sections(&self) -> Option<&multiboot2::ElfSectionsTag> {
        self.info.elf_sections_tag()
    }
}

/// The ACPI root table, as the loader's tags name it.
#[derive(Clone, Copy, Debug)]
pub struct Rsdp {
    /// Physical address of the RSDT or XSDT.
    pub root: MachineAddr,
    /// Whether `root` is an XSDT.
    pub is_xsdt: bool,
}

/// A PC's type of memory for one of UEFI's (UEFI 2.10 table 7.10).
fn e820_kind(kind: u32) -> u32 {
    match kind {
        _ if is_usable_efi(kind) => 1,
        8 => 5,
        9 => 3,
        10 => 4,
        _ => 2,
    }
}

/// Memory that is ours once boot services have ended: loader code and data, boot-services code and data,
/// conventional memory (UEFI 2.10 table 7.10).
fn is_usable_efi(kind: u32) -> bool {
    matches!(kind, 1..=4 | 7)
}
