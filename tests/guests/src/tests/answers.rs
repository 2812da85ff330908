//! What Xen 4.17 answers to calls that are right, wrong, or none of the caller's business.
//!
//! Each wanted answer was seen on Xen 4.17 itself, run with this guest as domain 0; what a privileged domain may do
//! beyond another is asked of an unprivileged one alone.

use abi::event_channel::*;
use abi::grant_table::*;
use abi::hvm_op::*;
use abi::hvm_params::*;
use abi::memory::*;
use abi::sched::*;
use abi::vcpu::*;
use abi::version::*;
use abi::xen::*;
use abi::{Errno, cpuid, features, nr};
use guest::check::{equal, fails, zero};
use guest::events as ev;
use guest::hypercall::{self, Ret};
use guest::mem::{self, Page};
use guest::start::Boot;
use guest::time::{self, MILLISECOND};
use guest::{check, cpu};
use zerocopy::FromZeros;

static PAGE: Page = Page::new();
static MOVED: [Page; 2] = [const { Page::new() }; 2];

/// Runs the test.
pub fn run(boot: &Boot) {
    mem::map_low_page(0, false);
    zero(ev::init(), "the shared page is mapped and the callback vector set");
    (0..4096).for_each(|port| ev::set_mask(port, true));
    let is_plain = !boot.has("dom0");
    version(is_plain);
    vcpu(is_plain);
    timers();
    scheduler(is_plain);
    parameters();
    hvm(boot);
    memory(boot, is_plain);
    ranges();
    grants();
    channels();
    others();
}

fn call(number: u64, op: u32, arg: u64) -> Ret {
    hypercall::call(number, [op.into(), arg, 0, 0, 0])
}

fn own_id() -> u16 {
    cpu::cpuid(hypercall::cpuid_base().unwrap_or(0) + 4, 0).ecx as u16
}

fn version(is_plain: bool) {
    fails(
        call(nr::XEN_VERSION, XENVER_PAGESIZE, PAGE.addr()),
        Errno::EINVAL,
        "XENVER_pagesize with a pointer is EINVAL",
    );
    let mut info = FeatureInfo { submap_idx: 0, submap: 0 };
    zero(hypercall::op(nr::XEN_VERSION, XENVER_GET_FEATURES, &mut info), "XENVER_get_features succeeds");
    let wanted = [
        features::XENFEAT_WRITABLE_PAGE_TABLES,
        features::XENFEAT_AUTO_TRANSLATED_PHYSMAP,
        features::XENFEAT_HVM_CALLBACK_VECTOR,
        features::XENFEAT_HVM_SAFE_PVCLOCK,
        features::XENFEAT_MEMORY_OP_VNODE_SUPPORTED,
        features::XENFEAT_NOT_DIRECT_MAPPED,
    ];
    let privileged = 1 << features::XENFEAT_DOM0 | 1 << features::XENFEAT_HVM_PIRQS;
    let wanted = wanted.iter().fold(0, |bits, bit| bits | 1u32 << bit);
    equal((info.submap & !privileged).into(), wanted.into(), "the features are those of a PVH domain");
    fails(call(nr::XEN_VERSION, XENVER_GET_FEATURES, 0), Errno::EFAULT, "features to nowhere are EFAULT");
    if is_plain {
        mem::poke64(PAGE.addr() + 16, 0x5555);
        zero(call(nr::XEN_VERSION, XENVER_COMMANDLINE, PAGE.addr()), "XENVER_commandline succeeds");
        equal(mem::peek64(PAGE.addr() + 16), 0x5555, "what is denied is short");
    }
    let msr = cpu::cpuid(hypercall::cpuid_base().unwrap_or(0) + 2, 0).ebx;
    check!(cpu::try_rdmsr(msr) == Ok(0), "the hypercall page's MSR reads as zero"; "{:?}", cpu::try_rdmsr(msr));
    check!(cpu::try_wrmsr(msr, PAGE.addr() + 1).is_err(), "there is no second hypercall page");
    check!(cpu::try_wrmsr(msr, 0xff_ffff_f000).is_err(), "a hypercall page needs memory");
}

fn vcpu(is_plain: bool) {
    let op = |op: u32, vcpu: u64, arg: u64| hypercall::call(nr::VCPU_OP, [op.into(), vcpu, arg, 0, 0]);
    equal(op(VCPUOP_IS_UP, 0, 0).0 as u64, 1, "VCPUOP_is_up of the caller is 1");
    zero(op(VCPUOP_UP, 0, 0), "VCPUOP_up of one that is up succeeds");
    let mut context = abi::hvm_vcpu::HvmContext::new_zeroed();
    context.mode = 77;
    fails(hypercall::vcpu_op(VCPUOP_INITIALISE, 0, &mut context), Errno::EEXIST, "an initialised vCPU is EEXIST first");
    fails(op(VCPUOP_INITIALISE, 0, 0), Errno::EFAULT, "a context from nowhere is EFAULT");
    fails(op(99, 0, 0), Errno::ENOSYS, "an unknown vcpu_op is ENOSYS");
    fails(op(99, 4000, 0), Errno::ENOENT, "an unknown vcpu_op of no vCPU is ENOENT");
    if is_plain {
        fails(op(VCPUOP_GET_PHYSID, 0, PAGE.addr()), Errno::EINVAL, "VCPUOP_get_physid is EINVAL");
    }
    fails(op(VCPUOP_SEND_NMI, 0, PAGE.addr()), Errno::EINVAL, "VCPUOP_send_nmi with a pointer is EINVAL");
    let mut period = SetPeriodicTimer { period_ns: 1 << 63 };
    fails(hypercall::vcpu_op(VCPUOP_SET_PERIODIC_TIMER, 0, &mut period), Errno::EINVAL, "an endless period is EINVAL");
    for (address, how) in [(0, "at null"), (1 << 46, "at an address that is not mapped"), (1 << 63, "at no address")] {
        let mut area = RegisterRunstateMemoryArea { addr: address };
        let ret = hypercall::vcpu_op(VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, 0, &mut area);
        check!(ret == Ret(0), "a runstate area {} is the guest's own affair", how; "{}", ret);
        hypercall::yield_cpu();
    }
    let mut area = RegisterRunstateMemoryArea { addr: 0 };
    zero(hypercall::vcpu_op(VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, 0, &mut area), "a runstate area can be given up");
    let mut info = RegisterVcpuInfo { mfn: MOVED[0].gfn(), offset: 4096 - 32, rsvd: 0 };
    let register = |info: &mut RegisterVcpuInfo| hypercall::vcpu_op(VCPUOP_REGISTER_VCPU_INFO, 0, info);
    fails(register(&mut info), Errno::ENXIO, "a vcpu_info that crosses its page is ENXIO");
    info.offset = 4;
    fails(register(&mut info), Errno::ENXIO, "a vcpu_info that is not aligned is ENXIO");
    info.offset = 0;
    zero(register(&mut info), "VCPUOP_register_vcpu_info succeeds");
    ev::note_moved(0, MOVED[0].addr());
    info.mfn = MOVED[1].gfn();
    fails(register(&mut info), Errno::EINVAL, "a second time it is EINVAL");
}

fn timers() {
    let Ok(timer) = ev::bind_virq(VIRQ_TIMER, 0) else {
        check!(false, "VIRQ_TIMER can be bound");
        return;
    };
    let comes = |within: u64| {
        let came = time::wait_for(within, || ev::is_pending(timer));
        ev::clear(timer);
        came
    };
    hypercall::vcpu_op(VCPUOP_STOP_PERIODIC_TIMER, 0, &mut 0u64);
    comes(0);
    let mut past = SetSingleshotTimer { timeout_abs_ns: 1, flags: VCPU_SSHOTTMR_FUTURE, pad: 0 };
    zero(hypercall::vcpu_op(VCPUOP_SET_SINGLESHOT_TIMER, 0, &mut past), "the flag for the future alone is ignored");
    check!(comes(0), "a timer of the past has fired when it is set");
    let set = |deadline: u64| hypercall::call(nr::SET_TIMER_OP, [deadline, 0, 0, 0, 0]);
    for (deadline, how) in [(1 << 62, "two weeks ahead and more"), (!0, "below zero")] {
        check!(set(deadline) == Ret(0), "a deadline {} can be set", how);
        check!(comes(500 * MILLISECOND), "a deadline {} is a tenth of a second", how);
    }
    zero(set(time::now() + 3600 * 1000 * MILLISECOND), "a deadline in an hour can be set");
    check!(!comes(200 * MILLISECOND), "an hour is an hour");
    zero(set(0), "set_timer_op stops with zero");
    zero(ev::close(timer), "the timer's port can be closed");
}

fn scheduler(is_plain: bool) {
    let op = |op: u32, arg: u64| call(nr::SCHED_OP, op, arg);
    fails(op(99, 0), Errno::ENOSYS, "an unknown sched_op is ENOSYS");
    fails(op(SCHEDOP_REMOTE_SHUTDOWN, 0), Errno::EFAULT, "a remote shutdown from nowhere is EFAULT");
    let remote = |domain_id| {
        let mut arg = RemoteShutdown { domain_id, pad: 0, reason: 0 };
        hypercall::op(nr::SCHED_OP, SCHEDOP_REMOTE_SHUTDOWN, &mut arg)
    };
    fails(remote(0x6123), Errno::ESRCH, "a remote shutdown of no domain is ESRCH");
    fails(remote(DOMID_SELF), Errno::ESRCH, "a remote shutdown of DOMID_SELF is ESRCH");
    if is_plain {
        fails(remote(own_id()), Errno::EPERM, "a remote shutdown of the caller is EPERM");
        fails(op(SCHEDOP_PIN_OVERRIDE, 0), Errno::EPERM, "SCHEDOP_pin_override is EPERM");
    }
    let dog = |id, timeout| hypercall::op(nr::SCHED_OP, SCHEDOP_WATCHDOG, &mut Watchdog { id, timeout });
    fails(op(SCHEDOP_WATCHDOG, 0), Errno::EFAULT, "a watchdog from nowhere is EFAULT");
    fails(dog(3, 0), Errno::EINVAL, "there are two watchdogs");
    fails(dog(2, 5), Errno::EINVAL, "a watchdog that is not set cannot be patted");
    equal(dog(0, 600).0 as u64, 1, "the first watchdog is number 1");
    equal(dog(0, 600).0 as u64, 2, "the second watchdog is number 2");
    equal(dog(0, 600).0 as u64, 0xffff_ffe4, "a third watchdog is ENOSPC, as 32 bits");
    zero(dog(2, 700), "a watchdog can be patted");
    zero(dog(1, 0), "the first watchdog can be stopped");
    fails(dog(1, 0), Errno::EINVAL, "but not twice");
    zero(dog(2, 0), "the second watchdog can be stopped");
}

fn parameters() {
    use HVM_PARAM_CALLBACK_IRQ as CALLBACK;
    let readable = [
        CALLBACK,
        HVM_PARAM_STORE_PFN,
        HVM_PARAM_STORE_EVTCHN,
        HVM_PARAM_VM86_TSS,
        HVM_PARAM_CONSOLE_PFN,
        HVM_PARAM_CONSOLE_EVTCHN,
        HVM_PARAM_ACPI_IOPORTS_LOCATION,
        HVM_PARAM_VM_GENERATION_ID_ADDR,
        HVM_PARAM_ALTP2M,
        HVM_PARAM_X87_FIP_WIDTH,
        HVM_PARAM_VM86_TSS_SIZED,
    ];
    let deprecated = [
        HVM_PARAM_PAE_ENABLED,
        HVM_PARAM_DM_DOMAIN,
        HVM_PARAM_MEMORY_EVENT_CR0,
        HVM_PARAM_MEMORY_EVENT_CR3,
        HVM_PARAM_MEMORY_EVENT_CR4,
        HVM_PARAM_MEMORY_EVENT_INT3,
        HVM_PARAM_NESTEDHVM,
        HVM_PARAM_MEMORY_EVENT_SINGLE_STEP,
        HVM_PARAM_BUFIOREQ_EVTCHN,
        HVM_PARAM_MEMORY_EVENT_MSR,
    ];
    let writable =
        [HVM_PARAM_VM_GENERATION_ID_ADDR, HVM_PARAM_STORE_EVTCHN, HVM_PARAM_CONSOLE_EVTCHN, HVM_PARAM_X87_FIP_WIDTH];
    for index in 0..HVM_NR_PARAMS {
        let seen = hypercall::get_param(index).map(|_| ());
        let wanted = match index {
            _ if readable.contains(&index) => Ok(()),
            _ if deprecated.contains(&index) => Err(Ret::err(Errno::EINVAL)),
            _ => Err(Ret::err(Errno::EPERM)),
        };
        check!(seen == wanted, "parameter {} is read as Xen lets it", index; "{}", seen.err().unwrap_or(Ret(0)));
        let wanted = match index {
            CALLBACK | HVM_PARAM_VM86_TSS | HVM_PARAM_VM86_TSS_SIZED => continue,
            HVM_PARAM_ACPI_IOPORTS_LOCATION => Ret::err(Errno::ENODEV),
            _ if writable.contains(&index) => Ret(0),
            _ if deprecated.contains(&index) => Ret::err(Errno::EINVAL),
            _ => Ret::err(Errno::EPERM),
        };
        let value = hypercall::get_param(index).unwrap_or(0);
        let seen = hypercall::set_param(index, value);
        check!(seen == wanted, "parameter {} is set as Xen lets it", index; "{}", seen);
    }
    fails(hypercall::set_param(HVM_PARAM_X87_FIP_WIDTH, 5), Errno::EINVAL, "an x87 pointer has 0, 4 or 8 bytes");
    zero(hypercall::set_param(HVM_PARAM_X87_FIP_WIDTH, 8), "8 bytes can be had");
    check!(hypercall::get_param(HVM_PARAM_X87_FIP_WIDTH) == Ok(8), "and are read back");
    zero(
        hypercall::set_param(HVM_PARAM_VM86_TSS_SIZED, 0x80_0000_5000),
        "a task segment of virtual-8086 mode can be set",
    );
    check!(hypercall::get_param(HVM_PARAM_VM86_TSS_SIZED) == Ok(0x80_0000_5000), "and is read back");
    check!(hypercall::get_param(HVM_PARAM_VM86_TSS) == Ok(0x5000), "its address too");
    let by_vector = HVM_PARAM_CALLBACK_TYPE_VECTOR << HVM_PARAM_CALLBACK_IRQ_TYPE_SHIFT;
    for (value, how) in [(9, "a line"), (1 << 56 | 3 << 11, "a device's pin"), (0, "nothing"), (7 << 56, "type 7")] {
        check!(hypercall::set_param(CALLBACK, value) == Ret(0), "the callback by {} is taken", how);
        check!(hypercall::get_param(CALLBACK) == Ok(value), "and {} is read back", how);
    }
    zero(hypercall::set_param(CALLBACK, by_vector | 5), "the callback by vector 5 is taken");
    zero(hypercall::set_param(CALLBACK, by_vector | u64::from(ev::VECTOR)), "so is the vector of before");
    let other = |domid| {
        let mut arg = HvmParam { domid, pad: 0, index: CALLBACK, value: 0 };
        hypercall::op(nr::HVM_OP, HVMOP_GET_PARAM, &mut arg)
    };
    fails(other(0x6123), Errno::ESRCH, "a parameter of no domain is ESRCH");
    zero(other(own_id()), "the caller's own number is as good as DOMID_SELF");
}

fn hvm(boot: &Boot) {
    let op = |op: u32, arg: u64| call(nr::HVM_OP, op, arg);
    zero(op(HVMOP_FLUSH_TLBS, 0), "HVMOP_flush_tlbs succeeds");
    fails(op(HVMOP_FLUSH_TLBS, PAGE.addr()), Errno::EINVAL, "HVMOP_flush_tlbs with a pointer is EINVAL");
    let kind = |pfn| {
        let mut arg = GetMemType { domid: DOMID_SELF, mem_type: 99, pad: [0; 2], pfn };
        let ret = hypercall::op(nr::HVM_OP, HVMOP_GET_MEM_TYPE, &mut arg);
        if ret == Ret(0) { Ok(arg.mem_type) } else { Err(ret) }
    };
    check!(kind(PAGE.gfn()) == Ok(HVMMEM_RAM_RW), "HVMOP_get_mem_type knows RAM"; "{:?}", kind(PAGE.gfn()).err().map(|r| r.0));
    if let Some(hole) = boot.hole() {
        check!(kind(hole >> 12) == Ok(HVMMEM_MMIO_DM), "HVMOP_get_mem_type knows where nothing is");
    }
    fails(op(HVMOP_GET_MEM_TYPE, 0), Errno::EFAULT, "a memory type to nowhere is EFAULT");
    let dying = |domid| {
        let mut arg = PagetableDying { domid, pad: [0; 3], gpa: 0 };
        hypercall::op(nr::HVM_OP, HVMOP_PAGETABLE_DYING, &mut arg)
    };
    fails(dying(DOMID_SELF), Errno::EINVAL, "HVMOP_pagetable_dying is EINVAL");
    fails(dying(0x6123), Errno::ESRCH, "HVMOP_pagetable_dying of no domain is ESRCH");
    fails(op(HVMOP_PAGETABLE_DYING, 0), Errno::EFAULT, "HVMOP_pagetable_dying from nowhere is EFAULT");
    fails(op(HVMOP_GET_TIME, 0), Errno::EFAULT, "the time to nowhere is EFAULT");
    let mut trace = Xentrace { event: 1, extra_bytes: 29, extra: [0; 28] };
    fails(hypercall::op(nr::HVM_OP, HVMOP_XENTRACE, &mut trace), Errno::EINVAL, "a trace of 29 bytes is EINVAL");
    trace.extra_bytes = 3;
    zero(hypercall::op(nr::HVM_OP, HVMOP_XENTRACE, &mut trace), "a trace of three bytes is taken");
    zero(op(HVMOP_GUEST_REQUEST_VM_EVENT, 0), "a request of a monitor's event succeeds");
    fails(op(HVMOP_GUEST_REQUEST_VM_EVENT, 8), Errno::EINVAL, "one with a pointer is EINVAL");
    for number in [2, 3, 4, 6, 7, 8, 12, 13, 14, 16, 99, !0] {
        check!(op(number, 0) == Ret::err(Errno::ENOSYS), "hvm_op {} is ENOSYS", number; "{}", op(number, 0));
    }
    for number in [0, 1, 5, 9, 12, 13, 21, 23, 99] {
        let ret = hypercall::call(nr::PHYSDEV_OP, [number, PAGE.addr(), 0, 0, 0]);
        check!(ret == Ret::err(Errno::ENOSYS), "physdev_op {} is ENOSYS", number; "{}", ret);
    }
}

fn memory(boot: &Boot, is_plain: bool) {
    let op = |op: u64, arg: u64| hypercall::call(nr::MEMORY_OP, [op, arg, 0, 0, 0]);
    let mut own = MemoryDomain { domid: DOMID_SELF };
    for number in [XENMEM_CURRENT_RESERVATION, XENMEM_MAXIMUM_RESERVATION, XENMEM_MAXIMUM_GPFN] {
        let begun = op(u64::from(number) | 1 << 6, mem::addr_of_mut(&mut own));
        check!(begun == Ret::err(Errno::EINVAL), "memory_op {} cannot have begun", number; "{}", begun);
    }
    fails(op(u64::from(XENMEM_MAXIMUM_RAM_PAGE) | 1 << 6, 0), Errno::EINVAL, "the last page cannot have begun");
    fails(op(u64::from(XENMEM_REMOVE_FROM_PHYSMAP) | 1 << 6, 0), Errno::EINVAL, "nor can a removal");
    fails(op(u64::from(XENMEM_ADD_TO_PHYSMAP) | 1 << 22, 0), Errno::EDOM, "a mapping cannot have gone so far");
    let add = |space, idx, gpfn| ev::add_to_physmap(space, idx, gpfn);
    fails(add(XENMAPSPACE_GMFN_FOREIGN, 0, PAGE.gfn()), Errno::ENOSYS, "a foreign page one at a time is ENOSYS");
    if is_plain {
        fails(add(XENMAPSPACE_DEV_MMIO, 0, PAGE.gfn()), Errno::EACCES, "a device's registers are EACCES");
    }
    let remove = |domid, gpfn| {
        let mut arg = RemoveFromPhysmap { domid, pad: [0; 3], gpfn };
        hypercall::op(nr::MEMORY_OP, XENMEM_REMOVE_FROM_PHYSMAP, &mut arg)
    };
    fails(remove(0x6123, PAGE.gfn()), Errno::ESRCH, "a removal from no domain is ESRCH");
    let mut claim = MemoryReservation { domid: own_id(), ..MemoryReservation::new_zeroed() };
    let claimed = |claim: &mut MemoryReservation| hypercall::op(nr::MEMORY_OP, XENMEM_CLAIM_PAGES, claim);
    if is_plain {
        fails(claimed(&mut claim), Errno::EPERM, "a claim is EPERM");
    }
    claim.extent_order = 1;
    fails(claimed(&mut claim), Errno::EINVAL, "a claim of large pages is EINVAL");
    claim = MemoryReservation { domid: 0x6123, ..MemoryReservation::new_zeroed() };
    fails(claimed(&mut claim), Errno::EINVAL, "a claim for no domain is EINVAL");
    fails(op(XENMEM_CLAIM_PAGES.into(), 0), Errno::EFAULT, "a claim from nowhere is EFAULT");
    let mut nodes = VnumaTopologyInfo { domid: DOMID_SELF, ..VnumaTopologyInfo::new_zeroed() };
    let topology = hypercall::op(nr::MEMORY_OP, XENMEM_GET_VNUMAINFO, &mut nodes);
    fails(topology, Errno::EOPNOTSUPP, "there are no NUMA nodes");
    nodes.pad = 1;
    let topology = hypercall::op(nr::MEMORY_OP, XENMEM_GET_VNUMAINFO, &mut nodes);
    fails(topology, Errno::EINVAL, "NUMA nodes with padding that is not zero are EINVAL");
    fails(op(XENMEM_GET_VNUMAINFO.into(), 0), Errno::EFAULT, "NUMA nodes from nowhere are EFAULT");
    if is_plain {
        let mut resource = AcquireResource { domid: own_id(), ..AcquireResource::new_zeroed() };
        let acquired = hypercall::op(nr::MEMORY_OP, XENMEM_ACQUIRE_RESOURCE, &mut resource);
        fails(acquired, Errno::EACCES, "another domain's resources are EACCES");
        let mut target = PodTarget { domid: own_id(), ..PodTarget::new_zeroed() };
        let set = hypercall::op(nr::MEMORY_OP, XENMEM_SET_POD_TARGET, &mut target);
        fails(set, Errno::EPERM, "a target of populate-on-demand is EPERM");
    }
    let mut map = MemoryMap { nr_entries: 0, pad: 0, buffer: PAGE.addr() };
    zero(hypercall::op(nr::MEMORY_OP, XENMEM_MEMORY_MAP, &mut map), "a memory map of no entries succeeds");
    equal(map.nr_entries.into(), 0, "and has none");
    let _ = boot;
}

static FROM: [Page; 3] = [const { Page::new() }; 3];
/// Where frames are moved to: no RAM.
const TO: u64 = 0xfe60_0000;

fn ranges() {
    for (page, tag) in FROM.iter().zip(1u64..) {
        mem::poke64(page.addr(), tag);
    }
    let [first, second, third] = FROM.each_ref().map(Page::gfn);
    let apart = second == first + 1 && third == first + 2;
    check!(apart, "the pages are neighbours");
    let range = |size, idx, gpfn| {
        let mut arg = AddToPhysmap { domid: DOMID_SELF, size, space: XENMAPSPACE_GMFN_RANGE, idx, gpfn };
        hypercall::op(nr::MEMORY_OP, XENMEM_ADD_TO_PHYSMAP, &mut arg)
    };
    zero(range(0, first, TO >> 12), "a range of none can be moved");
    zero(range(3, first, TO >> 12), "a range of three pages can be moved");
    for tag in 1..=3 {
        equal(mem::peek64(TO + (tag - 1) * 4096), tag, "a page of the range is where it was moved to");
    }
    fails(range(2, first, first), Errno::EINVAL, "a range of what is not there is EINVAL");
    zero(range(3, TO >> 12, first), "the range can be moved back");
    equal(mem::peek64(FROM[2].addr()), 3, "and is there");
    batch(first, third);
}

fn batch(first: u64, third: u64) {
    let mut idxs = [first, 0x3f_ffff, third];
    let mut gpfns = [TO >> 12, (TO >> 12) + 1, (TO >> 12) + 2];
    let mut errs = [77i32; 4];
    let mut arg = AddToPhysmapBatch {
        domid: DOMID_SELF,
        space: XENMAPSPACE_GMFN as u16,
        size: 3,
        foreign_domid: 0,
        idxs: mem::addr_of_mut(&mut idxs),
        gpfns: mem::addr_of_mut(&mut gpfns),
        errs: mem::addr_of_mut(&mut errs),
    };
    zero(hypercall::op(nr::MEMORY_OP, XENMEM_ADD_TO_PHYSMAP_BATCH, &mut arg), "a batch of mappings succeeds");
    let seen: [i32; 4] = mem::read(mem::addr_of(&errs));
    check!(seen == [0, -22, 0, 77], "each of a batch has its own error"; "{:?}", seen);
    equal(mem::peek64(TO), 1, "the first of the batch was moved");
    equal(mem::peek64(TO + 8192), 3, "so was the third");
    (idxs, gpfns) = ([TO >> 12, (TO >> 12) + 2, 0], [first, third, 0]);
    arg.size = 2;
    let back = hypercall::op(nr::MEMORY_OP, XENMEM_ADD_TO_PHYSMAP_BATCH, &mut arg);
    zero(back, "a batch can be moved back");
    check!(mem::read::<[u64; 3]>(mem::addr_of(&idxs))[2] == 0 && gpfns[2] == 0, "a batch leaves its lists alone");
    arg.size = 0;
    zero(hypercall::op(nr::MEMORY_OP, XENMEM_ADD_TO_PHYSMAP_BATCH, &mut arg), "a batch of none succeeds");
    arg.space = XENMAPSPACE_GMFN_RANGE as u16;
    let range = hypercall::op(nr::MEMORY_OP, XENMEM_ADD_TO_PHYSMAP_BATCH, &mut arg);
    fails(range, Errno::EOPNOTSUPP, "a batch of ranges is EOPNOTSUPP");
    (arg.space, arg.domid) = (XENMAPSPACE_GMFN as u16, 0x6123);
    let nobody = hypercall::op(nr::MEMORY_OP, XENMEM_ADD_TO_PHYSMAP_BATCH, &mut arg);
    fails(nobody, Errno::ESRCH, "a batch of no domain is ESRCH");
    (arg.domid, arg.size, arg.idxs) = (DOMID_SELF, 1, 0);
    let nowhere = hypercall::op(nr::MEMORY_OP, XENMEM_ADD_TO_PHYSMAP_BATCH, &mut arg);
    fails(nowhere, Errno::EFAULT, "a batch from nowhere is EFAULT");
}

fn grants() {
    let op = |op: u32, arg: u64, count: u64| hypercall::call(nr::GRANT_TABLE_OP, [op.into(), arg, count, 0, 0]);
    let mut size = QuerySize { dom: DOMID_SELF, ..QuerySize::new_zeroed() };
    let query = |size: &mut QuerySize, count| op(GNTTABOP_QUERY_SIZE, mem::addr_of_mut(size), count);
    fails(query(&mut size, 0), Errno::EINVAL, "the size of no table is EINVAL");
    fails(query(&mut size, 2), Errno::EINVAL, "the size of two tables is EINVAL");
    zero(query(&mut size, 1), "GNTTABOP_query_size succeeds");
    equal(size.max_nr_frames.into(), 64, "the grant table has up to 64 frames");
    let used = size.nr_frames;
    size = QuerySize { dom: 0x6123, ..QuerySize::new_zeroed() };
    zero(query(&mut size, 1), "GNTTABOP_query_size of no domain succeeds");
    equal(
        (size.status as u16).into(),
        (GNTST_BAD_DOMAIN as u16).into(),
        "with the status that there is no such domain",
    );
    let mut list = [0u64; 2];
    let mut table = SetupTable { dom: DOMID_SELF, nr_frames: 1, ..SetupTable::new_zeroed() };
    table.frame_list = mem::addr_of_mut(&mut list);
    let setup = |table: &mut SetupTable, count| op(GNTTABOP_SETUP_TABLE, mem::addr_of_mut(table), count);
    fails(setup(&mut table, 2), Errno::EINVAL, "setting up two tables is EINVAL");
    zero(setup(&mut table, 1), "GNTTABOP_setup_table succeeds");
    equal(table.status as u64, 0, "with status 0");
    equal(mem::read::<[u64; 2]>(mem::addr_of(&list))[0], !0, "a frame that is nowhere is told as ~0");
    zero(ev::add_to_physmap(XENMAPSPACE_GRANT_TABLE, 0, TO >> 12), "the first grant frame can be mapped");
    zero(setup(&mut table, 1), "GNTTABOP_setup_table succeeds again");
    equal(mem::read::<[u64; 2]>(mem::addr_of(&list))[0], TO >> 12, "a frame that is mapped is told");
    table.frame_list = 1 << 46;
    zero(setup(&mut table, 1), "GNTTABOP_setup_table to nowhere succeeds");
    equal((table.status as u16).into(), (GNTST_BAD_VIRT_ADDR as u16).into(), "with the status of a bad address");
    (table.nr_frames, table.status) = (65, 0);
    zero(setup(&mut table, 1), "GNTTABOP_setup_table of too many succeeds");
    equal((table.status as u16).into(), (GNTST_GENERAL_ERROR as u16).into(), "with a general error");
    let mut version = SetVersion { version: 1 };
    zero(op(GNTTABOP_SET_VERSION, mem::addr_of_mut(&mut version), 7), "GNTTABOP_set_version looks at no count");
    version.version = 3;
    fails(op(GNTTABOP_SET_VERSION, mem::addr_of_mut(&mut version), 1), Errno::EINVAL, "version 3 is EINVAL");
    equal(version.version.into(), 1, "and the version in use is told");
    let mut get = GetVersion { dom: DOMID_SELF, pad: 0, version: 9 };
    zero(op(GNTTABOP_GET_VERSION, mem::addr_of_mut(&mut get), 0), "GNTTABOP_get_version looks at no count");
    get.dom = 0x6123;
    fails(op(GNTTABOP_GET_VERSION, mem::addr_of_mut(&mut get), 1), Errno::ESRCH, "the version of no domain is ESRCH");
    fails(op(GNTTABOP_QUERY_SIZE, mem::addr_of_mut(&mut size), 1 << 31), Errno::EINVAL, "a negative count is EINVAL");
    for number in [3, 4, 7, 9, 12, 99] {
        check!(op(number, 0, 1) == Ret::err(Errno::ENOSYS), "grant_table_op {} is ENOSYS", number; "{}", op(number, 0, 1));
    }
    check!(used >= 1, "the grant table starts with a frame"; "{}", used);
}

fn channels() {
    let priority = |port, priority| ev::op(EVTCHNOP_SET_PRIORITY, &mut SetPriority { port, priority });
    fails(call(nr::EVENT_CHANNEL_OP, EVTCHNOP_SET_PRIORITY, 0), Errno::EFAULT, "a priority from nowhere is EFAULT");
    fails(priority(5000, 7), Errno::EINVAL, "the priority of no port is EINVAL");
    let Ok(waiting) = ev::alloc_unbound(DOMID_SELF) else {
        check!(false, "a port for the caller itself can be allocated");
        return;
    };
    fails(priority(waiting, 7), Errno::ENOSYS, "two-level ports have no priority");
    let seen = ev::status(waiting).map(|s| (s.status, s.peer as u16));
    check!(seen == Ok((EVTCHNSTAT_UNBOUND, own_id())), "a port for DOMID_SELF waits for the caller's number");
    let mut bind = BindInterdomain { remote_dom: DOMID_SELF, remote_port: waiting, ..BindInterdomain::new_zeroed() };
    let bound = |bind: &mut BindInterdomain| ev::op(EVTCHNOP_BIND_INTERDOMAIN, bind);
    zero(bound(&mut bind), "a port can be bound to another of the caller");
    let near = bind.local_port;
    check!(ev::is_pending(near), "a port is pending when it is bound");
    ev::clear(near);
    fails(bound(&mut bind), Errno::EINVAL, "a port that is bound cannot be bound again");
    let seen = ev::status(near).map(|s| (s.status, s.peer & 0xffff, s.peer_port));
    check!(seen == Ok((EVTCHNSTAT_INTERDOMAIN, own_id().into(), waiting)), "each end tells the other");
    zero(ev::send(near), "the near end can be told");
    check!(ev::is_pending(waiting) && !ev::is_pending(near), "which the far end sees");
    zero(ev::close(near), "the near end can be closed");
    let seen = ev::status(waiting).map(|s| s.status);
    check!(seen == Ok(EVTCHNSTAT_UNBOUND), "the far end waits again then");
    let mut nobody = BindInterdomain { remote_dom: 0x6123, remote_port: 1, ..BindInterdomain::new_zeroed() };
    fails(bound(&mut nobody), Errno::ESRCH, "a port of no domain is ESRCH");
    (nobody.remote_dom, nobody.remote_port) = (DOMID_SELF, 0);
    fails(bound(&mut nobody), Errno::EINVAL, "port 0 cannot be bound to");
    let mut moved = BindVcpu { port: waiting, vcpu: 4000 };
    fails(ev::op(EVTCHNOP_BIND_VCPU, &mut moved), Errno::ENOENT, "a port for no vCPU is ENOENT");
    moved = BindVcpu { port: 5000, vcpu: 0 };
    fails(ev::op(EVTCHNOP_BIND_VCPU, &mut moved), Errno::EINVAL, "no port for a vCPU is EINVAL");
    fails(ev::unmask(5000), Errno::EINVAL, "a port that is not there cannot be unmasked");
    zero(ev::unmask(waiting), "one that waits can");
    ev::set_mask(waiting, true);
    let mut unbound = AllocUnbound { dom: 0x6123, remote_dom: 0, port: 0 };
    fails(ev::op(EVTCHNOP_ALLOC_UNBOUND, &mut unbound), Errno::ESRCH, "a port of no domain cannot be allocated");
    check!(ev::bind_virq(3, 1) == Err(Ret::err(Errno::EINVAL)), "a global VIRQ on vCPU 1 is EINVAL");
    let mut reset = Reset { dom: 0x6123 };
    fails(ev::op(EVTCHNOP_RESET, &mut reset), Errno::ESRCH, "a reset of no domain is ESRCH");
    reset.dom = DOMID_SELF;
    guest::console::leave_ring();
    zero(ev::op(EVTCHNOP_RESET, &mut reset), "a reset of the caller succeeds");
    let seen = ev::status(waiting).map(|s| s.status);
    check!(seen == Ok(EVTCHNSTAT_CLOSED), "and closes its ports");
    fails(call(nr::EVENT_CHANNEL_OP, 15, 0), Errno::ENOSYS, "event_channel_op 15 is ENOSYS");
}

fn others() {
    let console = |cmd, count| hypercall::call(nr::CONSOLE_IO, [cmd, count, PAGE.addr(), 0, 0]);
    fails(console(CONSOLEIO_READ.into(), 1 << 31), Errno::E2BIG, "a console read of 2 GiB is E2BIG");
    zero(console(CONSOLEIO_READ.into(), 0), "a console read of nothing is nothing");
    fails(console(2, 1), Errno::ENOSYS, "an unknown console_io is ENOSYS");
    let assist = |cmd, kind| hypercall::call(nr::VM_ASSIST, [cmd, kind, 0, 0, 0]);
    zero(assist(VMASST_CMD_ENABLE.into(), VMASST_TYPE_RUNSTATE_UPDATE_FLAG.into()), "the runstate's flag can be had");
    fails(assist(2, VMASST_TYPE_RUNSTATE_UPDATE_FLAG.into()), Errno::ENOSYS, "an unknown vm_assist is ENOSYS");
    fails(assist(VMASST_CMD_ENABLE.into(), 4), Errno::EINVAL, "an assist for PV alone is EINVAL");
    fails(assist(2, 4), Errno::EINVAL, "the assist is looked at first");
    fails(assist(VMASST_CMD_ENABLE.into(), 64), Errno::EINVAL, "assist 64 is EINVAL");
    let flags = cpu::cpuid(hypercall::cpuid_base().unwrap_or(0) + 4, 0).eax;
    check!(flags & cpuid::XEN_HVM_CPUID_VCPU_ID_PRESENT != 0, "leaf 4 tells the vCPU id"; "{:#x}", flags);
}
