//! Virtual CPUs of a PV domain: started, stopped, interrupted, and what they are told about time.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use abi::vcpu::*;
use abi::{Errno, nr};
use guest::check::{equal, fails, zero};
use guest::hypercall::{self, Ret};
use guest::interrupts::{self, Frame};
use guest::mem::{self, Page};
use guest::pv::{self, mmu, smp};
use guest::start::Boot;
use guest::time::{self, MILLISECOND};
use guest::{check, cpu, events, println};
use zerocopy::FromZeros;

static UPCALLS: [AtomicU32; 32] = [const { AtomicU32::new(0) }; 32];
static NMIS: [AtomicU32; 32] = [const { AtomicU32::new(0) }; 32];
static STOP: AtomicBool = AtomicBool::new(false);
static WENT_ON: AtomicU32 = AtomicU32::new(0);
static SEEN: [AtomicU32; 32] = [const { AtomicU32::new(0) }; 32];
static SHOWN: Page = Page::new();
static AREA: Page = Page::new();
static INFO: Page = Page::new();

fn upcall(_frame: &mut Frame) {
    let me = smp::me();
    events::acknowledge(me);
    UPCALLS[me as usize].fetch_add(1, SeqCst);
}

fn nmi(_frame: &mut Frame) {
    NMIS[smp::me() as usize].fetch_add(1, SeqCst);
}

/// Each other vCPU looks at a page that the first one maps to and fro, and takes events.
fn work() {
    let me = smp::me() as usize;
    while !STOP.load(SeqCst) {
        SEEN[me].store(mem::peek32(SHOWN.addr()), SeqCst);
        cpu::sti();
        cpu::pause();
        cpu::cli();
    }
    smp::down(me as u32);
    WENT_ON.fetch_add(1, SeqCst);
    while STOP.load(SeqCst) {
        cpu::sti_hlt_cli();
    }
}

fn is_up(vcpu: u32) -> Ret {
    hypercall::call(nr::VCPU_OP, [VCPUOP_IS_UP.into(), vcpu.into(), 0, 0, 0])
}

fn soon(done: impl FnMut() -> bool) -> bool {
    time::wait_for(2000 * MILLISECOND, done)
}

/// Runs the test.
pub fn run(_boot: &Boot) {
    interrupts::on(events::VECTOR, upcall);
    interrupts::on(2, nmi);
    smp::set_work(work);
    zero(smp::prepare(), "the first vCPU has its number");
    let others = (1..8).take_while(|vcpu| is_up(*vcpu).is_ok()).count() as u32;
    println!("others: {others}");
    check!(others > 0, "there are other vCPUs");
    equal(is_up(0).0 as u64, 1, "this vCPU is up");
    fails(is_up(4096), Errno::ENOENT, "of no vCPU it is ENOENT");
    for vcpu in 1..=others {
        start(vcpu);
    }
    for vcpu in 1..=others {
        reach(vcpu);
    }
    flushes(others);
    areas();
    if others > 0 {
        info_of_another(others);
    }
    down(others);
}

fn start(vcpu: u32) {
    equal(is_up(vcpu).0 as u64, 0, "a vCPU not yet started is down");
    fails(
        hypercall::vcpu_op(VCPUOP_UP, vcpu, &mut 0u64),
        Errno::EINVAL,
        "VCPUOP_up before VCPUOP_initialise is EINVAL",
    );
    refused_contexts(vcpu);
    let (initialised, up) = smp::start(vcpu, &mut smp::context(vcpu));
    zero(initialised, "VCPUOP_initialise succeeds");
    zero(up, "VCPUOP_up succeeds");
    check!(soon(|| smp::ARRIVED.load(SeqCst) == vcpu), "vCPU {} comes", vcpu);
    equal(is_up(vcpu).0 as u64, 1, "VCPUOP_is_up says that it is up");
    let again = hypercall::vcpu_op(VCPUOP_INITIALISE, vcpu, &mut smp::context(vcpu));
    fails(again, Errno::EEXIST, "VCPUOP_initialise a second time is EEXIST");
}

fn refused_contexts(vcpu: u32) {
    use smp::offset::*;
    let far = 0x8000_0000_0000_0000;
    let page = mmu::own(&SHOWN, 0);
    for (offset, value, name) in [
        (CR + 24, page, "a writable page as top table"),
        (CR + 24, 1 << 45, "a top table of no frame"),
        (CR + 24, 0, "no top table"),
        (CR + 8, 1 << 45, "a user's top table of no frame"),
        (GDT_ENTS, 8192, "too many descriptors"),
        (LDT_ENTS, 9000, "too many local descriptors"),
        (EVENT_EIP, far, "a non-canonical event callback"),
        (FAILSAFE_EIP, far, "a non-canonical failsafe callback"),
        (SYSCALL_EIP, far, "a non-canonical syscall callback"),
        (FS_BASE, far, "a non-canonical FS base"),
        (GS_KERNEL, far, "a non-canonical kernel GS base"),
        (GS_USER, far, "a non-canonical user GS base"),
        (TRAPS + 8, far, "a trap at a non-canonical address"),
    ] {
        let mut context = smp::context(vcpu);
        context.set(offset, value);
        let ret = hypercall::vcpu_op(VCPUOP_INITIALISE, vcpu, &mut context);
        check!(ret.errno().is_some(), "a context with {} is refused", name; "{}", ret);
    }
    let ret = hypercall::call(nr::VCPU_OP, [VCPUOP_INITIALISE.into(), vcpu.into(), 0xffff_8300_0000_0000, 0, 0]);
    fails(ret, Errno::EFAULT, "a context in the hypervisor is EFAULT");
}

fn reach(vcpu: u32) {
    let i = vcpu as usize;
    let Ok(port) = events::bind_ipi(vcpu) else { return check!(false, "an IPI port of vCPU {} can be bound", vcpu) };
    events::clear(port);
    events::set_mask(port, false);
    for n in 1..=3 {
        let before = UPCALLS[i].load(SeqCst);
        zero(events::send(port), "a send to another vCPU's port succeeds");
        check!(soon(|| UPCALLS[i].load(SeqCst) > before), "event {} reaches vCPU {}", n, vcpu);
        events::clear(port);
    }
    zero(events::close(port), "the port can be closed");
    let before = NMIS[i].load(SeqCst);
    zero(hypercall::call(nr::VCPU_OP, [VCPUOP_SEND_NMI.into(), vcpu.into(), 0, 0, 0]), "an NMI can be sent to it");
    check!(soon(|| NMIS[i].load(SeqCst) == before + 1), "the NMI reaches it");
}

/// What one vCPU maps the others see, once they have flushed.
fn flushes(others: u32) {
    static OTHER: Page = Page::new();
    mem::poke32(SHOWN.addr(), 1);
    mem::poke32(OTHER.addr(), 2);
    let frames = [mmu::own(&SHOWN, mmu::KERNEL), mmu::own(&OTHER, mmu::KERNEL)];
    let all = |value: u32| (1..=others as usize).all(|vcpu| SEEN[vcpu].load(SeqCst) == value);
    check!(soon(|| all(1)), "all vCPUs see the page");
    for round in 0..20u32 {
        let next = (round as usize + 1) % 2;
        let ret = match round % 4 {
            0 => mmu::update_va(SHOWN.addr(), frames[next], mmu::UVMF_INVLPG | mmu::UVMF_ALL),
            1 => mmu::update_va(SHOWN.addr(), frames[next], mmu::UVMF_TLB_FLUSH | mmu::UVMF_ALL),
            2 => {
                mmu::update_va(SHOWN.addr(), frames[next], 0);
                mmu::ext(abi::xen::MMUEXT_INVLPG_ALL, SHOWN.addr(), 0)
            }
            _ => {
                mmu::update_va(SHOWN.addr(), frames[next], 0);
                let mask = [0xffu64];
                mmu::ext(abi::xen::MMUEXT_TLB_FLUSH_MULTI, 0, mem::addr_of(&mask))
            }
        };
        let wanted = 1 + next as u32;
        if ret != Ret(0) || !soon(|| all(wanted)) {
            check!(false, "round {}: all see the other page", round; "{}", ret);
            return;
        }
    }
    check!(true, "twenty times all see the other page after a flush");
    mmu::update_va(SHOWN.addr(), frames[0], mmu::UVMF_INVLPG | mmu::UVMF_ALL);
}

fn areas() {
    let mut info = RunstateInfo::new_zeroed();
    zero(hypercall::vcpu_op(VCPUOP_GET_RUNSTATE_INFO, 0, &mut info), "VCPUOP_get_runstate_info succeeds");
    equal(info.state.into(), RUNSTATE_RUNNING.into(), "this vCPU is running");
    let mut area = RegisterRunstateMemoryArea { addr: AREA.addr() };
    zero(hypercall::vcpu_op(VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, 0, &mut area), "a runstate area can be registered");
    equal(mem::peek32(AREA.addr()).into(), RUNSTATE_RUNNING.into(), "it shows a running vCPU");
    let mut time_area = RegisterTimeMemoryArea { addr: AREA.addr() + 1024 };
    zero(hypercall::vcpu_op(VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA, 0, &mut time_area), "so can a time area");
    let by_area = time::by_record(AREA.addr() + 1024);
    check!(time::now().abs_diff(by_area) < 100 * MILLISECOND, "both time records tell the same time"; "{}", by_area);
    for (op, name) in [
        (VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, "a runstate area"),
        (VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA, "a time area"),
    ] {
        let mut bad = RegisterRunstateMemoryArea { addr: 0xffff_8300_0000_0000 };
        fails(hypercall::vcpu_op(op, 0, &mut bad), Errno::EFAULT, name);
    }
}

fn info_of_another(vcpu: u32) {
    let mut arg = RegisterVcpuInfo { mfn: pv::p2m(INFO.addr() >> 12), offset: 128, rsvd: 0 };
    // Another vCPU's record can be moved before it runs alone.
    let ret = hypercall::vcpu_op(VCPUOP_REGISTER_VCPU_INFO, vcpu, &mut arg);
    fails(ret, Errno::EINVAL, "the vcpu_info of another that runs cannot be moved");
    let mut id = GetPhysid { phys_id: !0 };
    let ret = hypercall::vcpu_op(VCPUOP_GET_PHYSID, 0, &mut id);
    check!(ret == Ret(0) || ret == Ret::err(Errno::EINVAL), "VCPUOP_get_physid is for pinned vCPUs"; "{}", ret);
}

fn down(others: u32) {
    STOP.store(true, SeqCst);
    for vcpu in 1..=others {
        check!(soon(|| is_up(vcpu) == Ret(0)), "VCPUOP_down takes vCPU {} down", vcpu);
        let mut info = RunstateInfo::new_zeroed();
        zero(hypercall::vcpu_op(VCPUOP_GET_RUNSTATE_INFO, vcpu, &mut info), "its runstate can be asked for");
        check!(soon(|| {
            hypercall::vcpu_op(VCPUOP_GET_RUNSTATE_INFO, vcpu, &mut info);
            info.state == RUNSTATE_OFFLINE
        }), "it is offline"; "{}", info.state);
    }
    for vcpu in 1..=others {
        zero(hypercall::vcpu_op(VCPUOP_UP, vcpu, &mut 0u64), "VCPUOP_up of a vCPU that went down succeeds");
        check!(soon(|| WENT_ON.load(SeqCst) == vcpu), "it goes on where it was");
    }
    zero(smp::down(1), "VCPUOP_down of another succeeds");
    check!(soon(|| is_up(1) == Ret(0)), "and takes it down");
}
