//! From the boot page tables to the hypervisor's own, and from the firmware's memory map to a frame allocator.

use core::sync::atomic::{AtomicU64, Ordering};

use model::addr::{MachineAddr, Mfn, PAGE_SIZE};
use model::ids::CpuId;
use model::page::Frame;
use model::regions::{Regions, Span};

use super::layout::{DIRECT_MAP, DIRECT_MAP_SIZE, FRAME_TABLE, IMAGE};
use super::map::{self, Rights, TableSource};
use super::{frames, m2p};
use crate::cpu::{features, trap};
use crate::percpu;

unsafe extern "C" {
    static image_start: [u8; 0];
    static entry_start: [u8; 0];
    static entry_end: [u8; 0];
    static rodata_start: [u8; 0];
    static data_start: [u8; 0];
    static image_end: [u8; 0];
}

/// Bytes of a large page.
const LARGE: u64 = 2 << 20;
/// The memory that a PC's firmware uses.
pub const FIRST_MIB: u64 = 1 << 20;

/// Where the image was loaded.
static LOADED: AtomicU64 = AtomicU64::new(0);
/// A page below 1 MiB that other CPUs start from; 0 for none.
static LOW_PAGE: AtomicU64 = AtomicU64::new(0);

/// The machine address of something in the image.
pub fn image_phys(address: u64) -> u64 {
    address - IMAGE + LOADED.load(Ordering::Relaxed)
}

/// The page kept below 1 MiB.
pub fn low_page() -> Option<u64> {
    Some(LOW_PAGE.load(Ordering::Relaxed)).filter(|&page| page != 0)
}

/// Tables taken from free RAM below 4 GiB, reached by the identity map of boot.
pub(super) struct Early<'a> {
    free: &'a mut Regions,
}

impl Early<'_> {
    pub(super) fn pages(&mut self, count: u64) -> Option<MachineAddr> {
        let start = self.free.take_below(1 << 32, count)?;
        // SAFETY: free RAM below 4 GiB, which is mapped to itself.
        unsafe { core::ptr::write_bytes(start as *mut u64, 0, (count * PAGE_SIZE / 8) as usize) };
        Some(MachineAddr::new(start))
    }
}

impl TableSource for Early<'_> {
    fn table(&mut self) -> Option<MachineAddr> {
        self.pages(1)
    }
    fn pointer(&self, addr: MachineAddr) -> *mut u64 {
        addr.raw() as *mut u64
    }
}

/// Builds the address space of `layout`, loads it, and opens the frame allocator. `ram` is what firmware reports,
/// `kept` what must stay as it is: modules, symbols. Gives back the bytes of RAM.
///
/// # Safety
/// Runs once, on the first CPU and the boot page tables, with the image at `loaded`; all spans are what the loader said.
pub unsafe fn set_up(mut ram: Regions, kept: impl Iterator<Item = Span>, loaded: u64, limit: u64) -> Option<u64> {
    LOADED.store(loaded, Ordering::Relaxed);
    ram.remove(Span { start: DIRECT_MAP_SIZE.min(limit), end: !4095 });
    let image = Span { start: loaded, end: image_phys(&raw const image_end as u64) };
    let mut free = ram.clone();
    free.remove(image);
    kept.for_each(|span| free.remove(span));
    keep_low_page(&mut free);
    // An initial domain looks for firmware's data in the first MiB, which is nobody's memory therefore, as with Xen.
    free.remove(Span { start: 0, end: FIRST_MIB });

    let mut early = Early { free: &mut free };
    let root = early.table()?;
    map_image(&mut early, root, image)?;
    map_ram(&mut early, root, &ram, image)?;
    map_frame_table(&mut early, root, &ram)?;
    m2p::map_table(&mut early, root, &ram)?;
    // SAFETY: fresh tables, not loaded yet.
    unsafe { map::complete(&mut early, root)? };
    let slim = early.table()?;
    map_entry(&mut early, slim)?;
    let last = ram.iter().last()?.end;
    // SAFETY: the new tables map the image, with the boot stack in it, where it runs.
    unsafe { x86_64_load(root) };
    map::set_root(root);
    map::set_slim(slim);
    features::protect();
    // SAFETY: the table has just been mapped, zeroed, for every frame up to the last.
    unsafe { frames::open(last / PAGE_SIZE) };
    free.iter().for_each(|span| frames::add(Mfn::new(span.start / PAGE_SIZE), Mfn::new(span.end / PAGE_SIZE)));
    Some(ram.iter().map(Span::len).sum())
}

/// Keeps the highest free page below 640 KiB; firmware data lies at the very top of it.
fn keep_low_page(free: &mut Regions) {
    let found = free.iter().rfind(|span| span.start < 0xa0000);
    if let Some(span) = found {
        let page = span.end.min(0x9_0000).saturating_sub(PAGE_SIZE);
        if page >= span.start.max(PAGE_SIZE) {
            LOW_PAGE.store(page, Ordering::Relaxed);
            free.remove(Span { start: page, end: page + PAGE_SIZE });
        }
    }
}

/// The image: text readable and executable, constants readable, the rest writable.
fn map_image(early: &mut Early<'_>, root: MachineAddr, image: Span) -> Option<()> {
    let parts = [
        (&raw const image_start as u64, &raw const rodata_start as u64, Rights::RX),
        (&raw const rodata_start as u64, &raw const data_start as u64, Rights::RO),
        (&raw const data_start as u64, IMAGE + image.len(), Rights::RW),
    ];
    for (start, end, rights) in parts {
        // SAFETY: fresh tables, not loaded yet.
        unsafe { map::map(early, root, start, image_phys(start), end - start, rights, 21)? };
    }
    Some(())
}

/// What of the image a processor needs to leave a guest: the entry code and the IDT, which it only reads.
fn map_entry(early: &mut Early<'_>, slim: MachineAddr) -> Option<()> {
    let (start, end) = (&raw const entry_start as u64, &raw const entry_end as u64);
    let idt = trap::idt_address();
    // SAFETY: fresh tables, not loaded yet.
    unsafe {
        map::map(early, slim, start, image_phys(start), end - start, Rights::RX, 12)?;
        map::map(early, slim, idt, image_phys(idt), PAGE_SIZE, Rights::RO, 12)?;
    }
    Some(())
}

/// The direct map. What of the image is not writable in its own place is not writable here.
fn map_ram(early: &mut Early<'_>, root: MachineAddr, ram: &Regions, image: Span) -> Option<()> {
    let order = map::largest_order(features::has_1g_pages());
    let read_only = Span { start: image.start, end: image_phys(&raw const data_start as u64) };
    let mut writable = ram.clone();
    writable.remove(read_only);
    let spans = writable.iter().map(|span| (span, Rights::RW)).chain([(read_only, Rights::RO)]);
    for (span, rights) in spans {
        // SAFETY: as above.
        unsafe { map::map(early, root, DIRECT_MAP + span.start, span.start, span.len(), rights, order)? };
    }
    // The low page is RAM of the firmware's list, so it is in the map already.
    Some(())
}

/// The frame table: memory of its own where there is RAM, one page of zeros, read-only, where there is none.
fn map_frame_table(early: &mut Early<'_>, root: MachineAddr, ram: &Regions) -> Option<()> {
    let record = size_of::<Frame>() as u64;
    let nothing = early.pages(1)?;
    let mut done = 0;
    let mut regions = Regions::new();
    for span in ram.iter() {
        // In units of table bytes; spans that share a page of the table are joined by rounding outwards.
        regions.add(Span { start: span.start / PAGE_SIZE * record, end: span.end / PAGE_SIZE * record }.pages_around());
    }
    for span in regions.iter() {
        for hole in (done..span.start).step_by(PAGE_SIZE as usize) {
            // SAFETY: as above.
            unsafe { map::map(early, root, FRAME_TABLE + hole, nothing.raw(), PAGE_SIZE, Rights::RO, 12)? };
        }
        map_records(early, root, span)?;
        done = span.end;
    }
    Some(())
}

/// Fresh memory for a span of the frame table, in pieces of 2 MiB where it is long.
fn map_records(early: &mut Early<'_>, root: MachineAddr, span: Span) -> Option<()> {
    let mut at = span.start;
    while at < span.end {
        let is_large = at.is_multiple_of(LARGE) && span.end - at >= LARGE;
        let large = if is_large { take_large(early) } else { None };
        let (bytes, to) = match large {
            Some(to) => (LARGE, to),
            None => (PAGE_SIZE, early.pages(1)?),
        };
        // SAFETY: as above.
        unsafe { map::map(early, root, FRAME_TABLE + at, to.raw(), bytes, Rights::RW, 21)? };
        at += bytes;
    }
    Some(())
}

/// Fresh memory for a span of a table in pieces of 2 MiB, at each of the places given; `fill` gets each piece first. The span
/// begins and ends at a multiple of that.
pub(super) fn map_large_pieces(
    early: &mut Early<'_>,
    root: MachineAddr,
    span: Span,
    places: &[(u64, Rights)],
    fill: impl Fn(*mut u64, u64),
) -> Option<()> {
    for at in (span.start..span.end).step_by(LARGE as usize) {
        let to = take_large(early)?;
        fill(early.pointer(to), LARGE);
        for &(place, rights) in places {
            // SAFETY: as above.
            unsafe { map::map(early, root, place + at, to.raw(), LARGE, rights, 21)? };
        }
    }
    Some(())
}

/// 2 MiB of free RAM below 4 GiB, aligned; what is taken too much to align goes back.
fn take_large(early: &mut Early<'_>) -> Option<MachineAddr> {
    let start = early.pages(1023)?.raw();
    let aligned = start.next_multiple_of(2 << 20);
    early.free.add(Span { start, end: aligned });
    early.free.add(Span { start: aligned + (2 << 20), end: start + 1023 * PAGE_SIZE });
    Some(MachineAddr::new(aligned))
}

unsafe fn x86_64_load(root: MachineAddr) {
    // SAFETY: by the caller.
    unsafe { core::arch::asm!("mov cr3, {0}", in(reg) root.raw(), options(nostack, preserves_flags)) };
}

/// The block of the first CPU, whose stack from now on is there.
pub fn first_block() -> Option<u64> {
    crate::smp::map_block(CpuId(0))?;
    Some(percpu::stack_top(CpuId(0)))
}
