//! Page tables of a PV guest: every call that changes them, and stores that the hypervisor emulates.

use core::arch::asm;

use abi::xen::*;
use abi::{Errno, nr};
use guest::check::{equal, fails, zero};
use guest::hypercall::{self, Ret};
use guest::interrupts::Fault;
use guest::mem::{self, Page};
use guest::pv;
use guest::pv::mmu::{self, AVAILABLE, KERNEL, PRESENT, TABLE, USER, WRITABLE};
use guest::start::Boot;
use guest::{attempt, check, println};

static DATA: [Page; 2] = [const { Page::new() }; 2];
static L1: Page = Page::new();
static L2: Page = Page::new();
static L3: Page = Page::new();
static L4: Page = Page::new();
static OTHER: Page = Page::new();
static DESCRIPTORS: Page = Page::new();

/// Where the tables of this file map their page; the image maps nothing there.
const VA: u64 = 0x12_3456_7000;

fn mfn(page: &Page) -> u64 {
    pv::p2m(page.addr() >> 12)
}

fn frame(page: &Page) -> u64 {
    mfn(page) << 12
}

/// Runs the test.
pub fn run(_boot: &Boot) {
    for (page, value) in DATA.iter().zip([0x1111u64, 0x2222]) {
        mem::poke64(page.addr(), value);
    }
    update_va();
    normal();
    pins();
    upper_levels();
    kinds();
    lists();
    emulated();
    flushes();
    pages();
    base_pointers();
    descriptors();
    local_descriptors();
}

fn update_va() {
    let va = DATA[0].addr();
    for (flags, name) in [
        (0, "UVMF_NONE"),
        (mmu::UVMF_TLB_FLUSH, "UVMF_TLB_FLUSH"),
        (mmu::UVMF_INVLPG, "UVMF_INVLPG"),
        (mmu::UVMF_TLB_FLUSH | mmu::UVMF_ALL, "UVMF_TLB_FLUSH of all"),
        (mmu::UVMF_INVLPG | mmu::UVMF_ALL, "UVMF_INVLPG of all"),
    ] {
        zero(mmu::update_va(va, mmu::own(&DATA[0], KERNEL | AVAILABLE), flags), name);
        check!(mmu::l1_value(va) & AVAILABLE != 0, "update_va_mapping with {} writes the entry", name);
        zero(mmu::update_va(va, mmu::own(&DATA[0], KERNEL), flags), name);
        equal(mem::peek64(va), 0x1111, "the page is still there");
    }
    let mask = 1u64;
    let multi = mem::addr_of(&mask) & !7;
    zero(
        mmu::update_va(va, frame(&DATA[1]) | KERNEL, mmu::UVMF_INVLPG | multi),
        "update_va_mapping with a CPU bitmap succeeds",
    );
    equal(mem::peek64(va), 0x2222, "the address shows another page at once");
    zero(mmu::update_va(va, mmu::own(&DATA[0], KERNEL), mmu::UVMF_INVLPG), "and back");
    zero(mmu::update_va(va, 0, mmu::UVMF_INVLPG), "a page can be unmapped");
    // SAFETY: the fault is caught.
    let read = unsafe { attempt!("mov {0}, [{0}]", inout(reg) va => _) };
    check!(read == Some(Fault { vector: 14, error: 0 }), "a read of it is #PF(0) then"; "{:?}", read);
    zero(mmu::update_va(va, mmu::own(&DATA[0], KERNEL), 0), "and mapped again");
    equal(mem::peek64(va), 0x1111, "without a flush");
    let ret = mmu::update_va(0x7000_0000_0000, frame(&DATA[0]) | KERNEL, 0);
    fails(ret, Errno::EINVAL, "update_va_mapping without a page table is EINVAL");
    for hole in [0xffff_8000_0000_0000, 0xffff_82d0_4020_0000, 0x8000_0000_0000] {
        fails(
            mmu::update_va(hole, frame(&DATA[0]) | KERNEL, 0),
            Errno::EINVAL,
            "in the hypervisor or nowhere it is EINVAL",
        );
    }
    let faulty = mmu::update_va(va, mmu::own(&DATA[0], KERNEL), mmu::UVMF_INVLPG | 0xffff_8300_0000_0000);
    fails(faulty, Errno::EFAULT, "with a bitmap in the hypervisor it is EFAULT");
}

/// What an entry looks like when it is read back.
fn normal() {
    let kernel = mmu::l1_value(DATA[0].addr());
    check!(kernel & (PRESENT | WRITABLE | USER) == PRESENT | WRITABLE | USER, "a kernel page has the user bit"; "{:#x}", kernel);
    check!(kernel >> 52 & 1 == 1, "and software's bit 52"; "{:#x}", kernel);
    zero(mmu::update_va(DATA[0].addr(), mmu::own(&DATA[0], KERNEL | USER), mmu::UVMF_INVLPG), "a page can be a user's");
    let user = mmu::l1_value(DATA[0].addr());
    check!(user & USER != 0 && user >> 52 & 1 == 0, "it has the user bit alone"; "{:#x}", user);
    zero(mmu::update_va(DATA[0].addr(), mmu::own(&DATA[0], KERNEL), mmu::UVMF_INVLPG), "and the kernel's again");
    let with = |bit: u32| mmu::update_va(DATA[0].addr(), mmu::own(&DATA[0], KERNEL) | 1 << bit, mmu::UVMF_INVLPG);
    check!(with(49).errno().is_some(), "an entry of no frame is refused"; "{}", with(49));
    for (bit, name) in [(3, "PWT"), (4, "PCD"), (7, "PAT")] {
        let wanted = if pv::is_initial() { Ret(0) } else { Ret::err(Errno::EINVAL) };
        let ret = with(bit);
        check!(ret == wanted, "an entry with the {} bit is for domains with devices, of RAM too", name; "{}", ret);
    }
    zero(with(62), "one with software's bit 62 is made");
    check!(mmu::l1_value(DATA[0].addr()) >> 62 & 1 == 1, "which is kept");
    zero(mmu::update_va(DATA[0].addr(), mmu::own(&DATA[0], KERNEL), mmu::UVMF_INVLPG), "the entry can be put right");
}

fn build() {
    for page in [&L1, &L2, &L3, &L4] {
        mmu::wipe(page);
    }
    mem::poke64(L1.addr() + mmu::index(VA, 1) * 8, frame(&DATA[0]) | KERNEL);
    mem::poke64(L2.addr() + mmu::index(VA, 2) * 8, frame(&L1) | TABLE);
    mem::poke64(L3.addr() + mmu::index(VA, 3) * 8, frame(&L2) | TABLE);
    mem::poke64(L4.addr() + mmu::index(VA, 4) * 8, frame(&L3) | TABLE);
}

fn pins() {
    build();
    fails(mmu::pin(1, mfn(&L1)), Errno::EINVAL, "a page that is mapped writable cannot be pinned");
    for (level, page) in [(1, &L1), (2, &L2), (3, &L3), (4, &L4)] {
        zero(mmu::protect(page), "a table to be is made read-only");
        zero(mmu::pin(level, mfn(page)), "it can be pinned");
        fails(mmu::pin(level, mfn(page)), Errno::EINVAL, "but not twice");
        let ret = mmu::unprotect(page);
        fails(ret, Errno::EBUSY, "it cannot be made writable");
        let wrong = mmu::pin(level % 4 + 1, mfn(page));
        fails(wrong, Errno::EINVAL, "nor pinned as another level");
    }
    for page in [&L4, &L3, &L2, &L1] {
        zero(mmu::unpin(mfn(page)), "it can be unpinned");
        fails(mmu::unpin(mfn(page)), Errno::EINVAL, "but not twice");
        zero(mmu::unprotect(page), "then it can be made writable");
    }
    // Pinned from the top: all below are validated by the one call.
    for page in [&L1, &L2, &L3, &L4] {
        zero(mmu::protect(page), "a table to be is made read-only");
    }
    zero(mmu::pin(4, mfn(&L4)), "a whole tree can be pinned");
    fails(mmu::unprotect(&L1), Errno::EBUSY, "its lowest table is no ordinary page then");
    fails(mmu::unpin(mfn(&L1)), Errno::EINVAL, "which was not pinned itself");
    zero(mmu::unpin(mfn(&L4)), "the tree can be unpinned");
    for page in [&L1, &L2, &L3, &L4] {
        zero(mmu::unprotect(page), "and all its pages are ordinary ones");
    }
    fails(mmu::pin(1, 1 << 40), Errno::EINVAL, "what is no frame cannot be pinned");
    fails(mmu::unpin(1 << 40), Errno::EINVAL, "nor unpinned");
}

/// Links the tables below the kernel's own, level by level.
fn upper_levels() {
    build();
    for page in [&L1, &L2, &L3] {
        zero(mmu::protect(page), "a table to be is made read-only");
    }
    let Some((l4_entry, old)) = mmu::entry(VA, 4) else { return check!(false, "the top table can be read") };
    println!("upper: entry {:#x} {:#x}", l4_entry, old);
    let Some((l3_entry, _)) = mmu::entry(VA, 3) else { return check!(false, "the image's third level can be read") };
    zero(mmu::update(l3_entry, frame(&L2) | TABLE), "mmu_update links a second-level table");
    equal(mem::peek64(VA), 0x1111, "its page is mapped");
    let l1_entry = mmu::l1_entry(VA);
    zero(mmu::update(l1_entry, frame(&DATA[1]) | KERNEL), "mmu_update writes its first-level entry");
    zero(mmu::ext(MMUEXT_INVLPG_LOCAL, VA, 0), "MMUEXT_INVLPG_LOCAL succeeds");
    equal(mem::peek64(VA), 0x2222, "its page is another one");
    zero(mmu::update(frame(&L2) + mmu::index(VA, 2) * 8, 0), "mmu_update takes a second-level entry out");
    zero(mmu::ext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0), "MMUEXT_TLB_FLUSH_LOCAL succeeds");
    // SAFETY: the fault is caught.
    let read = unsafe { attempt!("mov {0}, [{0}]", inout(reg) VA => _) };
    check!(read == Some(Fault { vector: 14, error: 0 }), "nothing is mapped then"; "{:?}", read);
    zero(mmu::unprotect(&L1), "its first-level table is an ordinary page");
    let large = mmu::update(frame(&L2) + mmu::index(VA, 2) * 8, frame(&DATA[0]) & !0x1f_ffff | KERNEL | mmu::LARGE);
    fails(large, Errno::EINVAL, "a large page is refused");
    let one = mmu::update(frame(&L2), frame(&DATA[0]) | TABLE);
    fails(one, Errno::EINVAL, "a page that is mapped writable is no table");
    let wrong = mmu::update(frame(&L2), frame(&L3) | TABLE);
    check!(wrong.errno().is_some(), "a table that would map a table writable is refused"; "{}", wrong);
    mmu::wipe(&OTHER);
    zero(mmu::protect(&OTHER), "an empty page is made read-only");
    zero(mmu::update(frame(&L2), frame(&OTHER) | TABLE), "it is a table of any level");
    let loops = mmu::update(frame(&L2) | 8, frame(&L2) | TABLE);
    fails(loops, Errno::EINVAL, "a table is none in itself");
    zero(mmu::update(frame(&L2) | 8, 0), "the entry can be cleared");
    zero(mmu::update(frame(&L2), 0), "and the other");
    zero(mmu::unprotect(&OTHER), "the empty page is an ordinary one");
    zero(mmu::update(l3_entry, 0), "mmu_update takes the third-level entry out");
    for page in [&L2, &L3] {
        zero(mmu::unprotect(page), "and its table is an ordinary page");
    }
}

/// The kinds of `mmu_update` beside the first.
fn kinds() {
    let va = DATA[0].addr();
    let entry = mmu::l1_entry(va);
    zero(mmu::update(entry, mmu::own(&DATA[0], PRESENT | WRITABLE)), "an entry can lose its accessed and dirty bits");
    zero(mmu::ext(MMUEXT_INVLPG_LOCAL, va, 0), "its translation is flushed");
    mem::poke64(va, 0x1111);
    check!(mmu::l1_value(va) & 0x60 == 0x60, "a store sets them"; "{:#x}", mmu::l1_value(va));
    zero(
        mmu::update(entry | 2, mmu::own(&DATA[0], PRESENT | WRITABLE | AVAILABLE)),
        "MMU_PT_UPDATE_PRESERVE_AD succeeds",
    );
    check!(mmu::l1_value(va) & (0x60 | AVAILABLE) == 0x60 | AVAILABLE, "it keeps them"; "{:#x}", mmu::l1_value(va));
    zero(mmu::update(entry | 3, mmu::own(&DATA[0], KERNEL)), "MMU_PT_UPDATE_NO_TRANSLATE succeeds");
    check!(mmu::l1_value(va) & AVAILABLE == 0, "it writes the entry");
    let (pfn, frame_number) = (DATA[0].addr() >> 12, mfn(&DATA[0]));
    zero(mmu::update(frame_number << 12 | 1, 0x4321), "MMU_MACHPHYS_UPDATE succeeds");
    equal(pv::m2p(frame_number), 0x4321, "the machine-to-physical table shows it");
    zero(mmu::update(frame_number << 12 | 1, pfn), "and back");
    equal(pv::m2p(frame_number), pfn, "as before");
    fails(mmu::update(1 << 45 | 1, 5), Errno::EINVAL, "MMU_MACHPHYS_UPDATE of no frame is EINVAL");
    zero(mmu::update(frame(&DATA[1]) | 64, 0x7777), "mmu_update of an ordinary page is a store");
    equal(mem::peek64(DATA[1].addr() + 64), 0x7777, "which the page shows");
    fails(mmu::update(1 << 45, 5), Errno::EINVAL, "mmu_update of no frame is EINVAL");
    let unaligned = mmu::update(entry | 4, mmu::own(&DATA[0], KERNEL));
    fails(unaligned, Errno::ENOSYS, "mmu_update of an unknown kind is ENOSYS");
}

fn lists() {
    let entry = mmu::l1_entry(DATA[0].addr());
    let good = MmuUpdate { ptr: entry, val: mmu::own(&DATA[0], KERNEL) };
    let list = [good, good, MmuUpdate { ptr: 1 << 45, val: 0 }, good];
    let mut done = 0xffff_ffffu32;
    let call = |count: u64, done: u64| {
        hypercall::call(nr::MMU_UPDATE, [list.as_ptr() as u64, count, done, DOMID_SELF.into(), 0])
    };
    zero(call(2, mem::addr_of_mut(&mut done)), "a list of two updates succeeds");
    equal(u64::from(core::hint::black_box(done)), 2, "both are counted");
    fails(call(4, mem::addr_of_mut(&mut done)), Errno::EINVAL, "a list with a bad one fails");
    equal(u64::from(core::hint::black_box(done)), 2, "the good ones before it are counted");
    zero(call(0, mem::addr_of_mut(&mut done)), "an empty list succeeds");
    equal(u64::from(core::hint::black_box(done)), 0, "with none");
    let flush = MmuextOp { cmd: MMUEXT_TLB_FLUSH_LOCAL, pad: 0, arg1: 0, arg2: 0 };
    let ops = [flush, flush, MmuextOp { cmd: 99, ..flush }];
    let call = |count: u64, done: u64| {
        hypercall::call(nr::MMUEXT_OP, [ops.as_ptr() as u64, count, done, DOMID_SELF.into(), 0])
    };
    zero(call(2, mem::addr_of_mut(&mut done)), "a list of two operations succeeds");
    equal(u64::from(core::hint::black_box(done)), 2, "both are counted");
    fails(call(3, mem::addr_of_mut(&mut done)), Errno::ENOSYS, "an unknown operation is ENOSYS");
    equal(u64::from(core::hint::black_box(done)), 2, "behind the good ones");
    zero(call(2, 0xffff_8300_0000_0000), "a count in the hypervisor is not written, and nothing else fails");
    let foreign = mmu::update_foreign(entry, mmu::own(&DATA[0], KERNEL), 0x7000);
    fails(foreign, Errno::ESRCH, "an update in the name of no domain is ESRCH");
}

/// Stores to first-level tables, which the hypervisor makes after a look at them.
fn emulated() {
    let va = DATA[0].addr();
    let slot = mmu::table_va(mmu::l1_entry(va) >> 12) + mmu::index(va, 1) * 8;
    let entry = |flags: u64| mmu::own(&DATA[0], flags);
    // SAFETY: the fault is caught.
    let early = unsafe { attempt!("mov [{0}], {1}", in(reg) slot, in(reg) entry(KERNEL)) };
    // Xen's initial domain need not ask.
    let asked = pv::is_initial() && early.is_none();
    check!(asked || early == Some(Fault { vector: 14, error: 3 }), "a store to a table is #PF(3) at first"; "{:?}", early);
    zero(
        hypercall::call(nr::VM_ASSIST, [0, VMASST_TYPE_WRITABLE_PAGETABLES.into(), 0, 0, 0]),
        "writable page tables can be asked for",
    );
    mem::poke64(slot, entry(KERNEL | AVAILABLE));
    check!(mmu::l1_value(va) & AVAILABLE != 0, "a plain store to a table is made"; "{:#x}", mmu::l1_value(va));
    let mut value = entry(KERNEL);
    // SAFETY: the entry stays one that maps the page.
    unsafe { asm!("xchg [{0}], {1}", in(reg) slot, inout(reg) value) };
    check!(value & AVAILABLE != 0 && mmu::l1_value(va) & AVAILABLE == 0, "so is XCHG"; "{:#x}", value);
    let (mut seen, is_equal): (u64, u8);
    // SAFETY: as above.
    unsafe {
        asm!("lock cmpxchg [{0}], {1}", "sete {2}", in(reg) slot, in(reg) entry(KERNEL | AVAILABLE), out(reg_byte) is_equal,
            inout("rax") mmu::l1_value(va) => seen);
    }
    check!(is_equal == 1 && mmu::l1_value(va) & AVAILABLE != 0, "so is CMPXCHG that finds what it wants"; "{:#x}", seen);
    // SAFETY: as above.
    unsafe {
        asm!("lock cmpxchg [{0}], {1}", "sete {2}", in(reg) slot, in(reg) entry(KERNEL), out(reg_byte) _, inout("rax") 5u64 => seen);
    }
    check!(seen & AVAILABLE != 0 && mmu::l1_value(va) & AVAILABLE != 0, "and CMPXCHG that does not"; "{:#x}", seen);
    // SAFETY: as above.
    unsafe { asm!("lock and qword ptr [{0}], {1}", in(reg) slot, in(reg) !AVAILABLE) };
    check!(mmu::l1_value(va) & AVAILABLE == 0, "LOCK AND clears a bit"; "{:#x}", mmu::l1_value(va));
    // SAFETY: as above.
    unsafe { asm!("lock bts qword ptr [{0}], 9", in(reg) slot) };
    check!(mmu::l1_value(va) & AVAILABLE != 0, "LOCK BTS sets one"; "{:#x}", mmu::l1_value(va));
    mem::poke64(slot, 0);
    // SAFETY: the fault is caught.
    let read = unsafe { attempt!("mov {0}, [{0}]", inout(reg) va => _) };
    check!(read == Some(Fault { vector: 14, error: 0 }), "an entry that a store cleared maps nothing"; "{:?}", read);
    mem::poke64(slot, entry(KERNEL));
    equal(mem::peek64(va), 0x1111, "the page is there again");
    for (bad, name) in
        [(1 << 45 | KERNEL, "of no frame"), (mmu::l1_entry(va) & mmu::FRAME | KERNEL, "of a page table, writable")]
    {
        // SAFETY: the fault is caught.
        let fault = unsafe { attempt!("mov [{0}], {1}", in(reg) slot, in(reg) bad) };
        check!(fault.is_some_and(|fault| fault.vector == 14), "a store of an entry {} is #PF", name; "{:?}", fault);
    }
    let l2_slot = mmu::entry(va, 2).map_or(0, |(address, _)| mmu::table_va(address >> 12) + (address & 0xff8));
    // SAFETY: the fault is caught.
    let upper = unsafe { attempt!("mov [{0}], {1}", in(reg) l2_slot, in(reg) 0u64) };
    check!(upper == Some(Fault { vector: 14, error: 3 }), "a store to a second-level table is #PF(3)"; "{:?}", upper);
    // SAFETY: the fault is caught; the entry keeps its low half if the store is made.
    let half = unsafe { attempt!("mov dword ptr [{0}], {1:e}", in(reg) slot, in(reg) mmu::l1_value(va)) };
    check!(half.is_none(), "a store of half an entry is made as well"; "{:?}", half);
}

fn flushes() {
    let mask = [1u64];
    for (cmd, arg1, arg2, name) in [
        (MMUEXT_TLB_FLUSH_LOCAL, 0, 0, "TLB_FLUSH_LOCAL"),
        (MMUEXT_TLB_FLUSH_ALL, 0, 0, "TLB_FLUSH_ALL"),
        (MMUEXT_TLB_FLUSH_MULTI, 0, mem::addr_of(&mask), "TLB_FLUSH_MULTI"),
        (MMUEXT_INVLPG_LOCAL, VA, 0, "INVLPG_LOCAL"),
        (MMUEXT_INVLPG_ALL, VA, 0, "INVLPG_ALL"),
        (MMUEXT_INVLPG_MULTI, VA, mem::addr_of(&mask), "INVLPG_MULTI"),
        (MMUEXT_INVLPG_LOCAL, 0x8000_0000_0000_0000, 0, "INVLPG_LOCAL of no address"),
        (MMUEXT_INVLPG_ALL, 0xffff_8300_0000_0000, 0, "INVLPG_ALL in the hypervisor"),
    ] {
        zero(mmu::ext(cmd, arg1, arg2), name);
    }
    for (cmd, name) in [(MMUEXT_TLB_FLUSH_MULTI, "TLB_FLUSH_MULTI"), (MMUEXT_INVLPG_MULTI, "INVLPG_MULTI")] {
        fails(mmu::ext(cmd, VA, 0xffff_8300_0000_0000), Errno::EINVAL, name);
    }
    for (cmd, name, errno) in [
        (MMUEXT_FLUSH_CACHE, "FLUSH_CACHE", Errno::EACCES),
        (MMUEXT_FLUSH_CACHE_GLOBAL, "FLUSH_CACHE_GLOBAL", Errno::EINVAL),
    ] {
        let wanted = if pv::is_initial() { Ret(0) } else { Ret::err(errno) };
        let ret = mmu::ext(cmd, 0, 0);
        check!(ret == wanted, "{} is for domains with devices", name; "{}", ret);
    }
    fails(mmu::ext(MMUEXT_MARK_SUPER, mfn(&DATA[0]), 0), Errno::EOPNOTSUPP, "MARK_SUPER is EOPNOTSUPP");
    fails(mmu::ext(MMUEXT_UNMARK_SUPER, mfn(&DATA[0]), 0), Errno::EOPNOTSUPP, "so is UNMARK_SUPER");
    fails(mmu::ext(14, 0, 0), Errno::ENOSYS, "operation 14 is ENOSYS");
}

fn pages() {
    mem::poke64(OTHER.addr() + 8, 0x5555);
    zero(mmu::ext(MMUEXT_COPY_PAGE, mfn(&DATA[1]), mfn(&OTHER)), "COPY_PAGE succeeds");
    equal(mem::peek64(DATA[1].addr() + 8), 0x5555, "the page is a copy");
    zero(mmu::ext(MMUEXT_CLEAR_PAGE, mfn(&DATA[1]), 0), "CLEAR_PAGE succeeds");
    equal(mem::peek64(DATA[1].addr() + 8), 0, "the page is clear");
    mem::poke64(DATA[1].addr(), 0x2222);
    let table = mmu::top();
    fails(mmu::ext(MMUEXT_CLEAR_PAGE, table, 0), Errno::EINVAL, "a page table cannot be cleared");
    fails(mmu::ext(MMUEXT_COPY_PAGE, table, mfn(&OTHER)), Errno::EINVAL, "nor copied over");
    fails(mmu::ext(MMUEXT_CLEAR_PAGE, 1 << 40, 0), Errno::EINVAL, "nor what is no frame");
    zero(mmu::ext(MMUEXT_COPY_PAGE, mfn(&OTHER), table), "a page table can be read by COPY_PAGE");
    fails(mmu::ext(MMUEXT_COPY_PAGE, mfn(&OTHER), 1 << 40), Errno::EINVAL, "what is no frame cannot");
}

/// A second top table with the guest's entries of the first.
fn base_pointers() {
    let first = mmu::top();
    for i in (0..256).chain(272..512) {
        mem::poke64(L4.addr() + i * 8, mem::peek64(mmu::table_va(first) + i * 8));
    }
    for i in 256..272 {
        mem::poke64(L4.addr() + i * 8, 0);
    }
    zero(mmu::protect(&L4), "a top table to be is made read-only");
    zero(mmu::ext(MMUEXT_NEW_BASEPTR, mfn(&L4), 0), "NEW_BASEPTR takes it");
    equal(mem::peek64(DATA[0].addr()), 0x1111, "all is where it was");
    equal(guest::cpu::cr3() & !0xfff, frame(&L4), "CR3 reads as the new table");
    fails(mmu::unprotect(&L4), Errno::EBUSY, "it is a page table while it is loaded");
    zero(mmu::ext(MMUEXT_NEW_BASEPTR, first, 0), "NEW_BASEPTR goes back");
    zero(mmu::unprotect(&L4), "the table is an ordinary page then");
    fails(mmu::ext(MMUEXT_NEW_BASEPTR, mfn(&DATA[0]), 0), Errno::EINVAL, "NEW_BASEPTR of a writable page is refused");
    fails(mmu::ext(MMUEXT_NEW_BASEPTR, 1 << 40, 0), Errno::EINVAL, "of no frame as well");
    zero(mmu::ext(MMUEXT_NEW_USER_BASEPTR, 0, 0), "a user's top table can be none");
    fails(mmu::ext(MMUEXT_NEW_USER_BASEPTR, 1 << 40, 0), Errno::EINVAL, "but not what is no frame");
    fails(mmu::ext(MMUEXT_NEW_USER_BASEPTR, mfn(&DATA[0]), 0), Errno::EINVAL, "nor a writable page");
}

/// A flat 64-bit data segment of DPL 3 with a base.
fn data_segment(base: u64) -> u64 {
    0x00cf_f300_0000_ffff | (base & 0xff_ffff) << 16 | (base >> 24 & 0xff) << 56
}

fn limit_of(selector: u64) -> Option<u64> {
    let (limit, ok): (u64, u8);
    // SAFETY: LSL reads a descriptor.
    unsafe { asm!("lsl {0}, {1}", "setz {2}", out(reg) limit, in(reg) selector, out(reg_byte) ok, options(nomem)) };
    (ok == 1).then_some(limit)
}

fn through_fs(selector: u64) -> (Option<Fault>, u64) {
    let mut value = 0u64;
    // SAFETY: the fault is caught; nobody else uses FS.
    let fault = unsafe { attempt!("mov fs, {0:x}", in(reg) selector) };
    if fault.is_none() {
        // SAFETY: the segment's base is a page of ours.
        unsafe { asm!("mov {0}, fs:[0]", "mov fs, {1:x}", inout(reg) value, in(reg) 0u64) };
    }
    (fault, value)
}

fn descriptors() {
    mem::poke64(DESCRIPTORS.addr(), 0);
    mem::poke64(DESCRIPTORS.addr() + 8, data_segment(DATA[0].addr()));
    let frames = [mfn(&DESCRIPTORS)];
    let set = |frames: &[u64], entries: u64| hypercall::call(nr::SET_GDT, [frames.as_ptr() as u64, entries, 0, 0, 0]);
    fails(set(&frames, 16), Errno::EINVAL, "a descriptor table that is mapped writable is refused");
    zero(mmu::protect(&DESCRIPTORS), "it is made read-only");
    zero(set(&frames, 16), "set_gdt succeeds");
    let (fault, value) = through_fs(8 | 3);
    check!(fault.is_none() && value == 0x1111, "its segment can be loaded and used"; "{:?} {:#x}", fault, value);
    check!(limit_of(8 | 3).is_some(), "LSL knows it");
    check!(limit_of(0xe02b).is_some(), "the flat segments are still there");
    fails(mmu::unprotect(&DESCRIPTORS), Errno::EBUSY, "the table cannot be made writable");
    let descriptor = frame(&DESCRIPTORS) + 16;
    let update = |address: u64, value: u64| hypercall::call(nr::UPDATE_DESCRIPTOR, [address, value, 0, 0, 0]);
    zero(update(descriptor, data_segment(DATA[1].addr())), "update_descriptor succeeds");
    let (fault, value) = through_fs(16 | 3);
    check!(fault.is_none() && value == 0x2222, "the new segment can be used"; "{:?} {:#x}", fault, value);
    for (bad, name) in [
        (0x00cf_9300_0000_ffff, "a segment of DPL 0"),
        (0x0000_8900_0000_0067, "a TSS"),
        (0x0000_ec00_0033_0000, "a call gate"),
        (0x00af_db00_0000_ffff & !(3 << 45), "a code segment of DPL 0"),
    ] {
        let ret = update(descriptor, bad);
        let seen = mem::peek64(DESCRIPTORS.addr() + 16);
        // A segment gets DPL 3, a gate DPL 0, where no user reaches it; or the call is refused.
        let (is_segment, dpl) = (seen >> 44 & 1 == 1, seen >> 45 & 3);
        let harmless = seen >> 47 & 1 == 0 || dpl == if is_segment { 3 } else { 0 };
        check!(harmless, "{} gives no privilege", name; "{} {:#x}", ret, seen);
    }
    fails(update(1 << 45, 0), Errno::EINVAL, "update_descriptor of no frame is EINVAL");
    fails(update(descriptor + 4, 0), Errno::EINVAL, "of half a descriptor as well");
    fails(set(&frames, 7169), Errno::EINVAL, "set_gdt of too many entries is EINVAL");
    fails(set(&[1 << 40], 16), Errno::EINVAL, "set_gdt of no frame is EINVAL");
    zero(set(&[], 0), "set_gdt of nothing succeeds");
    check!(through_fs(8 | 3).0.is_some_and(|fault| fault.vector == 13), "then the segment is gone");
    zero(mmu::unprotect(&DESCRIPTORS), "the table is an ordinary page again");
}

fn local_descriptors() {
    mmu::wipe(&DESCRIPTORS);
    mem::poke64(DESCRIPTORS.addr() + 8, data_segment(DATA[0].addr()));
    zero(mmu::protect(&DESCRIPTORS), "a local descriptor table to be is made read-only");
    zero(mmu::ext(MMUEXT_SET_LDT, DESCRIPTORS.addr(), 512), "SET_LDT succeeds");
    let (fault, value) = through_fs(8 | 4 | 3);
    check!(fault.is_none() && value == 0x1111, "its segment can be loaded and used"; "{:?} {:#x}", fault, value);
    fails(mmu::ext(MMUEXT_SET_LDT, DESCRIPTORS.addr() + 8, 512), Errno::EINVAL, "SET_LDT off a page's start is EINVAL");
    fails(mmu::ext(MMUEXT_SET_LDT, DESCRIPTORS.addr(), 8193), Errno::EINVAL, "SET_LDT of too many entries is EINVAL");
    fails(mmu::ext(MMUEXT_SET_LDT, 0xffff_8300_0000_0000, 512), Errno::EINVAL, "SET_LDT in the hypervisor is EINVAL");
    zero(mmu::ext(MMUEXT_SET_LDT, 0, 0), "SET_LDT of nothing succeeds");
    let gone = through_fs(8 | 4 | 3).0;
    check!(gone == Some(Fault { vector: 13, error: 12 }), "then the segment is gone"; "{:?}", gone);
    let ret = mmu::unprotect(&DESCRIPTORS);
    zero(ret, "the table is an ordinary page again");
    // One whose page is writable is set, and refused when it is used.
    zero(mmu::ext(MMUEXT_SET_LDT, DESCRIPTORS.addr(), 512), "SET_LDT of a writable page succeeds");
    let seen = through_fs(8 | 4 | 3).0;
    check!(seen.is_some(), "its segment cannot be loaded"; "{:?}", seen);
    zero(mmu::ext(MMUEXT_SET_LDT, 0, 0), "SET_LDT of nothing succeeds again");
}
