//! Where a bzImage keeps its compressed kernel (Linux, Documentation/arch/x86/boot.rst).

use super::{ImageError, le16, le32};
use core::ops::Range;

/// Offsets in the file of the setup header's fields.
mod field {
    /// Number of 512-byte sectors after the first that hold real-mode code.
    pub const SETUP_SECTS: usize = 0x1f1;
    /// Size of the protected-mode part in units of 16 bytes.
    pub const SYSSIZE: usize = 0x1f4;
    pub const BOOT_FLAG: usize = 0x1fe;
    pub const MAGIC: usize = 0x202;
    pub const VERSION: usize = 0x206;
    /// From the start of the protected-mode part.
    pub const PAYLOAD_OFFSET: usize = 0x248;
    pub const PAYLOAD_LENGTH: usize = 0x24c;
}

/// The first protocol that says where the payload is.
const PROTOCOL_2_08: u16 = 0x0208;
/// What `setup_sects` of zero stands for.
const DEFAULT_SETUP_SECTS: u8 = 4;

/// The payload's place in `file`, or `None` when it is no bzImage.
///
/// # Errors
/// `OldProtocol`, or `Truncated` when the file ends before the protected-mode part or the payload does.
pub fn payload(file: &[u8]) -> Result<Option<Range<usize>>, ImageError> {
    let magic = file.get(field::MAGIC..field::MAGIC + 4);
    if le16(file, field::BOOT_FLAG) != Some(0xaa55) || magic != Some(b"HdrS".as_slice()) {
        return Ok(None);
    }
    let Some(version) = le16(file, field::VERSION) else { return Err(truncated(file, field::VERSION as u64 + 2)) };
    if version < PROTOCOL_2_08 {
        return Err(ImageError::OldProtocol { version });
    }
    let (Some(&sectors), Some(syssize), Some(offset), Some(length)) = (
        file.get(field::SETUP_SECTS),
        le32(file, field::SYSSIZE),
        le32(file, field::PAYLOAD_OFFSET),
        le32(file, field::PAYLOAD_LENGTH),
    ) else {
        return Err(truncated(file, field::PAYLOAD_LENGTH as u64 + 4));
    };
    let sectors = if sectors == 0 { DEFAULT_SETUP_SECTS } else { sectors };
    let protected = (u64::from(sectors) + 1) * 512;
    let start = protected + u64::from(offset);
    let end = start + u64::from(length);
    let needs = end.max(protected + u64::from(syssize) * 16);
    if needs > file.len() as u64 {
        return Err(truncated(file, needs));
    }
    // Both are at most the file's length, so they fit.
    Ok(Some(start as usize..end as usize))
}

fn truncated(file: &[u8], needs: u64) -> ImageError {
    ImageError::Truncated { needs, has: file.len() as u64 }
}
