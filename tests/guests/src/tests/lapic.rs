//! The local APIC: xAPIC and x2APIC, its timer in three modes, self-IPIs, EOI and task priority (SDM 3A chapter 11).

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use guest::check::equal;
use guest::interrupts::{self, Fault, Frame};
use guest::lapic::{self, Mode, reg};
use guest::start::Boot;
use guest::{check, cpu, println};

const TIMER: u8 = 0x40;
const IPI: u8 = 0x51;
const LOW_IPI: u8 = 0x31;
const PERIODIC: u32 = 1 << 17;
const DEADLINE: u32 = 2 << 17;
const MASKED: u32 = 1 << 16;

static IN_SERVICE: AtomicU32 = AtomicU32::new(0);

fn handler(frame: &mut Frame) {
    if lapic::bit(reg::ISR, frame.vector as u8) {
        IN_SERVICE.fetch_add(1, SeqCst);
    }
    lapic::eoi();
}

/// Runs the test.
pub fn run(_boot: &Boot) {
    for vector in [TIMER, IPI, LOW_IPI] {
        interrupts::on(vector, handler);
    }
    check!(cpu::cpuid(1, 0).edx >> 9 & 1 == 1, "CPUID shows a local APIC");
    let base = cpu::rdmsr(lapic::APIC_BASE);
    equal(base & 0xf_ffff_f000, 0xfee0_0000, "the local APIC's page is at 0xfee00000");
    check!(base & 1 << 8 != 0, "the first CPU has the BSP flag"; "{:#x}", base);
    check!(base & 1 << 11 != 0, "the local APIC is enabled"; "{:#x}", base);
    check!(lapic::mode() == Mode::XApic, "the local APIC starts in xAPIC mode"; "{:#x}", base);
    mode("xAPIC");
    if cpu::cpuid(1, 0).ecx >> 21 & 1 == 0 {
        println!("SKIP x2APIC: CPUID does not show it");
        return;
    }
    equal(cpu::try_wrmsr(lapic::APIC_BASE, base | 1 << 10).is_ok().into(), 1, "x2APIC mode can be entered");
    mode("x2APIC");
    x2apic_only(base);
}

fn mode(name: &str) {
    println!("mode: {name}");
    let version = lapic::read(reg::VERSION);
    check!((0x10..=0x1f).contains(&(version & 0xff)), "{}: the version is that of an integrated APIC", name;
        "{:#x}", version);
    check!(version >> 16 & 0xff >= 3, "{}: the LVT has at least four entries", name; "{:#x}", version);
    lapic::enable(0xff);
    equal((lapic::read(reg::SVR) & 0x1ff).into(), 0x1ff, "the spurious vector register keeps its value");
    self_ipi(name);
    nested(name);
    task_priority(name);
    software_disabled(name);
    one_shot(name);
    periodic(name);
    deadline(name);
}

/// TSC ticks in which what is to come has come.
const WITHIN: u64 = 1_000_000_000;

/// Waits until the vector has come so often; says how often it came.
fn wait(vector: u8, wanted: u32) -> u32 {
    let (before, start) = (interrupts::count(vector), cpu::tsc());
    cpu::sti();
    while interrupts::count(vector) - before < wanted && cpu::tsc() - start < WITHIN {
        cpu::pause();
    }
    cpu::cli();
    interrupts::count(vector) - before
}

fn self_ipi(name: &str) {
    let served = IN_SERVICE.load(SeqCst);
    lapic::send(0, 1 << 18 | u32::from(IPI)); // shorthand: self
    check!(lapic::bit(reg::IRR, IPI), "{}: with interrupts off a self-IPI waits in the IRR", name);
    check!(wait(IPI, 1) == 1, "{}: a self-IPI is delivered once", name);
    equal((IN_SERVICE.load(SeqCst) - served).into(), 1, "the vector is in service in its handler");
    check!(!lapic::bit(reg::ISR, IPI) && !lapic::bit(reg::IRR, IPI), "{}: EOI ends it", name);
    lapic::send(lapic::id(), u32::from(IPI));
    check!(wait(IPI, 1) == 1, "{}: an IPI to the own APIC id is delivered", name);
    lapic::send(0, 1 << 18 | u32::from(IPI));
    lapic::send(0, 1 << 18 | u32::from(IPI));
    check!(wait_ticks(IPI, 1_000_000) == 1, "{}: two IPIs of one vector before delivery are one", name);
}

const OUTER: u8 = 0x61;
const ABOVE: u8 = 0x75;
const BESIDE: u8 = 0x6f;
const BELOW: u8 = 0x45;
/// What came in which order, four bits a vector's class; the outer handler's end is 0xe.
static ORDER: AtomicU32 = AtomicU32::new(0);
static PRIORITY: AtomicU32 = AtomicU32::new(0);

fn note(what: u32) {
    ORDER.store(ORDER.load(SeqCst) << 4 | what & 15, SeqCst);
}

/// Opens itself to interrupts, and is interrupted by what is above it alone.
fn outer(frame: &mut Frame) {
    note(frame.vector as u32 >> 4);
    for vector in [BELOW, BESIDE, ABOVE] {
        lapic::send(0, 1 << 18 | u32::from(vector));
    }
    wait_ticks(ABOVE, 100_000);
    PRIORITY.store(lapic::read(reg::PPR), SeqCst);
    note(0xe);
    lapic::eoi();
}

fn inner(frame: &mut Frame) {
    note(frame.vector as u32 >> 4);
    if frame.vector as u8 == ABOVE && !(lapic::bit(reg::ISR, OUTER) && lapic::bit(reg::ISR, ABOVE)) {
        note(0xf);
    }
    lapic::eoi();
}

fn nested(name: &str) {
    interrupts::on(OUTER, outer);
    for vector in [ABOVE, BESIDE, BELOW] {
        interrupts::on(vector, inner);
    }
    ORDER.store(0, SeqCst);
    lapic::send(0, 1 << 18 | u32::from(OUTER));
    wait(BELOW, 1);
    check!(ORDER.load(SeqCst) == 0x67e64, "{}: what is above interrupts a handler, the rest waits for its EOI", name;
        "{:#x}", ORDER.load(SeqCst));
    equal(
        PRIORITY.load(SeqCst).into(),
        0x60,
        "the processor priority is again that of the outer one after the inner EOI",
    );
    let empty = (0..8).all(|n| lapic::read(reg::ISR + n * 16) == 0 && lapic::read(reg::IRR + n * 16) == 0);
    check!(empty && lapic::read(reg::PPR) == 0, "{}: nothing is left in service or requested", name);
}

/// Off by software it takes no interrupt, and has what came before.
fn software_disabled(name: &str) {
    lapic::send(0, 1 << 18 | u32::from(LOW_IPI));
    lapic::write(reg::SVR, 0xff);
    let before = interrupts::count(IPI);
    lapic::send(0, 1 << 18 | u32::from(IPI));
    check!(!lapic::bit(reg::IRR, IPI), "{}: software-disabled, it takes no interrupt", name);
    check!(lapic::bit(reg::IRR, LOW_IPI), "{}: what was requested before stays", name);
    lapic::enable(0xff);
    check!(wait(LOW_IPI, 1) == 1, "{}: and is delivered", name);
    equal(interrupts::count(IPI).into(), before.into(), "the other never came");
}

fn task_priority(name: &str) {
    lapic::write(reg::TPR, 0x40);
    check!(cpu::cr8() == 4, "{}: CR8 shows the task priority", name; "{:#x}", cpu::cr8());
    equal((lapic::read(reg::PPR) & 0xf0).into(), 0x40, "the processor priority follows the task priority");
    let before = interrupts::count(LOW_IPI);
    lapic::send(0, 1 << 18 | u32::from(LOW_IPI));
    lapic::send(0, 1 << 18 | u32::from(IPI));
    check!(wait(IPI, 1) == 1, "{}: a vector above the task priority is delivered", name);
    check!(interrupts::count(LOW_IPI) == before, "{}: a vector below the task priority is held back", name);
    check!(lapic::bit(reg::IRR, LOW_IPI), "{}: and waits in the IRR", name);
    lapic::write(reg::TPR, 0);
    wait(LOW_IPI, 1);
    check!(interrupts::count(LOW_IPI) == before + 1, "{}: it is delivered when the task priority falls", name);
    check!(cpu::set_cr8(0xf).is_ok() && lapic::read(reg::TPR) == 0xf0, "{}: a write to CR8 sets the task priority", name;
        "{:#x}", lapic::read(reg::TPR));
    lapic::send(0, 1 << 18 | u32::from(LOW_IPI));
    cpu::sti();
    let released = cpu::set_cr8(0);
    cpu::pause();
    check!(
        released.is_ok() && wait_ticks(LOW_IPI, 1_000_000) <= 1 && interrupts::count(LOW_IPI) == before + 2,
        "{}: a vector held back is delivered when CR8 falls",
        name
    );
}

fn one_shot(name: &str) {
    lapic::write(reg::DIVIDE, 0b1011); // by 1
    lapic::write(reg::LVT_TIMER, TIMER.into());
    lapic::write(reg::INITIAL, 1_000_000_000);
    let (first, second) = (lapic::read(reg::CURRENT), lapic::read(reg::CURRENT));
    check!(first <= 1_000_000_000 && second <= first && second > 0,
        "{}: the timer counts down from its initial count", name; "{} then {}", first, second);
    let before = interrupts::count(TIMER);
    lapic::write(reg::INITIAL, 1_000_000);
    let start = cpu::tsc();
    while interrupts::count(TIMER) == before && cpu::tsc() - start < 8_000_000_000 {
        cpu::sti_hlt_cli();
    }
    check!(interrupts::count(TIMER) == before + 1, "{}: a one-shot timer wakes a halted CPU once", name);
    equal(lapic::read(reg::CURRENT).into(), 0, "the current count is then zero");
    let again = wait_ticks(TIMER, 3_000_000);
    check!(again == 0, "{}: a one-shot timer does not fire again", name; "{} times", again);
    lapic::write(reg::LVT_TIMER, MASKED | u32::from(TIMER));
    lapic::write(reg::INITIAL, 1000);
    check!(wait_ticks(TIMER, 1_000_000) == 0, "{}: a masked timer does not interrupt", name);
}

/// How often the vector comes in this many TSC ticks.
fn wait_ticks(vector: u8, ticks: u64) -> u32 {
    let (before, start) = (interrupts::count(vector), cpu::tsc());
    cpu::sti();
    while cpu::tsc() - start < ticks {
        cpu::pause();
    }
    cpu::cli();
    interrupts::count(vector) - before
}

fn periodic(name: &str) {
    lapic::write(reg::LVT_TIMER, PERIODIC | u32::from(TIMER));
    lapic::write(reg::INITIAL, 500_000);
    let seen = wait(TIMER, 5);
    check!(seen >= 5, "{}: a periodic timer fires again and again", name; "{} times", seen);
    lapic::write(reg::INITIAL, 0);
    wait_ticks(TIMER, 100_000);
    let after = wait_ticks(TIMER, 3_000_000);
    check!(after == 0, "{}: an initial count of zero stops the timer", name; "{} times", after);
    lapic::write(reg::LVT_TIMER, MASKED | u32::from(TIMER));
}

fn deadline(name: &str) {
    if cpu::cpuid(1, 0).ecx >> 24 & 1 == 0 {
        println!("SKIP TSC deadline: CPUID does not show it");
        return;
    }
    lapic::write(reg::LVT_TIMER, DEADLINE | u32::from(TIMER));
    let before = interrupts::count(TIMER);
    let deadline = cpu::tsc() + 1_000_000;
    cpu::wrmsr(lapic::TSC_DEADLINE, deadline);
    check!(cpu::rdmsr(lapic::TSC_DEADLINE) == deadline, "{}: an armed deadline reads back", name);
    while interrupts::count(TIMER) == before && cpu::tsc() < deadline + 4_000_000_000 {
        cpu::sti_hlt_cli();
    }
    check!(interrupts::count(TIMER) == before + 1, "{}: a TSC deadline wakes a halted CPU once", name);
    check!(cpu::tsc() >= deadline, "{}: and not before its time", name);
    equal(cpu::rdmsr(lapic::TSC_DEADLINE), 0, "the deadline is then zero");
    cpu::wrmsr(lapic::TSC_DEADLINE, 1);
    check!(wait(TIMER, 1) == 1, "{}: a deadline in the past fires at once", name);
    cpu::wrmsr(lapic::TSC_DEADLINE, cpu::tsc() + 2_000_000);
    cpu::wrmsr(lapic::TSC_DEADLINE, 0);
    check!(wait_ticks(TIMER, 4_000_000) == 0, "{}: a deadline of zero disarms the timer", name);
    lapic::write(reg::LVT_TIMER, MASKED | u32::from(TIMER));
}

fn x2apic_only(base: u64) {
    check!(cpu::try_rdmsr(0x80e) == Err(Fault::GP), "x2APIC: a register that does not exist is #GP"; "{:?}",
        cpu::try_rdmsr(0x80e));
    check!(cpu::try_wrmsr(0x802, 0) == Err(Fault::GP), "x2APIC: a write to the APIC id is #GP");
    check!(cpu::try_wrmsr(0x80b, 1) == Err(Fault::GP), "x2APIC: an EOI that is not zero is #GP");
    check!(cpu::try_wrmsr(0x808, 0x100) == Err(Fault::GP), "x2APIC: a task priority beyond a byte is #GP");
    check!(cpu::try_rdmsr(0x83f) == Err(Fault::GP), "x2APIC: a read of SELF IPI is #GP");
    lapic::write(reg::SELF_IPI, IPI.into());
    check!(wait(IPI, 1) == 1, "x2APIC: SELF IPI is delivered");
    lapic::write(reg::TPR, 0x50);
    lapic::write(reg::SELF_IPI, IPI.into());
    check!(
        wait_ticks(IPI, 100_000) == 0 && lapic::bit(reg::IRR, IPI),
        "x2APIC: SELF IPI is held back by the task priority"
    );
    lapic::write(reg::TPR, 0x40);
    check!(wait(IPI, 1) == 1, "x2APIC: and comes when that falls");
    lapic::write(reg::TPR, 0);
    lapic::write(reg::ESR, 0);
    check!(cpu::try_wrmsr(0x83f, 5).is_ok(), "x2APIC: SELF IPI takes an illegal vector");
    lapic::write(reg::ESR, 0);
    equal(lapic::read(reg::ESR).into(), 1 << 5, "it is noted as an error in sending");
    check!(cpu::try_wrmsr(0x83f, 0x100) == Err(Fault::GP), "x2APIC: a SELF IPI beyond a byte is #GP");
    check!(cpu::try_wrmsr(lapic::APIC_BASE, base) == Err(Fault::GP), "x2APIC: going back to xAPIC mode is #GP");
}
