//! What every domain has, whatever its kind: its own pages, policies, virtual CPUs.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};

use abi::hvm_params::HVM_NR_PARAMS;
use machine::cpu::extended::{self, Extended};
use machine::cpu::features;
use machine::frame::RegsPage;
use machine::hw::{self, HwVcpu};
use machine::mem::frames;
use machine::virt::{Virt, Window};
use model::addr::{Mfn, PAGE_SHIFT};
use model::chip::lapic::{Config as LapicConfig, Lapic};
use model::config::cpus::List;
use model::config::scheduling::Scheduling;
use model::config::xl::{DomainConfig, DomainKind};
use model::evtchn::{Channels, NR_PORTS};
use model::grant::{DEFAULT_MAX_FRAMES, GrantTable};
use model::ids::{DomId, VcpuId};
use model::policy::control::ControlPolicy;
use model::policy::{self, CpuidPolicy, MsrHost, MsrPolicy, Offer, XenLeaves};
use model::pvh::LOCAL_APIC;
use model::sched::CpuSet;
use model::sched::credit::Account;
use sync::place::Root;
use sync::{Cx, Lock};

use super::Source;
use crate::domain::memory::Memory;
use crate::domain::{Context, Domain, Shared, Vcpu, VcpuState};
use crate::pv::{PvContext, PvDomain};
use crate::run::Running;
use crate::time::Timer;
use crate::{console, sched, time};

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
    let Scheduling { weight, cap, .. } = config.scheduling;
    let account = Account::new(weight.into(), cap.into()).expect("a configuration has no weight of 0");
    let account = Arc::new(account);
    let (mut vcpus, mut contexts): (Vec<Arc<Vcpu>>, Vec<Box<Context>>) = Default::default();
    let apic_page = if pv.is_none() && hw::serves_apic_page() { Some(apic_page(&mut memory)?) } else { None };
    for id in (0..config.vcpus).map(VcpuId) {
        let make = |cx: &mut Cx<'_, Root>| {
            let affinity = affinity(cx, config, id)?;
            let mut hw = make_hw(id, &memory, pv.as_ref()).ok_or(NO_VCPU_MEMORY)?;
            if let Some(page) = apic_page {
                hw.0.set_apic_access_page(page);
            }
            make_vcpu(cx, id, hw, (&account, affinity), &cpuid, &msrs)
        };
        match make(cx) {
            Ok((vcpu, context)) => {
                vcpus.push(Arc::new(vcpu));
                contexts.push(context);
            }
            Err(why) => {
                vcpus.iter().for_each(|vcpu| sched::release(cx, vcpu.key));
                return Err(why);
            }
        }
    }
    let domain = Arc::new(Domain {
        id,
        handle: config.uuid.unwrap_or_default(),
        name: config.name.clone(),
        label: alloc::format!("({}) ", config.name),
        config: source.clone(),
        vcpus,
        account,
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
    for (vcpu, context) in domain.vcpus.iter().zip(contexts) {
        sched::bind(cx, Box::new(Running::new(domain.clone(), vcpu.clone(), context)));
    }
    Ok(domain)
}

/// The frame that lies at the local APICs' address, where the processor serves their registers.
fn apic_page(memory: &mut Memory) -> Result<Mfn, String> {
    let no_memory = |_| "no memory for the local APICs' page".to_string();
    let mfn = memory.new_special().map_err(no_memory)?.mfn();
    let replaced = memory.map_special(LOCAL_APIC.frame(), mfn).map_err(no_memory)?;
    debug_assert!(replaced.iter().all(Option::is_none), "nothing was there");
    Ok(mfn)
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

/// Where a virtual CPU may run, and where it would rather.
fn affinity(cx: &mut Cx<'_, Root>, config: &DomainConfig, id: VcpuId) -> Result<(CpuSet, CpuSet), String> {
    let (hard, soft) = (config.scheduling.hard.of(id), config.scheduling.soft.of(id));
    let usable = sched::usable_cpus(cx);
    if hard.and(&usable).is_empty() {
        return Err(format!("cpus: {id} may run on {} only, and of CPUs there are {}", List(hard), List(usable)));
    }
    Ok((hard, soft))
}

fn make_vcpu(
    cx: &mut Cx<'_, Root>,
    id: VcpuId,
    (mut hw, regs): (HwVcpu, RegsPage),
    (account, affinity): (&Arc<Account>, (CpuSet, CpuSet)),
    cpuid: &CpuidPolicy,
    msrs: &MsrPolicy,
) -> Result<(Vcpu, Box<Context>), String> {
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
        pv: is_pv.then(|| Box::new(PvContext::new())),
        extended: Extended::new().ok_or(NO_VCPU_MEMORY)?,
        tsc_offset: 0,
        window: Window::None,
        tlb_epoch: Default::default(),
        last_cpu: None,
        has_apic_page: false,
        is_polling: false,
        last_exit: None,
        hypercalls: Default::default(),
    };
    let key = sched::reserve(cx, account.clone(), affinity).ok_or(NO_VCPU_MEMORY)?;
    let apic_base = AtomicU64::new(lapic.apic_base());
    let state = VcpuState {
        lapic,
        posted: None,
        start: None,
        waits_for_startup: true,
        is_initialised: false,
        singleshot: Timer::new(),
        periodic: Timer::new(),
        period_ns: 0,
        poll: Timer::new(),
        apic_timer: Timer::new(),
        watchdogs: [None, None],
        overridden: None,
        exchange: None,
    };
    let vcpu = Vcpu {
        id,
        key,
        state: Lock::new(state),
        attention: AtomicU32::new(0),
        is_up: AtomicBool::new(false),
        apic_base,
        tsc_offset: AtomicU64::new(0),
        runstate_area: AtomicU64::new(0),
        exits: Default::default(),
    };
    Ok((vcpu, Box::new(context)))
}
