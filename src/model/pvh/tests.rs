//! The start of day, read back as a guest reads it.

use super::*;
use crate::addr::{GuestPhys, PAGE_SIZE};
use crate::image::{Elf, ImageError, Notes, Segment, Width};
use alloc::string::ToString;
use alloc::vec::Vec;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const KERNEL_END: u64 = 34 * MIB + 123;

fn kernel() -> Elf {
    Elf {
        width: Width::Bits64,
        entry: 0,
        segments: alloc::vec![
            Segment { paddr: 16 * MIB, vaddr: 0, file: 4096..9000, mem_len: MIB },
            Segment { paddr: 32 * MIB, vaddr: 0, file: 9000..9000, mem_len: 2 * MIB + 123 },
        ],
        notes: Notes { phys32_entry: Some(16 << 20 | 0x850), ..Notes::default() },
    }
}

fn start(ram_bytes: u64, ramdisk_len: Option<u64>, vcpus: u32) -> Result<Start, PvhError> {
    let kernel = kernel();
    Start::build(&Guest { kernel: &kernel, ramdisk_len, cmdline: "console=hvc0", ram_bytes, vcpus, flags: 0 })
}

/// A guest's view of what was written.
struct Memory<'a>(&'a Start);

impl Memory<'_> {
    fn bytes(&self, at: u64, len: u64) -> &[u8] {
        let write = self.0.writes.iter().find(|write| {
            let start = write.to.raw();
            (start..start + write.bytes.len() as u64).contains(&at)
        });
        let write = write.expect("something is written there");
        &write.bytes[(at - write.to.raw()) as usize..][..len as usize]
    }
    fn number(&self, at: u64, len: u64) -> u64 {
        self.bytes(at, len).iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
    }
    fn u32(&self, at: u64) -> u64 {
        self.number(at, 4)
    }
    fn u64(&self, at: u64) -> u64 {
        self.number(at, 8)
    }
    /// A table whose sum is right, with its signature.
    fn table(&self, at: u64, signature: &[u8]) -> &[u8] {
        let table = self.bytes(at, self.u32(at + 4));
        assert_eq!(&table[..4], signature);
        assert_eq!(sum(table), 0);
        table
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, &byte| sum.wrapping_add(byte))
}

#[test]
fn the_start_info_names_the_ramdisk_the_command_line_the_map_and_the_rsdp() {
    let start = start(256 * MIB, Some(5 * MIB + 1), 1).unwrap();
    let memory = Memory(&start);
    let info = start.registers.regs.rbx;
    assert_eq!([0, 4, 8, 12].map(|field| memory.u32(info + field)), [0x336e_c578, 1, 0, 1]);
    let module = memory.u64(info + 16);
    assert_eq!(memory.u64(module), 35 * MIB - MIB + PAGE_SIZE);
    assert_eq!([8, 16, 24].map(|field| memory.u64(module + field)), [5 * MIB + 1, 0, 0]);
    assert_eq!(memory.bytes(memory.u64(info + 24), 13), b"console=hvc0\0");
    assert_eq!(memory.u64(info + 32), ACPI_BASE.raw());
    let (map, entries) = (memory.u64(info + 40), memory.u32(info + 48));
    assert_eq!((memory.u32(info + 52), entries), (0, 3));
    let read = |n: u64| [memory.u64(map + 24 * n), memory.u64(map + 24 * n + 8), memory.u64(map + 24 * n + 16)];
    assert_eq!(read(0), [0, 256 * MIB, 1]);
    assert_eq!(read(1), [0xfc00_0000, PAGE_SIZE, 3]);
    assert_eq!(read(2), [0xfeff_8000, 0x8000, 2]);
}

#[test]
fn without_a_ramdisk_there_is_no_module() {
    let start = start(256 * MIB, None, 1).unwrap();
    let info = start.registers.regs.rbx;
    assert_eq!((Memory(&start).u32(info + 12), Memory(&start).u64(info + 16)), (0, 0));
    assert!(start.copies.iter().all(|copy| copy.source == Source::Kernel));
}

#[test]
fn a_segment_without_bytes_takes_room_but_copies_nothing() {
    let start = start(256 * MIB, Some(3), 1).unwrap();
    let copy = |source, bytes, to| Copy { source, bytes, to: GuestPhys::new(to) };
    let ramdisk_at = KERNEL_END.next_multiple_of(PAGE_SIZE);
    assert_eq!(start.copies, [copy(Source::Kernel, 4096..9000, 16 * MIB), copy(Source::Ramdisk, 0..3, ramdisk_at)]);
}

#[test]
fn the_first_cpu_starts_at_the_entry_in_flat_32_bit_mode_without_paging() {
    let start = start(256 * MIB, None, 1).unwrap();
    let Registers { regs, cr0, segments } = start.registers;
    assert_eq!((regs.rip, regs.rflags, cr0.bits()), (16 << 20 | 0x850, 2, 0x11));
    for (n, (name, segment)) in segments.into_iter().enumerate() {
        assert_eq!(name as usize, n);
        match n {
            6 => assert_eq!(segment.attributes, 0),
            7 => assert_eq!((segment.attributes, segment.limit), (0x8b, 0x67)),
            _ => {
                assert_eq!((segment.base, segment.limit), (0, u32::MAX));
                assert!(segment.is_big() && !segment.is_long() && segment.dpl() == 0);
            }
        }
    }
}

#[test]
fn ram_beyond_the_hole_continues_at_4_gib() {
    let layout = Layout::new(5 * GIB + 100, 1);
    let ram: Vec<_> = layout.ram().map(|range| (range.first.raw(), range.nr_frames)).collect();
    assert_eq!(ram, [(0, 0xfc000), (0x100000, 5 * GIB / PAGE_SIZE - 0xfc000)]);
    assert_eq!(layout.memory_map().len(), 4);
    assert_eq!(Layout::new(ACPI_BASE.raw(), 1).ram().count(), 1);
}

#[test]
fn console_and_store_are_xens_special_pages() {
    assert_eq!((STORE.raw(), CONSOLE.raw()), (0xf_effc, 0xf_efff));
}

#[test]
fn what_does_not_fit_is_named_with_its_size() {
    let error = start(32 * MIB, None, 1).unwrap_err();
    assert_eq!(error, PvhError::NoRoom { what: "kernel", needs: KERNEL_END, has: 32 * MIB });
    assert_eq!(
        error.to_string(),
        "memory is too small: the kernel ends at 35 MiB and the domain has 32 MiB; raise memory="
    );
    assert!(matches!(start(64 * MIB, Some(30 * MIB), 1), Err(PvhError::NoRoom { what: "ramdisk", .. })));
    assert!(matches!(start(64 * MIB, Some(u64::MAX), 1), Err(PvhError::NoRoom { what: "ramdisk", .. })));
    let exactly = KERNEL_END.next_multiple_of(PAGE_SIZE);
    assert!(matches!(start(exactly, None, 1), Err(PvhError::NoRoom { what: "start info", .. })));
    assert!(start(exactly + PAGE_SIZE, None, 1).is_ok());
    assert!(start(8 * GIB, Some(5 * GIB), 1).unwrap_err().to_string().contains("below the hole"));
}

#[test]
fn a_kernel_without_entry_or_with_one_outside_is_refused() {
    let mut kernel = kernel();
    let mut build = |entry| {
        kernel.notes.phys32_entry = entry;
        let guest = Guest { kernel: &kernel, ramdisk_len: None, cmdline: "", ram_bytes: GIB, vcpus: 1, flags: 0 };
        Start::build(&guest).unwrap_err()
    };
    assert_eq!(build(None), PvhError::Image(ImageError::NoPvhEntry));
    assert_eq!(build(Some(0x1000)), PvhError::EntryOutside { entry: 0x1000 });
}

#[test]
fn the_acpi_tables_are_found_from_the_rsdp_and_their_sums_are_right() {
    let start = start(256 * MIB, None, 4).unwrap();
    let memory = Memory(&start);
    let rsdp = ACPI_BASE.raw();
    assert_eq!(memory.bytes(rsdp, 8), b"RSD PTR ");
    assert_eq!((sum(memory.bytes(rsdp, 20)), sum(memory.bytes(rsdp, 36)), memory.u32(rsdp + 20)), (0, 0, 36));
    assert_eq!(memory.number(rsdp + 15, 1), 2);
    let xsdt = memory.u64(rsdp + 24);
    assert_eq!(memory.table(xsdt, b"XSDT").len(), 36 + 16);
    let fadt = memory.u64(xsdt + 36);
    assert_eq!((memory.table(fadt, b"FACP").len(), memory.number(fadt + 8, 1)), (268, 5));
    assert_eq!(memory.number(fadt + 109, 2), 0x24);
    assert_eq!(memory.u32(fadt + 112) & (1 << 20 | 1 << 10), 1 << 20 | 1 << 10);
    assert_eq!((memory.u32(fadt + 116), memory.u64(fadt + 120)), (0x0100_0801, 0xcf9));
    assert_eq!(memory.number(fadt + 128, 1), 6);
    let dsdt = memory.u64(fadt + 140);
    assert_eq!(memory.u32(fadt + 40), dsdt);
    assert_eq!(memory.table(dsdt, b"DSDT").len(), 36);
    let madt = memory.table(memory.u64(xsdt + 44), b"APIC");
    assert_eq!(&madt[36..44], &[0, 0, 0xe0, 0xfe, 0, 0, 0, 0]);
    let cpus: Vec<_> = madt[44..].chunks(8).map(<[u8]>::to_vec).collect();
    assert_eq!(cpus, (0..4).map(|n| alloc::vec![0, 8, n, 2 * n, 1, 0, 0, 0]).collect::<Vec<_>>());
}

#[test]
fn apic_ids_from_255_on_are_x2apic_entries() {
    let tables = acpi::tables(130);
    assert_eq!(tables.len() as u64, acpi::len(130));
    let entry = [9, 16, 0, 0, 2, 1, 0, 0, 1, 0, 0, 0, 129, 0, 0, 0];
    assert_eq!(&tables[tables.len() - 16..], &entry);
    let last_small = &tables[tables.len() - 40..tables.len() - 32];
    assert_eq!(last_small, &[0, 8, 127, 254, 1, 0, 0, 0]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_overlaps_and_everything_lies_in_the_map(
        ram in 0_u64..6 * GIB, disk in proptest::option::of(0_u64..4 * GIB), vcpus in 1_u32..300
    ) {
        let Ok(start) = start(ram, disk, vcpus) else { return Ok(()) };
        let mut used: Vec<(u64, u64)> = Vec::new();
        for copy in &start.copies {
            used.push((copy.to.raw(), copy.to.raw() + copy.bytes.len() as u64));
        }
        for write in &start.writes {
            used.push((write.to.raw(), write.to.raw() + write.bytes.len() as u64));
        }
        used.sort_unstable();
        prop_assert!(used.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        let map = start.layout.memory_map();
        prop_assert!(map.windows(2).all(|pair| pair[0].addr.raw() + pair[0].size <= pair[1].addr.raw()));
        for (from, to) in used {
            let holds = |entry: &MapEntry| entry.addr.raw() <= from && to <= entry.addr.raw() + entry.size;
            let usable = map.iter().any(|entry| entry.kind != map_type::RESERVED && holds(entry));
            prop_assert!(usable);
        }
        let frames: u64 = start.layout.ram().map(|range| range.nr_frames).sum();
        prop_assert_eq!(frames, ram / PAGE_SIZE);
    }
}
