//! What a module may be, and what is said of one that cannot be loaded.

use super::samples::{self, BSS, ENTRY, PADDR, note};
use super::{Elf, Format, ImageError, Kind, Width, decompress, inspect};
use crate::pv::start as pv;
use crate::pvh::{Guest, Start};
use alloc::string::ToString;
use alloc::vec::Vec;
use proptest::prelude::*;

const LIMIT: u64 = 256 << 20;

/// Everything up to the bytes that `Elf::parse` takes.
fn unpack(module: &[u8]) -> Result<Vec<u8>, ImageError> {
    let packed = match inspect(module, LIMIT)? {
        Kind::Elf => return Ok(module.to_vec()),
        Kind::Packed(packed) => packed,
    };
    let mut out = alloc::vec![0; packed.unpacked_len];
    decompress(module, &packed, &mut out)?;
    Ok(out)
}

/// Something with repetitions near and far, longer than one block of any format.
fn long() -> Vec<u8> {
    (0..300_000_u32).map(|n| ((n / 7) ^ (n >> 9)) as u8).collect()
}

fn packed_samples() -> Vec<(Format, Vec<u8>, Vec<u8>)> {
    packed(long())
}

/// Each format with its stream and what that becomes.
fn packed(plain: Vec<u8>) -> Vec<(Format, Vec<u8>, Vec<u8>)> {
    alloc::vec![
        (Format::Gzip, samples::gzip(&plain), plain.clone()),
        (Format::Lz4, samples::lz4(&plain, 8 << 20), plain.clone()),
        (Format::Zstd, samples::zstd(&plain), plain),
        (Format::Xz, samples::XZ.to_vec(), samples::calls()),
    ]
}

#[test]
fn a_bzimage_of_each_format_unpacks_to_what_was_packed() {
    for (format, stream, plain) in packed_samples() {
        let module = samples::bzimage(format, &stream, plain.len());
        match inspect(&module, LIMIT).unwrap() {
            Kind::Packed(packed) => assert_eq!((packed.format, packed.unpacked_len), (format, plain.len())),
            other => panic!("{other:?}"),
        }
        assert!(unpack(&module).unwrap() == plain, "{format}");
    }
}

#[test]
fn lz4_of_several_blocks_and_frames_unpacks_to_all_of_them() {
    let long = alloc::vec![7; (8 << 20) + 5];
    let mut stream = samples::lz4(&long, 8 << 20);
    stream.extend_from_slice(&samples::lz4(b"more", 8 << 20));
    let mut plain = long;
    plain.extend_from_slice(b"more");
    assert!(unpack(&samples::bzimage(Format::Lz4, &stream, plain.len())).unwrap() == plain);
}

#[test]
fn a_gzipped_elf_file_unpacks_and_parses() {
    let file = unpack(&samples::gzip(&samples::elf())).unwrap();
    assert_eq!(Elf::parse(&file).unwrap().pvh_entry(), Ok(ENTRY));
}

#[test]
fn an_elf_file_gives_its_segments_and_its_entry() {
    let file = samples::elf();
    assert_eq!(inspect(&file, LIMIT), Ok(Kind::Elf));
    let elf = Elf::parse(&file).unwrap();
    assert_eq!((elf.width, elf.entry), (Width::Bits64, 0xffff_ffff_8100_0000));
    assert_eq!(elf.segments.len(), 1);
    let segment = &elf.segments[0];
    assert_eq!((segment.paddr, segment.file.clone()), (PADDR, 0..file.len()));
    assert_eq!(segment.end(), PADDR + file.len() as u64 + BSS);
}

#[test]
fn every_note_of_xen_is_read_with_its_kind_of_value() {
    let mut bytes = Vec::new();
    for (kind, value) in [(18, 0x100_0000_u64), (1, 1), (2, 2), (3, 3), (4, 4), (12, 12), (14, 1), (15, 15), (17, 17)] {
        bytes.extend_from_slice(&note(kind, &value.to_le_bytes()));
    }
    bytes.extend_from_slice(&note(13, &[1_u64.to_le_bytes(), 2_u64.to_le_bytes()].concat()));
    for (kind, value) in [(5, "xen-3.0"), (6, "linux"), (7, "2.6"), (8, "generic"), (9, "yes"), (10, "!x|y")] {
        bytes.extend_from_slice(&note(kind, value.as_bytes()));
    }
    let notes = Elf::parse(&samples::elf_with(&bytes)).unwrap().notes;
    assert_eq!(notes.phys32_entry, Some(0x100_0000));
    assert_eq!((notes.entry, notes.hypercall_page, notes.virt_base), (Some(1), Some(2), Some(3)));
    assert_eq!((notes.paddr_offset, notes.hv_start_low, notes.init_p2m), (Some(4), Some(12), Some(15)));
    assert_eq!((notes.suspend_cancel, notes.supported_features), (Some(1), Some(17)));
    assert_eq!((notes.l1_mfn_valid, notes.mod_start_pfn), (Some((1, 2)), None));
    assert_eq!((notes.xen_version.as_deref(), notes.guest_os.as_deref()), (Some("xen-3.0"), Some("linux")));
    assert_eq!((notes.loader.as_deref(), notes.features.as_deref()), (Some("generic"), Some("!x|y")));
}

#[test]
fn a_kernel_without_the_note_has_no_pvh_entry_and_the_message_names_the_option() {
    let elf = Elf::parse(&samples::elf_with(&note(6, b"linux"))).unwrap();
    let error = elf.pvh_entry().unwrap_err();
    assert!(error.to_string().contains("XEN_ELFNOTE_PHYS32_ENTRY") && error.to_string().contains("CONFIG_PVH=y"));
}

#[test]
fn what_is_no_kernel_is_called_so() {
    for module in [b"".as_slice(), b"\x7f", b"name = \"web\"", &[0; 4096]] {
        assert_eq!(inspect(module, LIMIT), Err(ImageError::NotKernel));
    }
    assert!(ImageError::NotKernel.to_string().starts_with("not a kernel: neither ELF nor bzImage"));
}

#[test]
fn a_truncated_module_is_refused_with_both_sizes() {
    let (format, stream, plain) = packed_samples().swap_remove(0);
    let module = samples::bzimage(format, &stream, plain.len());
    let has = module.len() as u64 - 1;
    let error = inspect(&module[..module.len() - 1], LIMIT).unwrap_err();
    assert_eq!(error, ImageError::Truncated { needs: has + 1, has });
    let file = samples::elf();
    let error = Elf::parse(&file[..file.len() - 1]).unwrap_err();
    let (needs, has) = (file.len() as u64, file.len() as u64 - 1);
    assert_eq!(error, ImageError::Truncated { needs, has });
    assert!(error.to_string().contains(&alloc::format!("header says {needs} bytes, module has {has}")));
    for len in 0..samples::NOTES_AT {
        assert!(Elf::parse(&file[..len]).is_err(), "{len}");
    }
}

#[test]
fn an_old_protocol_and_an_unknown_compression_are_named() {
    let mut module = samples::bzimage(Format::Lz4, b"BZh91AY", 10);
    let error = inspect(&module, LIMIT).unwrap_err();
    assert!(error.to_string().contains("compressed with bzip2"), "{error}");
    module[0x206] = 7;
    assert_eq!(inspect(&module, LIMIT), Err(ImageError::OldProtocol { version: 0x0207 }));
}

#[test]
fn a_kernel_larger_than_the_limit_is_refused_before_anything_is_unpacked() {
    let (format, stream, plain) = packed_samples().swap_remove(1);
    let module = samples::bzimage(format, &stream, plain.len());
    let limit = plain.len() as u64 - 1;
    assert_eq!(inspect(&module, limit), Err(ImageError::TooLarge { unpacked: limit + 1, limit }));
}

#[test]
fn a_stream_that_unpacks_to_another_size_than_announced_is_refused() {
    for (format, stream, plain) in packed_samples().into_iter().skip(1) {
        for announced in [plain.len() - 1, plain.len() + 1, 0] {
            let error = unpack(&samples::bzimage(format, &stream, announced)).unwrap_err();
            assert!(matches!(error, ImageError::WrongLength { .. }), "{format} {announced}: {error}");
        }
    }
}

#[test]
fn a_damaged_checksum_is_noticed() {
    for (format, mut stream, plain) in packed_samples() {
        let at = match format {
            Format::Gzip => stream.len() - 8,
            Format::Xz => stream.len() - 28 - 4 - 4,
            Format::Zstd => stream.len() - 4,
            Format::Lz4 => continue,
        };
        stream[at] ^= 1;
        let error = unpack(&samples::bzimage(format, &stream, plain.len())).unwrap_err();
        assert!(matches!(error, ImageError::Corrupt { format: found, .. } if found == format), "{format}: {error}");
    }
}

#[test]
fn other_processors_and_object_files_are_refused() {
    let mut file = samples::elf();
    file[16] = 1;
    assert!(matches!(Elf::parse(&file), Err(ImageError::BadElf { .. })));
    file[18] = 183;
    assert_eq!(Elf::parse(&file), Err(ImageError::WrongMachine { machine: 183 }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_to_a_module_makes_a_panic(which in 0_usize..5, at in 0_usize..2000, byte: u8, cut in 0_usize..3000) {
        let mut module = match packed(samples::calls()).get(which) {
            Some((format, stream, plain)) => samples::bzimage(*format, stream, plain.len()),
            None => samples::elf(),
        };
        let at = at % module.len();
        module[at] = byte;
        module.truncate(module.len().saturating_sub(cut.saturating_sub(1000)));
        if let Ok(file) = unpack_below(&module, 1 << 20) {
            let _ = Elf::parse(&file);
        }
    }

    #[test]
    fn no_bytes_behind_the_elf_magic_make_a_panic(mut file in proptest::collection::vec(any::<u8>(), 20..400)) {
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        let _ = Elf::parse(&file);
        file[16..20].copy_from_slice(&[2, 0, 62, 0]);
        let _ = Elf::parse(&file);
    }
}

fn unpack_below(module: &[u8], limit: u64) -> Result<Vec<u8>, ImageError> {
    inspect(module, limit)?;
    unpack(module)
}

/// Debian's kernels, where `EUXEN_TEST_KERNELS` names a folder that has some.
#[test]
fn real_kernels_unpack_and_fit_in_a_small_pvh_guest() {
    let Some(folder) = std::env::var_os("EUXEN_TEST_KERNELS") else {
        std::println!("EUXEN_TEST_KERNELS is not set: no real kernel was tried");
        return;
    };
    let mut tried = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let module = std::fs::read(&path).unwrap();
        let kind = inspect(&module, LIMIT).unwrap();
        let file = unpack(&module).unwrap();
        let elf = Elf::parse(&file).unwrap();
        std::println!("{}: {kind:?}, {} bytes, {elf:x?}", path.display(), file.len());
        let (ramdisk_len, ram_bytes) = (Some(16 << 20), 256 << 20);
        let guest = Guest { kernel: &elf, ramdisk_len, cmdline: "console=hvc0", ram_bytes, vcpus: 4, flags: 0 };
        let start = Start::build(&guest).unwrap();
        assert_eq!(start.registers.regs.rip, u64::from(elf.pvh_entry().unwrap()));
        let cmdline = "console=hvc0";
        let guest = pv::Guest { kernel: &elf, ramdisk_len, cmdline, nr_pages: ram_bytes >> 12, is_initial: false };
        let start = pv::Start::build(&guest).unwrap();
        assert_eq!(Some(start.registers.rip), elf.notes.entry);
        tried += 1;
    }
    assert!(tried > 0, "EUXEN_TEST_KERNELS names a folder without kernels");
}
