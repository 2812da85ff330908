//! Compressed kernels: which format, how large, and the way into each decoder.

mod gzip;
mod lz4;
mod xz;
mod zstd;

use super::{ImageError, le32};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

/// How a gzip stream begins (RFC 1952 2.3.1).
pub const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];

/// How a kernel is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// RFC 1952.
    Gzip,
    /// The .xz format, with LZMA2 and the x86 filter.
    Xz,
    /// RFC 8878.
    Zstd,
    /// The legacy frame of LZ4: blocks of 8 MiB behind their sizes.
    Lz4,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Lz4 => "LZ4",
        })
    }
}

/// A compressed kernel within a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// How it is compressed.
    pub format: Format,
    /// Bytes it becomes.
    pub unpacked_len: usize,
    /// Where in the module the compressed stream lies.
    stream: Range<usize>,
}

/// First bytes of what a Linux payload may be; `None` for a format that is not built in.
const MAGICS: [(&[u8], Option<Format>, &str); 8] = [
    (GZIP_MAGIC, Some(Format::Gzip), "gzip"),
    (b"\xfd7zXZ\0", Some(Format::Xz), "xz"),
    (&[0x28, 0xb5, 0x2f, 0xfd], Some(Format::Zstd), "zstd"),
    (&[0x02, 0x21, 0x4c, 0x18], Some(Format::Lz4), "LZ4"),
    (b"BZh", None, "bzip2"),
    (&[0x5d, 0x00, 0x00], None, "lzma"),
    (&[0x89, b'L', b'Z', b'O'], None, "lzo"),
    (b"\x7fELF", None, "nothing (CONFIG_KERNEL_UNCOMPRESSED)"),
];

/// Bytes of the size that follows the stream. gzip has it within the stream, as its last field.
const SIZE_LEN: usize = 4;

impl Packed {
    /// Recognises the compressed stream at `payload` in `module`, which ends in the size of the result.
    ///
    /// # Errors
    /// `UnknownCompression`, or `TooLarge` when the result would exceed `limit` bytes.
    pub(super) fn find(module: &[u8], payload: Range<usize>, limit: u64) -> Result<Self, ImageError> {
        let bytes = module.get(payload.clone()).unwrap_or_default();
        let Some(size_at) = bytes.len().checked_sub(SIZE_LEN) else {
            return Err(ImageError::Truncated { needs: (payload.start + SIZE_LEN) as u64, has: module.len() as u64 });
        };
        let unpacked = le32(bytes, size_at).expect("there are four bytes at size_at");
        let known = MAGICS.iter().find(|(magic, ..)| bytes.starts_with(magic));
        let Some(&(_, Some(format), _)) = known else {
            let magic = *bytes.first_chunk().expect("there are four bytes");
            return Err(ImageError::UnknownCompression { magic, name: known.map(|&(.., name)| name) });
        };
        if u64::from(unpacked) > limit {
            return Err(ImageError::TooLarge { unpacked: u64::from(unpacked), limit });
        }
        let end = if format == Format::Gzip { payload.end } else { payload.start + size_at };
        Ok(Self { format, unpacked_len: unpacked as usize, stream: payload.start..end })
    }
}

/// Unpacks the kernel that [`super::inspect`] found in `module` into `out`, of `packed.unpacked_len` bytes.
///
/// # Errors
/// [`ImageError`] when the data is damaged, the heap cannot hold the decoder, or the sizes do not agree; `out` then
/// holds nothing of use.
pub fn decompress(module: &[u8], packed: &Packed, out: &mut [u8]) -> Result<(), ImageError> {
    let needs = packed.unpacked_len as u64;
    if out.len() != packed.unpacked_len {
        return Err(ImageError::WrongBuffer { needs, has: out.len() as u64 });
    }
    let Some(stream) = module.get(packed.stream.clone()) else {
        return Err(ImageError::Truncated { needs: packed.stream.end as u64, has: module.len() as u64 });
    };
    let unpacked = match packed.format {
        Format::Gzip => gzip::unpack(stream, out),
        Format::Xz => xz::unpack(stream, out),
        Format::Zstd => zstd::unpack(stream, out),
        Format::Lz4 => lz4::unpack(stream, out),
    };
    match unpacked {
        Ok(found) if found == out.len() => Ok(()),
        Ok(found) => Err(ImageError::WrongLength { announced: needs, found: found as u64 }),
        Err(Fault::Longer) => Err(ImageError::WrongLength { announced: needs, found: needs + 1 }),
        Err(Fault::Corrupt(why)) => Err(ImageError::Corrupt { format: packed.format, why }),
        Err(Fault::NoMemory(bytes)) => Err(ImageError::NoMemory { format: packed.format, bytes: bytes as u64 }),
    }
}

/// Why a decoder stopped.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    /// The stream is damaged, in the decoder's words.
    Corrupt(String),
    /// The result does not fit in the buffer.
    Longer,
    /// The heap cannot give this many bytes.
    NoMemory(usize),
}

impl Fault {
    fn corrupt(why: impl ToString) -> Self {
        Self::Corrupt(why.to_string())
    }
}

/// An empty vector with room for `bytes`, without a panic when the heap is too small.
fn reserve(bytes: usize) -> Result<Vec<u8>, Fault> {
    let mut room = Vec::new();
    room.try_reserve_exact(bytes).map_err(|_| Fault::NoMemory(bytes))?;
    Ok(room)
}
