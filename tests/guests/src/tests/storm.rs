//! Interprocessor interrupts between two virtual CPUs in quick succession, in both directions, to one that runs and one that sleeps,
//! in xAPIC and x2APIC mode: none is lost.

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use guest::interrupts::{self, Frame};
use guest::start::Boot;
use guest::{check, cpu, lapic, println};

use super::smp;

const ROUNDS: u32 = 1000;
/// The lowest of eight vectors, one in each of eight classes.
const FIRST: u8 = 0x35;
const VECTORS: usize = 8;
const WITHIN: u64 = 4_000_000_000;

/// What the second one does.
static PHASE: AtomicU32 = AtomicU32::new(0);
static IS_IN: AtomicU32 = AtomicU32::new(0);
const SHOOT: u32 = 1;
const SLEEP: u32 = 2;
const REST: u32 = 3;
const END: u32 = 4;
/// Added to each of them in x2APIC mode.
const X2APIC: u32 = 16;
/// Added to what it is in when it has done it.
const DONE: u32 = 32;

/// How many of each vector came to each.
static CAME: [[AtomicU32; VECTORS]; 2] = [const { [const { AtomicU32::new(0) }; VECTORS] }; 2];
static APIC_ID: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
/// How many of the second one's were lost.
static LOST: AtomicU32 = AtomicU32::new(0);

fn me() -> usize {
    usize::from(lapic::id() == APIC_ID[1].load(SeqCst))
}

fn hit(frame: &mut Frame) {
    CAME[me()][usize::from((frame.vector as u8 - FIRST) >> 4)].fetch_add(1, SeqCst);
    lapic::eoi();
}

fn vector(n: usize) -> u8 {
    FIRST + 16 * n as u8
}

/// Sends one after the other to `other`, each when the last has come. How many did not come.
fn shoot(other: usize) -> u32 {
    let mut lost = 0;
    for round in 0..ROUNDS {
        let n = (round as usize * 3) % VECTORS;
        let before = CAME[other][n].load(SeqCst);
        lapic::send(APIC_ID[other].load(SeqCst), vector(n).into());
        let start = cpu::tsc();
        while CAME[other][n].load(SeqCst) == before && cpu::tsc() - start < WITHIN {
            cpu::pause();
        }
        lost += u32::from(CAME[other][n].load(SeqCst) == before);
        for _ in 0..round * 7 % 61 {
            cpu::pause();
        }
        if lost > 3 {
            break;
        }
    }
    lost
}

fn second() {
    lapic::enable(0xff);
    APIC_ID[1].store(lapic::id(), SeqCst);
    cpu::sti();
    loop {
        let phase = PHASE.load(SeqCst);
        if phase & X2APIC != 0 && lapic::mode() == lapic::Mode::XApic {
            enter_x2apic();
        }
        match phase & !X2APIC {
            SHOOT => {
                IS_IN.store(phase, SeqCst);
                LOST.fetch_add(shoot(0), SeqCst);
                IS_IN.store(phase | DONE, SeqCst);
                while PHASE.load(SeqCst) == phase {
                    cpu::pause();
                }
            }
            SLEEP => {
                IS_IN.store(phase, SeqCst);
                cpu::cli();
                if PHASE.load(SeqCst) == phase {
                    cpu::sti_hlt_cli();
                }
                cpu::sti();
            }
            END => return,
            _ => {
                IS_IN.store(phase, SeqCst);
                cpu::pause();
            }
        }
    }
}

fn enter_x2apic() {
    cpu::wrmsr(lapic::APIC_BASE, cpu::rdmsr(lapic::APIC_BASE) | 1 << 10);
}

fn until_it_is_in(phase: u32) -> bool {
    let start = cpu::tsc();
    while IS_IN.load(SeqCst) != phase {
        if cpu::tsc() - start > WITHIN {
            return false;
        }
        cpu::pause();
    }
    true
}

/// Tells the second one what to do, and wakes it.
fn enter(phase: u32) {
    PHASE.store(phase, SeqCst);
    lapic::send(APIC_ID[1].load(SeqCst), vector(0).into());
    check!(until_it_is_in(phase), "the second vCPU goes on"; "it is in {}, not {}", IS_IN.load(SeqCst), phase);
}

/// Runs the test.
pub fn run(boot: &Boot) {
    for n in 0..VECTORS {
        interrupts::on(vector(n), hit);
    }
    lapic::enable(0xff);
    APIC_ID[0].store(lapic::id(), SeqCst);
    APIC_ID[1].store(u32::MAX, SeqCst);
    smp::start_all(boot, second);
    let start = cpu::tsc();
    while APIC_ID[1].load(SeqCst) == u32::MAX && cpu::tsc() - start < WITHIN {
        cpu::pause();
    }
    cpu::sti();
    storms("xAPIC", 0);
    if cpu::cpuid(1, 0).ecx >> 21 & 1 == 1 {
        enter(REST);
        enter_x2apic();
        enter(REST | X2APIC);
        storms("x2APIC", X2APIC);
    } else {
        println!("SKIP x2APIC: CPUID does not show it");
    }
    PHASE.store(END, SeqCst);
    lapic::send(APIC_ID[1].load(SeqCst), vector(0).into());
    cpu::cli();
}

fn storms(name: &str, mode: u32) {
    enter(REST | mode);
    let lost = shoot(1);
    check!(lost == 0, "{}: none is lost to a vCPU that runs", name; "{}", lost);
    enter(SLEEP | mode);
    let lost = shoot(1);
    check!(lost == 0, "{}: none is lost to a vCPU that sleeps", name; "{}", lost);
    PHASE.store(SHOOT | mode, SeqCst);
    lapic::send(APIC_ID[1].load(SeqCst), vector(0).into());
    // They send to each other at once; what wakes the second may come in between.
    let start = cpu::tsc();
    while IS_IN.load(SeqCst) & !DONE != SHOOT | mode && cpu::tsc() - start < WITHIN {
        cpu::pause();
    }
    let own = shoot(1);
    let done = until_it_is_in(SHOOT | mode | DONE);
    check!(own == 0 && done && LOST.load(SeqCst) == 0, "{}: none is lost of what both send at once", name;
        "{} and {}, done: {}", own, LOST.load(SeqCst), done);
}
