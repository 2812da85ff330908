//! Stores to a page table that lies at [`TABLE`], entry [`INDEX`] of it at [`AT`].

use super::*;
use crate::emul::{Bitness, decode};
use crate::regs::Rflags;
use proptest::prelude::*;

const TABLE: u64 = 0xffff_8880_0123_4000;
const INDEX: usize = 5;
const AT: u64 = TABLE + 8 * INDEX as u64;
const RIP: u64 = 0xffff_ffff_8100_0000;

/// Every entry of the table holds `entry`, all other memory its address.
struct Guest {
    entry: u64,
}

impl Memory for Guest {
    fn copy_in(&mut self, at: u64, out: &mut [u8]) -> usize {
        for (n, byte) in out.iter_mut().enumerate() {
            let at = at + n as u64;
            let word = if at & !0xfff == TABLE { self.entry } else { at & !7 };
            *byte = word.to_le_bytes()[(at % 8) as usize];
        }
        0
    }
    fn base(&self, segment: SegmentName) -> u64 {
        if segment == SegmentName::Gs { 0x10 } else { 0 }
    }
}

fn regs() -> Regs {
    Regs {
        rdi: AT,
        rax: 0x1111,
        rcx: 3,
        rdx: 0x8000_0000_0abc_d067,
        rsi: 0x7000,
        rip: RIP,
        rflags: 2,
        ..Regs::default()
    }
}

fn run_with(bytes: &[u8], entry: u64, regs: Regs) -> Result<Stored, NoStore> {
    let insn = decode(bytes, Bitness::Bits64, RIP).expect("an instruction");
    assert_eq!(insn.len(), bytes.len(), "{bytes:02x?}");
    store(&insn, &regs, AT, &mut Guest { entry })
}

fn run(bytes: &[u8], entry: u64) -> Result<Stored, NoStore> {
    run_with(bytes, entry, regs())
}

/// What is written over `entry`, if it has not changed, what it has to be, and the registers.
fn written(bytes: &[u8], entry: u64) -> (Option<u64>, u64, Regs) {
    match run(bytes, entry) {
        Ok(Stored { store, regs, is_done: true }) => {
            assert_eq!((store.index, regs.rip), (INDEX, RIP + bytes.len() as u64));
            let (old, new) = store.against(entry).expect("not changed");
            (old, new, regs)
        }
        other => panic!("{other:x?}"),
    }
}

#[test]
fn a_plain_store_is_written_whatever_was_there() {
    let (old, new, after) = written(&[0x48, 0x89, 0x17], 0x67);
    assert_eq!((old, new), (None, 0x8000_0000_0abc_d067));
    assert_eq!(after, Regs { rip: RIP + 3, ..regs() });
    assert_eq!(written(&[0x48, 0xc7, 0x07, 0xff, 0xff, 0xff, 0xff], 1).1, u64::MAX);
    assert_eq!(written(&[0x48, 0xc7, 0x07, 0, 0, 0, 0], 1).1, 0);
    assert_eq!(written(&[0x48, 0x0f, 0xc3, 0x17], 1).1, 0x8000_0000_0abc_d067, "MOVNTI");
}

#[test]
fn a_part_of_an_entry_leaves_the_rest() {
    assert_eq!(written(&[0xc7, 0x47, 0x04, 1, 0, 0, 0], 0xaaaa_bbbb_cccc_dddd).1, 0x0000_0001_cccc_dddd);
    assert_eq!(written(&[0x66, 0xc7, 0x47, 0x02, 1, 0], 0xaaaa_bbbb_cccc_dddd).1, 0xaaaa_bbbb_0001_dddd);
    let (old, new, _) = written(&[0xc6, 0x47, 0x07, 0x7f], 0xaaaa_bbbb_cccc_dddd);
    assert_eq!((old, new), (Some(0xaaaa_bbbb_cccc_dddd), 0x7faa_bbbb_cccc_dddd));
}

#[test]
fn an_exchange_takes_the_old_entry_and_only_that() {
    let (old, new, after) = written(&[0x48, 0x87, 0x07], 0x5067);
    assert_eq!((old, new, after.rax), (Some(0x5067), 0x1111, 0x5067));
    let Ok(Stored { store, .. }) = run(&[0x48, 0x87, 0x07], 0x5067) else { panic!("a store") };
    assert_eq!(store.against(0x5027), Err(Changed), "the accessed bit went meanwhile");
}

#[test]
fn locked_arithmetic_keeps_its_flags_and_its_atomicity() {
    // lock and qword [rdi], ~2; lock bts; lock btr qword [rdi], 1; lock or byte [rdi], 2.
    let (old, new, after) = written(&[0xf0, 0x48, 0x83, 0x27, 0xfd], 3);
    assert_eq!((old, new, after.rflags & Rflags::ZF.bits()), (Some(3), 1, 0));
    let (old, new, after) = written(&[0xf0, 0x48, 0x0f, 0xba, 0x37, 0x01], 3);
    assert_eq!((old, new, after.rflags & Rflags::CF.bits()), (Some(3), 1, 1));
    assert_eq!(written(&[0xf0, 0x80, 0x0f, 0x02], 0x8000_0000_0000_0001).1, 0x8000_0000_0000_0003);
    assert_eq!(written(&[0x48, 0x0f, 0xc1, 0x07], 0x10).1, 0x1121, "XADD");
}

#[test]
fn compare_exchange_stores_only_what_it_compared() {
    let hit = Regs { rax: 0x67, ..regs() };
    let Ok(Stored { store, regs: after, .. }) = run_with(&[0xf0, 0x48, 0x0f, 0xb1, 0x17], 0x67, hit) else {
        panic!("a store")
    };
    assert_eq!(store.against(0x67), Ok((Some(0x67), 0x8000_0000_0abc_d067)));
    assert_eq!((after.rax, after.rflags & Rflags::ZF.bits()), (0x67, Rflags::ZF.bits()));
    assert_eq!(store.against(0x47), Err(Changed));
    let Ok(Stored { store, regs: after, .. }) = run_with(&[0xf0, 0x48, 0x0f, 0xb1, 0x17], 0x45, hit) else {
        panic!("a store")
    };
    assert_eq!(store.against(0x45), Ok((Some(0x45), 0x45)), "writes back what it found");
    assert_eq!((after.rax, after.rflags & Rflags::ZF.bits()), (0x45, 0));
}

#[test]
fn a_repeated_store_is_done_one_entry_at_a_time() {
    let Ok(Stored { store, regs: after, is_done }) = run(&[0xf3, 0x48, 0xab], 0) else { panic!("a store") };
    assert_eq!(store.against(0), Ok((None, 0x1111)));
    assert_eq!((after.rdi, after.rcx, after.rip, is_done), (AT + 8, 2, RIP, false));
    let Ok(Stored { store, regs: after, is_done }) = run(&[0xf3, 0x48, 0xa5], 0) else { panic!("a store") };
    assert_eq!(store.against(0), Ok((None, 0x7000)));
    assert_eq!((after.rsi, after.rcx, is_done), (0x7008, 2, false));
    let last = Regs { rcx: 1, ..regs() };
    assert!(matches!(run_with(&[0xf3, 0x48, 0xab], 0, last), Ok(Stored { is_done: true, .. })));
}

#[test]
fn a_base_in_gs_counts() {
    let (_, new, _) = written(&[0x65, 0x48, 0x89, 0x57, 0xf0], 0);
    assert_eq!(new, 0x8000_0000_0abc_d067);
}

#[test]
fn what_is_no_aligned_store_to_the_page_is_not_emulated() {
    let cases: [&[u8]; 9] = [
        &[0x48, 0x8b, 0x07],                         // a load
        &[0x48, 0x89, 0x57, 0x01],                   // not aligned
        &[0x48, 0x89, 0x97, 0x00, 0x10, 0x00, 0x00], // the next page
        &[0x48, 0x89, 0x16],                         // elsewhere: the instruction has changed
        &[0x0f, 0x11, 0x07],                         // MOVUPS
        &[0x48, 0x0f, 0xc7, 0x0f],                   // CMPXCHG16B
        &[0x90],
        &[0x6c], // INS
        &[0xff, 0x37],
    ];
    for bytes in cases {
        assert_eq!(run(bytes, 0x67), Err(NoStore::Unhandled), "{bytes:02x?}");
    }
}

#[test]
fn a_source_that_cannot_be_read_is_the_guests_fault() {
    struct Nothing;
    impl Memory for Nothing {
        fn copy_in(&mut self, _: u64, out: &mut [u8]) -> usize {
            out.len()
        }
        fn base(&self, _: SegmentName) -> u64 {
            0
        }
    }
    let insn = decode(&[0x48, 0xa5], Bitness::Bits64, RIP).expect("MOVSQ");
    let fault = Fault::Page { address: GuestVirt::new(0x7000), error: 0 };
    assert_eq!(store(&insn, &regs(), AT, &mut Nothing), Err(NoStore::Fault(fault)));
    let hole = Regs { rsi: 0xffff_8000_0000_0000, ..regs() };
    let fault = Fault::Page { address: GuestVirt::new(0xffff_8000_0000_0000), error: 0 };
    assert_eq!(store(&insn, &hole, AT, &mut Guest { entry: 0 }), Err(NoStore::Fault(fault)));
}

#[test]
fn the_front_says_what_the_emulator_says() {
    let mut known = 0;
    for rex in 0x40..=0x4f {
        for opcode in [0x88, 0x89, 0x8b, 0xc7] {
            for modrm in 0..=255u8 {
                for displacement in [0u8, 8, 0xf8] {
                    let bytes = [rex, opcode, modrm, displacement, 0, 0, 0, 0x80];
                    let mut regs = regs();
                    (0..16).for_each(|n| *regs.gpr_mut(n) = AT - 8 * u64::from(n % 3) + u64::from(n == 11));
                    for at in [AT, AT - 8, AT - 16] {
                        let Some((found, len)) = plain(&bytes, &regs, at) else { continue };
                        known += 1;
                        let mut long = [0; 15];
                        long[..8].copy_from_slice(&bytes);
                        let insn = decode(&long, Bitness::Bits64, RIP).expect("an instruction");
                        let general = store(&insn, &regs, at, &mut Guest { entry: 1 });
                        let after = Regs { rip: RIP + u64::from(len), ..regs };
                        assert_eq!(general, Ok(Stored { store: found, regs: after, is_done: true }), "{bytes:02x?}");
                    }
                }
            }
        }
    }
    assert!(known > 500, "{known}");
    assert_eq!(plain(&[0x48, 0x89, 0x17, 0, 0, 0, 0, 0], &regs(), AT + 1), None);
    assert_eq!(plain(&[0x48, 0xc7, 0x87, 0, 0, 0, 0, 0], &regs(), AT), None, "longer than what is there");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn any_bytes_come_to_a_store_within_one_entry_of_the_page_or_to_nothing(
        bytes in any::<[u8; 15]>(),
        opening in prop::sample::select(vec![&[0x48u8, 0x89][..], &[0x87], &[0xf0, 0x48, 0x0f, 0xb1], &[0xf3, 0x48, 0xab], &[0x80], &[]]),
        at in AT - 16..AT + 16,
        entry in any::<u64>(),
    ) {
        let bytes: Vec<u8> = opening.iter().copied().chain(bytes).take(15).collect();
        if let Ok(insn) = decode(&bytes, Bitness::Bits64, RIP) {
            let before = Regs { rdi: at, rax: at, ..regs() };
            if let Ok(Stored { store, regs: after, is_done }) = store(&insn, &before, AT, &mut Guest { entry }) {
                prop_assert!(store.index < 512);
                prop_assert_eq!(store.value & !store.mask, 0);
                prop_assert!(store.against(entry).is_ok());
                let len = if is_done { insn.len() as u64 } else { 0 };
                prop_assert_eq!(after.rip, RIP + len);
            }
        }
    }
}
