//! The pages that the hypervisor fills for a PV guest's start: start info and hypercalls.

use super::{Guest, Start};
use crate::addr::{MachineAddr, Mfn, PAGE_SIZE};
use crate::evtchn::EvtchnPort;
use abi::pv_start::{MAX_GUEST_CMDLINE, StartInfo};
use abi::xen::{SIF_INITDOMAIN, SIF_MOD_START_PFN, SIF_PRIVILEGED};

const MAGIC: &[u8] = b"xen-3.0-x86_64";
/// What Xen's builder of the initial domain writes where the kernel's note of the PAE mode says anything.
const MAGIC_PAE: &[u8] = b"xen-3.0-x86_64p";

/// A ring that a guest shares with its other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Its page. 0 for none.
    pub mfn: Mfn,
    /// By which either end tells the other. `None` for 0.
    pub port: Option<EvtchnPort>,
}

/// What of the start info only the kernel of the hypervisor knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Where `shared_info` is.
    pub shared_info: MachineAddr,
    /// The xenstore ring.
    pub store: Ring,
    /// The console ring.
    pub console: Ring,
}

impl Start {
    /// The start info, for the page [`super::Layout::start_info`]. Of the command line comes what fits, as in Xen.
    pub fn start_info(&self, guest: &Guest<'_>, shared: &Shared) -> StartInfo {
        let layout = &self.layout;
        let ramdisk = layout.ramdisk.map(|frames| frames.first);
        let is_mapped = ramdisk.is_some_and(|first| first.raw() < layout.mapped);
        let by_pfn = ramdisk.is_some() && !is_mapped;
        let mut flags = if guest.is_initial { SIF_PRIVILEGED | SIF_INITDOMAIN } else { 0 };
        flags |= if by_pfn { SIF_MOD_START_PFN } else { 0 };
        let is_pae = guest.is_initial
            && guest.kernel.notes.pae_mode.as_deref().is_some_and(|mode| mode == "yes" || mode.contains("bimodal"));
        let apart = layout.p2m_apart.filter(|frames| frames.count > 0);
        StartInfo {
            magic: text(if is_pae { MAGIC_PAE } else { MAGIC }),
            nr_pages: layout.nr_pages,
            shared_info: shared.shared_info.raw(),
            flags,
            pad0: 0,
            store_mfn: shared.store.mfn.raw(),
            store_evtchn: shared.store.port.map_or(0, EvtchnPort::raw),
            pad1: 0,
            console_mfn: shared.console.mfn.raw(),
            console_evtchn: shared.console.port.map_or(0, EvtchnPort::raw),
            pad2: 0,
            pt_base: layout.address(layout.root()).raw(),
            nr_pt_frames: layout.page_tables.count,
            mfn_list: layout.p2m_at.raw(),
            mod_start: match ramdisk {
                None => 0,
                Some(first) if by_pfn => first.raw(),
                Some(first) => layout.address(first).raw(),
            },
            mod_len: guest.ramdisk_len.unwrap_or(0),
            cmd_line: text(guest.cmdline.as_bytes()),
            first_p2m_pfn: apart.map_or(layout.mapped, |frames| frames.first.raw()),
            nr_p2m_frames: apart.map_or(0, |frames| frames.count),
        }
    }
}

/// What fits of a text, ended and filled up with zeros.
fn text<const N: usize>(from: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    let len = from.len().min(N - 1);
    bytes[..len].copy_from_slice(&from[..len]);
    bytes
}

/// Whether the whole command line fits.
pub fn fits(cmdline: &str) -> bool {
    cmdline.len() < MAX_GUEST_CMDLINE
}

/// Bytes per hypercall.
const STUB: usize = 32;

/// A page of hypercalls: for each number code that makes the call and returns. That of `iret` is jumped to.
pub fn hypercall_page() -> [u8; PAGE_SIZE as usize] {
    // push rcx; push r11; mov eax, number; syscall; pop r11; pop rcx; ret
    const CALL: [u8; 14] = [0x51, 0x41, 0x53, 0xb8, 0, 0, 0, 0, 0x0f, 0x05, 0x41, 0x5b, 0x59, 0xc3];
    // push rcx; push r11; push rax; mov eax, number; syscall
    const IRET: [u8; 11] = [0x51, 0x41, 0x53, 0x50, 0xb8, 0, 0, 0, 0, 0x0f, 0x05];
    // What is not code is INT3.
    let mut page = [0xcc; PAGE_SIZE as usize];
    for (number, stub) in (0u32..).zip(page.chunks_exact_mut(STUB)) {
        let (code, at) = if u64::from(number) == abi::nr::IRET { (&IRET[..], 5) } else { (&CALL[..], 4) };
        stub[..code.len()].copy_from_slice(code);
        stub[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }
    page
}
