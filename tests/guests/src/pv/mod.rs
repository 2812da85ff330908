//! The paravirtual guest: ring 3, its own page tables, a hypervisor that does what ring 0 would.
//!
//! The image is linked so that virtual addresses are pseudo-physical ones, as in the PVH guest: pages are where
//! they are, and only the frames of page-table entries are machine frames.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{console, cpu, events, hypercall, interrupts, mem, start};

pub mod mmu;
pub mod smp;
pub mod traps;
pub mod user;

core::arch::global_asm!(include_str!("entry.S"), options(att_syntax));

/// `struct start_info`, as the domain builder leaves it.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of xen.h")]
pub struct StartInfo {
    pub magic: [u8; 32],
    pub nr_pages: u64,
    pub shared_info: u64,
    pub flags: u32,
    pub pad0: u32,
    pub store_mfn: u64,
    pub store_evtchn: u32,
    pub pad1: u32,
    pub console_mfn: u64,
    pub console_evtchn: u32,
    pub pad2: u32,
    pub pt_base: u64,
    pub nr_pt_frames: u64,
    pub mfn_list: u64,
    pub mod_start: u64,
    pub mod_len: u64,
    pub cmd_line: [u8; 1024],
    pub first_p2m_pfn: u64,
    pub nr_p2m_frames: u64,
}

/// Offset of the command line in the start info.
const CMD_LINE: u64 = core::mem::offset_of!(StartInfo, cmd_line) as u64;
const _: () = assert!(CMD_LINE == 128 && size_of::<StartInfo>() == 1168);

static IS_PV: AtomicBool = AtomicBool::new(false);
static IS_INITIAL: AtomicBool = AtomicBool::new(false);
static MFN_LIST: AtomicU64 = AtomicU64::new(0);
static NR_PAGES: AtomicU64 = AtomicU64::new(0);

/// The guest was entered by its PV entry.
pub fn is_pv() -> bool {
    IS_PV.load(Relaxed)
}

/// The guest is the initial domain, whose console is `console_io`.
pub fn is_initial() -> bool {
    IS_INITIAL.load(Relaxed)
}

/// Pages of the domain at its start.
pub fn nr_pages() -> u64 {
    NR_PAGES.load(Relaxed)
}

/// The machine frame of a pseudo-physical one, by the list of the builder.
pub fn p2m(pfn: u64) -> u64 {
    mem::peek64(MFN_LIST.load(Relaxed) + pfn * 8)
}

/// Notes that a pseudo-physical frame has another machine frame now.
pub fn set_p2m(pfn: u64, mfn: u64) {
    mem::poke64(MFN_LIST.load(Relaxed) + pfn * 8, mfn);
}

/// The address of a machine frame's entry in the machine-to-physical table.
pub fn m2p_entry(mfn: u64) -> u64 {
    0xffff_8000_0000_0000 + mfn * 8
}

/// The pseudo-physical frame of a machine frame, by the hypervisor's table.
pub fn m2p(mfn: u64) -> u64 {
    mem::peek64(m2p_entry(mfn))
}

static SHARED: mem::Page = mem::Page::new();
static MASKED_AT_START: AtomicBool = AtomicBool::new(false);

/// Events were masked when the guest began.
pub fn masked_at_start() -> bool {
    MASKED_AT_START.load(Relaxed)
}

unsafe extern "Rust" {
    /// The binary's entry, called once on the first virtual CPU.
    fn guest_main(boot: &start::Boot);
}

#[unsafe(no_mangle)]
extern "C" fn pv_guest_entry(start_info: u64) -> ! {
    IS_PV.store(true, Relaxed);
    let info: StartInfo = mem::read(start_info);
    MFN_LIST.store(info.mfn_list, Relaxed);
    NR_PAGES.store(info.nr_pages, Relaxed);
    IS_INITIAL.store(info.flags & abi::xen::SIF_INITDOMAIN != 0, Relaxed);
    let mapped = mmu::update_va(SHARED.addr(), info.shared_info | mmu::KERNEL, mmu::UVMF_INVLPG);
    events::set_shared_info(SHARED.addr());
    mmu::set_top(p2m(info.pt_base >> 12));
    MASKED_AT_START.store(mem::peek8(SHARED.addr() + 1) == 1, Relaxed);
    cpu::cli();
    let trapped = traps::init();
    interrupts::init();
    hypercall::init();
    let boot = start::Boot::of_pv(start_info, info, mem::text(start_info + CMD_LINE, 1024));
    console::init(&boot);
    if mapped != hypercall::Ret(0) || trapped != hypercall::Ret(0) {
        crate::println!("FAIL the start succeeds: shared page {mapped}, callbacks {trapped}");
    }
    // SAFETY: the binary that links this crate defines it with this signature.
    unsafe { guest_main(&boot) };
    crate::check::done()
}
