//! Memory of a PV domain: machine frames given back, had and exchanged, and what the hypervisor tells of memory.

use abi::memory::*;
use abi::xen::{DOMID_SELF, VIRQ_TIMER};
use abi::{Errno, nr};
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use guest::check::{equal, fails, zero};
use guest::hypercall::{self, Ret};
use guest::interrupts::{self, Frame};
use guest::mem::{self, Page};
use guest::pv::mmu::{self, KERNEL};
use guest::start::Boot;
use guest::{check, cpu, events as ev, println, pv, time};
use zerocopy::FromZeros;

static PAGES: [Page; 4] = [const { Page::new() }; 4];

fn op<T>(number: u32, arg: &mut T) -> Ret {
    hypercall::op(nr::MEMORY_OP, number, arg)
}

fn pfn(page: &Page) -> u64 {
    page.addr() >> 12
}

fn mfn(page: &Page) -> u64 {
    pv::p2m(pfn(page))
}

/// Runs the test.
pub fn run(boot: &Boot) {
    limits(boot);
    table();
    balloon();
    increase();
    exchange();
    refused_exchanges();
    large();
    interrupted();
    if pv::is_initial() {
        largest();
    }
    map();
    translated_only();
}

fn current() -> i64 {
    op(XENMEM_CURRENT_RESERVATION, &mut MemoryDomain { domid: DOMID_SELF }).0
}

fn limits(boot: &Boot) {
    let (now, most) = (current(), op(XENMEM_MAXIMUM_RESERVATION, &mut MemoryDomain { domid: DOMID_SELF }));
    let pages = boot.pv.as_ref().map_or(0, |info| info.nr_pages);
    println!("pages: current {now} maximum {most} start {pages}");
    check!((pages..pages + 64).contains(&(now as u64)), "the current reservation is what the start info says"; "{}", now);
    check!(most.0 >= now, "the maximum reservation is no less"; "{}", most);
    let highest = hypercall::call(nr::MEMORY_OP, [XENMEM_MAXIMUM_RAM_PAGE.into(), 0, 0, 0, 0]);
    let own = (0..pages).map(pv::p2m).max().unwrap_or(0);
    check!(highest.0 as u64 >= own, "XENMEM_maximum_ram_page is no less than any frame of the domain"; "{} {:#x}", highest, own);
    fails(
        op(XENMEM_CURRENT_RESERVATION, &mut MemoryDomain { domid: 0x7000 }),
        Errno::ESRCH,
        "of no domain it is ESRCH",
    );
}

fn table() {
    let mut place = MachphysMapping::new_zeroed();
    zero(op(XENMEM_MACHPHYS_MAPPING, &mut place), "XENMEM_machphys_mapping succeeds");
    equal(place.v_start, 0xffff_8000_0000_0000, "the machine-to-physical table is at its place");
    check!(place.v_end > place.v_start && place.v_end <= 0xffff_8800_0000_0000, "it ends within the hypervisor's area"; "{:#x}", place.v_end);
    check!((place.v_end - place.v_start) / 8 > place.max_mfn, "it has an entry for each frame"; "{:#x}", place.max_mfn);
    let mut frames = [0u64; 4];
    let mut list =
        MachphysMfnList { max_extents: 4, extent_start: frames.as_mut_ptr() as u64, ..MachphysMfnList::new_zeroed() };
    let ret = op(XENMEM_MACHPHYS_MFN_LIST, &mut list);
    zero(ret, "XENMEM_machphys_mfn_list succeeds");
    let first = mem::peek64(frames.as_ptr() as u64);
    println!("list: {} frames, the first {:#x}", list.nr_extents, first);
    let highest = hypercall::call(nr::MEMORY_OP, [XENMEM_MAXIMUM_RAM_PAGE.into(), 0, 0, 0, 0]).0 as u64;
    let wanted = (highest * 8).div_ceil(2 << 20).min(4);
    equal(list.nr_extents.into(), wanted, "it has a piece for each GiB up to the highest frame");
    check!((1..=4).contains(&list.nr_extents) && first != 0 && first.is_multiple_of(512), "it tells frames of 2 MiB"; "{:#x}", first);
    list.max_extents = 0;
    zero(op(XENMEM_MACHPHYS_MFN_LIST, &mut list), "a list without room succeeds");
    let none = mem::read::<MachphysMfnList>(mem::addr_of(&list)).nr_extents;
    equal(none.into(), 0, "and tells of nothing");
    list.max_extents = 4;
    list.extent_start = 0xffff_8300_0000_0000;
    fails(op(XENMEM_MACHPHYS_MFN_LIST, &mut list), Errno::EFAULT, "into the hypervisor it is EFAULT");
}

fn reservation(list: &[u64]) -> MemoryReservation {
    MemoryReservation {
        extent_start: list.as_ptr() as u64,
        nr_extents: list.len() as u64,
        domid: DOMID_SELF,
        ..MemoryReservation::new_zeroed()
    }
}

fn balloon() {
    let frames = PAGES.each_ref().map(mfn);
    for page in &PAGES {
        mem::poke64(page.addr(), 0x1234_5678_9abc_def0);
    }
    let before = current();
    // A frame that is still mapped is not free: it goes when its last mapping goes.
    for page in &PAGES {
        zero(mmu::update_va(page.addr(), 0, mmu::UVMF_INVLPG), "a page is unmapped");
    }
    equal(op(XENMEM_DECREASE_RESERVATION, &mut reservation(&frames)).0 as u64, 4, "four frames can be given back");
    equal((before - current()) as u64, 4, "the reservation is four pages less");
    equal(
        op(XENMEM_DECREASE_RESERVATION, &mut reservation(&frames[..1])).0 as u64,
        0,
        "no frame can be given back twice",
    );
    let back = mmu::update_va(PAGES[0].addr(), frames[0] << 12 | KERNEL, mmu::UVMF_INVLPG);
    check!(back.errno().is_some(), "a frame that was given back cannot be mapped"; "{}", back);
    let mut list = PAGES.each_ref().map(pfn);
    let ret = op(XENMEM_POPULATE_PHYSMAP, &mut reservation(&list));
    equal(ret.0 as u64, 4, "four frames can be had");
    equal((current() - before) as u64, 0, "the reservation is as before");
    let at = list.as_mut_ptr() as u64;
    for (i, page) in (0..).zip(&PAGES) {
        let frame = mem::peek64(at + i * 8);
        check!(pv::m2p(frame) == pfn(page), "a new frame has its place in the machine-to-physical table"; "{:#x}", frame);
        pv::set_p2m(pfn(page), frame);
        zero(mmu::update_va(page.addr(), frame << 12 | KERNEL, mmu::UVMF_INVLPG), "it can be mapped");
        mem::poke64(page.addr(), 7);
    }
}

fn increase() {
    let mut frames = [0u64; 1];
    // The limit of the domain may be what it has.
    zero(mmu::update_va(PAGES[3].addr(), 0, mmu::UVMF_INVLPG), "a page is unmapped");
    equal(op(XENMEM_DECREASE_RESERVATION, &mut reservation(&[mfn(&PAGES[3])])).0 as u64, 1, "its frame is given back");
    let at = frames.as_mut_ptr() as u64;
    equal(
        op(XENMEM_INCREASE_RESERVATION, &mut reservation(&frames)).0 as u64,
        1,
        "XENMEM_increase_reservation gives a frame",
    );
    let frame = mem::peek64(at);
    check!(frame != 0, "it tells which"; "{:#x}", frame);
    zero(mmu::update(frame << 12 | 1, pfn(&PAGES[3])), "the guest gives it its place");
    pv::set_p2m(pfn(&PAGES[3]), frame);
    zero(mmu::update_va(PAGES[3].addr(), frame << 12 | KERNEL, mmu::UVMF_INVLPG), "and maps it");
    mem::poke64(PAGES[3].addr(), 9);
}

fn exchanged(input: &[u64], output: &mut [u64]) -> (Ret, u64) {
    let mut arg = MemoryExchange { input: reservation(input), output: reservation(output), nr_exchanged: 0 };
    let ret = op(XENMEM_EXCHANGE, &mut arg);
    (ret, mem::peek64(core::ptr::from_ref(&arg.nr_exchanged) as u64))
}

fn exchange() {
    let page = &PAGES[1];
    let before = mfn(page);
    zero(mmu::update_va(page.addr(), 0, mmu::UVMF_INVLPG), "a page is unmapped");
    let mut output = [pfn(page)];
    let at = output.as_mut_ptr() as u64;
    let (ret, done) = exchanged(&[before], &mut output);
    zero(ret, "XENMEM_exchange succeeds");
    equal(done, 1, "it counts one");
    let frame = mem::peek64(at);
    check!(frame != before, "the frame is another one"; "{:#x}", frame);
    equal(pv::m2p(frame), pfn(page), "it has the place that was asked for");
    pv::set_p2m(pfn(page), frame);
    zero(mmu::update_va(page.addr(), frame << 12 | KERNEL, mmu::UVMF_INVLPG), "it can be mapped");
    let old = mmu::update_va(PAGES[2].addr(), before << 12 | KERNEL, mmu::UVMF_INVLPG);
    check!(old.errno().is_some(), "the old frame cannot"; "{}", old);
}

/// Frames of an extent of the largest order that every domain may have.
const LARGE: u64 = 512;

/// An extent of 2 MiB, for as many single frames; and back.
fn large() {
    let first = pv::nr_pages() - LARGE;
    let before = current();
    for n in 0..LARGE {
        mem::poke64(LIST.addr() + n * 8, pv::p2m(first + n));
    }
    let mut arg = MemoryReservation { extent_start: LIST.addr(), nr_extents: LARGE, ..reservation(&[]) };
    equal(op(XENMEM_DECREASE_RESERVATION, &mut arg).0 as u64, LARGE, "512 frames are given back");
    let frame = populate_large(first);
    let is_whole = frame.is_multiple_of(LARGE) && (0..LARGE).all(|n| pv::m2p(frame + n) == first + n);
    check!(is_whole, "their numbers are those that were asked for, one after the other"; "{:#x}", frame);
    equal((current() - before) as u64, 0, "the reservation is as before");
    let dirty = (0..LARGE).filter(|n| !is_clear(frame + n)).count();
    equal(dirty as u64, 0, "they hold nothing of others");
    let list = [frame];
    let mut arg = MemoryReservation { extent_order: 9, ..reservation(&list) };
    equal(op(XENMEM_DECREASE_RESERVATION, &mut arg).0 as u64, 1, "the extent can be given back as a whole");
    equal((before - current()) as u64, LARGE, "the reservation is 512 pages less");
    check!(pv::m2p(frame + LARGE - 1) != first + LARGE - 1, "the last frame has no number any more");
    // One that was written to.
    let frame = populate_large(first);
    for n in 0..LARGE {
        pv::set_p2m(first + n, frame + n);
    }
    let dirty = (0..LARGE).filter(|n| !is_clear(frame + n)).count();
    equal(dirty as u64, 0, "frames that come again do not either");
    exchange_large(first);
}

static LIST: Page = Page::new();
static OTHERS: Page = Page::new();

/// The last 512 pages for an extent of 2 MiB, and that for single frames again.
fn exchange_large(first: u64) {
    for n in 0..LARGE {
        mem::poke64(LIST.addr() + n * 8, pv::p2m(first + n));
        mem::poke64(OTHERS.addr() + n * 8, first + n);
    }
    let singles = |page: &Page| MemoryReservation { extent_start: page.addr(), nr_extents: LARGE, ..reservation(&[]) };
    let number = [first];
    let large = MemoryReservation { extent_order: 9, ..reservation(&number) };
    let mut arg = MemoryExchange { input: singles(&LIST), output: large, nr_exchanged: 0 };
    zero(op(XENMEM_EXCHANGE, &mut arg), "512 frames are exchanged for an extent of 2 MiB");
    let frame = mem::peek64(number.as_ptr() as u64);
    let is_whole = frame.is_multiple_of(LARGE) && (0..LARGE).all(|n| pv::m2p(frame + n) == first + n);
    check!(is_whole, "it has their numbers"; "{:#x}", frame);
    let mut arg = MemoryExchange { input: large, output: singles(&OTHERS), nr_exchanged: 0 };
    zero(op(XENMEM_EXCHANGE, &mut arg), "and it for 512 frames");
    let frame = |n: u64| mem::peek64(OTHERS.addr() + n * 8);
    check!((0..LARGE).all(|n| pv::m2p(frame(n)) == first + n), "which have the numbers again");
    (0..LARGE).for_each(|n| pv::set_p2m(first + n, frame(n)));
}

fn populate_large(first: u64) -> u64 {
    let list = [first];
    let mut arg = MemoryReservation { extent_order: 9, ..reservation(&list) };
    equal(op(XENMEM_POPULATE_PHYSMAP, &mut arg).0 as u64, 1, "an extent of 2 MiB can be had");
    mem::peek64(list.as_ptr() as u64)
}

/// What the domain leaves in frames. Xen does not clear those that a domain gives back while it lives.
const MARK: u64 = 0x1234_5678;

/// Whether a frame holds zeros, or what the domain has left there before; it leaves that there.
fn is_clear(frame: u64) -> bool {
    let page = &PAGES[0];
    let mapped = mmu::update_va(page.addr(), frame << 12 | KERNEL, mmu::UVMF_INVLPG);
    let holds = |n: u64| mem::peek64(page.addr() + n * 8);
    let is_clear = mapped == Ret(0) && (0..512).all(|n| holds(n) == 0 || n == 1 && holds(n) == MARK);
    mem::poke64(page.addr() + 8, MARK);
    mmu::update_va(page.addr(), mmu::own(page, KERNEL), mmu::UVMF_INVLPG);
    is_clear
}

fn refused_exchanges() {
    let mapped = mfn(&PAGES[0]);
    let (ret, done) = exchanged(&[mapped], &mut [pfn(&PAGES[0])]);
    check!(ret.errno().is_some() && done == 0, "a frame that is mapped is not exchanged"; "{} {}", ret, done);
    equal(mem::peek64(PAGES[0].addr()), 7, "the page is untouched");
    let (ret, done) = exchanged(&[1 << 40], &mut [pfn(&PAGES[0])]);
    check!(ret.errno().is_some() && done == 0, "what is no frame is not exchanged"; "{} {}", ret, done);
    let mut arg = MemoryExchange { input: reservation(&[mapped]), output: reservation(&[0, 1]), nr_exchanged: 0 };
    fails(op(XENMEM_EXCHANGE, &mut arg), Errno::EINVAL, "an exchange of one for two is EINVAL");
    arg.output = reservation(&[0]);
    arg.nr_exchanged = 2;
    fails(op(XENMEM_EXCHANGE, &mut arg), Errno::EINVAL, "one that begins behind its end is EINVAL");
    arg.nr_exchanged = 0;
    arg.output.domid = 0x7000;
    check!(op(XENMEM_EXCHANGE, &mut arg).errno().is_some(), "one between two domains is refused");
    arg.output.domid = DOMID_SELF;
    arg.output.extent_start = 0xffff_8300_0000_0000;
    let ret = op(XENMEM_EXCHANGE, &mut arg);
    check!(ret.errno().is_some(), "an output list in the hypervisor is refused"; "{}", ret);
    equal(mem::peek64(PAGES[0].addr()), 7, "the page is still there");
    let table = mmu::top();
    let (ret, _) = exchanged(&[table], &mut [pfn(&PAGES[0])]);
    check!(ret.errno().is_some(), "a page table is not exchanged"; "{}", ret);
    let given = op(XENMEM_DECREASE_RESERVATION, &mut reservation(&[table]));
    // It may be given back, but stays what it is while it is in use.
    check!(given == Ret(0) || given == Ret(1), "the top table may be given back"; "{}", given);
    equal(mem::peek64(PAGES[0].addr()), 7, "all is still mapped");
}

fn map() {
    let mut entries = [E820Entry::new_zeroed(); 16];
    let mut arg = MemoryMap { nr_entries: 16, pad: 0, buffer: entries.as_mut_ptr() as u64 };
    let ret = op(XENMEM_MEMORY_MAP, &mut arg);
    check!(ret == Ret(0) || pv::is_initial() && ret == Ret::err(Errno::ENOSYS), "XENMEM_memory_map tells the domain's"; "{}", ret);
    arg.nr_entries = 16;
    let ret = op(XENMEM_MACHINE_MEMORY_MAP, &mut arg);
    let right = if pv::is_initial() { ret == Ret(0) } else { ret == Ret::err(Errno::EPERM) };
    check!(right, "XENMEM_machine_memory_map is the initial domain's alone"; "{}", ret);
    if ret == Ret(0) {
        check!(arg.nr_entries >= 3, "it has entries"; "{}", arg.nr_entries);
    }
}

/// Calls on a translated domain's map do nothing for this one.
fn translated_only() {
    let mut arg = AddToPhysmap { domid: DOMID_SELF, gpfn: pfn(&PAGES[0]), ..AddToPhysmap::new_zeroed() };
    let ret = op(XENMEM_ADD_TO_PHYSMAP, &mut arg);
    fails(ret, Errno::EACCES, "XENMEM_add_to_physmap is for translated domains");
    equal(mem::peek64(PAGES[0].addr()), 7, "and changes nothing");
}

/// Of an extent of the largest order that an initial domain may have.
const LARGEST: u64 = 4096;
static LONG_LIST: [Page; 8] = [const { Page::new() }; 8];

/// Single frames for an extent of 16 MiB.
fn largest() {
    let first = pv::nr_pages() - LARGEST;
    let list = LONG_LIST[0].addr();
    (0..LARGEST).for_each(|n| mem::poke64(list + n * 8, pv::p2m(first + n)));
    let number = [first];
    let input = MemoryReservation { extent_start: list, nr_extents: LARGEST, ..reservation(&[]) };
    let output = MemoryReservation { extent_order: 12, ..reservation(&number) };
    let mut arg = MemoryExchange { input, output, nr_exchanged: 0 };
    zero(op(XENMEM_EXCHANGE, &mut arg), "4096 frames are exchanged for an extent of 16 MiB");
    let frame = mem::peek64(number.as_ptr() as u64);
    let is_whole = frame.is_multiple_of(LARGEST) && (0..LARGEST).all(|n| pv::m2p(frame + n) == first + n);
    check!(is_whole, "it has their numbers"; "{:#x}", frame);
    (0..LARGEST).for_each(|n| pv::set_p2m(first + n, frame + n));
    let dirty = (0..LARGEST).step_by(37).filter(|n| !is_clear(frame + n)).count();
    equal(dirty as u64, 0, "they hold nothing of others");
    let list = [frame];
    let mut arg = MemoryReservation { extent_order: 12, ..reservation(&list) };
    equal(op(XENMEM_DECREASE_RESERVATION, &mut arg).0 as u64, 1, "it can be given back as a whole");
    let list = [first];
    let mut arg = MemoryReservation { extent_order: 12, ..reservation(&list) };
    equal(op(XENMEM_POPULATE_PHYSMAP, &mut arg).0 as u64, 1, "and had again");
    let frame = mem::peek64(list.as_ptr() as u64);
    (0..LARGEST).for_each(|n| pv::set_p2m(first + n, frame + n));
}

/// The place of a page that an upcall's handler exchanges; 0 while it is not to.
static MEANWHILE: AtomicU64 = AtomicU64::new(0);
/// How many it exchanged.
static EXCHANGED: AtomicU64 = AtomicU64::new(0);

fn upcall(_: &mut Frame) {
    ev::acknowledge(0);
    let place = MEANWHILE.swap(0, SeqCst);
    if place == 0 {
        return;
    }
    let mut output = [place];
    let at = output.as_mut_ptr() as u64;
    if exchanged(&[pv::p2m(place)], &mut output) == (Ret(0), 1) {
        pv::set_p2m(place, mem::peek64(at));
        EXCHANGED.fetch_add(1, SeqCst);
    }
}

/// Exchanges of 512 frames in whose midst an upcall comes, later each time, whose handler makes one of its own. The outer
/// is done or fails; no frame is counted that the domain has not.
fn interrupted() {
    let first = pv::nr_pages() - LARGE;
    let before = current();
    let Ok(timer) = ev::bind_virq(VIRQ_TIMER, 0) else { return check!(false, "the timer has a port") };
    interrupts::on(ev::VECTOR, upcall);
    ev::set_mask(timer, false);
    ev::acknowledge(0);
    let (mut failed, mut wrong) = (0, 0);
    for round in 0..ROUNDS {
        for n in 0..LARGE {
            mem::poke64(LIST.addr() + n * 8, pv::p2m(first + n));
        }
        let number = [first];
        let input = MemoryReservation { extent_start: LIST.addr(), nr_extents: LARGE, ..reservation(&[]) };
        let output = MemoryReservation { extent_order: 9, ..reservation(&number) };
        let mut arg = MemoryExchange { input, output, nr_exchanged: 0 };
        MEANWHILE.store(first - 1, SeqCst);
        hypercall::call(nr::SET_TIMER_OP, [time::now() + round * ROUND_NS, 0, 0, 0, 0]);
        cpu::sti();
        let ret = op(XENMEM_EXCHANGE, &mut arg);
        time::wait_for(2 * time::SECOND, || MEANWHILE.load(SeqCst) == 0);
        cpu::cli();
        ev::clear(timer);
        let frame = mem::peek64(number.as_ptr() as u64);
        if ret == Ret(0) {
            (0..LARGE).for_each(|n| pv::set_p2m(first + n, frame + n));
        } else {
            failed += 1;
            wrong += u32::from(!all_given_back(frame, pv::p2m(first - 1), before));
            let frame = populate_large(first);
            (0..LARGE).for_each(|n| pv::set_p2m(first + n, frame + n));
        }
    }
    println!("interrupted: {ROUNDS} rounds, {failed} given up");
    equal(EXCHANGED.load(SeqCst), ROUNDS, "each upcall's handler exchanges a frame meanwhile");
    equal(wrong.into(), 0, "what is left of a call that was given up can be given back, and nothing else is counted");
    equal((current() - before) as u64, 0, "the reservation is as before");
    zero(ev::close(timer), "the timer's port is closed");
}

/// How many exchanges are interrupted.
const ROUNDS: u64 = 16;
/// By how much later each time.
const ROUND_NS: u64 = 200_000;

/// Gives back what the domain has of the frames in the list, and from `frame` on, but for `other`, which the handler got: it may be
/// one that the call had let go.
fn all_given_back(frame: u64, other: u64, before: i64) -> bool {
    let listed = (0..LARGE).map(|n| mem::peek64(LIST.addr() + n * 8));
    for mfn in listed.chain(frame..frame + LARGE).filter(|&mfn| mfn != other) {
        op(XENMEM_DECREASE_RESERVATION, &mut reservation(&[mfn]));
    }
    before - current() == LARGE as i64
}
