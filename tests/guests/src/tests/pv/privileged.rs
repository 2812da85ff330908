//! Privileged instructions of a PV kernel: what the hypervisor does in its place, and what it refuses.

use abi::physdev::PHYSDEVOP_SET_IOPL;
use abi::sched::{PinOverride, SCHEDOP_PIN_OVERRIDE};
use abi::{Errno, nr};
use guest::check::{equal, fails, zero};
use guest::hypercall::{self, Ret};
use guest::interrupts::{self, Fault};
use guest::start::Boot;
use guest::time::{self, MILLISECOND};
use guest::{attempt, check, cpu, events, mem, pv};

/// Runs the test.
pub fn run(_boot: &Boot) {
    cpuid();
    control_registers();
    task_switched();
    debug_registers();
    msrs();
    ports();
    others();
    halt();
    pin_override();
}

fn pin_override() {
    let pin = |pcpu: i32| hypercall::op(nr::SCHED_OP, SCHEDOP_PIN_OVERRIDE, &mut PinOverride { pcpu });
    if !pv::is_initial() {
        return fails(pin(0), Errno::EPERM, "only the initial domain may pin itself to a CPU");
    }
    fails(pin(-1), Errno::EINVAL, "what was not pinned cannot be taken back");
    fails(pin(100), Errno::EINVAL, "nobody can be pinned to a CPU that is not there");
    fails(pin(i32::MAX), Errno::EINVAL, "nor to one that cannot be there");
    zero(pin(0), "the first CPU is there");
    fails(pin(0), Errno::EBUSY, "one that is pinned cannot be pinned again");
    zero(pin(-1), "and that can be taken back");
    fails(pin(-1), Errno::EINVAL, "once");
}

fn cpuid() {
    let forced = cpu::forced_cpuid(0x4000_0000, 0);
    equal(forced.ebx.into(), abi::cpuid::XEN_CPUID_SIGNATURE_EBX.into(), "CPUID with the prefix shows the hypervisor");
    let one = cpu::forced_cpuid(1, 0);
    check!(one.ecx >> 5 & 1 == 0, "there is no VT-x"; "{:#x}", one.ecx);
    check!(one.ecx >> 31 & 1 == 1, "there is a hypervisor"; "{:#x}", one.ecx);
    check!(one.edx >> 3 & 1 == 0, "there are no large pages"; "{:#x}", one.edx);
    let extended = cpu::forced_cpuid(0x8000_0001, 0);
    check!(extended.edx >> 29 & 1 == 1 && extended.edx >> 26 & 1 == 0, "there is long mode, and no page of 1 GiB";
        "{:#x}", extended.edx);
    check!(extended.ecx >> 2 & 1 == 0, "there is no AMD-V"; "{:#x}", extended.ecx);
    let seven = cpu::forced_cpuid(7, 0);
    check!(seven.ebx & (1 << 7 | 1 << 20) == 0, "there is no SMEP and no SMAP for it"; "{:#x}", seven.ebx);
    check!(seven.ebx >> 10 & 1 == 0, "there is no INVPCID"; "{:#x}", seven.ebx);
    // Without the prefix it is the processor that answers, or the hypervisor where it can; never with a fault.
    let plain = cpu::plain_cpuid(0, 0);
    equal(plain.ebx.into(), cpu::forced_cpuid(0, 0).ebx.into(), "CPUID without the prefix knows the vendor");
    // The prefix before another instruction is the UD2 that it begins with.
    // SAFETY: the fault is caught.
    let other = unsafe { attempt!(".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x90") };
    check!(other == Some(Fault::UD), "the prefix before another instruction is #UD"; "{:?}", other);
}

fn refused(seen: Result<(), Fault>, what: &str) {
    check!(seen == Err(Fault::GP), "{} is #GP(0)", what; "{:?}", seen);
}

fn control_registers() {
    let cr0 = cpu::cr0();
    check!(cr0 & 0x8005_0033 == 0x8005_0033, "CR0 reads as a kernel expects"; "{:#x}", cr0);
    check!(cpu::set_cr0(cr0).is_ok(), "CR0 can be written with its own value");
    refused(cpu::set_cr0(cr0 & !(1 << 16)), "CR0.WP off");
    refused(cpu::set_cr0(cr0 & !(1 << 31)), "CR0.PG off");
    equal(cpu::cr0(), cr0, "CR0 is as before");
    let cr4 = cpu::cr4();
    check!(cr4 & 0x20 != 0, "CR4 shows PAE"; "{:#x}", cr4);
    check!(cr4 & (1 << 13 | 1 << 20 | 1 << 21 | 1 << 17) == 0, "CR4 shows no VMXE, SMEP, SMAP or PCIDE"; "{:#x}", cr4);
    check!(cpu::set_cr4(cr4).is_ok(), "CR4 can be written with its own value");
    let wild = cpu::set_cr4(cr4 | 1 << 13);
    check!(wild.is_ok() || wild == Err(Fault::GP), "CR4.VMXE is dropped or refused"; "{:?}", wild);
    check!(cpu::cr4() >> 13 & 1 == 0, "CR4.VMXE cannot be had"; "{:#x}", cpu::cr4());
    equal(cpu::cr3() & !0xfff, pv::mmu::top() << 12, "CR3 reads as the top table's frame");
    check!(cpu::set_cr3(cpu::cr3()).is_ok(), "CR3 can be written with its own value");
    check!(cpu::set_cr3(0x1000 << 40).is_err(), "but not with what is no table");
    check!(cpu::set_cr2(0x1234_5000).is_ok(), "CR2 can be written");
    equal(cpu::cr2(), 0x1234_5000, "CR2 keeps its value");
    // SAFETY: the fault is caught.
    let cr8 = unsafe { attempt!("mov {0}, cr8", out(reg) _) };
    check!(cr8.is_some(), "there is no CR8"; "{:?}", cr8);
}

fn has_ts() -> bool {
    cpu::cr0() >> 3 & 1 == 1
}

fn task_switched() {
    let switch = |set: u64| hypercall::call(nr::FPU_TASKSWITCH, [set, 0, 0, 0, 0]);
    zero(switch(1), "fpu_taskswitch sets CR0.TS");
    check!(has_ts(), "CR0 shows it");
    // SAFETY: the fault is caught; the instruction has no effect on soft-float code.
    let fpu = unsafe { attempt!("fninit") };
    check!(fpu == Some(Fault { vector: 7, error: 0 }), "an FPU instruction is #NM then"; "{:?}", fpu);
    check!(!has_ts(), "which clears CR0.TS, as Xen's ABI has it");
    zero(switch(1), "fpu_taskswitch sets CR0.TS again");
    // SAFETY: the fault is caught.
    let clts = unsafe { attempt!("clts") };
    check!(clts.is_none() && !has_ts(), "CLTS clears it"; "{:?}", clts);
    zero(switch(0), "fpu_taskswitch clears CR0.TS");
    // SAFETY: as above.
    let fpu = unsafe { attempt!("fninit") };
    check!(fpu.is_none(), "then the FPU can be used"; "{:?}", fpu);
    let set = cpu::set_cr0(cpu::cr0() | 8);
    check!(set.is_ok() && has_ts(), "MOV to CR0 sets CR0.TS"; "{:?}", set);
    let clear = cpu::set_cr0(cpu::cr0() & !8);
    check!(clear.is_ok() && !has_ts(), "and clears it"; "{:?}", clear);
}

fn debug_registers() {
    let address = 0x20_1000u64;
    // SAFETY: the faults are caught; DR7 stays off.
    unsafe {
        let write = attempt!("mov dr1, {}", in(reg) address);
        check!(write.is_none(), "MOV to DR1 is done"; "{:?}", write);
        let mut value: u64 = 0;
        let read = attempt!("mov {}, dr1", inout(reg) value);
        check!(read.is_none() && value == address, "MOV from DR1 gives it back"; "{:?} {:#x}", read, value);
        let hypervisor = attempt!("mov dr0, {}", in(reg) 0xffff_8300_0000_0000u64);
        check!(hypervisor == Some(Fault::GP), "a breakpoint in the hypervisor is #GP(0)"; "{:?}", hypervisor);
        let read = attempt!("mov {}, dr6", out(reg) value);
        check!(read.is_none() && value & 0xffff_0ff0 == 0xffff_0ff0, "DR6 reads with its fixed bits"; "{:?} {:#x}", read, value);
        let read = attempt!("mov {}, dr7", out(reg) value);
        check!(read.is_none() && value & 0x400 != 0, "DR7 too"; "{:?} {:#x}", read, value);
    }
}

fn msrs() {
    const EFER: u32 = 0xc000_0080;
    let efer = cpu::try_rdmsr(EFER);
    check!(efer.is_ok_and(|efer| efer & 0x501 == 0x501), "EFER shows SCE, LME and LMA"; "{:x?}", efer);
    check!(efer.is_ok_and(|efer| efer >> 12 & 1 == 0), "and no SVME"; "{:x?}", efer);
    for (msr, name) in [(0xc000_0100u32, "FS_BASE"), (0xc000_0102, "KERNEL_GS_BASE")] {
        check!(cpu::try_wrmsr(msr, 0x7fff_1234_5000).is_ok(), "{} can be written", name);
        check!(cpu::try_rdmsr(msr) == Ok(0x7fff_1234_5000), "{} reads back", name; "{:x?}", cpu::try_rdmsr(msr));
        let far = cpu::try_wrmsr(msr, 0x8000_0000_0000_0000);
        check!(far == Err(Fault::GP), "a non-canonical {} is #GP(0)", name; "{:?}", far);
        check!(cpu::try_wrmsr(msr, 0).is_ok(), "{} can be cleared", name);
    }
    for (msr, name) in [(0x480u32, "VMX_BASIC"), (0xc001_0117, "VM_HSAVE_PA"), (0xdead_beef, "no MSR"), (!0, "MSR ~0")]
    {
        let read = cpu::try_rdmsr(msr);
        check!(read == Err(Fault::GP), "a read of {} is #GP(0)", name; "{:x?}", read);
    }
    // What a write of these does is the policy's: refused or without effect, never done.
    for (msr, value, name) in [
        (0xc000_0082u32, 0xffff_8300_0000_0000u64, "LSTAR"),
        (0xc000_0081, 0, "STAR"),
        (0xc000_0084, 0, "SFMASK"),
        (0x176, 0x20_0000, "SYSENTER_EIP"),
        (0x1b, 0xfee0_0000, "APIC_BASE"),
        (0x277, 0, "PAT"),
        (0x48, 0, "SPEC_CTRL"),
        (0x9b, 1, "SMM_MONITOR_CTL"),
        (0x79, 0x1000, "BIOS_UPDT_TRIG"),
        (0x10, 0, "TSC"),
        (0x6e0, 1, "TSC_DEADLINE"),
        (0x830, 0x000c_4500, "X2APIC_ICR"),
    ] {
        let before = cpu::try_rdmsr(msr);
        let write = cpu::try_wrmsr(msr, value);
        let after = cpu::try_rdmsr(msr);
        let same = msr == 0x10 || before == after;
        check!(write == Err(Fault::GP) || same, "a write of {} is refused, or has no effect", name; "{:?} {:x?}", write, after);
    }
    let alive = hypercall::call(nr::XEN_VERSION, [0; 5]);
    equal(alive.0 as u64, 0x4_0011, "hypercalls still reach the hypervisor");
}

fn ports() {
    // SAFETY: the fault is caught; a read of these ports has no effect.
    let read = |port: u16| unsafe {
        let mut value = 0u32;
        let fault = attempt!("in al, dx", in("dx") port, inout("eax") value);
        (fault, value)
    };
    let all = [0x80u16, 0x60, 0xcf8, 0x21, 0x40, 0x3f8, 0x70];
    for port in all {
        let (fault, value) = read(port);
        check!(fault == Some(Fault::GP), "without an I/O privilege level a read of port {:#x} is #GP(0)", port;
            "{:?} {:#x}", fault, value);
    }
    let set_iopl = |iopl: u32| hypercall::op(nr::PHYSDEV_OP, PHYSDEVOP_SET_IOPL, &mut core::hint::black_box(iopl));
    zero(set_iopl(1), "PHYSDEVOP_set_iopl succeeds");
    for port in all {
        let (fault, value) = read(port);
        check!(fault.is_none(), "then a kernel's read of port {:#x} is done", port; "{:?}", fault);
        if !pv::is_initial() && !matches!(port, 0x70 | 0x71 | 0x40..=0x43 | 0x61 | 0xcf8) {
            equal((value & 0xff).into(), 0xff, "and gives all ones where the domain has no port");
        }
    }
    if !pv::is_initial() {
        // SAFETY: the fault is caught.
        let write = unsafe { attempt!("out dx, al", in("dx") 0x64u16, in("al") 0xfeu8) };
        check!(write.is_none(), "a write to port 0x64 is dropped"; "{:?}", write);
    }
    fails(set_iopl(4), Errno::EINVAL, "there is no I/O privilege level 4");
    zero(set_iopl(0), "the I/O privilege level can be taken away");
    check!(read(0x80).0 == Some(Fault::GP), "which is the end of reads");
}

fn others() {
    // SAFETY: the faults are caught.
    unsafe {
        let wbinvd = attempt!("wbinvd");
        check!(wbinvd.is_none(), "WBINVD is done, or has no effect"; "{:?}", wbinvd);
        let invlpg = attempt!("invlpg [{}]", in(reg) 0x20_0000u64);
        // Xen 4.17 refuses it; a kernel asks by mmuext_op.
        check!(invlpg.is_none() || invlpg == Some(Fault::GP), "INVLPG is done or #GP(0)"; "{:?}", invlpg);
        let xgetbv = attempt!("xgetbv", in("ecx") 0, out("eax") _, out("edx") _);
        check!(xgetbv.is_none_or(|fault| fault == Fault::UD), "XGETBV is done where CR4 lets it"; "{:?}", xgetbv);
        let one = cpu::forced_cpuid(1, 0);
        if one.ecx >> 26 & 1 == 1 {
            // Without CR4.OSXSAVE the processor itself may refuse; with it the hypervisor decides.
            check!(cpu::set_cr4(cpu::cr4() | 1 << 18).is_ok(), "CR4.OSXSAVE can be set");
            let set = |value: u32| attempt!("xsetbv", in("ecx") 0, in("eax") value, in("edx") 0);
            check!(set(1).is_none(), "XSETBV can choose x87 alone"; "{:?}", set(1));
            check!(set(0) == Some(Fault::GP), "XCR0 without x87 is #GP(0)"; "{:?}", set(0));
            check!(set(5) == Some(Fault::GP), "XCR0 with AVX and without SSE is #GP(0)"; "{:?}", set(5));
            check!(set(3).is_none(), "XCR0 can be x87 and SSE"; "{:?}", set(3));
            let other = attempt!("xsetbv", in("ecx") 1, in("eax") 3, in("edx") 0);
            check!(other == Some(Fault::GP), "another XCR is #GP(0)"; "{:?}", other);
        }
        for (name, fault) in [
            ("LGDT", attempt!("lgdt [{}]", in(reg) &[0u64; 2])),
            ("LIDT", attempt!("lidt [{}]", in(reg) &[0u64; 2])),
            ("LTR", attempt!("ltr {:x}", in(reg) 0u64)),
            ("LLDT", attempt!("lldt {:x}", in(reg) 0u64)),
            ("CLI", attempt!("cli")),
            ("STI", attempt!("sti")),
            ("SWAPGS", attempt!("swapgs")),
            ("SYSRET", attempt!("sysretq")),
            ("SYSEXIT", attempt!("sysexitq")),
        ] {
            check!(fault.is_some_and(|fault| fault.vector == 13 || fault.vector == 6), "{} faults", name; "{:?}", fault);
        }
        let first = cpu::tsc();
        check!(cpu::tsc() > first, "RDTSC goes forward");
        for (name, fault) in [
            ("VMXOFF", attempt!("vmxoff")),
            ("VMCALL", attempt!("vmcall", inout("rax") 0u64 => _)),
            ("VMMCALL", attempt!("vmmcall", inout("rax") 0u64 => _)),
            ("VMRUN", attempt!(".byte 0x0f, 0x01, 0xd8", inout("rax") 0u64 => _)),
            ("MONITOR", attempt!(".byte 0x0f, 0x01, 0xc8", inout("rax") 0u64 => _, in("rcx") 0, in("rdx") 0)),
        ] {
            check!(fault.is_some(), "{} faults", name; "{:?}", fault);
        }
    }
}

/// HLT sleeps until an event; with events masked it returns at the next.
fn halt() {
    interrupts::on(events::VECTOR, |_frame| {
        events::acknowledge(0);
    });
    let Ok(timer) = events::bind_virq(abi::xen::VIRQ_TIMER, 0) else {
        return check!(false, "VIRQ_TIMER can be bound");
    };
    events::set_mask(timer, false);
    let start = time::now();
    let due = start + 3 * MILLISECOND;
    check!(hypercall::call(nr::SET_TIMER_OP, [due, 0, 0, 0, 0]) == Ret(0), "a timer can be set");
    mem::poke8(events::vcpu_info(0) + 1, 0);
    let (mut fault, mut times) = (None, 0);
    while fault.is_none() && time::now() < due && times < 50 {
        // Another event may come before.
        // SAFETY: events are handled.
        fault = unsafe { attempt!("hlt") };
        times += 1;
    }
    cpu::cli();
    // Xen 4.17 refuses it; a kernel blocks by sched_op.
    check!(fault.is_none() || fault == Some(Fault::GP), "HLT is done or #GP(0)"; "{:?}", fault);
    check!(fault.is_some() || time::now() >= due, "if it is done it sleeps until the event"; "{} times", times);
}
