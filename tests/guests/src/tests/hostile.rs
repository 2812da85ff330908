//! A guest that tries everything: undefined hypercalls, and every pointer argument bad in every way.
//!
//! Nothing may crash and nothing may succeed that must not. Where Xen checks something else before it looks at
//! the pointer, that error is as good; so a bad pointer must give some error, or the result that Xen gives.

use abi::event_channel::*;
use abi::grant_table::*;
use abi::hvm_op::*;
use abi::memory::*;
use abi::sched::*;
use abi::vcpu::*;
use abi::version::*;
use abi::xen::{CONSOLEIO_WRITE, DOMID_SELF, VIRQ_DEBUG};
use abi::{Errno, nr};
use guest::check::{fails, report};
use guest::hypercall::{self, Ret};
use guest::start::Boot;
use guest::{check, mem, println};
use zerocopy::FromZeros;

static PAGE: mem::Page = mem::Page::new();

/// What a call with a bad pointer may return.
#[derive(Clone, Copy)]
enum Want {
    /// This error.
    Fails(Errno),
    /// Any error.
    AnyError,
    /// Zero: the call counts how much of its list it did.
    Nothing,
}
use Want::{AnyError, Fails, Nothing};

/// A call with one pointer: its name, its number, its arguments, which of them is the pointer.
type Call = (&'static str, u64, [u64; 4], usize, Want);

/// Runs the test.
pub fn run(boot: &Boot) {
    mem::map_low_page(0, false);
    undefined_numbers();
    let hole = boot.hole().unwrap_or(0xf000_0000);
    let pointers = [
        ("null", 0),
        ("beyond memory", hole),
        ("straddling the end of mapped memory", (1 << 32) - 1),
        ("unmapped", 1 << 32),
        ("non-canonical", 0x8000_0000_0000),
        ("non-canonical", 0x8000_0000_0000_0000),
        ("in the hypervisor's hole", 0xffff_8000_0000_0000),
        ("in the hypervisor's text", 0xffff_82d0_4000_0000),
        ("at the end of the hole", 0xffff_87ff_ffff_fff8),
        ("at the very end", 0xffff_ffff_ffff_fff8),
        ("at the very end, unaligned", !0),
    ];
    for (name, number, args, pointer, want) in CALLS {
        let mut bad = 0;
        for (how, address) in pointers {
            // The initial domain may ask how long a build id is.
            if guest::pv::is_initial() && *name == "xen_version(build_id)" && address == 0 {
                continue;
            }
            bad += u32::from(!holds(name, how, *number, *args, (*pointer, address), *want));
        }
        check!(bad == 0, "{}: a bad pointer never succeeds", name; "{} of {} did", bad, pointers.len());
    }
    unaligned();
    straddling();
    inner_pointers(&pointers);
    arguments();
    multicalls();
    alive();
}

fn holds(name: &str, how: &str, number: u64, mut args: [u64; 4], pointer: (usize, u64), want: Want) -> bool {
    args[pointer.0] = pointer.1;
    let ret = hypercall::call(number, [args[0], args[1], args[2], args[3], 0]);
    let ok = match want {
        Fails(errno) => ret == Ret::err(errno),
        AnyError => ret.errno().is_some(),
        Nothing => ret == Ret(0),
    };
    if !ok {
        println!("note: {name} with a pointer {how} ({:#x}): {ret}", pointer.1);
    }
    ok
}

fn undefined_numbers() {
    // PV alone, and nobody at all, in the table of Xen 4.17 (`xen/arch/x86/hvm/hypercall.c`).
    let pv_alone = (0..=6).chain(8..=10).chain([14, 16, 19, 22, 23, 25, 28, 30, 31, 37, 48]);
    let nobody = [11, 38].into_iter().chain(43..=47).chain(50..=63);
    let undefined = nobody.chain(pv_alone.filter(|_| !guest::pv::is_pv()));
    let large = [
        64,
        65,
        127,
        128,
        255,
        256,
        0x1000,
        0x7fff_ffff,
        0x8000_0000,
        0x8000_0001,
        0xffff_ffff,
        0x1_0000_0000,
        0x1_0000_0011,
        1 << 63,
        !0,
    ];
    for number in undefined.chain(large) {
        let ret = hypercall::call(number, [0; 5]);
        report(ret == Ret::err(Errno::ENOSYS), format_args!("hypercall {number:#x} is ENOSYS"), format_args!("{ret}"));
        let ret = hypercall::call(number, [!0; 5]);
        report(
            ret == Ret::err(Errno::ENOSYS),
            format_args!("hypercall {number:#x} with wild arguments is ENOSYS"),
            format_args!("{ret}"),
        );
    }
}

const fn call(name: &'static str, number: u64, op: u32) -> Call {
    (name, number, [op as u64, 0, 1, 0], 1, Fails(Errno::EFAULT))
}

const fn any(name: &'static str, number: u64, op: u32) -> Call {
    (name, number, [op as u64, 0, 1, 0], 1, AnyError)
}

const fn list(name: &'static str, op: u32) -> Call {
    (name, nr::MEMORY_OP, [op as u64, 0, 1, 0], 1, Nothing)
}

const fn vcpu(name: &'static str, op: u32, want: Want) -> Call {
    (name, nr::VCPU_OP, [op as u64, 0, 0, 0], 2, want)
}

/// Every call of an unprivileged PVH guest that takes a pointer, but the grant operations on arrays of none.
const CALLS: &[Call] = &[
    call("memory_op(memory_map)", nr::MEMORY_OP, XENMEM_MEMORY_MAP),
    list("memory_op(increase_reservation)", XENMEM_INCREASE_RESERVATION),
    list("memory_op(decrease_reservation)", XENMEM_DECREASE_RESERVATION),
    list("memory_op(populate_physmap)", XENMEM_POPULATE_PHYSMAP),
    any("memory_op(exchange)", nr::MEMORY_OP, XENMEM_EXCHANGE),
    call("memory_op(current_reservation)", nr::MEMORY_OP, XENMEM_CURRENT_RESERVATION),
    call("memory_op(maximum_reservation)", nr::MEMORY_OP, XENMEM_MAXIMUM_RESERVATION),
    call("memory_op(maximum_gpfn)", nr::MEMORY_OP, XENMEM_MAXIMUM_GPFN),
    call("memory_op(add_to_physmap)", nr::MEMORY_OP, XENMEM_ADD_TO_PHYSMAP),
    any("memory_op(add_to_physmap_batch)", nr::MEMORY_OP, XENMEM_ADD_TO_PHYSMAP_BATCH),
    call("memory_op(remove_from_physmap)", nr::MEMORY_OP, XENMEM_REMOVE_FROM_PHYSMAP),
    any("memory_op(machphys_mapping)", nr::MEMORY_OP, XENMEM_MACHPHYS_MAPPING),
    any("memory_op(machine_memory_map)", nr::MEMORY_OP, XENMEM_MACHINE_MEMORY_MAP),
    any("memory_op(set_memory_map)", nr::MEMORY_OP, XENMEM_SET_MEMORY_MAP),
    any("memory_op(machphys_mfn_list)", nr::MEMORY_OP, XENMEM_MACHPHYS_MFN_LIST),
    any("memory_op(set_pod_target)", nr::MEMORY_OP, XENMEM_SET_POD_TARGET),
    any("memory_op(claim_pages)", nr::MEMORY_OP, XENMEM_CLAIM_PAGES),
    any("memory_op(acquire_resource)", nr::MEMORY_OP, XENMEM_ACQUIRE_RESOURCE),
    any("memory_op(get_vnumainfo)", nr::MEMORY_OP, XENMEM_GET_VNUMAINFO),
    call("event_channel_op(alloc_unbound)", nr::EVENT_CHANNEL_OP, EVTCHNOP_ALLOC_UNBOUND),
    call("event_channel_op(bind_interdomain)", nr::EVENT_CHANNEL_OP, EVTCHNOP_BIND_INTERDOMAIN),
    call("event_channel_op(bind_virq)", nr::EVENT_CHANNEL_OP, EVTCHNOP_BIND_VIRQ),
    any("event_channel_op(bind_pirq)", nr::EVENT_CHANNEL_OP, EVTCHNOP_BIND_PIRQ),
    call("event_channel_op(bind_ipi)", nr::EVENT_CHANNEL_OP, EVTCHNOP_BIND_IPI),
    call("event_channel_op(close)", nr::EVENT_CHANNEL_OP, EVTCHNOP_CLOSE),
    call("event_channel_op(send)", nr::EVENT_CHANNEL_OP, EVTCHNOP_SEND),
    call("event_channel_op(status)", nr::EVENT_CHANNEL_OP, EVTCHNOP_STATUS),
    call("event_channel_op(bind_vcpu)", nr::EVENT_CHANNEL_OP, EVTCHNOP_BIND_VCPU),
    call("event_channel_op(unmask)", nr::EVENT_CHANNEL_OP, EVTCHNOP_UNMASK),
    call("event_channel_op(reset)", nr::EVENT_CHANNEL_OP, EVTCHNOP_RESET),
    any("event_channel_op(init_control)", nr::EVENT_CHANNEL_OP, EVTCHNOP_INIT_CONTROL),
    any("event_channel_op(expand_array)", nr::EVENT_CHANNEL_OP, EVTCHNOP_EXPAND_ARRAY),
    any("event_channel_op(set_priority)", nr::EVENT_CHANNEL_OP, EVTCHNOP_SET_PRIORITY),
    call("sched_op(shutdown)", nr::SCHED_OP, SCHEDOP_SHUTDOWN),
    call("sched_op(shutdown_code)", nr::SCHED_OP, SCHEDOP_SHUTDOWN_CODE),
    call("sched_op(poll)", nr::SCHED_OP, SCHEDOP_POLL),
    any("sched_op(remote_shutdown)", nr::SCHED_OP, SCHEDOP_REMOTE_SHUTDOWN),
    any("sched_op(watchdog)", nr::SCHED_OP, SCHEDOP_WATCHDOG),
    any("sched_op(pin_override)", nr::SCHED_OP, SCHEDOP_PIN_OVERRIDE),
    vcpu("vcpu_op(initialise)", VCPUOP_INITIALISE, AnyError),
    vcpu("vcpu_op(get_runstate_info)", VCPUOP_GET_RUNSTATE_INFO, Fails(Errno::EFAULT)),
    vcpu("vcpu_op(register_runstate_memory_area)", VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, Fails(Errno::EFAULT)),
    vcpu("vcpu_op(set_periodic_timer)", VCPUOP_SET_PERIODIC_TIMER, Fails(Errno::EFAULT)),
    vcpu("vcpu_op(set_singleshot_timer)", VCPUOP_SET_SINGLESHOT_TIMER, Fails(Errno::EFAULT)),
    vcpu("vcpu_op(register_vcpu_info)", VCPUOP_REGISTER_VCPU_INFO, Fails(Errno::EFAULT)),
    vcpu("vcpu_op(get_physid)", VCPUOP_GET_PHYSID, AnyError),
    vcpu("vcpu_op(register_vcpu_time_memory_area)", VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA, AnyError),
    call("hvm_op(set_param)", nr::HVM_OP, HVMOP_SET_PARAM),
    call("hvm_op(get_param)", nr::HVM_OP, HVMOP_GET_PARAM),
    any("hvm_op(pagetable_dying)", nr::HVM_OP, HVMOP_PAGETABLE_DYING),
    any("hvm_op(get_time)", nr::HVM_OP, HVMOP_GET_TIME),
    any("hvm_op(get_mem_type)", nr::HVM_OP, HVMOP_GET_MEM_TYPE),
    any("hvm_op(set_evtchn_upcall_vector)", nr::HVM_OP, HVMOP_SET_EVTCHN_UPCALL_VECTOR),
    any("hvm_op(altp2m)", nr::HVM_OP, HVMOP_ALTP2M),
    call("xen_version(extraversion)", nr::XEN_VERSION, XENVER_EXTRAVERSION),
    call("xen_version(compile_info)", nr::XEN_VERSION, XENVER_COMPILE_INFO),
    call("xen_version(capabilities)", nr::XEN_VERSION, XENVER_CAPABILITIES),
    call("xen_version(changeset)", nr::XEN_VERSION, XENVER_CHANGESET),
    call("xen_version(platform_parameters)", nr::XEN_VERSION, XENVER_PLATFORM_PARAMETERS),
    call("xen_version(get_features)", nr::XEN_VERSION, XENVER_GET_FEATURES),
    call("xen_version(guest_handle)", nr::XEN_VERSION, XENVER_GUEST_HANDLE),
    call("xen_version(commandline)", nr::XEN_VERSION, XENVER_COMMANDLINE),
    any("xen_version(build_id)", nr::XEN_VERSION, XENVER_BUILD_ID),
    call("grant_table_op(query_size)", nr::GRANT_TABLE_OP, GNTTABOP_QUERY_SIZE),
    call("grant_table_op(setup_table)", nr::GRANT_TABLE_OP, GNTTABOP_SETUP_TABLE),
    call("grant_table_op(set_version)", nr::GRANT_TABLE_OP, GNTTABOP_SET_VERSION),
    call("grant_table_op(get_version)", nr::GRANT_TABLE_OP, GNTTABOP_GET_VERSION),
    any("grant_table_op(map_grant_ref)", nr::GRANT_TABLE_OP, GNTTABOP_MAP_GRANT_REF),
    any("grant_table_op(unmap_grant_ref)", nr::GRANT_TABLE_OP, GNTTABOP_UNMAP_GRANT_REF),
    any("grant_table_op(copy)", nr::GRANT_TABLE_OP, GNTTABOP_COPY),
    any("grant_table_op(get_status_frames)", nr::GRANT_TABLE_OP, GNTTABOP_GET_STATUS_FRAMES),
    any("grant_table_op(swap_grant_ref)", nr::GRANT_TABLE_OP, GNTTABOP_SWAP_GRANT_REF),
    ("multicall", nr::MULTICALL, [0, 1, 0, 0], 0, Fails(Errno::EFAULT)),
    ("console_io(write)", nr::CONSOLE_IO, [CONSOLEIO_WRITE as u64, 8, 0, 0], 2, AnyError),
    ("physdev_op(map_pirq)", nr::PHYSDEV_OP, [13, 0, 0, 0], 1, AnyError),
    ("physdev_op(eoi)", nr::PHYSDEV_OP, [12, 0, 0, 0], 1, AnyError),
    ("platform_op", nr::PLATFORM_OP, [0; 4], 0, AnyError),
    ("sysctl", nr::SYSCTL, [0; 4], 0, AnyError),
    ("domctl", nr::DOMCTL, [0; 4], 0, AnyError),
    ("mmuext_op", nr::MMUEXT_OP, [0, 1, 0, DOMID_SELF as u64], 0, AnyError),
    ("xsm_op", nr::XSM_OP, [0; 4], 0, AnyError),
    ("argo_op", nr::ARGO_OP, [1, 0, 0, 0], 1, AnyError),
    ("xenpmu_op", nr::XENPMU_OP, [4, 0, 0, 0], 1, AnyError),
    ("dm_op", nr::DM_OP, [DOMID_SELF as u64, 1, 0, 0], 2, AnyError),
    ("hypfs_op", nr::HYPFS_OP, [1, 0, 8, 0], 1, AnyError),
    ("paging_domctl_cont", nr::PAGING_DOMCTL_CONT, [0; 4], 0, AnyError),
    ("vm_assist", nr::VM_ASSIST, [7, 0, 0, 0], 1, AnyError),
    ("grant_table_op(query_size) of none", nr::GRANT_TABLE_OP, [GNTTABOP_QUERY_SIZE as u64, 0, 0, 0], 1, AnyError),
];

fn unaligned() {
    let mut bytes = [0u8; 32];
    bytes[1..5].copy_from_slice(&VIRQ_DEBUG.to_le_bytes());
    let ret =
        hypercall::call(nr::EVENT_CHANNEL_OP, [EVTCHNOP_BIND_VIRQ.into(), bytes.as_mut_ptr() as u64 + 1, 0, 0, 0]);
    let port: u32 = mem::read(bytes.as_ptr() as u64 + 9);
    check!(ret == Ret(0) && port != 0, "an unaligned argument is as good as another"; "{} port {}", ret, port);
    check!(bytes[0] == 0 && bytes[13..].iter().all(|b| *b == 0), "nothing beside the argument is written");
    guest::events::close(port);
}

/// A structure that begins in mapped memory and ends in none: nothing of it may have been done.
fn straddling() {
    let (last, next) = (0xb000, 0xc);
    mem::map_low_page(next, false);
    for size in 1..8u64 {
        let address = last + 4096 - size;
        let ret = hypercall::call(nr::EVENT_CHANNEL_OP, [EVTCHNOP_BIND_IPI.into(), address, 0, 0, 0]);
        report(
            ret == Ret::err(Errno::EFAULT),
            format_args!("an argument of 8 bytes with {size} mapped is EFAULT"),
            format_args!("{ret}"),
        );
    }
    let version = [XENVER_CAPABILITIES.into(), last + 4096 - 16, 0, 0, 0];
    fails(hypercall::call(nr::XEN_VERSION, version), Errno::EFAULT, "a text that does not fit is EFAULT");
    mem::map_low_page(next, true);
}

/// Pointers within structures.
fn inner_pointers(pointers: &[(&str, u64)]) {
    for (how, address) in pointers {
        let address = *address;
        let mut map = MemoryMap { nr_entries: 64, pad: 0, buffer: address };
        let ret = hypercall::op(nr::MEMORY_OP, XENMEM_MEMORY_MAP, &mut map);
        // A PV domain may have no map at all.
        let none = guest::pv::is_pv() && ret == Ret::err(Errno::ENOSYS);
        check!(none || ret == Ret::err(Errno::EFAULT), "a memory map into a buffer {} is EFAULT", how; "{}", ret);
        let mut poll = Poll { ports: address, nr_ports: 4, pad: 0, timeout: 1 };
        let ret = hypercall::op(nr::SCHED_OP, SCHEDOP_POLL, &mut poll);
        // What lies beyond memory reads as an error too, never as ports.
        check!(ret == Ret::err(Errno::EFAULT), "a poll of ports {} is EFAULT", how; "{}", ret);
        let mut list = MemoryReservation {
            extent_start: address,
            nr_extents: 4,
            domid: DOMID_SELF,
            ..MemoryReservation::new_zeroed()
        };
        for op in [XENMEM_DECREASE_RESERVATION, XENMEM_POPULATE_PHYSMAP] {
            let ret = hypercall::op(nr::MEMORY_OP, op, &mut list);
            let none = ret == Ret(0) || ret == Ret::err(Errno::EFAULT);
            check!(none, "memory operation {} on a list {} does nothing", op, how; "{}", ret);
        }
        let mut table = SetupTable { dom: DOMID_SELF, nr_frames: 1, frame_list: address, ..SetupTable::new_zeroed() };
        let args = [GNTTABOP_SETUP_TABLE.into(), mem::addr_of_mut(&mut table), 1, 0, 0];
        let ret = hypercall::call(nr::GRANT_TABLE_OP, args);
        check!(ret.errno().is_some() || table.status != 0, "a grant table's frames into a list {} fail", how;
            "{} status {}", ret, table.status);
        let mut area = RegisterRunstateMemoryArea { addr: address };
        let ret = hypercall::vcpu_op(VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, 0, &mut area);
        check!(ret == Ret(0) || ret == Ret::err(Errno::EFAULT), "a runstate area {} does no harm", how; "{}", ret);
        hypercall::yield_cpu();
    }
}

/// Numbers out of range.
fn arguments() {
    let leaf = guest::cpu::cpuid(hypercall::cpuid_base().unwrap_or(0) + 4, 0);
    let other = if leaf.eax & abi::cpuid::XEN_HVM_CPUID_DOMID_PRESENT != 0 { leaf.ecx as u16 + 1 } else { 0x6000 };
    for domid in [other, 0x7000, 0x7ff1, 0x7ff2, 0x7ff4, 0x7fff, 0xffff] {
        let mut unbound = AllocUnbound { dom: domid, remote_dom: 0, port: 0 };
        let ret = guest::events::op(EVTCHNOP_ALLOC_UNBOUND, &mut unbound);
        check!(ret.errno().is_some(), "a port of domain {:#x} cannot be allocated", domid; "{}", ret);
        let mut param = HvmParam { domid, pad: 0, index: 0, value: 0 };
        let ret = hypercall::op(nr::HVM_OP, HVMOP_GET_PARAM, &mut param);
        check!(ret.errno().is_some(), "a parameter of domain {:#x} cannot be read", domid; "{}", ret);
        let mut physmap = AddToPhysmap { domid, gpfn: PAGE.gfn(), ..AddToPhysmap::new_zeroed() };
        let ret = hypercall::op(nr::MEMORY_OP, XENMEM_ADD_TO_PHYSMAP, &mut physmap);
        check!(ret.errno().is_some(), "a page of domain {:#x} cannot be mapped", domid; "{}", ret);
    }
    for gpfn in [1u64 << 28, 1 << 40, 1 << 52, !0] {
        let ret = guest::events::add_to_physmap(XENMAPSPACE_SHARED_INFO, 0, gpfn);
        println!("note: the shared page at frame {gpfn:#x}: {ret}");
        let mut remove = RemoveFromPhysmap { domid: DOMID_SELF, pad: [0; 3], gpfn };
        hypercall::op(nr::MEMORY_OP, XENMEM_REMOVE_FROM_PHYSMAP, &mut remove);
        let mut info = RegisterVcpuInfo { mfn: gpfn, offset: 0, rsvd: 0 };
        let ret = hypercall::vcpu_op(VCPUOP_REGISTER_VCPU_INFO, 0, &mut info);
        check!(ret.errno().is_some(), "a vcpu_info in frame {:#x} is refused", gpfn; "{}", ret);
    }
    let param = |index: u32, value: u64| hypercall::set_param(index, value);
    let invalid = |ret: Ret| ret == Ret::err(Errno::EINVAL) || guest::pv::is_pv() && ret.errno().is_some();
    check!(invalid(param(39, 0)), "a parameter beyond the last cannot be set");
    check!(invalid(param(!0, 0)), "nor parameter ~0");
    check!(hypercall::get_param(39).is_err_and(invalid), "nor can one be read");
    check!(param(abi::hvm_params::HVM_PARAM_CONSOLE_PFN, 5).errno().is_some(), "the console's frame cannot be moved");
    check!(param(abi::hvm_params::HVM_PARAM_IOREQ_PFN, 5).errno().is_some(), "the device model's frame cannot be set");
    for cmd in [2u64, 99, !0] {
        let ret = hypercall::call(nr::VM_ASSIST, [cmd, 5, 0, 0, 0]);
        check!(ret.errno().is_some(), "vm_assist command {:#x} is refused", cmd; "{}", ret);
    }
    for op in [nr::SCHED_OP, nr::EVENT_CHANNEL_OP, nr::HVM_OP, nr::VCPU_OP, nr::XEN_VERSION] {
        let ret = hypercall::call(op, [0x7fff_ffff, 0, 0, 0, 0]);
        check!(ret == Ret::err(Errno::ENOSYS), "an unknown operation of hypercall {} is ENOSYS", op; "{}", ret);
    }
}

fn multicalls() {
    use abi::xen::MulticallEntry;
    let entry = |op, args| MulticallEntry { op, result: 0x5555, args };
    let mut list = [
        entry(nr::XEN_VERSION, [0; 6]),
        entry(63, [0; 6]),
        entry(!0, [!0; 6]),
        entry(nr::EVENT_CHANNEL_OP, [EVTCHNOP_SEND.into(), 0xffff_8000_0000_0000, 0, 0, 0, 0]),
        entry(nr::XEN_VERSION, [XENVER_PAGESIZE.into(), 0, 0, 0, 0, 0]),
    ];
    let ret = hypercall::call(nr::MULTICALL, [list.as_mut_ptr() as u64, list.len() as u64, 0, 0, 0]);
    check!(ret == Ret(0), "a multicall with bad entries succeeds"; "{}", ret);
    let results = list.map(|entry| Ret(entry.result as i64));
    let [version, nothing, wild, fault, size] = results;
    check!(version.0 == 0x4_0011 && size.0 == 4096, "its good entries have their results"; "{} {}", version, size);
    check!(nothing == Ret::err(Errno::ENOSYS) && wild == nothing, "its undefined entries are ENOSYS"; "{} {}", nothing, wild);
    check!(fault == Ret::err(Errno::EFAULT), "its entry with a bad pointer is EFAULT"; "{}", fault);
    let mut nested = [MulticallEntry { op: nr::MULTICALL, result: 0, args: [list.as_ptr() as u64, 1, 0, 0, 0, 0] }];
    let ret = hypercall::call(nr::MULTICALL, [nested.as_mut_ptr() as u64, 1, 0, 0, 0]);
    let inner = Ret(mem::read::<MulticallEntry>(nested.as_ptr() as u64).result as i64);
    check!(ret == Ret(0) && inner == Ret::err(Errno::EINVAL), "a multicall in a multicall is EINVAL"; "{} {}", ret, inner);
    let ret = hypercall::call(nr::MULTICALL, [0xffff_8000_0000_0000, 0xffff_ffff, 0, 0, 0]);
    check!(ret.errno().is_some(), "a multicall of too many entries fails"; "{}", ret);
}

/// After all that the guest works as before.
fn alive() {
    let ret = hypercall::call(nr::XEN_VERSION, [XENVER_VERSION.into(), 0, 0, 0, 0]);
    check!(ret == Ret(0x4_0011), "the version is still there"; "{}", ret);
    let port = guest::events::bind_ipi(0);
    check!(port.is_ok(), "a port can still be bound");
    check!(guest::events::close(port.unwrap_or(0)) == Ret(0), "and closed");
}
