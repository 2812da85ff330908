//! Instructions as byte strings on a processor made of a map.

mod addressing;
mod data;
mod decoding;
mod flags;
mod string;
mod system;

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Where the bytes under test stand.
const CODE: u64 = 0x1000;
/// A place for data.
const DATA: u64 = 0x8000;

/// A processor with byte-wise memory, zero where nothing was written.
#[derive(Clone, Debug)]
pub(super) struct Fake {
    pub regs: Regs,
    pub segments: [Segment; 6],
    pub cr0: u64,
    pub long: bool,
    pub memory: BTreeMap<u64, u8>,
    /// Pages that are not there.
    pub absent: BTreeSet<u64>,
    /// Pages that are only read.
    pub fixed: BTreeSet<u64>,
    /// Every third page but that of the code is not there, every other third is only read.
    pub holey: bool,
    pub ports: Vec<(u16, u8, Option<u32>)>,
}

fn page(at: u64) -> u64 {
    at >> 12
}

impl Fake {
    fn new(attributes: u16, code: u16, limit: u32) -> Self {
        let data = Segment { selector: 0x10, attributes, limit, base: 0 };
        let mut segments = [data; 6];
        segments[1].attributes = code;
        Self {
            regs: Regs { rip: CODE, rsp: 0x4000, rflags: 2, ..Regs::default() },
            segments,
            cr0: 1,
            long: false,
            memory: BTreeMap::new(),
            absent: BTreeSet::new(),
            fixed: BTreeSet::new(),
            holey: false,
            ports: Vec::new(),
        }
    }

    pub fn bits64() -> Self {
        Self { long: true, ..Self::new(0xc93, 0xa9b, u32::MAX) }
    }

    pub fn bits32() -> Self {
        Self::new(0xc93, 0xc9b, u32::MAX)
    }

    pub fn real() -> Self {
        Self { cr0: 0, ..Self::new(0x93, 0x9b, 0xffff) }
    }

    pub fn poke(&mut self, at: u64, bytes: &[u8]) {
        for (n, &byte) in bytes.iter().enumerate() {
            self.memory.insert(at.wrapping_add(n as u64), byte);
        }
    }

    pub fn put(&mut self, at: u64, width: usize, value: u64) {
        self.poke(at, &value.to_le_bytes()[..width]);
    }

    pub fn peek(&self, at: u64, width: usize) -> u64 {
        (0..width).rev().fold(0, |value, n| {
            value << 8 | u64::from(self.memory.get(&at.wrapping_add(n as u64)).copied().unwrap_or(0))
        })
    }

    /// Runs these bytes at RIP.
    pub fn run(&mut self, bytes: &[u8]) -> Outcome {
        self.poke(self.code_base() + self.regs.rip, bytes);
        match fetch(self) {
            Ok(instruction) => execute(self, &instruction),
            Err(fault) => Outcome::Fault(fault),
        }
    }

    /// Runs these bytes, all of which are one instruction that is done.
    pub fn done(&mut self, bytes: &[u8]) {
        let len = u8::try_from(bytes.len()).expect("an instruction is short");
        assert_eq!(self.run(bytes), Outcome::Done { len }, "{bytes:02x?}");
    }

    fn code_base(&self) -> u64 {
        if self.long { 0 } else { self.segments[1].base }
    }

    fn check(&self, at: u64, len: usize, write: bool) -> Result<(), Fault> {
        for n in 0..len as u64 {
            let byte = at.wrapping_add(n);
            let page = page(byte);
            let hole = self.holey && page != CODE >> 12;
            let absent = self.absent.contains(&page) || hole && page.is_multiple_of(3);
            let fixed = self.fixed.contains(&page) || hole && page % 3 == 1;
            if absent || write && fixed {
                let error = u32::from(!absent) | u32::from(write) << 1;
                return Err(Fault::Page { address: GuestVirt::new(byte), error });
            }
        }
        Ok(())
    }
}

impl Cpu for Fake {
    fn regs(&self) -> &Regs {
        &self.regs
    }
    fn regs_mut(&mut self) -> &mut Regs {
        &mut self.regs
    }
    fn segment(&self, name: SegmentName) -> Segment {
        self.segments.get(name as usize).copied().unwrap_or_default()
    }
    fn cr(&self, n: u8) -> u64 {
        if n == 0 { self.cr0 } else { 0 }
    }
    fn long_mode(&self) -> bool {
        self.long
    }
    fn read(&mut self, at: GuestVirt, buf: &mut [u8]) -> Result<(), Fault> {
        self.check(at.raw(), buf.len(), false)?;
        for (n, byte) in buf.iter_mut().enumerate() {
            *byte = self.memory.get(&at.raw().wrapping_add(n as u64)).copied().unwrap_or(0);
        }
        Ok(())
    }
    fn write(&mut self, at: GuestVirt, bytes: &[u8]) -> Result<(), Fault> {
        self.check(at.raw(), bytes.len(), true)?;
        self.poke(at.raw(), bytes);
        Ok(())
    }
    fn probe_write(&mut self, at: GuestVirt, len: usize) -> Result<(), Fault> {
        self.check(at.raw(), len, true)
    }
    fn io_in(&mut self, port: u16, size: u8) -> Result<u32, Fault> {
        self.ports.push((port, size, None));
        Ok(0xa1b2_c3d4)
    }
    fn io_out(&mut self, port: u16, size: u8, value: u32) -> Result<(), Fault> {
        self.ports.push((port, size, Some(value)));
        Ok(())
    }
}

fn gp() -> Outcome {
    Outcome::Fault(Fault::Event(Event::GP))
}

/// Openings of every family, so that random operands reach them often.
const OPENINGS: [&[u8]; 24] = [
    &[0x00],
    &[0x11],
    &[0x2b],
    &[0x80],
    &[0x81],
    &[0x83],
    &[0x86],
    &[0x88],
    &[0x8b],
    &[0x8f],
    &[0xa0],
    &[0xa4],
    &[0xa7],
    &[0xf3, 0xab],
    &[0xf2, 0xaf],
    &[0x6c],
    &[0xf3, 0x6f],
    &[0xc7],
    &[0xf7],
    &[0xff],
    &[0x0f, 0xb6],
    &[0x0f, 0xab],
    &[0x0f, 0xb1],
    &[0x0f, 0xba],
];

fn any_cpu() -> impl Strategy<Value = Fake> {
    let base = prop_oneof![Just(Fake::bits64()), Just(Fake::bits32()), Just(Fake::real())];
    (base, any::<[u64; 16]>(), any::<u64>(), any::<[(u16, u32, u64); 6]>(), any::<bool>()).prop_map(
        |(mut cpu, registers, rflags, segments, wild)| {
            for (n, value) in (0u8..).zip(registers) {
                *cpu.regs.gpr_mut(n) = value;
            }
            cpu.regs.rflags = rflags & 0x24_4dd5;
            if wild {
                // CS stays as it is.
                for (n, (attributes, limit, base)) in segments.into_iter().enumerate().filter(|&(n, _)| n != 1) {
                    cpu.segments[n] = Segment { attributes, limit, base, ..cpu.segments[n] };
                }
            }
            cpu
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_never_panic(mut cpu in any_cpu(), bytes in any::<[u8; 15]>()) {
        let rip = cpu.regs.rip;
        let _ = cpu.run(&bytes);
        prop_assert_eq!(cpu.regs.rip, rip, "RIP is the caller's");
    }

    #[test]
    fn a_random_operand_of_any_family_never_panics(
        mut cpu in any_cpu(),
        opening in 0..OPENINGS.len(),
        prefix in prop_oneof![Just(None), prop::sample::select(vec![0x66u8, 0x67, 0x48, 0xf0, 0x65, 0x36]).prop_map(Some)],
        tail in any::<[u8; 12]>(),
    ) {
        let bytes: Vec<u8> = prefix.into_iter().chain(OPENINGS[opening].iter().copied()).chain(tail).collect();
        let before = (cpu.regs, cpu.ports.len());
        let outcome = cpu.run(&bytes);
        if outcome == Outcome::Unhandled {
            prop_assert_eq!((cpu.regs, cpu.ports.len()), before);
        }
    }

    #[test]
    fn a_fault_leaves_registers_and_memory_alone(
        mut cpu in any_cpu(),
        opening in 0..OPENINGS.len(),
        tail in any::<[u8; 12]>(),
    ) {
        // Without the repeated ones, whose earlier elements stay done.
        prop_assume!(!OPENINGS[opening].starts_with(&[0xf3]) && !OPENINGS[opening].starts_with(&[0xf2]));
        let bytes: Vec<u8> = OPENINGS[opening].iter().copied().chain(tail).collect();
        cpu.holey = true;
        cpu.poke(cpu.code_base() + CODE, &bytes);
        let before = cpu.clone();
        if let Outcome::Fault(_) = cpu.run(&bytes) {
            prop_assert_eq!(cpu.regs, before.regs);
            prop_assert_eq!(cpu.memory, before.memory);
            prop_assert_eq!(cpu.ports, before.ports);
        }
    }
}
