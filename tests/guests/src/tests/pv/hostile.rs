//! A PV guest that tries every forbidden thing: each is refused, and afterwards all is as before.

use abi::memory::*;
use abi::vcpu::*;
use abi::xen::*;
use abi::{Errno, nr};
use guest::check::{equal, fails, zero};
use guest::hypercall::{self, Ret};
use guest::mem::{self, Page};
use guest::pv::mmu::{self, KERNEL, LARGE, PRESENT, TABLE, WRITABLE};
use guest::pv::{self, traps};
use guest::start::Boot;
use guest::{check, println};
use zerocopy::FromZeros;

static VICTIM: Page = Page::new();
static TABLES: [Page; 4] = [const { Page::new() }; 4];
static DESCRIPTORS: Page = Page::new();

fn frame(page: &Page) -> u64 {
    mfn(page) << 12
}

fn mfn(page: &Page) -> u64 {
    pv::p2m(page.addr() >> 12)
}

/// Runs the test.
pub fn run(_boot: &Boot) {
    mem::poke64(VICTIM.addr(), 0x1111);
    foreign_frames();
    page_tables();
    garbage();
    upper_entries();
    many_mappings();
    descriptor_pages();
    other_domains();
    pointers();
    counts();
    alive();
}

fn refused(ret: Ret, name: &str) {
    check!(ret.errno().is_some(), "{} is refused", name; "{}", ret);
}

/// The first frame of the hypervisor's own table, which no guest may write.
fn hypervisors_frame() -> Option<u64> {
    let mut frames = [0u64; 1];
    let mut list =
        MachphysMfnList { max_extents: 1, extent_start: frames.as_mut_ptr() as u64, ..MachphysMfnList::new_zeroed() };
    let ret = hypercall::op(nr::MEMORY_OP, XENMEM_MACHPHYS_MFN_LIST, &mut list);
    (ret == Ret(0)).then(|| mem::peek64(frames.as_ptr() as u64))
}

fn is_own(frame: u64) -> bool {
    let pfn = pv::m2p(frame);
    pfn < pv::nr_pages() && pv::p2m(pfn) == frame
}

/// Frames of nobody, of the hypervisor and of other domains.
fn foreign_frames() {
    let highest = hypercall::call(nr::MEMORY_OP, [XENMEM_MAXIMUM_RAM_PAGE.into(), 0, 0, 0, 0]).0 as u64;
    let hypervisor = hypervisors_frame();
    for (flags, how) in [(KERNEL, "writable"), (PRESENT, "read-only")] {
        let Some(hypervisor) = hypervisor else { break };
        let ret = mmu::update_va(VICTIM.addr(), hypervisor << 12 | flags, mmu::UVMF_INVLPG);
        check!(ret.errno().is_some(), "a frame of the hypervisor's table cannot be mapped {}", how; "{}", ret);
    }
    // The initial domain may map what is no RAM.
    let least = if pv::is_initial() { 0x1000 } else { 0 };
    let step = (highest / 48).max(1);
    let (mut tried, mut mapped) = (0, 0);
    for frame in (least..=highest).step_by(step as usize).filter(|frame| !is_own(*frame)) {
        tried += 1;
        let ret = mmu::update_va(VICTIM.addr(), frame << 12 | KERNEL, mmu::UVMF_INVLPG);
        if ret == Ret(0) {
            mapped += 1;
            println!("note: frame {frame:#x} was mapped, place {:#x}", pv::m2p(frame));
        }
    }
    check!(tried > 0 && mapped == 0, "no frame that is not the domain's can be mapped"; "{} of {}", mapped, tried);
    for frame in [highest + 1 + (1 << 20), 1 << 35, (1 << 40) - 1] {
        if !pv::is_initial() {
            refused(
                mmu::update_va(VICTIM.addr(), frame << 12 | KERNEL, mmu::UVMF_INVLPG),
                "a mapping of what is no RAM",
            );
        }
        refused(mmu::update(frame << 12 | 1, 5), "an entry of the machine-to-physical table for it");
    }
    if let Some(hypervisor) = hypervisor {
        refused(mmu::update(hypervisor << 12, 5), "a store to the hypervisor's frame");
        refused(mmu::update(hypervisor << 12 | 1, 5), "a place for the hypervisor's frame");
        refused(mmu::pin(1, hypervisor), "a pin of the hypervisor's frame");
        refused(mmu::ext(MMUEXT_CLEAR_PAGE, hypervisor, 0), "a clearing of it");
        refused(mmu::ext(MMUEXT_COPY_PAGE, mfn(&VICTIM), hypervisor), "a copy of it");
        refused(mmu::ext(MMUEXT_NEW_BASEPTR, hypervisor, 0), "it as top table");
    }
    zero(mmu::update_va(VICTIM.addr(), mmu::own(&VICTIM, KERNEL), mmu::UVMF_INVLPG), "the page can be mapped again");
    equal(mem::peek64(VICTIM.addr()), 0x1111, "and is untouched");
}

/// Ways to write a table that is in use.
fn page_tables() {
    let top = mmu::top();
    let l1 = mmu::l1_entry(VICTIM.addr()) >> 12;
    for (table, level) in [(top, 4), (l1, 1)] {
        refused(mmu::update_va(VICTIM.addr(), table << 12 | KERNEL, mmu::UVMF_INVLPG), "a writable mapping of a table");
        let ret = mmu::update(mmu::l1_entry(VICTIM.addr()), table << 12 | KERNEL);
        check!(ret.errno().is_some(), "so is one by mmu_update, of level {}", level; "{}", ret);
        refused(mmu::pin(level % 4 + 1, table), "a pin of it as another level");
        refused(mmu::ext(MMUEXT_CLEAR_PAGE, table, 0), "a clearing of it");
        refused(mmu::ext(MMUEXT_COPY_PAGE, table, mfn(&VICTIM)), "a copy over it");
        let gdt = [table];
        let ret = hypercall::call(nr::SET_GDT, [gdt.as_ptr() as u64, 16, 0, 0, 0]);
        refused(ret, "it as a descriptor table");
    }
    // A read-only view of a table is a guest's right.
    zero(mmu::update_va(VICTIM.addr(), top << 12 | PRESENT, mmu::UVMF_INVLPG), "a table can be mapped read-only");
    zero(mmu::update_va(VICTIM.addr(), mmu::own(&VICTIM, KERNEL), mmu::UVMF_INVLPG), "and the page again");
}

/// Pages full of anything, as tables of every level.
fn garbage() {
    let mut seed = 0x1234_5678_9abc_def1u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let page = &TABLES[0];
    let mut pinned = 0;
    for round in 0..40u32 {
        (0..512).for_each(|i| mem::poke64(page.addr() + i * 8, if round % 4 == 0 { !0 } else { random() }));
        // One entry that certainly is bad.
        mem::poke64(page.addr() + u64::from(round) * 8, 1 << 45 | KERNEL);
        mmu::protect(page);
        for level in 1..=4 {
            pinned += u32::from(mmu::pin(level, mfn(page)) == Ret(0));
        }
        let ret = mmu::unprotect(page);
        if ret != Ret(0) {
            check!(false, "a page that was refused as a table is an ordinary one"; "{}", ret);
            return;
        }
    }
    equal(pinned.into(), 0, "no page of garbage is a table");
    // A table whose last entry is bad: what was taken for the others is given back.
    mmu::wipe(page);
    for i in 0..511 {
        mem::poke64(page.addr() + i * 8, frame(&VICTIM) | KERNEL);
    }
    mem::poke64(page.addr() + 511 * 8, mmu::top() << 12 | KERNEL);
    mmu::protect(page);
    refused(mmu::pin(1, mfn(page)), "a table with one writable mapping of a table");
    zero(mmu::unprotect(page), "it is an ordinary page then");
    mmu::wipe(page);
}

fn upper_entries() {
    let top = mmu::top();
    for slot in [256u64, 260, 261, 271] {
        for value in [frame(&TABLES[1]) | TABLE, 0, !0] {
            refused(mmu::update((top << 12) + slot * 8, value), "an entry of the hypervisor's slots");
        }
    }
    let [l1, l2, l3, l4] = &TABLES;
    for page in &TABLES {
        mmu::wipe(page);
        zero(mmu::protect(page), "a table to be is made read-only");
    }
    for (level, page) in [(2, l2), (3, l3), (4, l4)] {
        zero(mmu::pin(level, mfn(page)), "an empty table can be pinned");
        refused(mmu::update(frame(page), frame(&VICTIM) | TABLE), "a writable page as its table");
        refused(mmu::update(frame(page), frame(page) | TABLE), "the table itself, writable");
        refused(mmu::update(frame(page), frame(&VICTIM) & !0x1f_ffff | KERNEL | LARGE), "a large page");
        refused(mmu::update(frame(page), 1 << 45 | TABLE), "no frame as its table");
        refused(mmu::update(frame(page), top << 12 | TABLE), "the top table as its table");
        let recursive = mmu::update(frame(page), frame(page) | PRESENT);
        // Xen allows a table to show itself, as long as it is read-only.
        let known = recursive == Ret(0) || recursive == Ret::err(Errno::EINVAL);
        check!(known, "a table of level {} in itself, read-only, is allowed or EINVAL", level; "{}", recursive);
        zero(mmu::update(frame(page), 0), "its entry can be cleared");
    }
    refused(mmu::update(frame(l3), frame(l4) | TABLE), "a fourth-level table in a third-level one");
    refused(mmu::update(frame(l2), frame(l3) | TABLE), "a third-level table in a second-level one");
    refused(mmu::update(frame(l4), frame(l2) | TABLE), "a second-level table in a fourth-level one");
    zero(mmu::update(frame(l2), frame(l1) | TABLE), "a first-level table in a second-level one is right");
    zero(mmu::update(frame(l2) | 8, frame(l1) | TABLE), "twice as well");
    refused(mmu::update(frame(l1), frame(l1) | KERNEL), "a writable mapping of a table in itself");
    refused(mmu::update(frame(l1), frame(l2) | WRITABLE | PRESENT), "and of the table above");
    zero(mmu::update(frame(l2), 0), "one of the two entries can be cleared");
    refused(mmu::unprotect(l1), "a writable mapping while the other is there");
    for page in [l2, l3, l4] {
        zero(mmu::unpin(mfn(page)), "the table can be unpinned");
    }
    for page in &TABLES {
        zero(mmu::unprotect(page), "all are ordinary pages again");
    }
}

/// One page mapped very often: each mapping counts, and each is given back.
fn many_mappings() {
    let [l1, l2, ..] = &TABLES;
    for i in 0..512 {
        mem::poke64(l1.addr() + i * 8, frame(&VICTIM) | KERNEL);
        mem::poke64(l2.addr() + i * 8, frame(l1) | TABLE);
    }
    zero(mmu::protect(l1), "a table to be is made read-only");
    zero(mmu::protect(l2), "so is the one above");
    zero(mmu::pin(2, mfn(l2)), "a table of 512 times a table of 512 mappings can be pinned");
    refused(mmu::pin(1, mfn(&VICTIM)), "a pin of the page that they map");
    zero(mmu::unpin(mfn(l2)), "it can be unpinned");
    zero(mmu::unprotect(l1), "the lower table is an ordinary page");
    zero(mmu::unprotect(l2), "so is the upper");
    mem::poke64(VICTIM.addr(), 1 << 45 | KERNEL);
    zero(mmu::protect(&VICTIM), "and the page they mapped can be made read-only");
    refused(mmu::pin(4, mfn(&VICTIM)), "a pin of its content, which is no table's,");
    zero(mmu::unprotect(&VICTIM), "it is an ordinary page");
    mem::poke64(VICTIM.addr(), 0x1111);
    mmu::wipe(l1);
    mmu::wipe(l2);
}

fn descriptor_pages() {
    let set = |frame: u64| {
        let frames = [frame];
        hypercall::call(nr::SET_GDT, [frames.as_ptr() as u64, 16, 0, 0, 0])
    };
    // A call gate and a segment of ring 0 in a page that becomes a descriptor table.
    for (bad, name) in [
        (0x0000_ec00_e008_0000u64, "a call gate to the hypervisor's code segment"),
        (0x0000_8900_0000_0067, "a TSS"),
        (0x0000_e500_e008_0000, "a task gate"),
        (0x0000_ee00_e008_0000, "an interrupt gate"),
    ] {
        mmu::wipe(&DESCRIPTORS);
        mem::poke64(DESCRIPTORS.addr() + 8, bad);
        mmu::protect(&DESCRIPTORS);
        let ret = set(mfn(&DESCRIPTORS));
        let seen = mem::peek64(DESCRIPTORS.addr() + 8);
        // A call gate may stay if no user can call it.
        let harmless = ret.errno().is_some() || seen >> 47 & 1 == 0 || seen >> 45 & 3 == 0;
        check!(harmless, "{} is no descriptor for a guest", name; "{} {:#x}", ret, seen);
        hypercall::call(nr::SET_GDT, [0, 0, 0, 0, 0]);
        zero(mmu::unprotect(&DESCRIPTORS), "the page is an ordinary one again");
    }
    mmu::wipe(&DESCRIPTORS);
    zero(mmu::protect(&DESCRIPTORS), "an empty descriptor table is made read-only");
    zero(set(mfn(&DESCRIPTORS)), "it can be loaded");
    refused(mmu::unprotect(&DESCRIPTORS), "a writable mapping of it");
    refused(mmu::pin(1, mfn(&DESCRIPTORS)), "a pin of it as a table");
    refused(mmu::update(frame(&DESCRIPTORS) | 8, 0x0000_ec00_e008_0000), "a store to it by mmu_update");
    refused(mmu::ext(MMUEXT_CLEAR_PAGE, mfn(&DESCRIPTORS), 0), "a clearing of it");
    let update = |address: u64, value: u64| hypercall::call(nr::UPDATE_DESCRIPTOR, [address, value, 0, 0, 0]);
    refused(update(mmu::top() << 12, 0), "update_descriptor of a page table");
    if let Some(hypervisor) = hypervisors_frame() {
        refused(update(hypervisor << 12, 0), "update_descriptor of the hypervisor's frame");
        refused(set(hypervisor), "the hypervisor's frame as descriptor table");
    }
    zero(hypercall::call(nr::SET_GDT, [0, 0, 0, 0, 0]), "the table can be unloaded");
    zero(mmu::unprotect(&DESCRIPTORS), "it is an ordinary page then");
}

fn other_domains() {
    let va = VICTIM.addr();
    for domid in [0x7000u16, 0x7ff2, 0x7ff3, 0x7ff4, 0x7fff, 0xffff] {
        if domid == DOMID_XEN && pv::is_initial() {
            continue; // It may map what the hypervisor shares, its own pages too.
        }
        let entry = mmu::own(&VICTIM, KERNEL);
        let other = hypercall::call(nr::UPDATE_VA_MAPPING_OTHERDOMAIN, [va, entry, 0, domid.into(), 0]);
        check!(other.errno().is_some(), "update_va_mapping_otherdomain of {:#x} is refused", domid; "{}", other);
        let update = mmu::update_foreign(mmu::l1_entry(va), entry, domid);
        check!(update.errno().is_some(), "mmu_update in the name of {:#x} is refused", domid; "{}", update);
        let high = mmu::update_foreign(mmu::l1_entry(va), entry, DOMID_SELF);
        check!(high == Ret(0), "mmu_update in its own is not"; "{}", high);
        let op = MmuextOp { cmd: MMUEXT_PIN_L1_TABLE, pad: 0, arg1: mfn(&TABLES[0]), arg2: 0 };
        let pin = hypercall::call(nr::MMUEXT_OP, [mem::addr_of(&op), 1, 0, domid.into(), 0]);
        check!(pin.errno().is_some(), "mmuext_op in the name of {:#x} is refused", domid; "{}", pin);
    }
    let both = hypercall::call(
        nr::MMU_UPDATE,
        [
            mem::addr_of(&MmuUpdate { ptr: mmu::l1_entry(va), val: mmu::own(&VICTIM, KERNEL) }),
            1,
            0,
            0x7001_0000 | 0x7ff0,
            0,
        ],
    );
    check!(both.errno().is_some(), "page tables of no domain are refused"; "{}", both);
}

/// A call with one pointer: its name, number, arguments, and which of them is the pointer.
type Call = (&'static str, u64, [u64; 5], usize);

const SELF: u64 = DOMID_SELF as u64;

/// The calls that only PV guests have.
const CALLS: &[Call] = &[
    ("set_trap_table", nr::SET_TRAP_TABLE, [0; 5], 0),
    ("mmu_update", nr::MMU_UPDATE, [0, 1, 0, SELF, 0], 0),
    ("set_gdt", nr::SET_GDT, [0, 16, 0, 0, 0], 0),
    ("callback_op(register)", nr::CALLBACK_OP, [0; 5], 1),
    ("callback_op(unregister)", nr::CALLBACK_OP, [1, 0, 0, 0, 0], 1),
    ("mmuext_op", nr::MMUEXT_OP, [0, 1, 0, SELF, 0], 0),
    ("update_va_mapping with a bitmap", nr::UPDATE_VA_MAPPING, [0x1000, 0, 0, 0, 0], 2),
    ("vcpu_op(initialise)", nr::VCPU_OP, [VCPUOP_INITIALISE as u64, 1, 0, 0, 0], 2),
    ("vcpu_op(register_vcpu_info)", nr::VCPU_OP, [VCPUOP_REGISTER_VCPU_INFO as u64, 0, 0, 0, 0], 2),
    ("memory_op(exchange)", nr::MEMORY_OP, [XENMEM_EXCHANGE as u64, 0, 0, 0, 0], 1),
    ("memory_op(machphys_mapping)", nr::MEMORY_OP, [XENMEM_MACHPHYS_MAPPING as u64, 0, 0, 0, 0], 1),
    ("memory_op(machphys_mfn_list)", nr::MEMORY_OP, [XENMEM_MACHPHYS_MFN_LIST as u64, 0, 0, 0, 0], 1),
    ("physdev_op(set_iopl)", nr::PHYSDEV_OP, [6, 0, 0, 0, 0], 1),
    ("physdev_op(set_iobitmap)", nr::PHYSDEV_OP, [7, 0, 0, 0, 0], 1),
    ("multicall", nr::MULTICALL, [0, 1, 0, 0, 0], 0),
    ("nmi_op(register)", nr::NMI_OP, [0, 0, 0, 0, 0], 1),
    ("platform_op", nr::PLATFORM_OP, [0; 5], 0),
    ("mca", nr::MCA, [0; 5], 0),
    ("kexec_op", nr::KEXEC_OP, [3, 0, 0, 0, 0], 1),
];

fn pointers() {
    let hole = [
        0xffff_8000_0000_0000,
        0xffff_8000_0000_1008,
        0xffff_8200_0000_0000,
        0xffff_82d0_4020_0000,
        0xffff_8300_0000_0000,
        0xffff_87ff_ffff_fff8,
        0xffff_7fff_ffff_fffc,
        0x8000_0000_0000_0000,
        0x0000_8000_0000_0000,
    ];
    for (name, number, args, pointer) in CALLS {
        let mut bad = 0;
        for address in hole {
            let mut args = *args;
            // The low bits of an address are flags where a bitmap is asked for.
            args[*pointer] =
                if *name == "update_va_mapping with a bitmap" { address & !7 | mmu::UVMF_INVLPG } else { address };
            let ret = hypercall::call(*number, args);
            if ret.errno().is_none() {
                bad += 1;
                println!("note: {name} with {address:#x}: {ret}");
            }
        }
        check!(bad == 0, "{}: an address in the hole never succeeds", name; "{} of {} did", bad, hole.len());
    }
    // Addresses within structures.
    for address in hole {
        let mask = mmu::ext(MMUEXT_TLB_FLUSH_MULTI, 0, address);
        check!(mask.errno().is_some(), "a vCPU bitmap at {:#x} is refused", address; "{}", mask);
        let table = mmu::ext(MMUEXT_SET_LDT, address & !0xfff, 16);
        check!(table.errno().is_some() || address < 1 << 63, "an LDT at {:#x} is refused", address; "{}", table);
        mmu::ext(MMUEXT_SET_LDT, 0, 0);
        let trap = traps::TrapInfo { address, ..traps::standard(0x91) };
        // A canonical address is a guest's own folly: nothing is mapped there for it.
        let ret = traps::set(trap);
        check!(ret == Ret(0) || ret == Ret::err(Errno::EINVAL), "a trap at {:#x} is harmless or EINVAL", address; "{}", ret);
        traps::set(traps::standard(0x91));
        let va = mmu::update_va(address, mmu::own(&VICTIM, KERNEL), 0);
        check!(va.errno().is_some(), "a mapping at {:#x} is refused", address; "{}", va);
    }
}

/// Counts that no list has.
fn counts() {
    let request = MmuUpdate { ptr: mmu::l1_entry(VICTIM.addr()), val: mmu::own(&VICTIM, KERNEL) };
    let op = MmuextOp { cmd: MMUEXT_TLB_FLUSH_LOCAL, pad: 0, arg1: 0, arg2: 0 };
    for count in [0x8000_0000u64, 0x8000_0001, 0xffff_ffff, 0x7fff_ffff] {
        // A list that runs into what is not mapped ends there at the latest.
        let ret = hypercall::call(nr::MMU_UPDATE, [mem::addr_of(&request), count, 0, SELF, 0]);
        check!(ret == Ret(0) || ret.errno().is_some(), "mmu_update of {:#x} ends", count; "{}", ret);
        let ret = hypercall::call(nr::MMUEXT_OP, [mem::addr_of(&op), count, 0, SELF, 0]);
        check!(ret == Ret(0) || ret.errno().is_some(), "mmuext_op of {:#x} ends", count; "{}", ret);
    }
    let ret = hypercall::call(nr::SET_GDT, [mem::addr_of(&request), !0, 0, 0, 0]);
    fails(ret, Errno::EINVAL, "a descriptor table of 2^64 entries is EINVAL");
    refused(mmu::ext(MMUEXT_SET_LDT, VICTIM.addr(), !0), "an LDT of 2^64 entries");
}

/// After all that the guest works as before.
fn alive() {
    zero(mmu::update_va(VICTIM.addr(), mmu::own(&VICTIM, KERNEL), mmu::UVMF_INVLPG), "a page can be mapped");
    equal(mem::peek64(VICTIM.addr()), 0x1111, "it has its content");
    let ret = hypercall::call(nr::XEN_VERSION, [0; 5]);
    equal(ret.0 as u64, 0x4_0011, "the version is still there");
    let wrong = (0..pv::nr_pages()).filter(|pfn| pv::m2p(pv::p2m(*pfn)) != *pfn).count();
    equal(wrong as u64, 0, "each page has its place in the machine-to-physical table");
}
