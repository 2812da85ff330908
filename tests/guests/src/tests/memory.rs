//! Memory: the map, the shared page and grant frames, giving pages back and taking them again (`memory.h`).

use abi::memory::*;
use abi::xen::DOMID_SELF;
use abi::{Errno, nr};
use guest::check::{equal, fails, zero};
use guest::events;
use guest::hypercall::{self, Ret};
use guest::mem::{self, Page};
use guest::start::Boot;
use guest::{check, println};
use zerocopy::FromZeros;

static BALLOON: [Page; 4] = [const { Page::new() }; 4];
static SHARED: Page = Page::new();
static GRANTS: Page = Page::new();
static LIST: Page = Page::new();

fn op<T>(number: u32, arg: &mut T) -> Ret {
    hypercall::op(nr::MEMORY_OP, number, arg)
}

/// Runs the test.
pub fn run(boot: &Boot) {
    map(boot);
    limits();
    balloon();
    orders();
    shared_page();
    grant_frames();
    remove();
    holes(boot);
    refused();
}

fn map(boot: &Boot) {
    let entries = LIST.addr();
    let mut arg = MemoryMap { nr_entries: 64, pad: 0, buffer: entries };
    zero(op(XENMEM_MEMORY_MAP, &mut arg), "XENMEM_memory_map succeeds");
    println!("entries: {}", arg.nr_entries);
    let same = boot.memmap().enumerate().all(|(i, entry)| {
        let theirs: E820Entry = mem::read(entries + i as u64 * 20);
        let addr = u64::from(theirs.addr_high) << 32 | u64::from(theirs.addr_low);
        let size = u64::from(theirs.size_high) << 32 | u64::from(theirs.size_low);
        (addr, size, theirs.kind) == (entry.addr, entry.size, entry.kind)
    });
    check!(same && arg.nr_entries == boot.info.memmap_entries, "it is the memory map of the start info");
    let mut one = MemoryMap { nr_entries: 1, pad: 0, buffer: entries };
    zero(op(XENMEM_MEMORY_MAP, &mut one), "XENMEM_memory_map into a short buffer succeeds");
    equal(one.nr_entries.into(), 1, "and writes as many entries as there is room for");
}

fn limits() {
    let mut domain = MemoryDomain { domid: DOMID_SELF };
    let current = op(XENMEM_CURRENT_RESERVATION, &mut domain);
    let maximum = op(XENMEM_MAXIMUM_RESERVATION, &mut domain);
    let highest = op(XENMEM_MAXIMUM_GPFN, &mut domain);
    let machine = hypercall::call(nr::MEMORY_OP, [XENMEM_MAXIMUM_RAM_PAGE.into(), 0, 0, 0, 0]);
    println!("pages: current {current} maximum {maximum} highest gfn {highest} machine {machine}");
    check!(current.0 > 1000, "XENMEM_current_reservation counts the domain's pages"; "{}", current);
    check!(maximum.0 >= current.0, "XENMEM_maximum_reservation is no less"; "{}", maximum);
    check!(highest.0 >= 0x200, "XENMEM_maximum_gpfn is above this image"; "{}", highest);
    check!(machine.0 > 0, "XENMEM_maximum_ram_page is a frame number"; "{}", machine);
    let mut nobody = MemoryDomain { domid: 0x7000 };
    fails(op(XENMEM_CURRENT_RESERVATION, &mut nobody), Errno::ESRCH, "the reservation of no domain is ESRCH");
}

fn reservation(list: &[u64], order: u32) -> MemoryReservation {
    MemoryReservation {
        extent_start: list.as_ptr() as u64,
        nr_extents: list.len() as u64,
        extent_order: order,
        mem_flags: 0,
        domid: DOMID_SELF,
        pad: [0; 3],
    }
}

fn current() -> i64 {
    op(XENMEM_CURRENT_RESERVATION, &mut MemoryDomain { domid: DOMID_SELF }).0
}

fn balloon() {
    let list = BALLOON.each_ref().map(Page::gfn);
    for page in &BALLOON {
        mem::poke64(page.addr(), 0x1234_5678_9abc_def0);
    }
    let before = current();
    equal(op(XENMEM_DECREASE_RESERVATION, &mut reservation(&list, 0)).0 as u64, 4, "four pages can be given back");
    equal((before - current()) as u64, 4, "the reservation is four pages less");
    let first = BALLOON[0].addr();
    equal(mem::peek64(first), !0, "a read of a page given back is all ones");
    mem::poke64(first, 0);
    equal(mem::peek64(first), !0, "a write to it is dropped");
    equal(
        op(XENMEM_DECREASE_RESERVATION, &mut reservation(&list[..1], 0)).0 as u64,
        0,
        "no page can be given back twice",
    );
    equal(op(XENMEM_POPULATE_PHYSMAP, &mut reservation(&list, 0)).0 as u64, 4, "four pages can be had back");
    equal((current() - before) as u64, 0, "the reservation is as before");
    equal(mem::peek64(first), 0, "a page that comes back is clear");
    mem::poke64(first, 77);
    equal(mem::peek64(first), 77, "and can be written");
    equal(mem::peek64(BALLOON[3].addr()), 0, "the last of them is there as well");
}

fn orders() {
    let list = [BALLOON[0].gfn()];
    let ret = op(XENMEM_POPULATE_PHYSMAP, &mut reservation(&list, 30));
    check!(ret == Ret(0) || ret == Ret::err(Errno::EPERM) || ret == Ret::err(Errno::EINVAL),
        "an extent of order 30 cannot be had"; "{}", ret);
    equal(op(XENMEM_POPULATE_PHYSMAP, &mut reservation(&[], 0)).0 as u64, 0, "nothing can be had");
    let mut huge = reservation(&list, 0);
    huge.nr_extents = !0;
    equal(op(XENMEM_DECREASE_RESERVATION, &mut huge).0 as u64, 0, "more extents than there can be are none");
    equal(mem::peek64(BALLOON[0].addr()), 77, "the page is untouched by that");
}

fn shared_page() {
    zero(events::add_to_physmap(XENMAPSPACE_SHARED_INFO, 0, SHARED.gfn()), "the shared page can replace a page of RAM");
    let time = SHARED.addr() + 32;
    // The clock's rate is never zero; what it started from may be.
    check!(mem::peek32(time) & 1 == 0 && mem::peek32(time + 24) != 0, "the shared page has the time");
    zero(events::add_to_physmap(XENMAPSPACE_SHARED_INFO, 0, events::SHARED_INFO >> 12), "the shared page can move");
    equal(mem::peek64(SHARED.addr()), !0, "nothing is left where it was");
    check!(mem::peek32(events::SHARED_INFO + 32 + 24) != 0, "it is where it moved to");
    fails(events::add_to_physmap(XENMAPSPACE_SHARED_INFO, 1, SHARED.gfn()), Errno::EINVAL, "there is one shared page");
    fails(events::add_to_physmap(99, 0, SHARED.gfn()), Errno::EINVAL, "an unknown space is EINVAL");
}

fn grant_frames() {
    let ret = events::add_to_physmap(XENMAPSPACE_GRANT_TABLE, 0, GRANTS.gfn());
    zero(ret, "the first grant frame can be mapped");
    if ret == Ret(0) {
        let entry = GRANTS.addr() + 8 * 8;
        equal(mem::peek64(entry), 0, "a grant entry that is not in use is zero");
        mem::poke64(entry, 0x1234);
        equal(mem::peek64(entry), 0x1234, "a grant entry can be written");
        mem::poke64(entry, 0);
    }
    let beyond = events::add_to_physmap(XENMAPSPACE_GRANT_TABLE, 1 << 20, GRANTS.gfn());
    check!(!beyond.is_ok(), "a grant frame beyond the table's limit is refused");
    let mut size = abi::grant_table::QuerySize { dom: DOMID_SELF, ..abi::grant_table::QuerySize::new_zeroed() };
    let query = [abi::grant_table::GNTTABOP_QUERY_SIZE.into(), mem::addr_of_mut(&mut size), 1, 0, 0];
    zero(hypercall::call(nr::GRANT_TABLE_OP, query), "GNTTABOP_query_size succeeds");
    println!("grant frames: {} of {}", size.nr_frames, size.max_nr_frames);
    check!(size.status == 0 && size.nr_frames >= 1 && size.max_nr_frames >= size.nr_frames, "it tells the frames in use";
        "status {}", size.status);
    let mut version = abi::grant_table::GetVersion { dom: DOMID_SELF, pad: 0, version: 9 };
    let get = [abi::grant_table::GNTTABOP_GET_VERSION.into(), mem::addr_of_mut(&mut version), 1, 0, 0];
    zero(hypercall::call(nr::GRANT_TABLE_OP, get), "GNTTABOP_get_version succeeds");
    equal(version.version.into(), 1, "the grant table starts with version 1");
}

fn remove() {
    let mut arg = RemoveFromPhysmap { domid: DOMID_SELF, pad: [0; 3], gpfn: events::SHARED_INFO >> 12 };
    zero(op(XENMEM_REMOVE_FROM_PHYSMAP, &mut arg), "XENMEM_remove_from_physmap takes the shared page away");
    equal(mem::peek64(events::SHARED_INFO + 48), !0, "nothing is left there");
    let again = op(XENMEM_REMOVE_FROM_PHYSMAP, &mut arg);
    fails(again, Errno::ENOENT, "what is not there cannot be removed");
}

fn holes(boot: &Boot) {
    let Some(hole) = boot.hole() else {
        println!("SKIP holes: all is taken");
        return;
    };
    equal(mem::peek64(hole), !0, "a read where there is no memory is all ones");
    equal(mem::peek8(hole + 7).into(), 0xff, "so is a read of a byte");
    equal(mem::read::<u64>(hole + 4092), !0, "so is a read across two pages");
    mem::poke64(hole, 5);
    equal(mem::peek64(hole), !0, "a write there is dropped");
    let list = [hole >> 12];
    equal(
        op(XENMEM_DECREASE_RESERVATION, &mut reservation(&list, 0)).0 as u64,
        0,
        "what is no page cannot be given back",
    );
}

fn refused() {
    fails(op(XENMEM_MACHPHYS_MAPPING, &mut [0u64; 3]), Errno::ENOSYS, "XENMEM_machphys_mapping is ENOSYS");
    fails(op(XENMEM_MACHINE_MEMORY_MAP, &mut [0u64; 3]), Errno::ENOSYS, "XENMEM_machine_memory_map is ENOSYS");
    let mut foreign = MemoryReservation { domid: 0x7000, ..reservation(&[], 0) };
    let ret = op(XENMEM_POPULATE_PHYSMAP, &mut foreign);
    check!(ret == Ret::err(Errno::ESRCH) || ret == Ret(0), "memory for no domain cannot be had"; "{}", ret);
    let ret = hypercall::call(nr::MEMORY_OP, [63, 0, 0, 0, 0]);
    fails(ret, Errno::ENOSYS, "an unknown memory operation is ENOSYS");
}
