//! From the bytes of a boot module to a guest kernel that can be loaded.
//!
//! ```text
//! inspect ── Elf ───────────────────────────────┐
//!         └─ Packed ── decompress into a buffer ┴─ Elf::parse ── segments, notes, entry
//! ```
//!
//! A kernel is an ELF file, a gzip'ed ELF file, or a bzImage that holds a compressed one (Linux,
//! Documentation/arch/x86/boot.rst). Decoding is the most memory that boot ever needs, so the caller brings the
//! buffer for the result, of exactly [`Packed::unpacked_len`] bytes, and several domains can share it. Beside it
//! gzip and LZ4 need next to nothing from the heap, xz needs its dictionary (32 MiB) and zstd the next power of two
//! above the result. A heap that cannot give it makes an error, not a panic.

mod bzimage;
mod elf;
mod error;
mod notes;
#[cfg(test)]
mod samples;
mod unpack;

pub use elf::{Elf, Segment, Width};
pub use error::ImageError;
pub use notes::Notes;
pub use unpack::{Format, Packed, decompress};

/// What a boot module holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An ELF file as it is.
    Elf,
    /// A compressed ELF file, alone or within a bzImage.
    Packed(Packed),
}

/// Says what kind of kernel `module` is and how large it becomes.
///
/// # Errors
/// [`ImageError`] when it is no kernel, is cut short, is compressed in an unknown way, or would
/// unpack to more than `limit` bytes.
pub fn inspect(module: &[u8], limit: u64) -> Result<Kind, ImageError> {
    if module.starts_with(b"\x7fELF") {
        return Ok(Kind::Elf);
    }
    if module.starts_with(unpack::GZIP_MAGIC) {
        return Ok(Kind::Packed(Packed::find(module, 0..module.len(), limit)?));
    }
    match bzimage::payload(module)? {
        Some(payload) => Ok(Kind::Packed(Packed::find(module, payload, limit)?)),
        None => Err(ImageError::NotKernel),
    }
}

/// The little-endian 16-bit number at `offset`, if it lies within `bytes`.
fn le16(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The little-endian 32-bit number at `offset`, if it lies within `bytes`.
fn le32(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
mod tests;
