//! Register values that the processor refuses: each is `#GP` in the guest, and neither a crash nor a success.

use core::arch::asm;

use guest::check::equal;
use guest::interrupts::Fault;
use guest::start::Boot;
use guest::{attempt, check, cpu};

const EFER: u32 = 0xc000_0080;
const NON_CANONICAL: u64 = 0x8000_0000_0000_0000;

/// Runs the test.
pub fn run(_boot: &Boot) {
    control_registers();
    msrs();
    xcr0();
    descriptors();
    undefined();
}

fn refused(seen: Result<(), Fault>, what: &str) {
    check!(seen == Err(Fault::GP), "{} is #GP(0)", what; "{:?}", seen);
}

fn control_registers() {
    let cr0 = cpu::cr0();
    check!(cpu::set_cr0(cr0).is_ok() && cpu::cr0() == cr0, "CR0 can be written with its own value");
    refused(cpu::set_cr0(cr0 | 1 << 29), "CR0.NW without CR0.CD");
    refused(cpu::set_cr0(cr0 & !1), "CR0.PG without CR0.PE");
    refused(cpu::set_cr0(cr0 & !(1 << 31)), "CR0.PG off in 64-bit mode");
    refused(cpu::set_cr0(cr0 | 1 << 32), "a high bit of CR0");
    equal(cpu::cr0(), cr0, "CR0 is as before");
    check!(cpu::set_cr0(cr0 | 1 << 30).is_ok() && cpu::set_cr0(cr0).is_ok(), "CR0.CD can be set and cleared");
    check!(cpu::set_cr0(cr0 ^ 1 << 16).is_ok() && cpu::cr0() == cr0 ^ 1 << 16, "CR0.WP can be changed");
    check!(cpu::set_cr0(cr0).is_ok(), "and changed back");
    let cr4 = cpu::cr4();
    check!(cpu::set_cr4(cr4).is_ok() && cpu::cr4() == cr4, "CR4 can be written with its own value");
    refused(cpu::set_cr4(cr4 & !(1 << 5)), "CR4.PAE off in 64-bit mode");
    refused(cpu::set_cr4(cr4 | 1 << 15), "reserved bit 15 of CR4");
    refused(cpu::set_cr4(cr4 | 1 << 63), "bit 63 of CR4");
    refused(cpu::set_cr4(cr4 | 1 << 13), "CR4.VMXE where CPUID shows no VMX");
    check!(cpu::set_cr4(cr4 | 1 << 7).is_ok() && cpu::cr4() == cr4 | 1 << 7, "CR4.PGE can be set");
    check!(cpu::set_cr4(cr4).is_ok(), "and cleared");
    equal(cpu::cr4(), cr4, "CR4 is as before");
    refused(cpu::set_cr3(cpu::cr3() | 1 << 62), "a reserved bit of CR3");
    refused(cpu::set_cr8(0x10), "a CR8 beyond 15");
    check!(cpu::set_cr2(0x1234_5678_9abc).is_ok(), "CR2 can be written");
    equal(cpu::cr2(), 0x1234_5678_9abc, "CR2 keeps its value");
}

fn msrs() {
    let efer = cpu::rdmsr(EFER);
    check!(efer & 0x500 == 0x500, "EFER shows LME and LMA"; "{:#x}", efer);
    check!(cpu::try_wrmsr(EFER, efer).is_ok(), "EFER can be written with its own value");
    refused(cpu::try_wrmsr(EFER, efer & !0x100), "EFER.LME off with paging on");
    refused(cpu::try_wrmsr(EFER, efer | 1 << 1), "a reserved bit of EFER");
    refused(cpu::try_wrmsr(EFER, efer | 1 << 63), "bit 63 of EFER");
    for (msr, name) in [
        (0xc000_0100u32, "FS_BASE"),
        (0xc000_0101, "GS_BASE"),
        (0xc000_0102, "KERNEL_GS_BASE"),
        (0xc000_0082, "LSTAR"),
        (0x176, "SYSENTER_EIP"),
    ] {
        check!(cpu::try_wrmsr(msr, 0x7fff_1234_5000).is_ok(), "{} can be written", name);
        equal(cpu::rdmsr(msr), 0x7fff_1234_5000, name);
        let refused = cpu::try_wrmsr(msr, NON_CANONICAL);
        // AMD's SYSENTER MSRs hold 32 bits and take any value (APM 2 6.1.1).
        check!(refused == Err(Fault::GP) || (msr == 0x176 && cpu::is_amd()), "a non-canonical {} is #GP(0)", name;
            "{:?}", refused);
        cpu::wrmsr(msr, 0);
    }
    for msr in [0x1_0000u32, 0x4000_1000, 0xc001_ffff, 0xdead_beef, !0] {
        check!(cpu::try_rdmsr(msr) == Err(Fault::GP), "a read of MSR {:#x} is #GP(0)", msr; "{:?}", cpu::try_rdmsr(msr));
        check!(cpu::try_wrmsr(msr, 0) == Err(Fault::GP), "a write of MSR {:#x} is #GP(0)", msr);
    }
    for (msr, name) in [(0x480u32, "VMX_BASIC"), (0x3a, "FEATURE_CONTROL"), (0xc001_0117, "VM_HSAVE_PA")] {
        let seen = cpu::try_wrmsr(msr, 1);
        check!(seen == Err(Fault::GP), "a write of {} is #GP(0)", name; "{:?}", seen);
    }
    let pat = cpu::rdmsr(0x277);
    refused(cpu::try_wrmsr(0x277, 0x0202_0202_0202_0202), "an undefined memory type in PAT");
    equal(cpu::rdmsr(0x277), pat, "PAT is as before");
}

fn xcr0() {
    if cpu::cpuid(1, 0).ecx >> 26 & 1 == 0 {
        return;
    }
    let cr4 = cpu::cr4();
    // SAFETY: a fault is caught; XCR0 values that succeed leave soft-float code running.
    let set =
        |value: u64| unsafe { attempt!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32) };
    check!(set(1) == Some(Fault::UD), "XSETBV without CR4.OSXSAVE is #UD");
    check!(cpu::set_cr4(cr4 | 1 << 18).is_ok(), "CR4.OSXSAVE can be set");
    check!(set(0) == Some(Fault::GP), "XCR0 without x87 is #GP(0)");
    check!(set(5) == Some(Fault::GP), "XCR0 with AVX and without SSE is #GP(0)");
    check!(set(1 << 62 | 1) == Some(Fault::GP), "a reserved bit of XCR0 is #GP(0)");
    check!(set(3).is_none(), "XCR0 can be x87 and SSE");
    check!(set(1).is_none() && cpu::set_cr4(cr4).is_ok(), "and x87 alone again");
}

fn descriptors() {
    // SAFETY: the fault is caught; a selector beyond the GDT never loads.
    let beyond = unsafe { attempt!("mov ds, {:x}", in(reg) 0xfff8u64) };
    check!(beyond == Some(Fault { vector: 13, error: 0xfff8 }), "a selector beyond the GDT is #GP with the selector";
        "{:?}", beyond);
    // SAFETY: the fault is caught.
    let non_canonical = unsafe { attempt!("mov {0}, [{0}]", inout(reg) NON_CANONICAL => _) };
    check!(non_canonical == Some(Fault::GP), "a read of a non-canonical address is #GP(0)"; "{:?}", non_canonical);
    // SAFETY: the fault is caught; the page at 4 GiB is not mapped.
    let unmapped = unsafe { attempt!("mov {0}, [{0}]", inout(reg) 1u64 << 32 => _) };
    check!(unmapped == Some(Fault { vector: 14, error: 0 }), "a read of an unmapped address is #PF"; "{:?}", unmapped);
    equal(cpu::cr2(), 1 << 32, "CR2 has the address");
    let dr6: u64;
    // SAFETY: a read of a debug register has no effect.
    unsafe { asm!("mov {}, dr6", out(reg) dr6) };
    equal(dr6 & 0xffff_0ff0, 0xffff_0ff0, "DR6 has its fixed bits");
    // SAFETY: the fault is caught.
    let high = unsafe { attempt!("mov dr7, {}", in(reg) 1u64 << 32) };
    check!(high == Some(Fault::GP), "a high bit of DR7 is #GP(0)"; "{:?}", high);
}

fn undefined() {
    macro_rules! is_undefined {
        ($text:literal, $name:literal) => {
            // SAFETY: the fault is caught.
            let seen = unsafe { attempt!($text, inout("rax") 0u64 => _, inout("rcx") 0u64 => _, inout("rdx") 0u64 => _) };
            check!(seen == Some(Fault::UD), "{} is #UD", $name; "{:?}", seen);
        };
    }
    is_undefined!("ud2", "UD2");
    is_undefined!("vmxoff", "VMXOFF");
    is_undefined!(".byte 0x0f, 0x01, 0xc2", "VMLAUNCH");
    is_undefined!(".byte 0x0f, 0x01, 0xd8", "VMRUN");
    is_undefined!(".byte 0x0f, 0x01, 0xdc", "STGI");
    is_undefined!(".byte 0x0f, 0x01, 0xc8", "MONITOR");
    is_undefined!(".byte 0x0f, 0x01, 0xc9", "MWAIT");
}
