//! gzip (RFC 1952): a header, a deflate stream, the checksum and the size of the result.
//!
//! The result itself is the window, so that only the decoder's state is on the heap, some 11 KiB.

use super::Fault;
use crate::image::le32;
use alloc::boxed::Box;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

/// Header flags (RFC 1952 2.3.1).
mod flag {
    pub const HCRC: u8 = 1 << 1;
    pub const EXTRA: u8 = 1 << 2;
    pub const NAME: u8 = 1 << 3;
    pub const COMMENT: u8 = 1 << 4;
    pub const RESERVED: u8 = 7 << 5;
}

const DEFLATE: u8 = 8;

/// Unpacks `stream` into `out` and says how many bytes came out.
pub(super) fn unpack(stream: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    let body = skip_header(stream).ok_or_else(|| Fault::corrupt("its header is cut short or not deflate's"))?;
    let mut state = Box::<DecompressorOxide>::default();
    let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, used, done) = decompress(&mut state, body, out, 0, flags);
    match status {
        TINFLStatus::Done => {}
        TINFLStatus::HasMoreOutput => return Err(Fault::Longer),
        TINFLStatus::FailedCannotMakeProgress => return Err(Fault::corrupt("it ends too early")),
        _ => return Err(Fault::corrupt("it is not a deflate stream")),
    }
    match le32(body, used) {
        Some(expected) if expected == crc32(&out[..done]) => Ok(done),
        Some(_) => Err(Fault::corrupt("its checksum is wrong")),
        None => Err(Fault::corrupt("it ends before its checksum")),
    }
}

/// What follows the header, or `None` when the header is cut short or asks for what nobody defined.
fn skip_header(stream: &[u8]) -> Option<&[u8]> {
    let (&[_, _, method, flags, ..], mut rest) = stream.split_first_chunk::<10>()?;
    if method != DEFLATE || flags & flag::RESERVED != 0 {
        return None;
    }
    if flags & flag::EXTRA != 0 {
        let (len, after) = rest.split_first_chunk()?;
        rest = after.get(usize::from(u16::from_le_bytes(*len))..)?;
    }
    for text in [flag::NAME, flag::COMMENT] {
        if flags & text != 0 {
            rest = &rest[rest.iter().position(|&byte| byte == 0)? + 1..];
        }
    }
    if flags & flag::HCRC != 0 { rest.get(2..) } else { Some(rest) }
}

/// The checksum of RFC 1952 8, a byte at a time.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    !bytes.iter().fold(!0, |crc: u32, &byte| TABLE[(crc as u8 ^ byte) as usize] ^ crc >> 8)
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let mut crc = n as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 != 0 { 0xedb8_8320 ^ crc >> 1 } else { crc >> 1 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_the_digits_is_the_one_in_every_catalogue() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn each_optional_field_of_the_header_is_skipped() {
        let mut stream = alloc::vec![0x1f, 0x8b, DEFLATE, 0x1e, 0, 0, 0, 0, 0, 3];
        stream.extend_from_slice(b"\x02\0xxname\0comment\0ccbody");
        assert_eq!(skip_header(&stream), Some(b"body".as_slice()));
    }
}
