//! What can happen to the machine, and how it is made of random numbers or of a fuzzer's bytes.

use super::{ENTRIES, PRIVILEGED, entry};
use crate::addr::Mfn;
use crate::ids::DomId;
use crate::pv::mmu::{IO, entry as bits};

/// One thing that a guest, its processor or the hypervisor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the calls and their arguments")]
pub enum Operation {
    Pin {
        mfn: Mfn,
        level: u8,
    },
    Unpin {
        mfn: Mfn,
    },
    GetBase {
        mfn: Mfn,
    },
    PutBase {
        which: usize,
    },
    Update {
        table: Mfn,
        index: usize,
        value: u64,
        keep_ad: bool,
        foreign: DomId,
    },
    EmulatedWrite {
        table: Mfn,
        index: usize,
        compares: Option<bool>,
        value: u64,
    },
    GetWritable {
        mfn: Mfn,
        owner: DomId,
    },
    PutWritable {
        which: usize,
    },
    GetDescriptors {
        mfn: Mfn,
    },
    PutDescriptors {
        which: usize,
    },
    UpdateDescriptor {
        mfn: Mfn,
        offset: usize,
        value: u64,
    },
    GetPage {
        mfn: Mfn,
    },
    PutPage {
        which: usize,
    },
    Release {
        mfn: Mfn,
    },
    /// Gives the domain a free frame.
    Allocate,
    Finish,
    /// The guest writes through whatever translation its processors remember.
    Store {
        mfn: Mfn,
        index: usize,
        value: u64,
    },
    /// The processor notes that an entry was used.
    Note {
        table: Mfn,
        index: usize,
        bits: u64,
    },
    /// The guest flushes.
    Flush,
    /// The machine has memory for partners of tables, or not.
    Memory {
        has: bool,
    },
}

/// Where the choices come from.
pub trait Source {
    /// A number below `limit`.
    fn below(&mut self, limit: u32) -> u32;
}

const P: u64 = bits::PRESENT;
const W: u64 = bits::WRITABLE;
const U: u64 = bits::USER;
/// Bits that entries are made with, the useful ones more often.
const BITS: [u64; 16] = [
    P | W | U,
    P | W | U,
    P | W | U,
    P | W | U,
    P | U,
    P | U,
    P | U,
    P | W,
    P,
    0,
    0,
    W | U,
    P | W | U | bits::ACCESSED | bits::DIRTY | 1 << 63,
    P | W | U | bits::LARGE,
    P | U | 1 << 4,
    P | W | U | bits::GLOBAL | 1 << 9,
];
const DESCRIPTORS: [u64; 8] = [
    0,
    0x00af_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0x00af_fb00_0000_ffff,
    0x0000_8900_0000_0067,
    0x0000_ec00_0008_0000,
    0x0000_8200_0000_0000,
    0x0000_8000_0000_0000,
];

impl Operation {
    /// An operation of a domain; most of them concern its own frames.
    pub fn make(domain: DomId, source: &mut impl Source) -> Self {
        let from = if domain == PRIVILEGED { 0 } else { 18 };
        let own = |source: &mut dyn FnMut(u32) -> u32| match source(16) {
            0 => u64::from(source(44)),
            // A few frames are used for most, so that things happen to them.
            1..10 => from + u64::from(source(6)),
            _ => from + u64::from(source(18)),
        };
        let mut below = |limit| source.below(limit);
        let kind = below(64);
        let mfn = Mfn::new(own(&mut below));
        let index = below(ENTRIES as u32) as usize;
        let value = {
            let target = own(&mut below);
            entry(target, BITS[below(16) as usize])
        };
        match kind {
            0..8 => Self::Pin { mfn, level: below(4) as u8 + 1 },
            8..12 => Self::Unpin { mfn },
            12..14 => Self::GetBase { mfn },
            14 => Self::PutBase { which: index },
            15..35 => {
                let foreign = match below(8) {
                    0 => DomId(below(4) as u16),
                    1 => IO,
                    _ => domain,
                };
                Self::Update { table: mfn, index, value, keep_ad: below(4) == 0, foreign }
            }
            35..40 => {
                let compares = [None, Some(true), Some(false)][below(3) as usize];
                Self::EmulatedWrite { table: mfn, index, compares, value }
            }
            40 => Self::GetWritable { mfn, owner: DomId(below(2) as u16 + 1) },
            41 => Self::PutWritable { which: index },
            42 => Self::GetDescriptors { mfn },
            43 => Self::PutDescriptors { which: index },
            44 => {
                let offset = below(ENTRIES as u32 * 9) as usize;
                Self::UpdateDescriptor { mfn, offset, value: DESCRIPTORS[below(8) as usize] }
            }
            45 => Self::GetPage { mfn },
            46 => Self::PutPage { which: index },
            47 => Self::Release { mfn },
            48 => Self::Allocate,
            49 => Self::Finish,
            50..58 => Self::Store { mfn, index, value: if below(8) == 0 { DESCRIPTORS[index % 8] } else { value } },
            58..62 => Self::Note { table: mfn, index, bits: [bits::ACCESSED, bits::DIRTY][below(2) as usize] },
            62 => Self::Flush,
            _ => Self::Memory { has: below(4) != 0 },
        }
    }
}
