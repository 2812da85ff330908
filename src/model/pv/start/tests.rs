//! Layouts, page tables and start info of PV guests.

use super::*;
use crate::addr::{GuestVirt, MachineAddr, Mfn};
use crate::evtchn::EvtchnPort;
use crate::image::{Notes, Segment, Width};
use abi::pv_start::StartInfo;
use alloc::string::{String, ToString};
use proptest::prelude::*;

const BASE: u64 = 0xffff_ffff_8000_0000;
const P2M_AT: u64 = 0x80_0000_0000;
const MIB: u64 = 256;

/// A kernel like Debian's: 16 MiB to 62 MiB, entered near its end, the ramdisk by number, the P2M list apart.
fn linux() -> Elf {
    let segment = |paddr: u64, mem_len: u64| Segment { paddr, vaddr: BASE + paddr, file: 0..mem_len as usize, mem_len };
    Elf {
        width: Width::Bits64,
        entry: 0x100_0000,
        segments: alloc::vec![segment(0x100_0000, 0x182_6634), segment(0x304_e000, 0xdb_2000)],
        notes: Notes {
            entry: Some(BASE + 0x304_e1c0),
            virt_base: Some(BASE),
            paddr_offset: Some(0),
            init_p2m: Some(P2M_AT),
            mod_start_pfn: Some(1),
            supported_features: Some(0x8801),
            features: Some("!writable_page_tables|pae_pgdir_above_4gb".to_string()),
            loader: Some("generic".to_string()),
            guest_os: Some("linux".to_string()),
            xen_version: Some("xen-3.0".to_string()),
            ..Notes::default()
        },
    }
}

fn guest(kernel: &Elf, nr_pages: u64) -> Guest<'_> {
    Guest { kernel, ramdisk_len: Some(0x12_3456), cmdline: "console=hvc0", nr_pages, is_initial: false }
}

fn error(kernel: &Elf) -> String {
    Start::build(&guest(kernel, 256 * MIB)).unwrap_err().to_string()
}

/// Frames of the machine in another order than the guest's.
fn mfn(pfn: Pfn) -> Mfn {
    Mfn::new(0x10_0000 - pfn.raw())
}

/// What a walk of the first page tables finds at an address: the frame of the guest and whether it can be written.
fn walk(layout: &Layout, address: u64) -> Option<(Pfn, bool)> {
    let mut at = layout.root();
    for level in [4, 3, 2, 1] {
        let table = layout.tables.iter().find(|table| table.pfn == at).expect("a table");
        assert_eq!(table.level, level);
        let entry = layout.entry(table, ((address >> (3 + 9 * level)) & 511) as usize, mfn);
        if entry & 1 == 0 {
            return None;
        }
        assert_eq!(entry & 4 != 0, level > 1, "only tables have the user bit");
        let pfn = Pfn::new(0x10_0000 - (entry >> 12 & 0xff_ffff_ffff));
        if level == 1 {
            return Some((pfn, entry & 2 != 0));
        }
        at = pfn;
    }
    None
}

#[test]
fn everything_lies_where_xen_h_says_for_a_kernel_like_linux() {
    let kernel = linux();
    let start = Start::build(&guest(&kernel, 256 * MIB)).unwrap();
    let layout = &start.layout;
    let kernel_end = 0x3e00;
    assert_eq!(layout.start_info, Pfn::new(kernel_end));
    assert_eq!(layout.rings, Some([Pfn::new(kernel_end + 1), Pfn::new(kernel_end + 2)]));
    // 64 MiB and what stands behind them end at 64 or 68 MiB: an L4, L3, L2 and 34 L1.
    assert_eq!(layout.page_tables, Frames { first: Pfn::new(kernel_end + 3), count: 3 + 32 });
    assert_eq!(layout.stack, Pfn::new(kernel_end + 3 + 35));
    assert_eq!(layout.mapped, 64 * MIB);
    assert_eq!(layout.ramdisk, Some(Frames { first: Pfn::new(64 * MIB), count: 0x124 }));
    // 65,536 frames: 128 pages of list, and an L3, an L2 and an L1 for them.
    assert_eq!(layout.p2m, Frames { first: Pfn::new(64 * MIB + 0x124), count: 128 });
    assert_eq!(layout.p2m_apart, Some(Frames { first: layout.p2m.first, count: 128 + 3 }));
    assert_eq!(layout.p2m_at, GuestVirt::new(P2M_AT));
    assert_eq!(start.copies.len(), 3);
    assert_eq!(start.copies[2].to, GuestPhys::new((64 * MIB) << 12));
    assert_eq!(start.hypercall_page, None);
}

#[test]
fn the_first_registers_are_xens() {
    let start = Start::build(&guest(&linux(), 256 * MIB)).unwrap();
    let expected = Regs {
        rip: BASE + 0x304_e1c0,
        cs: 0xe033,
        rflags: 0x202,
        rsp: start.layout.address(start.layout.stack).raw() + 4096,
        ss: 0xe02b,
        rsi: start.layout.address(start.layout.start_info).raw(),
        ..Regs::default()
    };
    assert_eq!(start.registers, expected);
}

#[test]
fn a_kernel_without_wishes_has_ramdisk_and_list_within_the_mapping() {
    let mut kernel = linux();
    (kernel.notes.init_p2m, kernel.notes.mod_start_pfn) = (None, None);
    let start = Start::build(&guest(&kernel, 256 * MIB)).unwrap();
    let layout = &start.layout;
    assert_eq!(layout.ramdisk, Some(Frames { first: Pfn::new(0x3e00), count: 0x124 }));
    assert_eq!(layout.p2m, Frames { first: Pfn::new(0x3f24), count: 128 });
    assert_eq!((layout.p2m_apart, layout.p2m_at), (None, GuestVirt::new(BASE + 0x3f2_4000)));
    assert_eq!(layout.start_info, Pfn::new(0x3fa4));
    let info = start.start_info(&guest(&kernel, 256 * MIB), &shared());
    assert_eq!((info.mod_start, info.flags, info.nr_p2m_frames), (BASE + 0x3e0_0000, 0, 0));
}

#[test]
fn page_tables_are_mapped_read_only_and_the_rest_writable() {
    for init_p2m in [Some(P2M_AT), None, Some(BASE - (1 << 30)), Some(BASE - (512 << 10))] {
        let mut kernel = linux();
        kernel.notes.init_p2m = init_p2m;
        let layout = Start::build(&guest(&kernel, 256 * MIB)).unwrap().layout;
        for n in 0..layout.mapped {
            let writable = !layout.page_tables.contains(Pfn::new(n));
            assert_eq!(walk(&layout, BASE + n * 4096), Some((Pfn::new(n), writable)), "{n:#x}");
        }
        for n in 0..layout.p2m.count {
            let pfn = Pfn::new(layout.p2m.first.raw() + n);
            assert_eq!(walk(&layout, layout.p2m_at.raw() + n * 4096), Some((pfn, true)), "{n:#x}");
        }
        assert_eq!(walk(&layout, BASE.wrapping_add(layout.mapped * 4096)), None);
        assert_eq!(walk(&layout, BASE - (600 << 10)), None);
        assert!(layout.tables.is_sorted_by_key(Table::key));
        // No table is mapped but those of the mapping itself, and those read-only.
        let stray = layout.tables.iter().filter(|table| !layout.page_tables.contains(table.pfn));
        assert!(stray.clone().all(|table| table.pfn.raw() >= layout.mapped && !layout.p2m.contains(table.pfn)));
        assert_eq!(layout.p2m_apart.map_or(0, |apart| apart.count - layout.p2m.count), stray.count() as u64);
    }
}

#[test]
fn an_address_for_the_list_that_xen_passes_over_puts_it_into_the_mapping() {
    for at in [BASE, P2M_AT + 8, u64::MAX] {
        let mut kernel = linux();
        kernel.notes.init_p2m = Some(at);
        assert_eq!(Start::build(&guest(&kernel, 256 * MIB)).unwrap().layout.p2m_apart, None);
    }
}

fn shared() -> Shared {
    Shared {
        shared_info: MachineAddr::new(0x1234_5000),
        store: Ring { mfn: Mfn::new(0x77), port: None },
        console: Ring { mfn: Mfn::new(0x88), port: Some(EvtchnPort::new(2)) },
    }
}

#[test]
fn the_start_info_says_what_the_layout_is() {
    let kernel = linux();
    let guest = guest(&kernel, 256 * MIB);
    let start = Start::build(&guest).unwrap();
    let StartInfo { magic, cmd_line, nr_pages, flags, .. } = start.start_info(&guest, &shared());
    assert_eq!(&magic[..15], b"xen-3.0-x86_64\0");
    assert_eq!(&cmd_line[..13], b"console=hvc0\0");
    assert_eq!((nr_pages, flags), (256 * MIB, 8));
    let info = start.start_info(&guest, &shared());
    assert_eq!((info.shared_info, info.store_mfn, info.store_evtchn), (0x1234_5000, 0x77, 0));
    assert_eq!((info.console_mfn, info.console_evtchn), (0x88, 2));
    assert_eq!((info.pt_base, info.nr_pt_frames), (BASE + 0x3e0_3000, 35));
    assert_eq!((info.mfn_list, info.mod_start, info.mod_len), (P2M_AT, 64 * MIB, 0x12_3456));
    assert_eq!((info.first_p2m_pfn, info.nr_p2m_frames), (64 * MIB + 0x124, 131));
}

#[test]
fn the_initial_domain_has_no_rings_and_two_flags_more() {
    let kernel = linux();
    let guest = Guest { is_initial: true, ..guest(&kernel, 256 * MIB) };
    let start = Start::build(&guest).unwrap();
    assert_eq!(start.layout.rings, None);
    assert_eq!(start.layout.page_tables.first, Pfn::new(0x3e01));
    let none = Ring { mfn: Mfn::new(0), port: None };
    let info = start.start_info(&guest, &Shared { store: none, console: none, ..shared() });
    assert_eq!((info.flags, info.console_mfn, info.console_evtchn), (0b1011, 0, 0));
}

#[test]
fn a_long_command_line_is_cut_as_xen_cuts_it() {
    let kernel = linux();
    let long = "x".repeat(1024);
    let guest = Guest { cmdline: &long, ..guest(&kernel, 256 * MIB) };
    let info = Start::build(&guest).unwrap().start_info(&guest, &shared());
    assert_eq!(info.cmd_line.iter().position(|&byte| byte == 0), Some(1023));
    assert!(!fits(&long) && fits(&long[1..]));
}

#[test]
fn a_page_of_hypercalls_has_code_for_each_number_and_iret_is_another() {
    let mut kernel = linux();
    kernel.notes.hypercall_page = Some(BASE + 0x100_1000);
    assert_eq!(Start::build(&guest(&kernel, 256 * MIB)).unwrap().hypercall_page, Some(Pfn::new(0x1001)));
    let page = hypercall_page();
    let code = |n: usize| &page[32 * n..32 * n + 16];
    assert_eq!(code(18), [0x51, 0x41, 0x53, 0xb8, 18, 0, 0, 0, 0x0f, 0x05, 0x41, 0x5b, 0x59, 0xc3, 0xcc, 0xcc]);
    assert_eq!(code(23), [0x51, 0x41, 0x53, 0x50, 0xb8, 23, 0, 0, 0, 0x0f, 0x05, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc]);
    assert_eq!(page[127 * 32 + 4], 127);
}

#[test]
fn a_kernel_that_is_none_for_pv_is_refused_with_what_it_lacks() {
    let with = |change: &dyn Fn(&mut Elf)| {
        let mut kernel = linux();
        change(&mut kernel);
        error(&kernel)
    };
    assert!(with(&|k| (k.notes.entry, k.notes.virt_base) = (None, None)).contains("CONFIG_XEN_PV=y"));
    assert!(with(&|k| k.width = Width::Bits32).contains("32-bit"));
    assert!(with(&|k| k.notes.xen_version = None).contains("XEN_VERSION"));
    assert!(with(&|k| (k.notes.loader, k.notes.guest_os) = (None, None)).contains("LOADER"));
    assert!(with(&|k| k.notes.features = Some("!supervisor_mode_kernel".to_string())).contains("supervisor_mode"));
    assert!(with(&|k| k.notes.entry = Some(BASE)).contains("none of its segments"));
    assert!(with(&|k| k.notes.virt_base = Some(BASE + 1)).contains("VIRT_BASE"));
    assert!(with(&|k| k.notes.hypercall_page = Some(BASE - 4096)).contains("HYPERCALL_PAGE"));
    assert!(with(&|k| k.notes.paddr_offset = Some(0x200_0000)).contains("PADDR_OFFSET"));
}

#[test]
fn only_a_kernel_with_the_feature_can_be_the_initial_domain() {
    let mut kernel = linux();
    let guest = |kernel: &Elf| Start::build(&Guest { is_initial: true, ..guest(kernel, 256 * MIB) });
    assert!(guest(&kernel).is_ok());
    kernel.notes.supported_features = Some(0x8001);
    assert!(guest(&kernel).unwrap_err().to_string().contains("CONFIG_XEN_DOM0=y"));
    kernel.notes.supported_features = None;
    assert!(guest(&kernel).is_ok());
}

#[test]
fn memory_that_is_too_small_is_refused_with_how_much_is_needed() {
    let kernel = linux();
    for mib in 0..65 {
        let error = Start::build(&guest(&kernel, mib * MIB)).unwrap_err();
        assert!(matches!(error, PvError::NoRoom { has, .. } if has == mib * MIB), "{mib}: {error:?}");
    }
    let error = Start::build(&guest(&kernel, 40 * MIB)).unwrap_err().to_string();
    assert_eq!(error, "memory is too small: with the kernel it takes 63 MiB and the domain has 40 MiB; raise memory=");
    assert!(Start::build(&guest(&kernel, 66 * MIB)).is_ok());
}

#[test]
fn a_mapping_never_reaches_the_hypervisors_addresses_or_the_last_one() {
    let mut kernel = linux();
    kernel.notes.init_p2m = None;
    for base in [0, 0x7fff_fd00_0000, 0xffff_8000_0000_0000, 0xffff_87ff_f000_0000, 0xffff_7fff_f000_0000, !0xff_ffff] {
        kernel.notes.virt_base = Some(base);
        kernel.notes.entry = Some(base.wrapping_add(0x304_e1c0));
        let start = Start::build(&guest(&kernel, 256 * MIB));
        assert_eq!(start.is_ok(), base == 0, "{base:#x}");
    }
    kernel.notes.virt_base = Some(0xffff_8800_0000_0000);
    kernel.notes.entry = Some(0xffff_8800_0304_e1c0);
    assert!(Start::build(&guest(&kernel, 256 * MIB)).is_ok());
}

#[test]
fn a_list_that_would_reach_the_mapping_or_the_hole_is_refused() {
    let mut kernel = linux();
    for at in [BASE - 4096, 0xffff_8000_0000_0000, 0x7fff_ffff_f000] {
        kernel.notes.init_p2m = Some(at);
        assert!(error(&kernel).contains("P2M list"), "{at:#x}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_two_elements_share_a_frame_and_all_lie_within_the_memory(
        paddr in 0_u64..0x400_0000, len in 1_u64..0x400_0000, ramdisk in 0_u64..0x400_0000, by_pfn: bool, apart: bool,
        pages in 0_u64..200_000, is_initial: bool
    ) {
        let mut kernel = linux();
        kernel.segments = alloc::vec![Segment { paddr, vaddr: 0, file: 0..1, mem_len: len }];
        kernel.notes.entry = Some(BASE + paddr);
        kernel.notes.mod_start_pfn = by_pfn.then_some(1);
        kernel.notes.init_p2m = apart.then_some(P2M_AT);
        let guest = Guest { ramdisk_len: Some(ramdisk), is_initial, ..guest(&kernel, pages) };
        let Ok(Start { layout, .. }) = Start::build(&guest) else { return Ok(()) };
        let page = |pfn: Pfn| Frames { first: pfn, count: 1 };
        let mut parts = alloc::vec![
            Frames { first: Pfn::new(0), count: (paddr + len).div_ceil(4096) },
            page(layout.start_info), page(layout.stack), layout.page_tables, layout.p2m,
        ];
        parts.extend(layout.ramdisk);
        parts.extend(layout.rings.into_iter().flatten().map(page));
        parts.extend(layout.tables.iter().filter(|t| !layout.page_tables.contains(t.pfn)).map(|t| page(t.pfn)));
        parts.sort_by_key(|part| (part.first.raw(), part.count));
        for pair in parts.windows(2) {
            prop_assert!(pair[0].end() <= pair[1].first.raw());
        }
        prop_assert!(parts.last().unwrap().end() <= pages);
        prop_assert!(layout.mapped <= pages && layout.mapped * 4096 % (4 << 20) == 0);
        prop_assert!(layout.mapped - layout.stack.raw() > 128);
    }

    #[test]
    fn no_notes_make_a_panic(
        entry: Option<u64>, virt_base: Option<u64>, paddr_offset: Option<u64>, init_p2m: Option<u64>,
        hypercall_page: Option<u64>, paddr: u64, len in 1_u64.., pages: u64, ramdisk_len: Option<u64>
    ) {
        let mut kernel = linux();
        let mem_len = len.min(u64::MAX - paddr).max(1);
        prop_assume!(paddr.checked_add(mem_len).is_some());
        kernel.segments = alloc::vec![Segment { paddr, vaddr: 0, file: 0..1, mem_len }];
        kernel.notes = Notes { entry, virt_base, paddr_offset, init_p2m, hypercall_page, ..kernel.notes };
        let _ = Start::build(&Guest { ramdisk_len, ..guest(&kernel, pages) });
        let _ = Start::build(&Guest { ramdisk_len, ..guest(&kernel, pages % (1 << 20)) });
    }
}

#[test]
fn the_initial_domains_note_of_the_pae_mode_is_heeded() {
    let extended = 1 << abi::xen::VMASST_TYPE_PAE_EXTENDED_CR3;
    for (mode, is_initial, assists, magic) in [
        (None, true, 0, "xen-3.0-x86_64"),
        (Some("yes"), true, extended, "xen-3.0-x86_64p"),
        (Some("bimodal"), true, 0, "xen-3.0-x86_64p"),
        (Some("no"), true, 0, "xen-3.0-x86_64"),
        (Some("yes"), false, 0, "xen-3.0-x86_64"),
    ] {
        let mut kernel = linux();
        kernel.notes.pae_mode = mode.map(String::from);
        let guest = Guest { is_initial, ..guest(&kernel, 256 * MIB) };
        let start = Start::build(&guest).expect("a kernel like Debian's");
        let none = Ring { mfn: Mfn::new(0), port: None };
        let shared = Shared { shared_info: MachineAddr::new(0x1000), store: none, console: none };
        let info = start.start_info(&guest, &shared);
        let written = info.magic.split(|&byte| byte == 0).next().expect("a text");
        assert_eq!((start.assists, written), (assists, magic.as_bytes()), "{mode:?} {is_initial}");
    }
}
