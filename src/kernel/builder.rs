//! Making a domain from a configuration and boot modules, in bounded steps. What only PV has is in [`crate::pv::builder`].

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use abi::hvm_params::*;
use machine::cpu::extended::{self, Extended};
use machine::cpu::features;
use machine::frame::RegsPage;
use machine::hw::{self, HwVcpu};
use machine::mem::{PinnedFrame, frames};
use machine::virt::{Virt, Window};
use model::addr::{Gfn, GuestPhys, PAGE_SHIFT};
use model::chip::lapic::{Config as LapicConfig, Lapic};
use model::config::xl::{DomainConfig, DomainKind};
use model::evtchn::{Channels, NR_PORTS};
use model::grant::{DEFAULT_MAX_FRAMES, GrantTable};
use model::ids::{DomId, VcpuId};
use model::image::{Elf, Kind, decompress, inspect};
use model::p2m::Size;
use model::policy::control::ControlPolicy;
use model::policy::{self, CpuidPolicy, MsrHost, MsrPolicy, Offer, XenLeaves};
use model::pvh::{self, Guest, Start as StartOfDay};
use model::sched::CpuSet;
use sync::place::{self, Root, before};
use sync::{Cx, Lock};

use crate::domain::memory::Memory;
use crate::domain::{self, Context, Domain, Shared, Start, StartState, Vcpu, VcpuState, attention};
use crate::guest_memory::{pin, write_physical};
use crate::pv::{self, PvContext, PvDomain};
use crate::sched::VcpuRef;
use crate::time::Timer;
use crate::{console, sched, time};

/// Unpacked kernels may have this many bytes.
const MAX_KERNEL: u64 = 256 << 20;
/// Bytes that one step copies.
const COPY_STEP: usize = 256 << 10;
/// Frames beyond RAM that a domain may own: ACPI tables, special pages, and Xen's slack of 1 MiB.
const SLACK: u64 = 256;

/// What a domain is made from, and can be made from again.
#[derive(Clone)]
pub struct Source {
    /// Its configuration.
    pub config: DomainConfig,
    /// The number it is to have, if not any.
    pub id: Option<DomId>,
    /// Its kernel's module.
    pub kernel: &'static [u8],
    /// Its ramdisk's.
    pub ramdisk: Option<&'static [u8]>,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do.
    More,
    /// The domain runs.
    Done,
}

/// An ELF kernel: a module as it is, or unpacked.
enum KernelBytes {
    Module(&'static [u8]),
    Unpacked(Vec<u8>),
}

/// A kernel that domains are made from; several share it.
pub struct Kernel {
    /// Where its module begins, by which it is known.
    module: usize,
    bytes: KernelBytes,
    elf: Elf,
}

impl Kernel {
    /// What its file says of it.
    pub fn elf(&self) -> &Elf {
        &self.elf
    }

    /// The file.
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            KernelBytes::Module(bytes) => bytes,
            KernelBytes::Unpacked(bytes) => bytes,
        }
    }
}

/// A step of the work.
enum Work {
    Populate { gfn: Gfn, count: u64 },
    Copy { source: pvh::Source, from: usize, len: usize, to: GuestPhys },
    Write { to: GuestPhys, bytes: Vec<u8> },
}

/// A domain in the making.
pub struct Builder {
    source: Source,
    plan: Option<Plan>,
}

/// How far a domain in the making is.
enum Plan {
    Pvh(PvhPlan),
    Pv(pv::builder::Plan),
}

struct PvhPlan {
    domain: Arc<Domain>,
    kernel: Arc<Kernel>,
    work: VecDeque<Work>,
    registers: pvh::Registers,
}

impl Builder {
    /// Nothing done yet.
    pub fn new(source: Source) -> Self {
        Self { source, plan: None }
    }

    /// The domain's name.
    pub fn name(&self) -> &str {
        &self.source.config.name
    }

    /// Does a part of it. The first step, which unpacks the kernel, is the only one without a bound.
    pub fn step(&mut self, cx: &mut Cx<'_, Root>) -> Result<Progress, String> {
        let Some(plan) = &mut self.plan else {
            self.plan = Some(prepare(cx, &self.source)?);
            return Ok(Progress::More);
        };
        let has_more = match plan {
            Plan::Pvh(plan) => step_pvh(cx, plan, &self.source)?,
            Plan::Pv(plan) => plan.step(cx, &self.source)?,
        };
        if has_more {
            return Ok(Progress::More);
        }
        if let Some(plan) = self.plan.take() {
            finish(cx, plan)?;
        }
        Ok(Progress::Done)
    }

    /// Gives up: the domain, if there is one by now, is to give its memory back.
    pub fn abandon(self, cx: &mut Cx<'_, Root>) -> Option<Arc<Domain>> {
        let domain = self.plan?.into_domain();
        for vcpu in &domain.vcpus {
            *cx.lock(&vcpu.context).0 = None;
            sched::release(cx, vcpu.key);
        }
        Some(domain)
    }
}

impl Plan {
    fn into_domain(self) -> Arc<Domain> {
        match self {
            Self::Pvh(plan) => plan.domain,
            Self::Pv(plan) => plan.domain().clone(),
        }
    }
}

/// Everything that can be known to fail before memory is taken.
fn prepare(cx: &mut Cx<'_, Root>, source: &Source) -> Result<Plan, String> {
    match source.config.kind {
        DomainKind::Pvh => prepare_pvh(cx, source).map(Plan::Pvh),
        DomainKind::Pv => {
            let kernel = unpack(cx, source.kernel)?;
            pv::builder::prepare(cx, source, kernel).map(Plan::Pv)
        }
    }
}

fn prepare_pvh(cx: &mut Cx<'_, Root>, source: &Source) -> Result<PvhPlan, String> {
    let config = &source.config;
    let vendor = hw::vendor().map_err(|missing| {
        format!("type = \"pvh\" needs {}, which this machine has not; {}", missing.feature, missing.advice)
    })?;
    let kernel = unpack(cx, source.kernel)?;
    let ram = config.memory_mib << 20;
    let guest = Guest {
        kernel: &kernel.elf,
        ramdisk_len: source.ramdisk.map(|bytes| bytes.len() as u64),
        cmdline: &config.cmdline,
        ram_bytes: ram,
        vcpus: config.vcpus,
        flags: 0,
    };
    let start = StartOfDay::build(&guest).map_err(|error| error.to_string())?;
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
    Ok(PvhPlan { domain, kernel, work, registers: start.registers })
}

/// A bounded part of a PVH domain. `false` when all is done but to let it run.
fn step_pvh(cx: &mut Cx<'_, Root>, plan: &mut PvhPlan, source: &Source) -> Result<bool, String> {
    let Some(work) = plan.work.pop_front() else { return Ok(false) };
    if let Some(rest) = perform(cx, plan, source, work)? {
        plan.work.push_front(rest);
    }
    Ok(true)
}

/// The kernel in a module, unpacked unless it is a plain ELF; one that another domain has is shared.
fn unpack(cx: &mut Cx<'_, Root>, module: &'static [u8]) -> Result<Arc<Kernel>, String> {
    static KERNELS: Lock<place::DomainList, Vec<Weak<Kernel>>> = Lock::new(Vec::new());
    {
        let (mut kernels, _) = cx.lock(&KERNELS);
        kernels.retain(|kernel| kernel.strong_count() > 0);
        let found = kernels.iter().filter_map(Weak::upgrade).find(|kernel| kernel.module == module.as_ptr() as usize);
        if let Some(found) = found {
            return Ok(found);
        }
    }
    let bytes = match inspect(module, MAX_KERNEL).map_err(|error| error.to_string())? {
        Kind::Elf => KernelBytes::Module(module),
        Kind::Packed(packed) => {
            let len = packed.unpacked_len;
            log::info!("unpacking a kernel of {} KiB to {} KiB", module.len() >> 10, len >> 10);
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(len).map_err(|_| format!("no {len} bytes of memory to unpack the kernel"))?;
            bytes.resize(len, 0);
            decompress(module, &packed, &mut bytes).map_err(|error| error.to_string())?;
            KernelBytes::Unpacked(bytes)
        }
    };
    let elf = match &bytes {
        KernelBytes::Module(bytes) => Elf::parse(bytes),
        KernelBytes::Unpacked(bytes) => Elf::parse(bytes),
    };
    let elf = elf.map_err(|error| error.to_string())?;
    let kernel = Arc::new(Kernel { module: module.as_ptr() as usize, bytes, elf });
    cx.lock(&KERNELS).0.push(Arc::downgrade(&kernel));
    Ok(kernel)
}

/// The steps, in an order in which RAM is there before anything is copied to it.
fn work_of(start: &StartOfDay) -> VecDeque<Work> {
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
fn perform(cx: &mut Cx<'_, Root>, plan: &PvhPlan, source: &Source, work: Work) -> Result<Option<Work>, String> {
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

/// Gives the domain the largest block of memory that fits, and says how many frames that were.
fn populate(cx: &mut Cx<'_, Root>, domain: &Domain, gfn: Gfn, count: u64) -> Result<u64, String> {
    let (mut memory, _) = cx.lock(&domain.memory);
    for order in [9, 0] {
        let frames = 1u64 << order;
        if gfn.raw().is_multiple_of(frames) && count >= frames && memory.populate(gfn, order).is_ok() {
            return Ok(frames);
        }
    }
    Err(format!("out of memory at guest frame {gfn}"))
}

/// What this machine's processor, and Euxen, can give to a domain.
fn offer(config: &DomainConfig) -> Offer {
    // The width of the highest frame's number.
    let bits = u64::BITS - frames::count().saturating_sub(1).leading_zeros() + PAGE_SHIFT;
    let kind = match config.kind {
        DomainKind::Pvh => policy::Kind::Hvm,
        DomainKind::Pv => policy::Kind::Pv { address_bits: bits as u8 },
    };
    Offer {
        kind,
        nr_vcpus: config.vcpus,
        xcr0: if features::has_xsave() { extended::components() } else { 0 },
        invpcid: true,
        rdtscp: true,
        spec_ctrl: false,
        arch_caps: false,
    }
}

fn xen_leaves(id: DomId) -> XenLeaves {
    let info = time::time_info();
    XenLeaves {
        domain: id,
        tsc_khz: (machine::time::tsc_hz() / 1000) as u32,
        tsc_offset: 0,
        tsc_mul: info.tsc_to_system_mul,
        tsc_shift: info.tsc_shift,
        tsc_is_reliable: info.flags != 0,
        has_rdtscp: true,
        apic_access_virt: false,
        x2apic_virt: false,
        upcall_vector: false,
    }
}

/// A domain without memory of its own but for `shared_info` and the first page of grants, and with virtual CPUs that
/// have no state yet; a PV domain if what only PV has is given.
pub fn make_domain(
    cx: &mut Cx<'_, Root>,
    source: &Source,
    id: DomId,
    mut memory: Memory,
    pv: Option<PvDomain>,
) -> Result<Arc<Domain>, String> {
    let config = &source.config;
    let cpuid = CpuidPolicy::new(&features::leaf, &offer(config), xen_leaves(id));
    let msrs = MsrPolicy::new(&cpuid, &MsrHost { microcode: 0, arch_capabilities: 0, lfence_serializes: false });
    let no_memory = |_| "no memory for the domain's own pages".to_string();
    let info = memory.new_special().map_err(no_memory)?;
    let mut grants = GrantTable::new(DEFAULT_MAX_FRAMES);
    let first_grants = memory.new_special().map_err(no_memory)?;
    grants.grow(first_grants.mfn()).map_err(|_| "no memory for the grant table")?;
    let shared = Shared::new(info, config.vcpus);
    let channels = Channels::new(id, config.vcpus, NR_PORTS - 1).map_err(|_| "too many virtual CPUs")?;
    let mut vcpus = Vec::new();
    for n in 0..config.vcpus {
        let hw = make_hw(VcpuId(n), &memory, pv.as_ref()).ok_or(NO_VCPU_MEMORY)?;
        vcpus.push(make_vcpu(cx, VcpuId(n), hw, &cpuid, &msrs)?);
    }
    let domain = Arc::new(Domain {
        id,
        handle: config.uuid.unwrap_or_default(),
        name: config.name.clone(),
        config: source.clone(),
        vcpus,
        shared,
        channels: Lock::new(channels),
        pv,
        memory: Lock::new(memory),
        grants: Lock::new(grants),
        params: Lock::new([0; HVM_NR_PARAMS as usize]),
        phys_bits: u8::try_from(cpuid.phys_bits()).unwrap_or(48),
        has_gib_pages: cpuid.has_extended_edx(1 << 26),
        controls: ControlPolicy::new(&cpuid),
        cpuid,
        msrs,
        callback_vector: AtomicU8::new(0),
        tlb_epoch: AtomicU64::new(0),
        assists: AtomicU64::new(0),
        nr_up: AtomicU32::new(0),
        life: Default::default(),
        console: Lock::new(console::Guest::new(None, None)),
    });
    for vcpu in &domain.vcpus {
        sched::bind(cx, vcpu.key, VcpuRef { domain: domain.clone(), id: vcpu.id });
    }
    Ok(domain)
}

const NO_VCPU_MEMORY: &str = "no memory for a virtual CPU";

/// A virtual CPU's part of the hardware, and the page of its registers.
fn make_hw(id: VcpuId, memory: &Memory, pv: Option<&PvDomain>) -> Option<(HwVcpu, RegsPage)> {
    let regs = RegsPage::new()?;
    let hw = match pv {
        Some(pv) => HwVcpu::Pv(machine::pv::Vcpu::new(&pv.space, id, &regs)),
        None => HwVcpu::new(memory.root()?)?,
    };
    Some((hw, regs))
}

fn make_vcpu(
    cx: &mut Cx<'_, Root>,
    id: VcpuId,
    (mut hw, regs): (HwVcpu, RegsPage),
    cpuid: &CpuidPolicy,
    msrs: &MsrPolicy,
) -> Result<Vcpu, String> {
    let is_pv = matches!(hw, HwVcpu::Pv(_));
    msrs.without_exit().for_each(|(msr, read, write)| hw.allow_msr(msr, read, write));
    let lapic = Lapic::new(LapicConfig {
        id: CpuidPolicy::apic_id(id),
        bsp: id.0 == 0,
        x2apic: cpuid.has_leaf_1_ecx(1 << 21),
        tsc_deadline: cpuid.has_leaf_1_ecx(1 << 24),
        phys_bits: u8::try_from(cpuid.phys_bits()).unwrap_or(48),
    });
    let context = Context {
        hw,
        regs,
        pv: is_pv.then(|| alloc::boxed::Box::new(PvContext::new())),
        extended: Extended::new().ok_or(NO_VCPU_MEMORY)?,
        tsc_offset: 0,
        window: Window::None,
        tlb_epoch: Default::default(),
        last_cpu: None,
        is_polling: false,
        last_exit: None,
        hypercalls: Default::default(),
    };
    let key = sched::reserve(cx, CpuSet::ALL).ok_or(NO_VCPU_MEMORY)?;
    let state = VcpuState {
        lapic,
        start: None,
        waits_for_startup: true,
        is_initialised: false,
        singleshot: Timer::new(),
        periodic: Timer::new(),
        period_ns: 0,
        poll: Timer::new(),
        apic_timer: Timer::new(),
        watchdogs: [None, None],
        areas: Default::default(),
    };
    Ok(Vcpu {
        id,
        key,
        state: Lock::new(state),
        context: Lock::new(Some(alloc::boxed::Box::new(context))),
        attention: AtomicU32::new(0),
        is_up: AtomicBool::new(false),
        tsc_offset: AtomicU64::new(0),
        exits: AtomicU32::new(0),
    })
}

/// The last step: the first virtual CPU, and off it goes.
fn finish(cx: &mut Cx<'_, Root>, plan: Plan) -> Result<(), String> {
    let (domain, start) = match plan {
        Plan::Pvh(plan) => {
            open_console(cx, &plan.domain)?;
            let registers = StartState { registers: plan.registers, cr3: 0, cr4: 0, efer: 0 };
            (plan.domain, Start::Registers(alloc::boxed::Box::new(registers)))
        }
        Plan::Pv(plan) => (plan.domain().clone(), Start::Pv(alloc::boxed::Box::new(plan.first_state()))),
    };
    let first = &domain.vcpus[0];
    {
        let (mut state, _) = cx.lock(&first.state);
        state.start = Some(start);
        state.waits_for_startup = false;
        state.is_initialised = true;
    }
    first.is_up.store(true, Ordering::Release);
    domain.nr_up.store(1, Ordering::Release);
    for vcpu in &domain.vcpus {
        domain.shared.write_time(vcpu.id, &time::time_info());
        vcpu.note(attention::START);
    }
    domain::publish(cx, domain.clone());
    time::tell_wall_clock(cx, &domain);
    let mib = domain.pages(cx) >> 8;
    log::info!(
        "({}) {}: {mib} MiB, {} virtual CPU{}, {} ticks after the first instruction",
        domain.name,
        domain.id,
        domain.vcpus.len(),
        if domain.vcpus.len() == 1 { "" } else { "s" },
        machine::cpu::rdtsc() - machine::time::boot(),
    );
    for vcpu in &domain.vcpus {
        sched::unpause(cx, vcpu.key);
    }
    Ok(())
}

/// The PV console: its ring, and a port whose other end is the hypervisor.
fn open_console<P: before::Domain>(cx: &mut Cx<P>, domain: &Arc<Domain>) -> Result<(), String> {
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
