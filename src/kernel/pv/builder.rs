//! Making a PV domain from a configuration and boot modules, in bounded steps.
//!
//! What lies where is decided by [`model::pv::start`]. Here the domain gets its frames, what is to be in them is written,
//! the first page tables among it, and those are handed to [`super::mmu`], which checks them as it does a guest's own.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use abi::pv_start::StartInfo;
use machine::mem::{PinnedFrame, frames, m2p};
use machine::pv::Space;
use model::addr::{GuestPhys, Mfn, PAGE_SIZE, Pfn};
use model::ids::{DomId, VcpuId};
use model::pv::mmu::Stop;
use model::pv::start::{ENTRIES, Guest, Numbering, Ring, Shared, Source, Start, fits, hypercall_page};
use model::pv::state::PvState;
use model::pvh::{MapEntry, map_type};
use sync::Cx;
use sync::place::Root;
use zerocopy::IntoBytes;

use super::mmu::{self, Budget};
use super::{PvDomain, memory, rights};
use crate::builder::{self, Kernel, Source as Modules};
use crate::domain::memory::Memory;
use crate::domain::{self, Domain};
use crate::{boot, console};

/// Bytes that one step copies.
const COPY_STEP: usize = 256 << 10;
/// Pages that one step fills with entries.
const PAGES_STEP: u64 = 4;
/// Frames beyond its memory that a domain may own, as Xen's toolstack lets it.
const SLACK: u64 = 256;
/// Frames that are left for the hypervisor beside an initial domain that wants all: 16 MiB.
const RESERVE: u64 = 4096;
const PAGE: usize = PAGE_SIZE as usize;

/// A step of the work.
enum Work {
    /// So many frames more.
    Populate { count: u64 },
    /// Bytes of a module.
    Copy { source: Source, from: usize, len: usize, to: GuestPhys },
    /// The P2M list from this page of it on.
    List { page: u64 },
    /// The page tables from this one on.
    Tables { index: usize },
    /// The pages that the hypervisor fills, and its ends of them.
    Info,
    /// The page tables are checked, and pinned.
    Pin,
    /// Virtual CPU 0 gets them.
    Load,
}

/// A PV domain in the making.
pub struct Plan {
    domain: Arc<Domain>,
    kernel: Arc<Kernel>,
    start: Start,
    frames: Numbering,
    work: VecDeque<Work>,
}

/// Everything that can be known to fail before memory is taken.
pub fn prepare(cx: &mut Cx<'_, Root>, source: &Modules, kernel: Arc<Kernel>) -> Result<Plan, String> {
    let config = &source.config;
    let free = frames::free_frames();
    let guest = guest(source, &kernel, nr_pages(source, free));
    let start = Start::build(&guest).map_err(|error| error.to_string())?;
    if guest.nr_pages > free {
        return Err(format!("memory = {} MiB, but only {} MiB are free", guest.nr_pages >> 8, free >> 8));
    }
    if !fits(&config.cmdline) {
        log::warn!("({}) its kernel's command line is longer than 1023 characters and is cut", config.name);
    }
    let id = match source.id {
        Some(id) => id,
        None => domain::free_id(cx).ok_or("all domain numbers are in use")?,
    };
    let max_pages = config.maxmem_mib << 8;
    let is_initial = guest.is_initial;
    // The initial domain has the machine's own.
    let map = MapEntry { addr: GuestPhys::new(0), size: max_pages << 12, kind: map_type::RAM };
    let map = Some(map).filter(|_| !is_initial).into_iter().collect();
    let memory = Memory::without_p2m(id, max_pages + SLACK, map);
    let space = Space::new(config.vcpus, boot::isolates(is_initial)).ok_or("no memory for its descriptor tables")?;
    let rights = if is_initial { rights::of_initial_domain() } else { Default::default() };
    let pv = PvDomain::new(space, is_initial, rights);
    let domain = builder::make_domain(cx, source, id, memory, Some(pv))?;
    domain.shared.mask_upcalls();
    domain.assists.store(start.assists, Ordering::Relaxed);
    Ok(Plan { domain, kernel, work: work_of(&start), start, frames: Numbering::new() })
}

/// How many frames it gets. The initial domain takes what is there, but for what its making needs.
fn nr_pages(source: &Modules, free: u64) -> u64 {
    let wanted = source.config.memory_mib << 8;
    if source.id == Some(DomId(0)) { wanted.min(free.saturating_sub(RESERVE)) } else { wanted }
}

/// What the domain is made of.
fn guest<'a>(source: &'a Modules, kernel: &'a Kernel, nr_pages: u64) -> Guest<'a> {
    Guest {
        kernel: kernel.elf(),
        ramdisk_len: source.ramdisk.map(|bytes| bytes.len() as u64),
        cmdline: &source.config.cmdline,
        nr_pages,
        is_initial: source.id == Some(DomId(0)),
    }
}

fn work_of(start: &Start) -> VecDeque<Work> {
    let copies = start.copies.iter().map(|copy| Work::Copy {
        source: copy.source,
        from: copy.bytes.start,
        len: copy.bytes.len(),
        to: copy.to,
    });
    let populate = Work::Populate { count: start.layout.nr_pages };
    let rest = [Work::List { page: 0 }, Work::Tables { index: 0 }, Work::Info, Work::Pin, Work::Load];
    [populate].into_iter().chain(copies).chain(rest).collect()
}

impl Plan {
    /// The domain so far.
    pub fn domain(&self) -> &Arc<Domain> {
        &self.domain
    }

    /// Does a bounded part of it. `false` when all is done but to let it run.
    pub fn step(&mut self, cx: &mut Cx<'_, Root>, source: &Modules) -> Result<bool, String> {
        let Some(work) = self.work.pop_front() else { return Ok(false) };
        if let Some(rest) = self.perform(cx, source, work)? {
            self.work.push_front(rest);
        }
        Ok(true)
    }

    /// A part of a step's work; what is left of it comes back.
    fn perform(&mut self, cx: &mut Cx<'_, Root>, source: &Modules, work: Work) -> Result<Option<Work>, String> {
        match work {
            Work::Populate { count } => {
                let rest = count - self.populate(cx, count)?;
                Ok((rest > 0).then_some(Work::Populate { count: rest }))
            }
            Work::Copy { source: which, from, len, to } => {
                let bytes = match which {
                    Source::Kernel => self.kernel.bytes(),
                    Source::Ramdisk => source.ramdisk.unwrap_or_default(),
                };
                let now = len.min(COPY_STEP);
                self.write(to, &bytes[from..from + now])?;
                let to = GuestPhys::new(to.raw() + now as u64);
                Ok((now < len).then_some(Work::Copy { source: which, from: from + now, len: len - now, to }))
            }
            Work::List { page } => {
                let until = (page + PAGES_STEP).min(self.start.layout.p2m.count);
                (page..until).try_for_each(|page| self.fill_list(page))?;
                Ok((until < self.start.layout.p2m.count).then_some(Work::List { page: until }))
            }
            Work::Tables { index } => {
                let until = (index + PAGES_STEP as usize).min(self.start.layout.tables.len());
                (index..until).try_for_each(|index| self.fill_table(index))?;
                Ok((until < self.start.layout.tables.len()).then_some(Work::Tables { index: until }))
            }
            Work::Info => {
                self.fill_info(cx, source)?;
                Ok(None)
            }
            Work::Pin => Ok((!self.pin_tables(cx)?).then_some(Work::Pin)),
            Work::Load => Ok((!self.load_tables(cx)?).then_some(Work::Load)),
        }
    }

    /// Gives the domain the largest block of memory that fits, or does a part of that, and says how many frames it got.
    fn populate(&mut self, cx: &mut Cx<'_, Root>, count: u64) -> Result<u64, String> {
        for order in [9, 0] {
            let frames = 1u64 << order;
            if count < frames {
                continue;
            }
            let Ok(first) = memory::allocate(cx, &self.domain, order, None) else { return Ok(0) };
            let Some(first) = first else { continue };
            for n in 0..frames {
                m2p::set(Mfn::new(first.raw() + n), self.frames.len() + n);
            }
            self.frames.push(first, frames);
            return Ok(frames);
        }
        Err(format!("out of memory at its frame {:#x}", self.frames.len()))
    }

    /// The machine's frame of one of the domain's.
    fn mfn(&self, pfn: Pfn) -> Mfn {
        self.frames.mfn(pfn).expect("the layout has frames of the domain alone, and it has all of them")
    }

    fn page(&self, pfn: Pfn) -> Result<PinnedFrame, String> {
        PinnedFrame::get(self.mfn(pfn), self.domain.id).map_err(|_| "one of its frames is not its own".to_string())
    }

    fn write(&self, to: GuestPhys, bytes: &[u8]) -> Result<(), String> {
        let mut done = 0;
        while done < bytes.len() {
            let at = GuestPhys::new(to.raw() + done as u64);
            let count = (PAGE - at.offset()).min(bytes.len() - done);
            self.page(Pfn::new(at.frame().raw()))?.write(at.offset(), &bytes[done..done + count]);
            done += count;
        }
        Ok(())
    }

    fn fill_list(&self, page: u64) -> Result<(), String> {
        let layout = &self.start.layout;
        let mut entries = [0u64; ENTRIES];
        let first = page * ENTRIES as u64;
        for (entry, pfn) in entries.iter_mut().zip(first..layout.nr_pages) {
            *entry = self.mfn(Pfn::new(pfn)).raw();
        }
        self.page(Pfn::new(layout.p2m.first.raw() + page))?.write(0, entries.as_bytes());
        Ok(())
    }

    fn fill_table(&self, index: usize) -> Result<(), String> {
        let layout = &self.start.layout;
        let table = &layout.tables[index];
        let mut entries = [0u64; ENTRIES];
        for (n, entry) in entries.iter_mut().enumerate() {
            *entry = layout.entry(table, n, |pfn| self.mfn(pfn));
        }
        self.page(table.pfn)?.write(0, entries.as_bytes());
        Ok(())
    }

    /// Start info, hypercalls, the console's ring.
    fn fill_info(&mut self, cx: &mut Cx<'_, Root>, source: &Modules) -> Result<(), String> {
        let layout = &self.start.layout;
        let none = Ring { mfn: Mfn::new(0), port: None };
        let (mut store, mut console) = (none, none);
        if let Some([store_page, console_page]) = layout.rings {
            // With port 0 Linux takes it that there is no xenstore yet, and does not wait for one.
            store = Ring { mfn: self.mfn(store_page), port: None };
            let mfn = self.mfn(console_page);
            let ring = pin(cx, &self.domain, mfn)?;
            let port = cx.lock(&self.domain.channels).0.bind_service(console::SERVICE);
            let port = port.map_err(|_| "no port for the console")?;
            *cx.lock(&self.domain.console).0 = console::Guest::new(Some(ring), Some(port));
            console = Ring { mfn, port: Some(port) };
        }
        let shared = Shared { shared_info: self.domain.shared.frame().mfn().base(), store, console };
        let info: StartInfo = self.start.start_info(&guest(source, &self.kernel, layout.nr_pages), &shared);
        self.page(layout.start_info)?.write(0, info.as_bytes());
        if let Some(pfn) = self.start.hypercall_page {
            self.page(pfn)?.write(0, &hypercall_page());
        }
        Ok(())
    }

    /// Has the page tables checked, as a guest would. `false` while there is more to check.
    fn pin_tables(&mut self, cx: &mut Cx<'_, Root>) -> Result<bool, String> {
        let root = self.mfn(self.start.layout.root());
        let pinned = mmu::with(cx, &self.domain, false, &Budget::new(), |session| session.mmu().pin(root, 4));
        is_done(pinned.unwrap_or(Ok(())))
    }

    /// Gives virtual CPU 0 the page tables. `false` while there is more to do.
    fn load_tables(&mut self, cx: &mut Cx<'_, Root>) -> Result<bool, String> {
        let root = self.mfn(self.start.layout.root());
        is_done(mmu::set_bases(cx, &self.domain, VcpuId(0), root, None))
    }

    /// The state with which virtual CPU 0 starts.
    pub fn first_state(&self) -> PvState {
        let (regs, root) = (self.start.registers, self.mfn(self.start.layout.root()));
        PvState { regs, ..PvState::new(regs.rip, regs.rsp, root) }
    }
}

fn is_done(result: Result<(), Stop>) -> Result<bool, String> {
    match result {
        Ok(()) => Ok(true),
        Err(Stop::Again) => Ok(false),
        Err(Stop::Refused(errno)) => Err(format!("its first page tables are refused: {errno:?}")),
    }
}

/// Takes a frame that the hypervisor writes until the domain's end.
fn pin(cx: &mut Cx<'_, Root>, domain: &Domain, mfn: Mfn) -> Result<PinnedFrame, String> {
    mmu::pin(cx, domain, mfn).map_err(|_| "a page of its own cannot be written".to_string())
}
