//! Several virtual CPUs: started by INIT and SIPI and by hypercall, interrupts and events between them, NMI.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use abi::vcpu::{VCPUOP_DOWN, VCPUOP_INITIALISE, VCPUOP_IS_UP, VCPUOP_UP};
use abi::{Errno, nr};
use guest::acpi::{self, Processor};
use guest::check::{equal, fails, zero};
use guest::hypercall::{self, Ret};
use guest::interrupts::{self, Frame};
use guest::start::Boot;
use guest::{check, cpu, events, lapic, println, smp};

const IPI: u8 = 0x51;
const MAX: usize = 32;

/// By vCPU: how many interrupts, events and NMIs came.
static INTERRUPTS: [AtomicU32; MAX] = [const { AtomicU32::new(0) }; MAX];
static EVENTS: [AtomicU32; MAX] = [const { AtomicU32::new(0) }; MAX];
static NMIS: [AtomicU32; MAX] = [const { AtomicU32::new(0) }; MAX];
static UP: [AtomicBool; MAX] = [const { AtomicBool::new(false) }; MAX];
/// A vCPU went on behind its VCPUOP_down.
static WENT_ON: AtomicBool = AtomicBool::new(false);
static STOP: AtomicBool = AtomicBool::new(false);

/// The vCPU's number by Xen's leaf, or by the APIC id without it.
pub fn me() -> usize {
    let id = match hypercall::cpuid_base() {
        Some(base) => cpu::cpuid(base + 4, 0).ebx,
        None => cpu::cpuid(1, 0).ebx >> 24,
    };
    id as usize % MAX
}

fn interrupt(_frame: &mut Frame) {
    INTERRUPTS[me()].fetch_add(1, SeqCst);
    lapic::eoi();
}

fn upcall(_frame: &mut Frame) {
    let me = me();
    events::acknowledge(me as u32);
    EVENTS[me].fetch_add(1, SeqCst);
}

fn nmi(_frame: &mut Frame) {
    NMIS[me()].fetch_add(1, SeqCst);
}

fn work() {
    lapic::enable(0xff);
    UP[me()].store(true, SeqCst);
    while !STOP.load(SeqCst) {
        cpu::sti_hlt_cli();
    }
    if hypercall::cpuid_base().is_some() {
        hypercall::call(nr::VCPU_OP, [VCPUOP_DOWN.into(), me() as u64, 0, 0, 0]);
        WENT_ON.store(true, SeqCst);
    }
}

fn others(boot: &Boot) -> impl Iterator<Item = Processor> {
    let madt = acpi::table(boot.info.rsdp_paddr, b"APIC");
    let mine = cpu::cpuid(1, 0).ebx >> 24;
    madt.into_iter().flat_map(acpi::processors).filter(move |p| p.apic_id != mine && p.flags & 1 == 1)
}

/// Waits for a condition, for a while in TSC ticks.
fn soon(mut done: impl FnMut() -> bool) -> bool {
    let start = cpu::tsc();
    while !done() {
        if cpu::tsc() - start > 4_000_000_000 {
            return false;
        }
        if hypercall::cpuid_base().is_some() { hypercall::yield_cpu() } else { cpu::pause() }
    }
    true
}

/// Starts all others by SIPI and waits until they have come.
pub fn start_all(boot: &Boot, work: fn()) {
    smp::set_work(work);
    lapic::enable(0xff);
    for (before, processor) in (0..).zip(others(boot)) {
        smp::start_by_sipi(processor.apic_id);
        soon(|| smp::ARRIVED.load(SeqCst) > before);
    }
}

/// Runs the test.
pub fn run(boot: &Boot) {
    interrupts::on(IPI, interrupt);
    interrupts::on(events::VECTOR, upcall);
    interrupts::on(2, nmi);
    smp::set_work(work);
    lapic::enable(0xff);
    let with_xen = hypercall::cpuid_base().is_some();
    if with_xen {
        zero(events::init(), "the shared page is mapped and the callback vector set");
        absent();
    }
    let count = others(boot).count();
    println!("others: {count}");
    check!(count > 0, "the MADT lists more than one processor");
    for (i, processor) in others(boot).enumerate() {
        let by_hypercall = with_xen && (boot.has("vcpuop") || i % 2 == 1);
        start(processor, i as u32 + 1, by_hypercall);
    }
    for processor in others(boot) {
        interrupts_reach(processor);
        if with_xen {
            events_reach(processor.uid);
        }
    }
    broadcast(boot);
    if with_xen {
        down(boot);
    }
}

fn is_up(vcpu: u32) -> Ret {
    hypercall::call(nr::VCPU_OP, [VCPUOP_IS_UP.into(), vcpu.into(), 0, 0, 0])
}

fn absent() {
    equal(is_up(0).0 as u64, 1, "VCPUOP_is_up says that this vCPU is up");
    fails(is_up(4096), Errno::ENOENT, "VCPUOP_is_up of no vCPU is ENOENT");
    fails(is_up(!0), Errno::ENOENT, "VCPUOP_is_up of vCPU ~0 is ENOENT");
    fails(hypercall::call(nr::VCPU_OP, [99, 0, 0, 0, 0]), Errno::ENOSYS, "an unknown vcpu_op is ENOSYS");
}

fn start(processor: Processor, arrived: u32, by_hypercall: bool) {
    let vcpu = processor.uid;
    if hypercall::cpuid_base().is_some() {
        equal(is_up(vcpu).0 as u64, 0, "VCPUOP_is_up says that a vCPU not yet started is down");
    }
    if by_hypercall {
        refused_contexts(vcpu);
        let early = hypercall::vcpu_op(VCPUOP_UP, vcpu, &mut 0u64);
        fails(early, Errno::EINVAL, "VCPUOP_up before VCPUOP_initialise is EINVAL");
        let (initialised, up) = smp::start_by_vcpuop(vcpu);
        zero(initialised, "VCPUOP_initialise succeeds");
        zero(up, "VCPUOP_up succeeds");
        let again = hypercall::vcpu_op(VCPUOP_INITIALISE, vcpu, &mut smp::context());
        fails(again, Errno::EEXIST, "VCPUOP_initialise a second time is EEXIST");
    } else {
        smp::start_by_sipi(processor.apic_id);
    }
    let how = if by_hypercall { "VCPUOP_up" } else { "INIT and SIPI" };
    check!(soon(|| smp::ARRIVED.load(SeqCst) == arrived), "{} starts processor {}", how, vcpu; "it does not come");
    check!(soon(|| UP[vcpu as usize % MAX].load(SeqCst)), "processor {} knows its number", vcpu);
    if hypercall::cpuid_base().is_some() {
        equal(is_up(vcpu).0 as u64, 1, "VCPUOP_is_up says that it is up");
    }
}

fn refused_contexts(vcpu: u32) {
    let mut no_paging = smp::context();
    no_paging.cpu_regs[10] &= !(1 << 31); // CR0.PG
    let mut no_mode = smp::context();
    no_mode.mode = 7;
    let mut padded = smp::context();
    padded.pad = 1;
    for (context, sentence) in [
        (&mut no_paging, "a 64-bit context without paging is EINVAL"),
        (&mut no_mode, "a context of an unknown mode is EINVAL"),
        (&mut padded, "a context with padding that is not zero is EINVAL"),
    ] {
        fails(hypercall::vcpu_op(VCPUOP_INITIALISE, vcpu, context), Errno::EINVAL, sentence);
    }
}

fn interrupts_reach(processor: Processor) {
    let i = processor.uid as usize % MAX;
    let before = INTERRUPTS[i].load(SeqCst);
    for n in 1..=3 {
        lapic::send(processor.apic_id, IPI.into());
        let came = soon(|| INTERRUPTS[i].load(SeqCst) == before + n);
        check!(came, "IPI {} reaches processor {}", n, i; "{} came", INTERRUPTS[i].load(SeqCst) - before);
    }
    let before = NMIS[i].load(SeqCst);
    lapic::send(processor.apic_id, 0x4400); // delivery mode NMI
    check!(soon(|| NMIS[i].load(SeqCst) == before + 1), "an NMI reaches processor {}", i);
}

fn events_reach(vcpu: u32) {
    let Ok(port) = events::bind_ipi(vcpu) else {
        check!(false, "an IPI port of processor {} can be bound", vcpu);
        return;
    };
    let i = vcpu as usize % MAX;
    events::clear(port);
    events::set_mask(port, false);
    for n in 1..=3 {
        let before = EVENTS[i].load(SeqCst);
        zero(events::send(port), "a send to another vCPU's port succeeds");
        check!(soon(|| EVENTS[i].load(SeqCst) > before), "event {} reaches processor {}", n, i);
        events::clear(port);
    }
    zero(events::close(port), "the port can be closed");
}

fn broadcast(boot: &Boot) {
    let before = INTERRUPTS.each_ref().map(|count| count.load(SeqCst));
    lapic::send(0, 3 << 18 | u32::from(IPI)); // shorthand: all but self
    let all =
        soon(|| others(boot).all(|p| INTERRUPTS[p.uid as usize % MAX].load(SeqCst) > before[p.uid as usize % MAX]));
    check!(all, "an IPI to all others reaches each");
    equal(INTERRUPTS[me()].load(SeqCst).into(), before[me()].into(), "and not the sender");
}

fn down(boot: &Boot) {
    STOP.store(true, SeqCst);
    lapic::send(0, 3 << 18 | u32::from(IPI));
    for processor in others(boot) {
        let vcpu = processor.uid;
        check!(soon(|| is_up(vcpu) == Ret(0)), "VCPUOP_down takes processor {} down", vcpu);
    }
    STOP.store(false, SeqCst);
    let Some(processor) = others(boot).next() else { return };
    let vcpu = processor.uid;
    zero(hypercall::vcpu_op(VCPUOP_UP, vcpu, &mut 0u64), "VCPUOP_up of a vCPU that went down succeeds");
    check!(soon(|| WENT_ON.load(SeqCst)), "it goes on where it was");
    // It halts for good, with interrupts off.
    check!(soon(|| is_up(vcpu) == Ret(0)), "and is down when it halts with interrupts off");
}
