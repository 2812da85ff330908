//! The PVH start information.

use abi::start_info::{HvmStartInfo, MemmapTableEntry, ModlistEntry};

use zerocopy::FromZeros;

use crate::{mem, pv};

/// What the guest found in EBX.
pub struct Boot {
    /// Its address.
    pub addr: u64,
    /// A copy.
    pub info: HvmStartInfo,
    /// The command line, empty if there is none.
    pub cmdline: &'static str,
    /// A PV guest's start information; `info` is all zero then.
    pub pv: Option<pv::StartInfo>,
}

impl Boot {
    /// Reads the start information.
    pub fn new(addr: u64) -> Self {
        let info: HvmStartInfo = mem::read(addr);
        let cmdline = if info.cmdline_paddr == 0 { "" } else { mem::text(info.cmdline_paddr, 1024) };
        Self { addr, info, cmdline, pv: None }
    }

    /// What a PV guest was told.
    pub fn of_pv(addr: u64, info: pv::StartInfo, cmdline: &'static str) -> Self {
        Self { addr, info: HvmStartInfo::new_zeroed(), cmdline, pv: Some(info) }
    }

    /// The value of `name=value` on the command line.
    pub fn option(&self, name: &str) -> Option<&'static str> {
        self.cmdline.split_ascii_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    /// The command line has this word.
    pub fn has(&self, name: &str) -> bool {
        self.cmdline.split_ascii_whitespace().any(|word| word == name)
    }

    /// The memory map.
    pub fn memmap(&self) -> impl Iterator<Item = MemmapTableEntry> {
        let (first, count) = (self.info.memmap_paddr, u64::from(self.info.memmap_entries));
        (0..count).map(move |i| mem::read(first + i * size_of::<MemmapTableEntry>() as u64))
    }

    /// The modules.
    pub fn modules(&self) -> impl Iterator<Item = ModlistEntry> {
        let (first, count) = (self.info.modlist_paddr, u64::from(self.info.nr_modules));
        (0..count).map(move |i| mem::read(first + i * size_of::<ModlistEntry>() as u64))
    }

    /// A 4 KiB frame below 4 GiB that is neither RAM nor anything else of the memory map, if there is one.
    ///
    /// Frames near the local APIC and the special pages of Xen are left alone.
    pub fn hole(&self) -> Option<u64> {
        let taken = |addr: u64| self.memmap().any(|e| addr < e.addr.saturating_add(e.size) && e.addr < addr + 4096);
        [0xf000_0000, 0xe000_0000, 0xc000_0000, 0xb000_0000u64].into_iter().find(|addr| !taken(*addr))
    }
}
