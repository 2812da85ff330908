//! Names for addresses in a backtrace, from the image's own symbol table.
//!
//! The loader keeps the sections `.symtab` and `.strtab` in RAM and tells where (Multiboot2 specification 3.6.7);
//! that memory is never given out.

use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::BootInfo;
use crate::mem::layout;
use model::addr::MachineAddr;
use model::regions::Span;

static SYMBOLS: AtomicPtr<Symbol> = AtomicPtr::new(core::ptr::null_mut());
static COUNT: AtomicUsize = AtomicUsize::new(0);
static STRINGS: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static STRINGS_LEN: AtomicUsize = AtomicUsize::new(0);

/// `Elf64_Sym` (ELF-64 object file format 1.5, section 6).
#[repr(C)]
struct Symbol {
    name: u32,
    info: u8,
    other: u8,
    section: u16,
    value: u64,
    size: u64,
}

/// Where the loader put the symbol table and its strings.
pub fn spans(info: &BootInfo) -> Option<(Span, Span)> {
    const SYMTAB: u32 = 2;
    let sections = || Some(info.sections()?.sections());
    let symbols = sections()?.find(|section| section.sh_type == SYMTAB)?;
    let strings = sections()?.nth(symbols.sh_link as usize)?;
    let [symbols, strings] =
        [symbols, strings].map(|section| Span { start: section.sh_addr, end: section.sh_addr + section.sh_size });
    Some((symbols, strings))
}

/// Remembers the tables. They are read through the direct map from now on.
///
/// # Safety
/// Both spans are RAM that holds what the loader put there, mapped by the direct map, and stays so.
pub unsafe fn keep(symbols: Span, strings: Span) {
    if !symbols.start.is_multiple_of(8) {
        return;
    }
    STRINGS.store(layout::direct(MachineAddr::new(strings.start)), Ordering::Relaxed);
    STRINGS_LEN.store(strings.len() as usize, Ordering::Relaxed);
    SYMBOLS.store(layout::direct(MachineAddr::new(symbols.start)).cast(), Ordering::Relaxed);
    COUNT.store(symbols.len() as usize / size_of::<Symbol>(), Ordering::Release);
}

/// The function that holds `address`, mangled, and how far into it the address lies.
pub fn find(address: u64) -> Option<(&'static str, u64)> {
    let count = COUNT.load(Ordering::Acquire);
    if count == 0 {
        return None;
    }
    // SAFETY: `keep` was given a table of this many entries that stays in place.
    let symbols = unsafe { core::slice::from_raw_parts(SYMBOLS.load(Ordering::Relaxed), count) };
    // SAFETY: likewise.
    let strings =
        unsafe { core::slice::from_raw_parts(STRINGS.load(Ordering::Relaxed), STRINGS_LEN.load(Ordering::Relaxed)) };
    let is_code = |symbol: &&Symbol| symbol.info & 15 == 2 || (symbol.info & 15 == 0 && symbol.section != 0);
    let best = symbols.iter().filter(is_code).filter(|symbol| symbol.value <= address).max_by_key(|s| s.value)?;
    let offset = address - best.value;
    if best.size != 0 && offset > best.size {
        return None;
    }
    let name = strings.get(best.name as usize..)?;
    let name = core::ffi::CStr::from_bytes_until_nul(name).ok()?.to_str().ok()?;
    Some((name, offset))
}
