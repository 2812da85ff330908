//! What a PV guest finds at its start (`xen.h`, start-of-day memory layout), the P2M and M2P, CPUID, features.

use abi::hvm_op::*;
use abi::version::*;
use abi::{Errno, cpuid as leaves, features, nr, xen};
use guest::check::{equal, fails, zero};
use guest::interrupts::Fault;
use guest::pv::{self, mmu};
use guest::start::Boot;
use guest::{attempt, check, console, cpu, events, hypercall, mem, println, time};

/// Runs the test.
pub fn run(boot: &Boot) {
    let Some(info) = &boot.pv else { return };
    start_info(boot.addr, info);
    layout(boot.addr, info);
    frames(info);
    machine_to_phys();
    shared_page();
    cpuid();
    version();
    hvm_calls();
    by_page();
    console_io();
}

fn start_info(addr: u64, info: &pv::StartInfo) {
    let magic = info.magic.split(|byte| *byte == 0).next().unwrap_or(&[]);
    let magic = core::str::from_utf8(magic).unwrap_or("<not UTF-8>");
    println!("start: {} at {:#x}, {} pages, flags {:#x}", magic, addr, info.nr_pages, info.flags);
    println!("start: tables {:#x} + {} list {:#x}", info.pt_base, info.nr_pt_frames, info.mfn_list);
    // Xen's builder of the initial domain adds a "p" if the kernel's note speaks of PAE.
    let wanted = if pv::is_initial() { "xen-3.0-x86_64p" } else { "xen-3.0-x86_64" };
    check!(magic == wanted, "the start info's magic is {}", wanted; "{}", magic);
    check!(info.nr_pages >= 4096, "the domain has pages"; "{}", info.nr_pages);
    check!(info.shared_info != 0 && info.shared_info.is_multiple_of(4096), "the shared page has an address"; "{:#x}", info.shared_info);
    let privileged = info.flags & (xen::SIF_PRIVILEGED | xen::SIF_INITDOMAIN);
    check!(privileged == 0 || privileged == 3, "an initial domain is privileged, another not"; "{:#x}", info.flags);
    if privileged == 0 {
        let ring = pv::m2p(info.console_mfn);
        check!(ring < info.nr_pages && info.console_evtchn != 0, "the console has a ring and a port"; "{:#x}", ring);
        check!(info.store_mfn == 0 || pv::m2p(info.store_mfn) < info.nr_pages, "the store's ring is the domain's page");
    }
    check!(pv::masked_at_start(), "events are masked at the start");
    let module = (info.mod_start, info.mod_len);
    check!((module.0 == 0) == (module.1 == 0), "a module has a place and a length"; "{:x?}", module);
    println!("cmdline: {}", mem::text(addr + 128, 1024));
}

fn layout(addr: u64, info: &pv::StartInfo) {
    for (address, what) in
        [(addr, "the start info"), (info.pt_base, "the page tables"), (info.mfn_list, "the frame list")]
    {
        check!(address.is_multiple_of(4096), "{} begin on a page", what; "{:#x}", address);
    }
    check!(addr < info.pt_base, "the page tables lie behind the start info"; "{:#x} {:#x}", addr, info.pt_base);
    let tables_end = info.pt_base + info.nr_pt_frames * 4096;
    // The mapped region ends where the first L1 entry is missing.
    let mut end = tables_end;
    while mmu::l1_value(end) & mmu::PRESENT != 0 {
        end += 4096;
    }
    println!("start: mapped to {:#x}", end);
    check!(end.is_multiple_of(4 << 20), "the mapped region ends on 4 MiB"; "{:#x}", end);
    check!(end - tables_end >= 4096 + (512 << 10), "and has 512 KiB behind the stack"; "{:#x}", end - tables_end);
    let cr3: u64 = cpu::cr3();
    equal(cr3 & !0xfff, pv::p2m(info.pt_base >> 12) << 12, "CR3 reads as the frame of the page tables' first page");
    let mut first = 0x20_0000u64;
    while first < end {
        let entry = mmu::l1_value(first);
        let is_table = (info.pt_base..tables_end).contains(&first);
        let right = (entry & mmu::FRAME) >> 12 == pv::p2m(first >> 12) && entry & mmu::PRESENT != 0;
        // The shared page was mapped over a page of the image by this guest.
        if (!right && first != events::shared_info()) || (is_table && entry & mmu::WRITABLE != 0) {
            check!(false, "each page is mapped at its address, page tables read-only"; "{:#x}: {:#x}", first, entry);
            return;
        }
        first += 4096;
    }
    check!(true, "each page is mapped at its address, page tables read-only");
}

fn frames(info: &pv::StartInfo) {
    let wrong = (0..info.nr_pages).filter(|pfn| pv::m2p(pv::p2m(*pfn)) != *pfn).count();
    equal(wrong as u64, 0, "the frame list and the machine-to-physical table agree on every page");
    let shared = pv::m2p(info.shared_info >> 12);
    check!(shared >= info.nr_pages, "the shared page is none of the domain's pages"; "{:#x}", shared);
}

fn machine_to_phys() {
    let entry = pv::m2p_entry(pv::p2m(0x200));
    // SAFETY: the fault is caught.
    let write = unsafe { attempt!("mov qword ptr [{}], 0", in(reg) entry) };
    // The error code has no user bit: the kernel did it.
    check!(write == Some(Fault { vector: 14, error: 3 }), "a write to the machine-to-physical table is #PF"; "{:?}", write);
    equal(guest::interrupts::fault_address(), entry, "at its address");
    let highest = hypercall::call(nr::MEMORY_OP, [abi::memory::XENMEM_MAXIMUM_RAM_PAGE.into(), 0, 0, 0, 0]);
    check!(highest.0 > 0, "there is a highest frame"; "{}", highest);
    let beyond = pv::m2p_entry(1 << 35);
    // SAFETY: the fault is caught.
    let read = unsafe { attempt!("mov {0}, [{0}]", inout(reg) beyond => _) };
    check!(read.is_some_and(|fault| fault.vector == 14), "a read beyond the table is #PF"; "{:?}", read);
}

fn shared_page() {
    zero(events::init(), "the shared page is mapped");
    let first = time::now();
    let mut last = first;
    let mut monotone = true;
    for _ in 0..1000 {
        let now = time::now();
        monotone &= now >= last;
        last = now;
    }
    check!(monotone && last > first, "the clock goes forward"; "{} {}", first, last);
    let version = mem::peek32(events::shared_info() + core::mem::offset_of!(xen::SharedInfo, wc_version) as u64);
    let seconds = mem::peek32(events::shared_info() + core::mem::offset_of!(xen::SharedInfo, wc_sec) as u64);
    check!(version.is_multiple_of(2) && seconds > 0, "the wall clock is set"; "{} {}", version, seconds);
    println!("time: {} ns after {} s", last, seconds);
}

fn cpuid() {
    let Some(base) = hypercall::cpuid_base() else {
        check!(false, "CPUID with the prefix shows Xen's leaves");
        return;
    };
    equal(base.into(), leaves::XEN_CPUID_FIRST_LEAF.into(), "Xen's leaves start at 0x40000000");
    equal(cpu::cpuid(base + 1, 0).eax.into(), 0x0004_0011, "leaf 1 says 4.17");
    // Xen's initial domain is not told.
    let told = |leaf: cpu::CpuidResult| leaf.ecx != 0 || pv::is_initial();
    check!(told(cpu::cpuid(base + 3, 0)), "leaf 3 tells the TSC's frequency");
    check!(told(cpu::cpuid(base + 3, 1)), "leaf 3.1 tells the TSC's multiplier");
    check!(cpu::cpuid(1, 0).ecx >> 31 == 1, "CPUID leaf 1 says that there is a hypervisor");
}

fn text(bytes: &[u8]) -> &str {
    let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    core::str::from_utf8(&bytes[..len]).unwrap_or("<not UTF-8>")
}

fn version() {
    let plain = |op: u32| hypercall::call(nr::XEN_VERSION, [op.into(), 0, 0, 0, 0]);
    equal(plain(XENVER_VERSION).0 as u64, 0x0004_0011, "XENVER_version is 4.17");
    let mut capabilities: CapabilitiesInfo = [0; 1024];
    zero(hypercall::op(nr::XEN_VERSION, XENVER_CAPABILITIES, &mut capabilities), "XENVER_capabilities succeeds");
    check!(text(&capabilities).contains("xen-3.0-x86_64"), "XENVER_capabilities names 64-bit PV"; "{}", text(&capabilities));
    let mut parameters = PlatformParameters { virt_start: 0 };
    zero(
        hypercall::op(nr::XEN_VERSION, XENVER_PLATFORM_PARAMETERS, &mut parameters),
        "XENVER_platform_parameters succeeds",
    );
    equal(parameters.virt_start, 0xffff_8000_0000_0000, "the hypervisor begins at its place");
    let mut info = FeatureInfo { submap_idx: 0, submap: 0 };
    zero(hypercall::op(nr::XEN_VERSION, XENVER_GET_FEATURES, &mut info), "XENVER_get_features succeeds");
    println!("features: {:#x}", info.submap);
    let has = |bit: u32| info.submap >> bit & 1 == 1;
    check!(has(features::XENFEAT_DIRECT_MAPPED) && !has(features::XENFEAT_NOT_DIRECT_MAPPED),
        "its frames are the machine's, as the features say"; "{:#x}", info.submap);
    check!(has(features::XENFEAT_MMU_PT_UPDATE_PRESERVE_AD), "the feature mmu_pt_update_preserve_ad is there";
        "{:#x}", info.submap);
    for (bit, name) in [
        (features::XENFEAT_WRITABLE_PAGE_TABLES, "writable_page_tables"),
        (features::XENFEAT_AUTO_TRANSLATED_PHYSMAP, "auto_translated_physmap"),
        (features::XENFEAT_HVM_CALLBACK_VECTOR, "hvm_callback_vector"),
    ] {
        check!(!has(bit), "the feature {} is not there", name; "{:#x}", info.submap);
    }
    // The kernel's note of the PAE mode says yes, which only Xen's builder of the initial domain heeds in 64-bit ones.
    check!(has(features::XENFEAT_PAE_PGDIR_ABOVE_4GB) == pv::is_initial(),
        "the feature pae_pgdir_above_4gb is the initial domain's from the start"; "{:#x}", info.submap);
    check!(has(features::XENFEAT_DOM0) == pv::is_initial(), "the feature dom0 is the initial domain's alone"; "{:#x}", info.submap);
}

/// `hvm_op` of a domain that is none of its kind.
fn hvm_calls() {
    let op = |op: u32, arg: u64| hypercall::call(nr::HVM_OP, [op.into(), arg, 0, 0, 0]);
    let param =
        |number: u32, domid, index| hypercall::op(nr::HVM_OP, number, &mut HvmParam { domid, pad: 0, index, value: 0 });
    for (number, name) in [(HVMOP_SET_PARAM, "HVMOP_set_param"), (HVMOP_GET_PARAM, "HVMOP_get_param")] {
        fails(param(number, xen::DOMID_SELF, 0), Errno::EINVAL, name);
        fails(param(number, 0x6123, 0), Errno::ESRCH, name);
        fails(param(number, 0x6123, 39), Errno::EINVAL, name);
        fails(op(number, 0xffff_8300_0000_0000), Errno::EFAULT, name);
    }
    fails(op(HVMOP_FLUSH_TLBS, 0), Errno::EINVAL, "HVMOP_flush_tlbs is EINVAL");
    fails(op(HVMOP_SET_EVTCHN_UPCALL_VECTOR, 0), Errno::EINVAL, "HVMOP_set_evtchn_upcall_vector is EINVAL");
    let kind = |domid| {
        let mut arg = GetMemType { domid, mem_type: 99, pad: [0; 2], pfn: 0 };
        hypercall::op(nr::HVM_OP, HVMOP_GET_MEM_TYPE, &mut arg)
    };
    fails(kind(xen::DOMID_SELF), Errno::EINVAL, "HVMOP_get_mem_type is EINVAL");
    fails(kind(0x6123), Errno::ESRCH, "of no domain it is ESRCH");
    let mut dying = PagetableDying { domid: xen::DOMID_SELF, pad: [0; 3], gpa: 0 };
    fails(
        hypercall::op(nr::HVM_OP, HVMOP_PAGETABLE_DYING, &mut dying),
        Errno::EINVAL,
        "HVMOP_pagetable_dying is EINVAL",
    );
    let mut time = GetTime { now: 0 };
    zero(hypercall::op(nr::HVM_OP, HVMOP_GET_TIME, &mut time), "HVMOP_get_time succeeds");
    zero(op(HVMOP_GUEST_REQUEST_VM_EVENT, 0), "a request of a monitor's event succeeds");
    fails(op(99, 0), Errno::ENOSYS, "an unknown hvm_op is ENOSYS");
}

fn by_page() {
    let by_page = hypercall::call_by_page(nr::XEN_VERSION, [XENVER_VERSION.into(), 0, 0, 0, 0]);
    equal(by_page.0 as u64, 0x0004_0011, "XENVER_version through the hypercall page is 4.17");
    let ret = hypercall::call_by_page(nr::COUNT as u64, [0; 5]);
    equal(ret.0 as u64, -38i64 as u64, "an entry of no hypercall is ENOSYS");
}

fn console_io() {
    let ret = console::by_hypercall(b"pv-hello: a line by console_io\n");
    let allowed = ret == hypercall::Ret(0) || (!pv::is_initial() && ret == hypercall::Ret::err(abi::Errno::EPERM));
    check!(allowed, "CONSOLEIO_write writes, or is the initial domain's alone"; "{}", ret);
}
