//! Traps of a PV guest: faults bounced to the kernel, user mode and back, NMI, failsafe, debug traps.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use abi::vcpu::VCPUOP_SEND_NMI;
use abi::xen::MulticallEntry;
use abi::{Errno, nr};
use guest::check::{equal, fails, zero};
use guest::hypercall::{self, Ret};
use guest::interrupts::{self, Fault, Frame};
use guest::mem::{self, Page};
use guest::pv::traps::{self, TrapInfo, kind};
use guest::pv::{mmu, user};
use guest::start::Boot;
use guest::{attempt, check, cpu, events, println};

static PROTECTED: Page = Page::new();

/// Runs the test.
pub fn run(_boot: &Boot) {
    kernel_faults();
    software_interrupts();
    single_step();
    nmi();
    return_in_multicall();
    trap_table();
    let ready = user::init();
    zero(ready, "the user's page tables are built and loaded");
    if ready != Ret(0) {
        return;
    }
    to_user_and_back();
    user_faults();
    user_segments();
    by_syscall();
    compat();
    bad_returns();
}

fn kernel_faults() {
    let unmapped = 0xf000_0000u64;
    // SAFETY: the fault is caught.
    let read = unsafe { attempt!("mov {0}, [{0}]", inout(reg) unmapped => _) };
    check!(read == Some(Fault { vector: 14, error: 0 }), "a read of an unmapped page is #PF(0)"; "{:?}", read);
    equal(interrupts::fault_address(), unmapped, "CR2 in vcpu_info has its address");
    equal(cpu::cr2(), unmapped, "a read of CR2 gives it as well");
    zero(mmu::protect(&PROTECTED), "a page can be made read-only");
    let address = PROTECTED.addr() + 8;
    // SAFETY: the fault is caught.
    let write = unsafe { attempt!("mov qword ptr [{}], 0", in(reg) address) };
    check!(write == Some(Fault { vector: 14, error: 3 }), "a write to it is #PF(3)"; "{:?}", write);
    equal(interrupts::fault_address(), address, "at its address");
    zero(mmu::unprotect(&PROTECTED), "it can be made writable again");
    // SAFETY: no fault is expected; one is caught.
    let write = unsafe { attempt!("mov qword ptr [{}], 0", in(reg) address) };
    check!(write.is_none(), "and be written"; "{:?}", write);
    // SAFETY: the faults are caught.
    unsafe {
        check!(attempt!("ud2") == Some(Fault::UD), "UD2 is #UD");
        let non_canonical = attempt!("mov {0}, [{0}]", inout(reg) 0x8000_0000_0000_0000u64 => _);
        check!(non_canonical == Some(Fault::GP), "a read of a non-canonical address is #GP(0)"; "{:?}", non_canonical);
        let selector = attempt!("mov fs, {:x}", in(reg) 0xfff8u64);
        check!(selector == Some(Fault { vector: 13, error: 0xfff8 }), "a bad selector is #GP with the selector"; "{:?}", selector);
        let divided = attempt!("div ecx", inout("eax") 1 => _, inout("edx") 0 => _, in("ecx") 0);
        check!(divided == Some(Fault { vector: 0, error: 0 }), "a division by zero is #DE"; "{:?}", divided);
    }
}

static RIP: AtomicU64 = AtomicU64::new(0);
static FRAME_MASK: AtomicU64 = AtomicU64::new(0);
static DEBUG: AtomicU32 = AtomicU32::new(0);

fn note(frame: &mut Frame) {
    RIP.store(frame.rip, SeqCst);
    FRAME_MASK.store(frame.cs >> 32 & 0xff, SeqCst);
}

fn software_interrupts() {
    interrupts::on(3, note);
    interrupts::on(traps::KERNEL_VECTOR, note);
    let mut after: u64;
    // SAFETY: the handler notes and returns.
    unsafe { asm!("lea {0}, [rip + 2f]", "int3", "2:", out(reg) after) };
    equal(RIP.load(SeqCst), after, "INT3 comes with the address behind it");
    // SAFETY: the handler notes and returns.
    unsafe { asm!("lea {0}, [rip + 2f]", "int 0x81", "2:", out(reg) after) };
    equal(RIP.load(SeqCst), after, "INT with DPL 1 comes from the kernel, with the address behind it");
    equal(FRAME_MASK.load(SeqCst), 1, "the frame has the upcall mask beside CS");
    zero(traps::set(TrapInfo { flags: 0, ..traps::standard(0x82) }), "a trap can be set with DPL 0");
    // SAFETY: the fault is caught.
    let refused = unsafe { attempt!("int 0x82") };
    check!(refused == Some(Fault { vector: 13, error: 0x412 }), "INT with DPL 0 is #GP with the vector"; "{:?}", refused);
    // A trap that does not mask events leaves them as they are, one that does masks them for its handler alone.
    zero(traps::set(traps::standard(0x82)), "a trap can be set again");
    interrupts::on(0x82, |_frame| DEBUG.store(u32::from(mem::peek8(events::vcpu_info(0) + 1)), SeqCst));
    cpu::sti();
    // SAFETY: the handler notes and returns.
    unsafe { asm!("int 0x82") };
    equal(DEBUG.load(SeqCst).into(), 1, "a trap with that flag masks events for its handler");
    equal(mem::peek8(events::vcpu_info(0) + 1).into(), 0, "and the iret hypercall unmasks them again");
    let open = TrapInfo { flags: traps::standard(0x82).flags & !traps::MASKS_EVENTS, ..traps::standard(0x82) };
    zero(traps::set(open), "a trap can be set without that flag");
    // SAFETY: the handler notes and returns.
    unsafe { asm!("int 0x82") };
    equal(DEBUG.load(SeqCst).into(), 0, "then events stay unmasked");
    cpu::cli();
}

fn stepped(frame: &mut Frame) {
    RIP.store(frame.rip, SeqCst);
    DEBUG.fetch_add(1, SeqCst);
    frame.rflags &= !0x100;
}

fn debugreg(register: u64) -> u64 {
    hypercall::call(nr::GET_DEBUGREG, [register, 0, 0, 0, 0]).0 as u64
}

fn set_debugreg(register: u64, value: u64) -> Ret {
    hypercall::call(nr::SET_DEBUGREG, [register, value, 0, 0, 0])
}

/// One instruction under the trap flag, and where it ends.
fn step() -> u64 {
    let after: u64;
    // SAFETY: the handler takes the flag away.
    unsafe {
        asm!("lea {0}, [rip + 2f]", "pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "2:", out(reg) after);
    }
    after
}

/// Is single-stepped again and again, beside another guest.
pub fn steps(_boot: &Boot) {
    interrupts::on(1, stepped);
    let mut seen = 0xffff_4ff0;
    for _ in 0..2000 {
        step();
        if debugreg(6) != 0xffff_4ff0 {
            seen = debugreg(6);
        }
        set_debugreg(6, 0xffff_0ff0);
        hypercall::yield_cpu();
    }
    equal(seen, 0xffff_4ff0, "DR6 says each time that it was a single step, and nothing else");
    equal(DEBUG.load(SeqCst).into(), 2000, "each step gives one #DB");
}

fn single_step() {
    interrupts::on(1, stepped);
    DEBUG.store(0, SeqCst);
    let after = step();
    equal(DEBUG.load(SeqCst).into(), 1, "the trap flag gives one #DB");
    equal(RIP.load(SeqCst), after, "behind the instruction that was stepped");
    equal(debugreg(6), 0xffff_4ff0, "DR6 says that it was a single step, and nothing else");
    zero(set_debugreg(6, 0xffff_0ff0), "DR6 can be reset");
    static WATCHED: Page = Page::new();
    zero(set_debugreg(0, WATCHED.addr()), "DR0 can be set");
    zero(set_debugreg(7, 0x000d_0402 & !0x0002 | 0x1), "DR7 can be set");
    equal(debugreg(0), WATCHED.addr(), "DR0 reads back");
    DEBUG.store(0, SeqCst);
    mem::poke64(WATCHED.addr(), 1);
    equal(DEBUG.load(SeqCst).into(), 1, "a watched store gives one #DB");
    check!(debugreg(6) & 0xf == 1, "DR6 says which"; "{:#x}", debugreg(6));
    zero(set_debugreg(7, 0), "DR7 can be cleared");
    mem::poke64(WATCHED.addr(), 2);
    equal(DEBUG.load(SeqCst).into(), 1, "then nothing is watched");
    fails(set_debugreg(0, 0xffff_8300_0000_0000), Errno::EPERM, "a breakpoint in the hypervisor is EPERM");
    fails(set_debugreg(1, 0x8000_0000_0000_0000), Errno::EPERM, "so is one at a non-canonical address");
    fails(set_debugreg(6, 1 << 32), Errno::EINVAL, "high bits of DR6 are EINVAL");
    fails(set_debugreg(7, 1 << 32), Errno::EINVAL, "and those of DR7");
    fails(set_debugreg(7, 0x20001), Errno::EPERM, "an I/O breakpoint without CR4.DE is EPERM");
    fails(set_debugreg(8, 0), Errno::ENODEV, "DR8 is no register");
    zero(set_debugreg(4, 0xffff_0ff0), "DR4 is DR6 while CR4.DE is off");
    equal(debugreg(4), 0xffff_0ff0, "and reads as it");
    equal(debugreg(8), -19i64 as u64, "a read of DR8 is ENODEV");
    // Nothing watches the hypervisor, not even a length that reaches into it.
    fails(set_debugreg(2, 0xffff_7fff_ffff_fff9), Errno::EPERM, "a breakpoint just below the hypervisor is EPERM");
}

fn nmi() {
    let before = interrupts::count(2);
    let send = |vcpu: u64, arg: u64| hypercall::call(nr::VCPU_OP, [VCPUOP_SEND_NMI.into(), vcpu, arg, 0, 0]);
    fails(send(0, 0x20_0000), Errno::EINVAL, "VCPUOP_send_nmi with an argument is EINVAL");
    zero(send(0, 0), "VCPUOP_send_nmi succeeds");
    equal((interrupts::count(2) - before).into(), 1, "the NMI callback is called, events masked or not");
    zero(send(0, 0), "a second one can be sent");
    equal((interrupts::count(2) - before).into(), 2, "it is called again");
    fails(send(4096, 0), Errno::ENOENT, "an NMI to no vCPU is ENOENT");
    zero(traps::unregister(kind::NMI), "the NMI callback can be unregistered");
    zero(traps::register(kind::NMI, 0, traps::callback(kind::NMI)), "and registered again");
}

/// IRET as the first of two calls of a multicall: the kernel goes on where it leads, and the second is not made.
fn return_in_multicall() {
    let call = |op| MulticallEntry { op, result: 0x7777, args: [0; 6] };
    let mut list = [call(nr::IRET), call(nr::XEN_VERSION)];
    let rax: u64;
    // SAFETY: the frame leads to the label at the end, with the stack as it was; without the IRET it is let go of.
    unsafe {
        asm!(
            "mov r12, rsp",
            "push {ss}",
            "push r12",
            "pushfq",
            "and qword ptr [rsp], -0x201",
            "push {cs}",
            "lea rax, [rip + 2f]",
            "push rax",
            "push 0",
            "push 0x33",
            "push 0x22",
            "push 0x4242",
            "mov eax, {multicall}",
            "syscall",
            "mov rsp, r12",
            "2:",
            ss = in(reg) u64::from(traps::FLAT_SS),
            cs = in(reg) u64::from(traps::KERNEL_CS & !3),
            multicall = const nr::MULTICALL,
            in("rdi") list.as_mut_ptr(),
            in("rsi") 2,
            out("rax") rax,
            out("rcx") _,
            out("r11") _,
            out("r12") _,
        );
    }
    equal(rax, 0x4242, "IRET within a multicall restores the registers");
    let results = [0, 1].map(|n: u64| mem::read::<MulticallEntry>(list.as_ptr() as u64 + n * 64).result);
    check!(results == [0x4242, 0x7777], "its result is RAX, and no call comes after it"; "{:x?}", results);
}

fn trap_table() {
    let far = TrapInfo { address: 0x8000_0000_0000_0000, ..traps::standard(0x90) };
    let ret = traps::set(far);
    fails(ret, Errno::EINVAL, "a trap at a non-canonical address is EINVAL");
    let ret = hypercall::call(nr::SET_TRAP_TABLE, [0xffff_8300_0000_0000, 0, 0, 0, 0]);
    fails(ret, Errno::EFAULT, "a trap table in the hole is EFAULT");
    let ret = traps::register(kind::EVENT, 0, 0x8000_0000_0000_0000);
    fails(ret, Errno::EINVAL, "an event callback at a non-canonical address is EINVAL");
    fails(traps::register(99, 0, 0x20_0000), Errno::ENOSYS, "a callback of no kind is ENOSYS");
    fails(traps::unregister(kind::EVENT), Errno::EINVAL, "the event callback cannot be unregistered");
    fails(traps::unregister(99), Errno::ENOSYS, "nor one of no kind");
    fails(hypercall::call(nr::CALLBACK_OP, [7, 0, 0, 0, 0]), Errno::ENOSYS, "an unknown callback_op is ENOSYS");
    let (event, failsafe, syscall) =
        (traps::callback(kind::EVENT), traps::callback(kind::FAILSAFE), traps::callback(kind::SYSCALL));
    let set = |event, failsafe, syscall| hypercall::call(nr::SET_CALLBACKS, [event, failsafe, syscall, 0, 0]);
    zero(set(event, failsafe, syscall), "set_callbacks succeeds");
    let bad = 0x8000_0000_0000_0000;
    // The call succeeds in any case, as in Xen, but leaves such a callback as it was.
    zero(set(bad, bad, bad), "set_callbacks with non-canonical addresses changes nothing");
    let before = interrupts::count(events::VECTOR);
    event_comes();
    equal((interrupts::count(events::VECTOR) - before).into(), 1, "events still come by the callback from before");
}

fn event_comes() {
    interrupts::on(events::VECTOR, |_frame| {
        events::acknowledge(0);
    });
    let Ok(port) = events::bind_ipi(0) else { return check!(false, "an IPI port can be bound") };
    events::set_mask(port, false);
    events::send(port);
    cpu::sti();
    cpu::cli();
    events::close(port);
}

/// Runs 64-bit user code until its trap.
fn user64(code: &[u8]) -> Frame {
    user::set_code(code);
    user::run(&user::frame())
}

fn to_user_and_back() {
    // mov eax, 0x1234; int 0x80
    let frame = user64(&[0xb8, 0x34, 0x12, 0, 0, 0xcd, 0x80]);
    equal(frame.vector, traps::USER_VECTOR.into(), "user code comes back by INT 0x80");
    equal(frame.rip, user::CODE + 7, "its RIP is behind the instruction");
    equal(frame.rax, 0x1234, "its registers are in the frame");
    equal(frame.cs & 0xffff, traps::KERNEL_CS.into(), "its CS is the flat one");
    equal(frame.ss, traps::FLAT_SS.into(), "its SS is the flat one");
    equal(frame.rsp, user::STACK, "its RSP is its own");
    // Every register that iret restores.
    let mut start = user::frame();
    (start.rax, start.rcx, start.r11, start.rbx, start.r15) = (1, 2, 3, 4, 5);
    start.rflags |= 0x8d5;
    user::set_code(&[0xcd, 0x80]);
    let frame = user::run(&start);
    let kept = (frame.rax, frame.rcx, frame.r11, frame.rbx, frame.r15);
    check!(kept == (1, 2, 3, 4, 5), "the iret hypercall restores all registers"; "{:?}", kept);
    equal(frame.rflags & 0x8d5, 0x8d5, "and the flags");
}

fn user_faults() {
    let seen = |frame: &Frame| Fault { vector: frame.vector as u8, error: frame.error as u32 };
    // mov rax, [0x200000]
    let frame = user64(&[0x48, 0x8b, 0x04, 0x25, 0, 0, 0x20, 0]);
    let wanted = Fault { vector: 14, error: 4 };
    check!(seen(&frame) == wanted, "a user's read of the kernel's memory is #PF(4)"; "{:?}", seen(&frame));
    equal(interrupts::fault_address(), 0x20_0000, "at its address");
    // mov rax, 0xffff800000000000; mov rax, [rax]
    let frame = user64(&[0x48, 0xb8, 0, 0, 0, 0, 0, 0x80, 0xff, 0xff, 0x48, 0x8b, 0x00]);
    // Where it is mapped for users, as m2p_strict forbids, the next byte of the page is reached.
    println!("note: a user's read of the M2P: {:?}", seen(&frame));
    // mov rax, 0xffff82d040200000; mov rax, [rax]
    let frame = user64(&[0x48, 0xb8, 0, 0, 0x20, 0x40, 0xd0, 0x82, 0xff, 0xff, 0x48, 0x8b, 0x00]);
    check!(frame.vector == 14 && frame.error & 4 == 4, "a user's read of the hypervisor is #PF"; "{:?}", seen(&frame));
    for (code, wanted, sentence) in [
        (&[0x0f, 0x0b][..], Fault::UD, "a user's UD2 is #UD"),
        (&[0xcc], Fault { vector: 3, error: 0 }, "a user's INT3 is #BP"),
        (&[0xfa], Fault::GP, "a user's CLI is #GP(0)"),
        (&[0xf4], Fault::GP, "a user's HLT is #GP(0)"),
        (&[0x0f, 0x20, 0xc0], Fault::GP, "a user's read of CR0 is #GP(0)"),
        (&[0xe4, 0x80], Fault::GP, "a user's IN is #GP(0)"),
        (&[0xcd, 0x81], Fault { vector: 13, error: 0x40a }, "a user's INT with DPL 1 is #GP with the vector"),
        (&[0xcd, 0xf3], Fault { vector: 13, error: 0x79a }, "so is one with the vector of no trap"),
    ] {
        let frame = user64(code);
        check!(seen(&frame) == wanted, "{}", sentence; "{:?}", seen(&frame));
    }
    // A single step in user mode: the handler of `on` is not reached, the frame is.
    user::set_code(&[0x90, 0x90]);
    let mut start = user::frame();
    start.rflags |= 0x100;
    let frame = user::run(&start);
    check!(frame.vector == 1 && frame.rip == user::CODE + 1, "a user can be single-stepped"; "{} {:#x}", frame.vector, frame.rip);
}

fn user_segments() {
    let base = |which: u64, base: u64| hypercall::call(nr::SET_SEGMENT_BASE, [which, base, 0, 0, 0]);
    mem::poke64(user::stack_alias(), 0x5566_7788);
    zero(base(1, user::DATA), "the user's GS base can be set");
    zero(base(0, user::DATA), "the FS base can be set");
    // mov rax, gs:[0]; int 0x80
    let frame = user64(&[0x65, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0xcd, 0x80]);
    equal(frame.rax, 0x5566_7788, "a user has its own GS base");
    let frame = user64(&[0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0xcd, 0x80]);
    equal(frame.rax, 0x5566_7788, "and the FS base");
    zero(base(2, PROTECTED.addr()), "the kernel's GS base can be set");
    mem::poke64(PROTECTED.addr(), 0x99aa);
    let seen: u64;
    // SAFETY: the base is a page of ours.
    unsafe { asm!("mov {}, gs:[0]", out(reg) seen) };
    equal(seen, 0x99aa, "the kernel has its own GS base");
    let frame = user64(&[0x65, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0xcd, 0x80]);
    equal(frame.rax, 0x5566_7788, "which does not change the user's");
    zero(base(3, 0), "the user's GS selector can be null");
    for which in 0..3 {
        let ret = base(which, 0x8000_0000_0000_0000);
        check!(ret.errno().is_some(), "a non-canonical segment base is refused"; "{}", ret);
    }
    fails(base(9, 0), Errno::EINVAL, "a segment base of no segment is EINVAL");
}

fn by_syscall() {
    // mov eax, 77; syscall
    let frame = user64(&[0xb8, 77, 0, 0, 0, 0x0f, 0x05]);
    equal(frame.vector, traps::SYSCALL.into(), "a user's SYSCALL comes by its callback");
    equal(frame.rax, 77, "with its number");
    equal(frame.rip, user::CODE + 7, "and the address behind it");
    equal(frame.rsp, user::STACK, "and its stack pointer");
    check!(frame.cs & 3 == 3, "from user mode"; "{:#x}", frame.cs);
    equal(frame.rcx, user::CODE + 7, "RCX has what the processor left there");
}

fn compat() {
    // mov eax, 0x11223344; int 0x80
    user::set_code(&[0xb8, 0x44, 0x33, 0x22, 0x11, 0xcd, 0x80]);
    let frame = user::run(&user::frame32());
    equal(frame.vector, traps::USER_VECTOR.into(), "32-bit user code comes back by INT 0x80");
    equal(frame.rax, 0x1122_3344, "with its registers");
    equal(frame.cs & 0xffff, traps::USER_CS32.into(), "its CS is the flat 32-bit one");
    if cpu::is_amd() {
        zero(
            traps::register(kind::SYSCALL32, 1, traps::callback(kind::SYSCALL32)),
            "the 32-bit SYSCALL's callback can be set",
        );
        user::set_code(&[0xb8, 5, 0, 0, 0, 0x0f, 0x05]);
        let frame = user::run(&user::frame32());
        equal(frame.vector, traps::SYSCALL32.into(), "a 32-bit SYSCALL comes by its callback");
        check!(frame.rip == user::CODE + 7 && frame.rax == 5, "with its address"; "{:#x} {}", frame.rip, frame.rax);
    } else {
        sysenter();
    }
}

fn sysenter() {
    zero(traps::register(kind::SYSENTER, 1, traps::callback(kind::SYSENTER)), "the SYSENTER callback can be set");
    user::set_code(&[0xb8, 6, 0, 0, 0, 0x0f, 0x34]);
    let frame = user::run(&user::frame32());
    equal(frame.vector, traps::SYSENTER.into(), "a 32-bit SYSENTER comes by its callback");
    equal(frame.rax, 6, "with its registers");
    let place = (frame.rip, frame.cs & 0xffff, frame.rsp, frame.ss);
    check!(place == (0, 3, 0, traps::FLAT_SS.into()), "and without a place to go back to"; "{:x?}", place);
    // From a 64-bit user it comes the same way.
    let frame = user64(&[0xb8, 6, 0, 0, 0, 0x0f, 0x34]);
    equal(frame.vector, traps::SYSENTER.into(), "so does one from 64-bit code");
    fails(traps::unregister(kind::SYSENTER), Errno::EINVAL, "the SYSENTER callback cannot be unregistered");
}

/// Frames that the processor refuses: the kernel gets the fault as if user mode had caused it, and nobody suffers.
fn bad_returns() {
    let good = user::frame();
    for (name, frame, error) in [
        ("a null CS", Frame { cs: 3, ..good }, 0),
        ("a CS beyond the table", Frame { cs: 0xfff3, ..good }, 0xfff0),
        ("the hypervisor's CS", Frame { cs: 0xe00b, ..good }, 0xe008),
        ("a data segment as CS", Frame { cs: 0xe02b, ..good }, 0xe028),
        ("a null SS", Frame { ss: 0, ..good }, 0),
        ("the hypervisor's SS", Frame { ss: 0xe010, ..good }, 0xe010),
        ("a code segment as SS", Frame { ss: 0xe033, ..good }, 0xe030),
        ("a non-canonical RIP", Frame { rip: 0x8000_0000_0000_0000, ..good }, 0),
    ] {
        let seen = user::run(&frame);
        let fault = Fault { vector: seen.vector as u8, error: seen.error as u32 };
        check!(fault == Fault { vector: 13, error }, "a return to {} is #GP with the selector", name; "{:?}", fault);
        let place = (seen.rip, seen.cs & 0xffff, seen.ss);
        check!(place == (frame.rip, frame.cs, frame.ss | 3), "its frame is the one to return to"; "{:x?}", place);
    }
    let seen = user::run(&Frame { rip: 0xffff_82d0_4020_0000, ..good });
    check!(seen.vector == 14 && seen.error & 4 == 4, "a return into the hypervisor is #PF"; "{} {:#x}", seen.vector, seen.error);
    user::set_code(&[0xcd, 0x80]);
    for rsp in [0x8000_0000_0000_0000, 0xffff_8300_0000_0000] {
        let seen = user::run(&Frame { rsp, ..good });
        check!(seen.vector == 0x80 && seen.rsp == rsp, "a return with RSP {:#x} does no harm", rsp; "{:#x}", seen.vector);
    }
    for rflags in [good.rflags | 0x23000, !0x101] {
        let seen = user::run(&Frame { rflags, ..good });
        check!(seen.vector == 0x80, "a return with flags {:#x} does no harm", rflags; "{:#x}", seen.vector);
        check!(seen.rflags & 0x23000 == 0, "it gives neither IOPL nor VM"; "{:#x}", seen.rflags);
    }
}
