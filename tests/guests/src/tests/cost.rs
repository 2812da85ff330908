//! What each operation costs in TSC ticks: lines `COST row: ticks`, averages, the loop's two instructions included.
//!
//! On one CPU of an emulator whose TSC counts instructions the figures are exact. A row's body is the operation
//! and what it must set up again each time.

use core::arch::asm;

use abi::event_channel::{EVTCHNOP_SEND, Send};
use abi::memory::{AddToPhysmap, XENMAPSPACE_SHARED_INFO, XENMEM_ADD_TO_PHYSMAP, XENMEM_MAXIMUM_RAM_PAGE};
use abi::nr;
use abi::sched::SCHEDOP_YIELD;
use abi::vcpu::VCPUOP_IS_UP;
use abi::xen::{CONSOLEIO_WRITE, DOMID_SELF, MulticallEntry, VcpuInfo, VcpuTimeInfo};
use guest::pv::traps::{self, kind};
use guest::start::Boot;
use guest::{cpu, events, hypercall, interrupts, mem, println, pv, time};
use zerocopy::FromZeros;

/// How often most rows run.
pub const MANY: u64 = 10_000;
const FEWER: u64 = 2_000;
const FEW: u64 = 256;

/// Runs a body `$n` times and gives the ticks of one. R12 is the counter.
#[macro_export]
macro_rules! ticks {
    ($n:expr, [$($line:expr),*] $(, $($operands:tt)*)?) => {{
        let start = guest::cpu::tsc();
        core::arch::asm!("2:", $($line,)* "dec r12", "jnz 2b", inout("r12") $n => _, $($($operands)*)?);
        (guest::cpu::tsc() - start) / $n
    }};
}

/// The same with the hypercall instruction between the lines before and after. RCX and R11 are lost.
#[macro_export]
macro_rules! hypercall_ticks {
    ($n:expr, [$($before:expr),*], [$($after:expr),*], $($operands:tt)*) => {
        if guest::pv::is_pv() {
            $crate::ticks!($n, [$($before,)* "syscall" $(, $after)*], out("rcx") _, out("r11") _, $($operands)*)
        } else if guest::hypercall::by_vmmcall() {
            $crate::ticks!($n, [$($before,)* "vmmcall" $(, $after)*], out("rcx") _, out("r11") _, $($operands)*)
        } else {
            $crate::ticks!($n, [$($before,)* "vmcall" $(, $after)*], out("rcx") _, out("r11") _, $($operands)*)
        }
    };
}

/// Prints a row.
pub fn row(name: &str, ticks: u64) {
    println!("COST {name}: {ticks}");
}

/// Runs the test.
pub fn run(boot: &Boot) {
    // SAFETY: an empty loop.
    row("empty loop", unsafe { crate::ticks!(MANY, ["nop"]) } - 1);
    if pv::is_pv() {
        super::pv::cost::run(boot);
    } else {
        free();
        exits();
    }
    if hypercall::cpuid_base().is_none() {
        return;
    }
    if !pv::is_pv() {
        cpuid_exit("CPUID exit, Xen's leaf 0x40000001", 0x4000_0001);
    }
    plain_hypercalls();
    timers();
    let ready = events::init();
    println!("events: {ready}");
    start();
    event_sends();
    multicall();
    console();
    if !pv::is_pv() {
        memory();
    }
    guest::check!(true, "the costs are measured");
}

/// Ticks of a hypercall with these arguments; it must leave them alone.
pub fn hypercall_loop(count: u64, number: u64, args: [u64; 4]) -> u64 {
    // SAFETY: the callers' arguments are numbers, or structures that outlive the loop.
    unsafe {
        crate::hypercall_ticks!(count, ["mov rax, r13"], [], in("r13") number, out("rax") _, in("rdi") args[0],
            in("rsi") args[1], in("rdx") args[2], in("r10") args[3])
    }
}

unsafe extern "C" {
    /// The TSC at a PVH guest's first instruction.
    static first_tsc: u64;
}

/// From the hypervisor's first instruction, if system time begins there and the TSC is the machine's own.
fn start() {
    let record = events::vcpu_info(0) + core::mem::offset_of!(VcpuInfo, time) as u64;
    let time: VcpuTimeInfo = mem::read(record);
    // SAFETY: it was written once, before there was another virtual CPU.
    let first = unsafe { first_tsc };
    if first != 0 && time.system_time == 0 {
        row("from the hypervisor's first instruction to the guest's", first - time.tsc_timestamp);
    }
}

fn plain_hypercalls() {
    row("xen_version(XENVER_version)", hypercall_loop(MANY, nr::XEN_VERSION, [0; 4]));
    // A PV guest's page is there from the start.
    if pv::is_pv() || hypercall::fill_page().is_ok() {
        let entry = hypercall::PAGE.addr() + nr::XEN_VERSION * 32;
        // SAFETY: the page's entry returns and clobbers RAX alone.
        let ticks =
            unsafe { crate::ticks!(MANY, ["call r13"], in("r13") entry, out("rax") _, in("rdi") 0, clobber_abi("C")) };
        row("xen_version(XENVER_version) by the hypercall page", ticks);
    }
    row("sched_op(yield)", hypercall_loop(MANY, nr::SCHED_OP, [SCHEDOP_YIELD.into(), 0, 0, 0]));
    row("vcpu_op(is_up)", hypercall_loop(MANY, nr::VCPU_OP, [VCPUOP_IS_UP.into(), 0, 0, 0]));
    row("hypercall of no number", hypercall_loop(MANY, 55, [0; 4]));
}

fn timers() {
    let far = 1000 * time::SECOND;
    // SAFETY: the argument is a number.
    let ticks = unsafe {
        crate::hypercall_ticks!(MANY, ["mov eax, 15", "add rdi, 1000"], [], out("rax") _, inout("rdi") far => _)
    };
    row("set_timer_op, 1000 s ahead", ticks);
    row("set_timer_op(0)", hypercall_loop(MANY, nr::SET_TIMER_OP, [0; 4]));
    row("memory_op(maximum_ram_page)", hypercall_loop(MANY, nr::MEMORY_OP, [XENMEM_MAXIMUM_RAM_PAGE.into(), 0, 0, 0]));
}

core::arch::global_asm!(
    // The upcall of the row with delivery: R14 the pending word, R9 the mask to keep, R15 the vcpu_info.
    "cost_upcall:",
    "lock and qword ptr [r14], r9",
    "mov byte ptr [r15], 0",
    "mov qword ptr [r15 + 8], 0",
    "iretq",
    // The same of a PV guest, which returns by the iret hypercall: RCX and R11, where to return to.
    "cost_pv_upcall:",
    "lock and qword ptr [r14], r9",
    "mov byte ptr [r15], 0",
    "mov qword ptr [r15 + 8], 0",
    "pop rcx",
    "pop r11",
    "push 0",
    "push rcx",
    "push r11",
    "push rax",
    "mov eax, 23",
    "syscall",
    // A fault of the guest's own on a two-byte instruction.
    "cost_skip_two:",
    "add qword ptr [rsp], 2",
    "iretq",
);

unsafe extern "C" {
    fn cost_upcall();
    fn cost_pv_upcall();
    fn cost_skip_two();
}

fn event_sends() {
    let Ok(port) = events::bind_ipi(0) else {
        println!("SKIP event_channel_op(send): no IPI port");
        return;
    };
    cpu::cli();
    let arg = Send { port };
    let (arg, op) = (mem::addr_of(&arg), u64::from(EVTCHNOP_SEND));
    let word = core::ptr::from_ref(events::pending_word(port)) as u64;
    let (keep, info) = (!(1u64 << (port % 64)), events::vcpu_info(0));
    events::set_mask(port, false);
    events::send(port);
    let pending = hypercall_loop(MANY, nr::EVENT_CHANNEL_OP, [op, arg, 0, 0]);
    row("event_channel_op(send) to own IPI port, already pending", pending);
    events::clear(port);
    events::acknowledge(0);
    // SAFETY: the body clears what the send set, in the shared page.
    let masked = unsafe {
        crate::hypercall_ticks!(MANY, ["mov eax, 32"],
            ["lock and qword ptr [r14], r9", "mov byte ptr [r15], 0", "mov qword ptr [r15 + 8], 0"],
            out("rax") _, in("rdi") op, in("rsi") arg, in("r14") word, in("r9") keep, in("r15") info)
    };
    row("event_channel_op(send), not pending, interrupts off", masked);
    if pv::is_pv() {
        traps::register(kind::EVENT, 1, cost_pv_upcall as *const () as u64);
    } else {
        interrupts::set_gate(events::VECTOR, cost_upcall as *const () as u64);
    }
    cpu::sti();
    // SAFETY: the upcall clears what the send set, and leaves all registers alone.
    let delivered = unsafe {
        crate::hypercall_ticks!(MANY, ["mov eax, 32"], [], out("rax") _, in("rdi") op, in("rsi") arg, in("r14") word,
            in("r9") keep, in("r15") info)
    };
    cpu::cli();
    if pv::is_pv() {
        traps::register(kind::EVENT, 1, traps::callback(kind::EVENT));
    } else {
        interrupts::restore_gate(events::VECTOR);
    }
    guest::check!(!events::is_pending(port), "each send was delivered");
    row("event_channel_op(send) with delivery", delivered);
    events::close(port);
}

fn multicall() {
    let mut entries = [MulticallEntry { op: nr::XEN_VERSION, result: 0, args: [0; 6] }; 8];
    let list = entries.as_mut_ptr() as u64;
    // A call that was interrupted comes back with what is left as its arguments: they are set each time.
    // SAFETY: the list outlives the loop.
    let ticks = unsafe {
        crate::hypercall_ticks!(FEWER, ["mov eax, 13", "mov rdi, r14", "mov esi, 8"], [], out("rax") _, out("rdi") _,
            out("rsi") _, in("r14") list)
    };
    let last = mem::read::<MulticallEntry>(list + 7 * size_of::<MulticallEntry>() as u64);
    guest::check!(last.result == 0x4_0011, "the multicall's calls ran"; "{:#x}", last.result);
    row("multicall of 8 empty hypercalls", ticks);
}

fn console() {
    let byte = *b"\n";
    let args = [CONSOLEIO_WRITE.into(), 1, byte.as_ptr() as u64, 0];
    let ret = hypercall::call(nr::CONSOLE_IO, [args[0], args[1], args[2], 0, 0]);
    if ret.is_ok() {
        row("console_io(write), one byte", hypercall_loop(FEW, nr::CONSOLE_IO, args));
    } else {
        println!("SKIP console_io(write): {ret}");
    }
}

fn memory() {
    let mut arg = AddToPhysmap { domid: DOMID_SELF, space: XENMAPSPACE_SHARED_INFO, ..AddToPhysmap::new_zeroed() };
    arg.gpfn = events::SHARED_INFO >> 12;
    let args = [XENMEM_ADD_TO_PHYSMAP.into(), mem::addr_of(&arg), 0, 0];
    row("memory_op(add_to_physmap) of shared info, again", hypercall_loop(FEWER, nr::MEMORY_OP, args));
}

fn cpuid_exit(name: &str, leaf: u32) {
    // SAFETY: RBX is kept in R13 around the loop.
    let ticks = unsafe {
        let start = cpu::tsc();
        asm!("mov r13, rbx", "2:", "mov eax, r14d", "cpuid", "dec r12", "jnz 2b", "mov rbx, r13", inout("r12") MANY => _,
            out("r13") _, in("r14") u64::from(leaf), out("rax") _, out("rcx") _, out("rdx") _);
        (cpu::tsc() - start) / MANY
    };
    row(name, ticks);
}

/// Operations that leave the guest on every hypervisor, or on some.
fn exits() {
    cpuid_exit("CPUID exit, leaf 1", 1);
    // SAFETY: each body leaves the machine as it was.
    unsafe {
        row("RDMSR EFER", crate::ticks!(MANY, ["rdmsr"], in("ecx") 0xc000_0080u32, out("eax") _, out("edx") _));
        row("RDMSR APIC_BASE exit", crate::ticks!(MANY, ["rdmsr"], in("ecx") 0x1bu32, out("eax") _, out("edx") _));
        if cpu::try_wrmsr(0xc000_0103, 0).is_ok() {
            row(
                "WRMSR TSC_AUX exit",
                crate::ticks!(MANY, ["wrmsr"], in("ecx") 0xc000_0103u32, in("eax") 0, in("edx") 0),
            );
        }
        row("MOV from CR0", crate::ticks!(MANY, ["mov r13, cr0"], out("r13") _));
        row("MOV to CR0, same value", crate::ticks!(MANY, ["mov cr0, r13"], in("r13") cpu::cr0()));
        row("MOV to CR4, same value", crate::ticks!(MANY, ["mov cr4, r13"], in("r13") cpu::cr4()));
        row("IN from port 0xcfc", crate::ticks!(MANY, ["in eax, dx"], in("edx") 0xcfcu32, out("eax") _));
        row("IN from port 0x80", crate::ticks!(MANY, ["in al, dx"], in("edx") 0x80u32, out("eax") _));
        row("WBINVD exit", crate::ticks!(MANY, ["wbinvd"],));
        row(
            "read of an unmapped guest-physical page",
            crate::ticks!(FEWER, ["mov r13, [r14]"], in("r14") 0xf000_0000u64, out("r13") _),
        );
        row(
            "read of the local APIC page",
            crate::ticks!(FEWER, ["mov r13d, [r14]"], in("r14") 0xfee0_0030u64, out("r13") _),
        );
    }
}

/// Operations that must not leave the guest.
fn free() {
    interrupts::set_gate(6, cost_skip_two as *const () as u64);
    // SAFETY: each body leaves the machine as it was; the gate skips UD2.
    unsafe {
        row("MOV from CR2", crate::ticks!(MANY, ["mov r13, cr2"], out("r13") _));
        row("MOV from CR3", crate::ticks!(MANY, ["mov r13, cr3"], out("r13") _));
        row("MOV to CR3, same value", crate::ticks!(MANY, ["mov cr3, r13"], in("r13") cpu::cr3()));
        row("INVLPG", crate::ticks!(MANY, ["invlpg [r13]"], in("r13") 0x1000u64));
        row("UD2 and the guest's own handler", crate::ticks!(MANY, ["ud2"],));
    }
    interrupts::restore_gate(6);
}
