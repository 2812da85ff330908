//! Walks of tables laid out by hand, and of tables that the mapper made.

use super::super::testing::Memory;
use super::super::{Attributes, LONG, Lookup, Mapper, Size, Tables, Target, page_of};
use super::*;
use crate::addr::{MachineAddr, Mfn};
use std::collections::HashMap;

const READ: Access = Access { write: false, fetch: false, user: false, smap: true };
const WRITE: Access = Access { write: true, ..READ };
const FETCH: Access = Access { fetch: true, ..READ };

const fn user(access: Access) -> Access {
    Access { user: true, ..access }
}

const ROOT: u64 = 0x1000;

fn mode(cr4: Cr4, efer: Efer) -> Mode {
    let cr0 = Cr0::PE | Cr0::PG | Cr0::WP;
    Mode { cr0, cr3: ROOT, cr4, efer, phys_bits: 40, has_gib_pages: true }
}

fn long() -> Mode {
    mode(Cr4::PAE | Cr4::PSE, Efer::LME | Efer::LMA | Efer::NXE)
}

fn walk(mode: &Mode, access: Access, gva: u64, entries: &[(u64, u64)]) -> Result<Translation, Fault> {
    let entries: HashMap<u64, u64> = entries.iter().copied().collect();
    translate(mode, access, GuestVirt::new(gva), |at, size| {
        assert!(at.raw() % size as u64 == 0);
        entries.get(&at.raw()).copied()
    })
}

fn page(gpa: u64, order: u8) -> Result<Translation, Fault> {
    Ok(Translation { gpa: GuestPhys::new(gpa), order })
}

fn fault(error: u32) -> Result<Translation, Fault> {
    Err(Fault::Page { error })
}

/// Long mode tables that lead address 0x1234 to a leaf of level 1 with these bits.
fn long_leaf(bits: u64) -> [(u64, u64); 4] {
    [(ROOT, 0x2007), (0x2000, 0x3007), (0x3000, 0x4007), (0x4008, 0x9000 | bits)]
}

#[test]
fn without_paging_an_address_is_its_own_translation_and_has_32_bits() {
    let off = Mode { cr0: Cr0::PE, ..long() };
    assert_eq!(walk(&off, WRITE, 0x5_0000_1234, &[]), page(0x1234, 0));
}

#[test]
fn long_mode_has_pages_of_three_sizes() {
    assert_eq!(walk(&long(), READ, 0x1234, &long_leaf(7)), page(0x9234, 0));
    let large = [(ROOT, 0x2007), (0x2000, 0x3007), (0x3008, 0x40_0087)];
    assert_eq!(walk(&long(), READ, 0x21_2345, &large), page(0x41_2345, 9));
    let huge = [(ROOT + 0xff8, 0x2007), (0x2ff8, 0x8000_0087)];
    assert_eq!(walk(&long(), READ, 0xffff_ffff_f234_5678, &huge), page(0xb234_5678, 18));
}

#[test]
fn five_levels_reach_57_bits() {
    let five = Mode { cr4: long().cr4 | Cr4::LA57, ..long() };
    let huge = [(ROOT + 8, 0x2007), (0x2000, 0x3007), (0x3000, 0x87)];
    assert_eq!(walk(&five, READ, 1 << 48 | 5, &huge), page(5, 18));
    assert_eq!(walk(&long(), READ, 1 << 48 | 5, &huge), Err(Fault::NonCanonical));
    assert_eq!(walk(&five, READ, 1 << 56, &huge), Err(Fault::NonCanonical));
    assert_eq!(walk(&long(), READ, 1 << 47, &huge), Err(Fault::NonCanonical));
}

#[test]
fn pae_has_four_entries_at_the_top_without_rights() {
    let pae = Mode { cr3: ROOT + 0x20, ..mode(Cr4::PAE, Efer::NXE) };
    let small = [(ROOT + 0x38, 0x2001), (0x2ff8, 0x3007), (0x3ff8, 0x5_0000_9007)];
    assert_eq!(walk(&pae, user(WRITE), 0xdead_beef_ffff_ffff, &small), page(0x5_0000_9fff, 0));
    let large = [(ROOT + 0x20, 0x2001), (0x2000, 0x60_0087)];
    assert_eq!(walk(&pae, READ, 0x10, &large), page(0x60_0010, 9));
    for bad in [2, 4, 0x20, 0x80, 1 << 40, 1 << 52, 1 << 63] {
        let top = [(ROOT + 0x20, 0x2001 | bad)];
        assert_eq!(walk(&pae, READ, 0x10, &top), fault(error::PRESENT | error::RESERVED), "{bad:#x}");
    }
}

#[test]
fn legacy_paging_has_large_pages_with_40_bits_if_pse_is_on() {
    let legacy = mode(Cr4::PSE, Efer::empty());
    let large = [(ROOT + 4, 0x0040_0087 | 0xab << 13)];
    assert_eq!(walk(&legacy, READ, 0x7f_fff0, &large), page(0xab_007f_fff0, 10));
    assert_eq!(walk(&legacy, READ, 0x7f_fff0, &[(ROOT + 4, 0x0060_0087)]), fault(error::PRESENT | error::RESERVED));
    let narrow = Mode { phys_bits: 36, ..legacy };
    assert_eq!(walk(&narrow, READ, 0x7f_fff0, &large), fault(error::PRESENT | error::RESERVED));
    let small = [(ROOT + 4, 0x2087), (0x2ffc, 0x9007)];
    assert_eq!(walk(&mode(Cr4::empty(), Efer::empty()), user(WRITE), 0x7f_fff0, &small), page(0x9ff0, 0));
}

#[test]
fn an_absent_entry_faults_at_every_level() {
    for level in 0..4 {
        let mut entries = long_leaf(7);
        entries[level].1 &= !1;
        assert_eq!(walk(&long(), READ, 0x1234, &entries), fault(0));
        assert_eq!(walk(&long(), user(WRITE), 0x1234, &entries), fault(error::WRITE | error::USER));
        assert_eq!(walk(&long(), user(FETCH), 0x1234, &entries), fault(error::FETCH | error::USER));
    }
}

#[test]
fn the_rights_of_all_levels_count() {
    for level in 0..4 {
        let with = |clear: u64, set: u64| {
            let mut entries = long_leaf(7);
            entries[level].1 = entries[level].1 & !clear | set;
            entries
        };
        let denied = |access, entries: &[(u64, u64)]| match walk(&long(), access, 0x1234, entries) {
            Err(Fault::Page { error }) => error & error::PRESENT != 0,
            Ok(_) => false,
            other => panic!("{other:?}"),
        };
        let read_only = with(WRITABLE, 0);
        assert!(denied(WRITE, &read_only) && denied(user(WRITE), &read_only) && !denied(user(READ), &read_only));
        let kernel = with(USER, 0);
        assert!(denied(user(READ), &kernel) && !denied(WRITE, &kernel) && !denied(FETCH, &kernel));
        let data = with(0, NX);
        assert!(denied(FETCH, &data) && denied(user(FETCH), &data) && !denied(user(WRITE), &data));
    }
}

#[test]
fn the_kernel_writes_read_only_pages_only_without_write_protection() {
    let unprotected = Mode { cr0: Cr0::PE | Cr0::PG, ..long() };
    assert_eq!(walk(&unprotected, WRITE, 0x1234, &long_leaf(5)), page(0x9234, 0));
    assert_eq!(walk(&unprotected, user(WRITE), 0x1234, &long_leaf(5)), fault(7));
    assert_eq!(walk(&long(), WRITE, 0x1234, &long_leaf(5)), fault(error::PRESENT | error::WRITE));
}

#[test]
fn smep_and_smap_keep_the_kernel_from_user_pages_but_not_the_hypervisor() {
    let strict = Mode { cr4: long().cr4 | Cr4::SMEP | Cr4::SMAP, ..long() };
    assert_eq!(walk(&strict, FETCH, 0x1234, &long_leaf(7)), fault(error::PRESENT | error::FETCH));
    assert_eq!(walk(&strict, READ, 0x1234, &long_leaf(7)), fault(error::PRESENT));
    assert_eq!(walk(&strict, READ, 0x1234, &long_leaf(3)), page(0x9234, 0));
    assert_eq!(walk(&strict, user(READ), 0x1234, &long_leaf(7)), page(0x9234, 0));
    assert_eq!(walk(&strict, Access::COPY_IN, 0x1234, &long_leaf(7)), page(0x9234, 0));
    assert_eq!(walk(&strict, Access::COPY_OUT, 0x1234, &long_leaf(5)), fault(error::PRESENT | error::WRITE));
}

#[test]
fn reserved_bits_fault_in_long_mode() {
    let refused = fault(error::PRESENT | error::RESERVED);
    for bad in [1 << 40, 1 << 51] {
        for level in 0..4 {
            let mut entries = long_leaf(7);
            entries[level].1 |= bad;
            assert_eq!(walk(&long(), READ, 0x1234, &entries), refused);
        }
    }
    assert_eq!(walk(&long(), READ, 0x1234, &[(ROOT, 0x2087)]), refused);
    assert_eq!(walk(&long(), READ, 0, &[(ROOT, 0x2007), (0x2000, 0x3007), (0x3000, 0x40_2087)]), refused);
    let without_gib = Mode { has_gib_pages: false, ..long() };
    assert_eq!(walk(&without_gib, READ, 0, &[(ROOT, 0x2007), (0x2000, 0x87)]), refused);
    let without_nx = mode(Cr4::PAE, Efer::LMA);
    assert_eq!(walk(&without_nx, READ, 0x1234, &long_leaf(7 | NX)), refused);
    let ignored = long_leaf(7 | 0x7ff << 52);
    assert_eq!(walk(&long(), READ, 0x1234, &ignored), page(0x9234, 0));
}

#[test]
fn a_table_outside_memory_is_named() {
    assert_eq!(walk(&long(), READ, 0, &[(ROOT, 0xff_0000_0007)]), Err(Fault::Table(GuestPhys::new(0xff_0000_0000))));
}

#[test]
fn what_the_mapper_maps_the_walk_finds() {
    let mut memory = Memory::new(100);
    let root = memory.allocate().expect("room");
    let mut mapper = Mapper::new(&mut memory, &LONG, root);
    let attributes = Attributes::ram(super::super::Rights::all());
    for (page, mfn, count) in [(1, 77, 600), (0x4_0000, 0x8_0000, 0x4_0000), (page_of(u64::MAX), 5, 1)] {
        let target = Target { mfn: Mfn::new(mfn), attributes };
        let _ = mapper.map(page, count, target, Size::Gib1, usize::MAX).expect("room");
    }
    for gva in [0x1fff, 0x25_8abc, 0x25_9000, 0x4000_0000, 0x7fff_ffff, 0x8000_0000, u64::MAX] {
        let expected = Mapper::new(&mut memory, &LONG, root).lookup(page_of(gva));
        let mode = Mode { cr3: root.base().raw(), ..long() };
        let found = translate(&mode, WRITE, GuestVirt::new(gva), |at, _| {
            let at = MachineAddr::new(at.raw());
            Some(memory.read(at.frame(), at.offset() / 8))
        });
        match expected {
            Lookup::Mapped { mfn, size, .. } => {
                assert_eq!(found, page(mfn.base().raw() + gva % 4096, size.order()), "{gva:#x}")
            }
            Lookup::Hole { .. } => assert_eq!(found, fault(error::WRITE), "{gva:#x}"),
        }
    }
}
