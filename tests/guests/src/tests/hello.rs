//! What a guest finds at its start: start information, memory map, ACPI, CPUID, version and features.

use abi::start_info::{MAGIC, XEN_HVM_MEMMAP_TYPE_ACPI, XEN_HVM_MEMMAP_TYPE_RAM};
use abi::version::*;
use abi::{Errno, cpuid as leaves, features, nr};
use guest::acpi::{self, Table};
use guest::check::{equal, fails, zero};
use guest::hypercall::{self, Ret};
use guest::start::Boot;
use guest::{check, cpu, lapic, mem, println};
use zerocopy::FromZeros;

/// Runs the test.
pub fn run(boot: &Boot) {
    start_info(boot);
    memory_map(boot);
    acpi_tables(boot);
    if hypercall::cpuid_base().is_none() {
        check!(false, "CPUID shows Xen's leaves");
        return;
    }
    cpuid(boot);
    version();
    feature_bits();
    hypercall_page();
}

fn start_info(boot: &Boot) {
    equal(boot.info.magic.into(), MAGIC.into(), "the start info has its magic");
    equal(boot.info.version.into(), 1, "the start info is version 1");
    check!(boot.info.flags & abi::xen::SIF_INITDOMAIN == 0, "the start info's flags are not the initial domain's";
        "{:#x}", boot.info.flags);
    equal(boot.info.reserved.into(), 0, "the start info's reserved word is zero");
    println!("cmdline: {}", boot.cmdline);
    for module in boot.modules() {
        println!("module: {:#x} + {:#x}", module.paddr, module.size);
        let in_ram = boot.memmap().any(|e| {
            e.kind == XEN_HVM_MEMMAP_TYPE_RAM && e.addr <= module.paddr && module.paddr + module.size <= e.addr + e.size
        });
        check!(in_ram, "a module lies within RAM"; "{:#x} + {:#x}", module.paddr, module.size);
        equal(module.reserved, 0, "a module's reserved word is zero");
    }
}

fn memory_map(boot: &Boot) {
    let mut ram = 0;
    let (mut sorted, mut end) = (true, 0);
    for entry in boot.memmap() {
        println!("memmap: {:#011x} + {:#011x} type {}", entry.addr, entry.size, entry.kind);
        sorted &= entry.addr >= end;
        end = entry.addr.saturating_add(entry.size);
        if entry.kind == XEN_HVM_MEMMAP_TYPE_RAM {
            ram += entry.size;
        }
    }
    check!(sorted, "the memory map is sorted and without overlap");
    check!(ram >= 8 << 20, "the memory map has RAM"; "{} bytes", ram);
    let image = 0x20_0000;
    let holds = boot.memmap().any(|e| e.kind == XEN_HVM_MEMMAP_TYPE_RAM && e.addr <= image && image < e.addr + e.size);
    check!(holds, "the kernel's image lies in RAM");
}

fn in_acpi_memory(boot: &Boot, table: Table) -> bool {
    let end = table.addr + table.len();
    boot.memmap().any(|e| e.kind == XEN_HVM_MEMMAP_TYPE_ACPI && e.addr <= table.addr && end <= e.addr + e.size)
}

fn acpi_tables(boot: &Boot) {
    let rsdp = boot.info.rsdp_paddr;
    if rsdp == 0 {
        check!(false, "the start info names an RSDP");
        return;
    }
    check!(mem::read::<[u8; 8]>(rsdp) == *b"RSD PTR ", "the RSDP has its signature");
    check!(mem::byte_sum(rsdp, 20) == 0, "the RSDP's first checksum is right");
    check!(mem::byte_sum(rsdp, 36) == 0, "the RSDP's extended checksum is right");
    equal(mem::peek8(rsdp + 15).into(), 2, "the RSDP is revision 2");
    let xsdt = Table { addr: mem::read(rsdp + 24) };
    check!(xsdt.signature() == *b"XSDT" && xsdt.sum_is_right(), "the XSDT has its signature and checksum");
    for table in acpi::tables(rsdp) {
        let name = table.signature();
        let name = core::str::from_utf8(&name).unwrap_or("????");
        check!(table.sum_is_right(), "the {}'s checksum is right", name);
        check!(in_acpi_memory(boot, table), "the {} lies in memory of type ACPI", name; "{:#x}", table.addr);
    }
    fadt(boot, rsdp);
    madt(rsdp);
}

fn fadt(boot: &Boot, rsdp: u64) {
    let Some(fadt) = acpi::table(rsdp, b"FACP") else {
        check!(false, "there is a FADT");
        return;
    };
    equal(fadt.revision().into(), 5, "the FADT is revision 5");
    equal(fadt.len(), 268, "the FADT has 268 bytes");
    let boot_arch: u16 = mem::read(fadt.addr + 109);
    check!(boot_arch & 1 << 2 != 0, "the FADT says that there is no VGA"; "{:#x}", boot_arch);
    check!(boot_arch & 1 << 5 != 0, "the FADT says that there is no CMOS clock"; "{:#x}", boot_arch);
    check!(boot_arch & 1 << 1 == 0, "the FADT says that there is no 8042"; "{:#x}", boot_arch);
    let flags: u32 = mem::read(fadt.addr + 112);
    let facs: u32 = mem::read(fadt.addr + 36);
    check!(flags & 1 << 20 != 0 || facs != 0, "the FADT is hardware-reduced or has a FACS"; "{:#x}", flags);
    let (short, long) = (mem::read::<u32>(fadt.addr + 40), mem::read::<u64>(fadt.addr + 140));
    let dsdt = Table { addr: if long != 0 { long } else { short.into() } };
    check!(
        dsdt.addr != 0 && dsdt.signature() == *b"DSDT" && dsdt.sum_is_right(),
        "the DSDT has signature and checksum"
    );
    check!(in_acpi_memory(boot, dsdt), "the DSDT lies in memory of type ACPI"; "{:#x}", dsdt.addr);
}

fn madt(rsdp: u64) {
    let Some(madt) = acpi::table(rsdp, b"APIC") else {
        check!(false, "there is a MADT");
        return;
    };
    equal(mem::read::<u32>(madt.addr + 36).into(), 0xfee0_0000, "the MADT names the local APIC's page");
    for (i, processor) in acpi::processors(madt).enumerate() {
        println!("processor: uid {} apic {} flags {:#x}", processor.uid, processor.apic_id, processor.flags);
        check!(processor.uid as usize == i && processor.flags & 1 == 1, "processor {} has its number as UID", i;
            "{:?}", processor);
    }
    let mine = cpu::cpuid(1, 0).ebx >> 24;
    let first = acpi::processors(madt).next();
    check!(first.is_some_and(|p| p.apic_id == mine), "CPUID leaf 1 and the MADT agree on the APIC id"; "{}", mine);
    equal(lapic::id().into(), mine.into(), "CPUID leaf 1 and the local APIC agree on the APIC id");
    if cpu::cpuid(0, 0).eax >= 0xb && cpu::cpuid(0xb, 0).ebx != 0 {
        equal(cpu::cpuid(0xb, 0).edx.into(), mine.into(), "CPUID leaf 0xB has the same APIC id");
    }
}

fn cpuid(_boot: &Boot) {
    let base = hypercall::cpuid_base().expect("run has seen it");
    check!(cpu::cpuid(1, 0).ecx >> 31 == 1, "CPUID leaf 1 says that there is a hypervisor");
    equal(base.into(), leaves::XEN_CPUID_FIRST_LEAF.into(), "Xen's leaves start at 0x40000000");
    let highest = cpu::cpuid(base, 0).eax;
    check!((base + 4..=base + 5).contains(&highest), "Xen's highest leaf is 4 or 5"; "{:#x}", highest);
    let version = cpu::cpuid(base + 1, 0);
    equal(version.eax.into(), 0x0004_0011, "leaf 1 says 4.17");
    check!([version.ebx, version.ecx, version.edx] == [0; 3], "leaf 1 has zeroes in EBX, ECX and EDX");
    let page = cpu::cpuid(base + 2, 0);
    equal(page.eax.into(), 1, "leaf 2 names one hypercall page");
    println!("cpuid: hypercall MSR {:#x} features {:#x} {:#x}", page.ebx, page.ecx, page.edx);
    let time = cpu::cpuid(base + 3, 0);
    println!("cpuid: TSC flags {:#x} mode {} kHz {} incarnation {}", time.eax, time.ebx, time.ecx, time.edx);
    check!(time.ecx != 0, "leaf 3 tells the TSC's frequency");
    let scale = cpu::cpuid(base + 3, 1);
    check!(scale.ecx != 0, "leaf 3.1 tells the TSC's multiplier");
    let hvm = cpu::cpuid(base + 4, 0);
    println!("cpuid: HVM features {:#x} vcpu {} domain {}", hvm.eax, hvm.ebx, hvm.ecx);
    check!(hvm.eax & leaves::XEN_HVM_CPUID_VCPU_ID_PRESENT != 0, "leaf 4 tells the vCPU id"; "{:#x}", hvm.eax);
    equal(hvm.ebx.into(), 0, "leaf 4 says that this is vCPU 0");
}

fn version() {
    let plain = |op: u32| hypercall::call(nr::XEN_VERSION, [op.into(), 0, 0, 0, 0]);
    equal(plain(XENVER_VERSION).0 as u64, 0x0004_0011, "XENVER_version is 4.17");
    equal(plain(XENVER_PAGESIZE).0 as u64, 4096, "XENVER_pagesize is 4096");
    let mut extra: ExtraVersion = [0; 16];
    zero(op(XENVER_EXTRAVERSION, &mut extra), "XENVER_extraversion succeeds");
    check!(extra[0] == b'.', "XENVER_extraversion begins with a dot"; "{}", text(&extra));
    let mut capabilities: CapabilitiesInfo = [0; 1024];
    zero(op(XENVER_CAPABILITIES, &mut capabilities), "XENVER_capabilities succeeds");
    check!(text(&capabilities).contains("hvm-3.0-x86_64"), "XENVER_capabilities names 64-bit HVM"; "{}", text(&capabilities));
    let mut changeset: ChangesetInfo = [0; 64];
    zero(op(XENVER_CHANGESET, &mut changeset), "XENVER_changeset succeeds");
    let mut compiled = CompileInfo::new_zeroed();
    zero(op(XENVER_COMPILE_INFO, &mut compiled), "XENVER_compile_info succeeds");
    println!("version: {} by {} changeset {}", text(&extra), text(&compiled.compiler), text(&changeset));
    let mut parameters = PlatformParameters { virt_start: 0 };
    zero(op(XENVER_PLATFORM_PARAMETERS, &mut parameters), "XENVER_platform_parameters succeeds");
    let mut handle: DomainHandle = [0; 16];
    zero(op(XENVER_GUEST_HANDLE, &mut handle), "XENVER_guest_handle succeeds");
    let mut line: CommandLine = [0; 1024];
    zero(op(XENVER_COMMANDLINE, &mut line), "XENVER_commandline succeeds");
    check!(text(&line) == "<denied>", "XENVER_commandline is denied to an unprivileged guest"; "{}", text(&line));
    fails(op(XENVER_BUILD_ID, &mut [0u32; 16]), Errno::EPERM, "XENVER_build_id is EPERM");
    fails(plain(11), Errno::ENOSYS, "XENVER 11 is ENOSYS");
    fails(plain(!0), Errno::ENOSYS, "XENVER -1 is ENOSYS");
}

fn op<T>(number: u32, arg: &mut T) -> Ret {
    hypercall::op(nr::XEN_VERSION, number, arg)
}

fn text(bytes: &[u8]) -> &str {
    let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    core::str::from_utf8(&bytes[..len]).unwrap_or("<not UTF-8>")
}

fn feature_bits() {
    let mut info = FeatureInfo { submap_idx: 0, submap: 0 };
    zero(op(XENVER_GET_FEATURES, &mut info), "XENVER_get_features succeeds");
    println!("features: {:#x}", info.submap);
    for (bit, name) in [
        (features::XENFEAT_WRITABLE_PAGE_TABLES, "writable_page_tables"),
        (features::XENFEAT_AUTO_TRANSLATED_PHYSMAP, "auto_translated_physmap"),
        (features::XENFEAT_HVM_CALLBACK_VECTOR, "hvm_callback_vector"),
        (features::XENFEAT_HVM_SAFE_PVCLOCK, "hvm_safe_pvclock"),
    ] {
        check!(info.submap >> bit & 1 == 1, "the feature {} is there", name; "{:#x}", info.submap);
    }
    for (bit, name) in [(features::XENFEAT_DOM0, "dom0"), (features::XENFEAT_HVM_PIRQS, "hvm_pirqs")] {
        check!(info.submap >> bit & 1 == 0, "the feature {} is not there", name; "{:#x}", info.submap);
    }
    let mut beyond = FeatureInfo { submap_idx: features::NR_SUBMAPS, submap: 0 };
    fails(op(XENVER_GET_FEATURES, &mut beyond), Errno::EINVAL, "a feature word beyond the last is EINVAL");
}

fn hypercall_page() {
    let filled = hypercall::fill_page();
    check!(filled.is_ok(), "the hypercall page can be placed"; "{:?}", filled);
    if filled.is_err() {
        return;
    }
    let by_page = hypercall::call_by_page(nr::XEN_VERSION, [XENVER_VERSION.into(), 0, 0, 0, 0]);
    equal(by_page.0 as u64, 0x0004_0011, "XENVER_version through the hypercall page is 4.17");
    let mut info = FeatureInfo { submap_idx: 0, submap: 0 };
    let arg = mem::addr_of_mut(&mut info);
    zero(
        hypercall::call_by_page(nr::XEN_VERSION, [XENVER_GET_FEATURES.into(), arg, 0, 0, 0]),
        "XENVER_get_features through the hypercall page succeeds",
    );
    fails(hypercall::call_by_page(nr::COUNT as u64, [0; 5]), Errno::ENOSYS, "an entry of no hypercall is ENOSYS");
}
