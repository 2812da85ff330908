//! Making a PVH domain: its memory by its p2m, what [`model::pvh`] says is to be in it, its console.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::hvm_params::*;
use machine::cpu::features;
use machine::hw;
use machine::mem::{PinnedFrame, frames};
use model::addr::{Gfn, GuestPhys};
use model::p2m::Size;
use model::pvh::{self, Guest, Start};
use sync::Cx;
use sync::place::{Root, before};

use super::parts::make_domain;
use super::{Kernel, Source};
use crate::console;
use crate::domain::memory::Memory;
use crate::domain::{self, Domain};
use crate::guest_memory::{pin, write_physical};

/// Bytes that one step copies.
const COPY_STEP: usize = 256 << 10;
/// Frames beyond RAM that a domain may own: ACPI tables, special pages, and Xen's slack of 1 MiB.
const SLACK: u64 = 256;

/// A step of the work.
enum Work {
    Populate { gfn: Gfn, count: u64 },
    Copy { source: pvh::Source, from: usize, len: usize, to: GuestPhys },
    Write { to: GuestPhys, bytes: Vec<u8> },
}

/// A PVH domain in the making.
pub struct Plan {
    /// The domain so far.
    pub domain: Arc<Domain>,
    kernel: Arc<Kernel>,
    work: VecDeque<Work>,
    /// How virtual CPU 0 will start.
    pub registers: pvh::Registers,
}

/// The machine's virtualization, or what it lacks.
pub fn vendor() -> Result<hw::Vendor, String> {
    hw::vendor().map_err(|missing| {
        format!("type = \"pvh\" needs {}, which this machine has not; {}", missing.feature, missing.advice)
    })
}

/// Everything else that can be known to fail before memory is taken.
pub fn prepare(
    cx: &mut Cx<'_, Root>,
    source: &Source,
    kernel: Arc<Kernel>,
    vendor: hw::Vendor,
) -> Result<Plan, String> {
    let config = &source.config;
    let ram = config.memory_mib << 20;
    let guest = Guest {
        kernel: kernel.elf(),
        ramdisk_len: source.ramdisk.map(|bytes| bytes.len() as u64),
        cmdline: &config.cmdline,
        ram_bytes: ram,
        vcpus: config.vcpus,
        flags: 0,
    };
    let start = Start::build(&guest).map_err(|error| error.to_string())?;
    let free = frames::free_frames() * 4096;
    if ram > free {
        return Err(format!("memory = {} MiB, but only {} MiB are free", ram >> 20, free >> 20));
    }
    let work = work_of(&start);
    let id = match source.id {
        Some(id) => id,
        None => domain::free_id(cx).ok_or("all domain numbers are in use")?,
    };
    let map = start.layout.memory_map();
    let largest = if features::has_1g_pages() { Size::Gib1 } else { Size::Mib2 };
    let memory = Memory::new(id, vendor, largest, (ram >> 12) + SLACK, map).ok_or("no memory for page tables")?;
    let domain = make_domain(cx, source, id, memory, None)?;
    Ok(Plan { domain, kernel, work, registers: start.registers })
}

/// A bounded part of a PVH domain. `false` when all is done but to let it run.
pub fn step(cx: &mut Cx<'_, Root>, plan: &mut Plan, source: &Source) -> Result<bool, String> {
    let Some(work) = plan.work.pop_front() else { return Ok(false) };
    if let Some(rest) = perform(cx, plan, source, work)? {
        plan.work.push_front(rest);
    }
    Ok(true)
}

/// The steps, in an order in which RAM is there before anything is copied to it.
fn work_of(start: &Start) -> VecDeque<Work> {
    let special = [pvh::CONSOLE].map(|first| pvh::RamRange { first, nr_frames: 1 });
    let ranges = start.layout.ram().chain([start.layout.acpi()]).chain(special);
    let mut work: VecDeque<Work> =
        ranges.map(|range| Work::Populate { gfn: range.first, count: range.nr_frames }).collect();
    work.extend(start.copies.iter().map(|copy| Work::Copy {
        source: copy.source,
        from: copy.bytes.start,
        len: copy.bytes.len(),
        to: copy.to,
    }));
    work.extend(start.writes.iter().map(|write| Work::Write { to: write.to, bytes: write.bytes.clone() }));
    work
}

/// Does a bounded part of a step and gives back the rest.
fn perform(cx: &mut Cx<'_, Root>, plan: &Plan, source: &Source, work: Work) -> Result<Option<Work>, String> {
    let domain = &plan.domain;
    match work {
        Work::Populate { gfn, count } => {
            let done = populate(cx, domain, gfn, count)?;
            let rest = Gfn::new(gfn.raw() + done);
            Ok((done < count).then_some(Work::Populate { gfn: rest, count: count - done }))
        }
        Work::Copy { source: which, from, len, to } => {
            let bytes = match which {
                pvh::Source::Kernel => plan.kernel.bytes(),
                pvh::Source::Ramdisk => source.ramdisk.unwrap_or_default(),
            };
            let now = len.min(COPY_STEP);
            if !write_physical(cx, domain, to, &bytes[from..from + now]) {
                return Err("the start of day does not fit in the domain's memory".to_string());
            }
            let to = GuestPhys::new(to.raw() + now as u64);
            Ok((now < len).then_some(Work::Copy { source: which, from: from + now, len: len - now, to }))
        }
        Work::Write { to, bytes } => {
            if !write_physical(cx, domain, to, &bytes) {
                return Err("the start of day does not fit in the domain's memory".to_string());
            }
            Ok(None)
        }
    }
}

/// Gives the domain the largest block of memory that fits, or does a part of that, and says how many frames it got.
fn populate(cx: &mut Cx<'_, Root>, domain: &Domain, gfn: Gfn, count: u64) -> Result<u64, String> {
    let (mut memory, _) = cx.lock(&domain.memory);
    for order in [9, 0] {
        let frames = 1u64 << order;
        if !gfn.raw().is_multiple_of(frames) || count < frames {
            continue;
        }
        if let Ok(is_done) = memory.populate(gfn, order) {
            return Ok(if is_done { frames } else { 0 });
        }
    }
    Err(format!("out of memory at guest frame {gfn}"))
}

/// The PV console: its ring, and a port whose other end is the hypervisor.
pub fn open_console<P: before::Domain>(cx: &mut Cx<P>, domain: &Arc<Domain>) -> Result<(), String> {
    let ring: Option<PinnedFrame> = pin(cx, domain, pvh::CONSOLE, true);
    let port = cx.lock(&domain.channels).0.bind_service(console::SERVICE).map_err(|_| "no port for the console")?;
    {
        let (mut params, _) = cx.lock(&domain.params);
        params[HVM_PARAM_CONSOLE_PFN as usize] = pvh::CONSOLE.raw();
        params[HVM_PARAM_CONSOLE_EVTCHN as usize] = u64::from(port.raw());
    }
    *cx.lock(&domain.console).0 = console::Guest::new(ring, Some(port));
    Ok(())
}
