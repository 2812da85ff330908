//! Kernels made for the tests.

use super::Format;
use alloc::vec::Vec;

/// Where the sample ELF file loads.
pub const PADDR: u64 = 0x10_0000;
/// The PVH entry of the sample ELF file.
pub const ENTRY: u32 = 0x10_0040;
/// Bytes of zeroes after the sample's own.
pub const BSS: u64 = 0x3000;
/// Where in the sample ELF file its notes begin.
pub const NOTES_AT: usize = 64 + 2 * 56;

/// A note of Xen's.
pub fn note(kind: u32, value: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for word in [4, value.len() as u32, kind] {
        note.extend_from_slice(&word.to_le_bytes());
    }
    note.extend_from_slice(b"Xen\0");
    note.extend_from_slice(value);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

/// A 64-bit ELF file with one segment, which is the whole file and [`BSS`], and these notes.
pub fn elf_with(notes: &[u8]) -> Vec<u8> {
    let len = (NOTES_AT + notes.len()) as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [0xffff_ffff_8100_0000_u64, 64, 0] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    file.extend_from_slice(&[0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 64, 0, 0, 0, 0, 0]);
    let load = [0, 0xffff_ffff_8000_0000 + PADDR, PADDR, len, len + BSS, 4096];
    let notes_at = NOTES_AT as u64;
    let note = [notes_at, 0, PADDR + notes_at, notes.len() as u64, notes.len() as u64, 4];
    for (kind, fields) in [(1_u32, load), (4, note)] {
        file.extend_from_slice(&kind.to_le_bytes());
        file.extend_from_slice(&7_u32.to_le_bytes());
        for field in fields {
            file.extend_from_slice(&field.to_le_bytes());
        }
    }
    file.extend_from_slice(notes);
    file
}

/// The sample ELF file with a PVH entry.
pub fn elf() -> Vec<u8> {
    elf_with(&note(18, &ENTRY.to_le_bytes()))
}

/// `bytes` as a gzip file.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let crc = bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 != 0 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 })
    });
    let mut file = alloc::vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    file.extend_from_slice(&miniz_oxide::deflate::compress_to_vec(bytes, 6));
    file.extend_from_slice(&(!crc).to_le_bytes());
    file.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    file
}

/// `bytes` in LZ4's legacy frame, its blocks of at most `block` bytes.
pub fn lz4(bytes: &[u8], block: usize) -> Vec<u8> {
    let mut file = alloc::vec![0x02, 0x21, 0x4c, 0x18];
    for chunk in bytes.chunks(block) {
        let packed = lz4_flex::block::compress(chunk);
        file.extend_from_slice(&(packed.len() as u32).to_le_bytes());
        file.extend_from_slice(&packed);
    }
    file
}

/// `bytes` as a zstd frame.
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// Calls to one target from many places, which the x86 filter makes all alike: what [`XZ`] becomes.
pub fn calls() -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < 2000 {
        let at = bytes.len() as u32;
        bytes.push(0xe8);
        bytes.extend_from_slice(&0x1000_u32.wrapping_sub(at + 5).to_le_bytes());
        bytes.extend_from_slice(&[0x48, 0x89, 0xc7, (at >> 3) as u8 & 3, 0x90]);
    }
    bytes
}

/// [`calls`] by `xz --x86 --lzma2=dict=32MiB --check=crc32`.
pub const XZ: &[u8] = &[
    0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x01, 0x69, 0x22, 0xde, 0x36, 0x02, 0x01, 0x04, 0x00, 0x21, 0x01, 0x1a,
    0x00, 0x01, 0xc9, 0x80, 0xb3, 0xe0, 0x07, 0xcf, 0x00, 0x2c, 0x5d, 0x00, 0x73, 0xff, 0xfd, 0xf0, 0x0c, 0x3f, 0xbe,
    0xac, 0xf9, 0x69, 0x19, 0x0c, 0x4e, 0x16, 0xd8, 0xa2, 0x0e, 0x0e, 0xd8, 0xbd, 0xb7, 0x15, 0xf0, 0x75, 0xbc, 0xdb,
    0x5e, 0x77, 0x1c, 0xe2, 0x1a, 0x2b, 0x96, 0xe4, 0xe1, 0x44, 0xd3, 0xcf, 0x6f, 0x79, 0xdd, 0x43, 0xc2, 0x00, 0x00,
    0x81, 0x62, 0x36, 0x73, 0x00, 0x01, 0x44, 0xd0, 0x0f, 0x00, 0x00, 0x00, 0xa8, 0xf3, 0x0a, 0x86, 0x3e, 0x30, 0x0d,
    0x8b, 0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 0x59, 0x5a,
];

/// A bzImage of protocol 2.15 around `stream`, which becomes `unpacked` bytes.
pub fn bzimage(format: Format, stream: &[u8], unpacked: usize) -> Vec<u8> {
    let mut payload = stream.to_vec();
    if format != Format::Gzip {
        payload.extend_from_slice(&(unpacked as u32).to_le_bytes());
    }
    let mut file = alloc::vec![0; 2 * 512 + 16];
    file[0x1f1] = 1;
    file[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    file[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
    file[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    file.extend_from_slice(&payload);
    file.resize(file.len().next_multiple_of(16), 0);
    let paragraphs = ((file.len() - 1024) / 16) as u32;
    file[0x1f4..0x1f8].copy_from_slice(&paragraphs.to_le_bytes());
    file
}
