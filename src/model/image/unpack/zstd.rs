//! zstd (RFC 8878), as Linux uses it: one frame with a window of up to 128 MiB and a checksum, without a size.
//!
//! The decoder keeps a window of its own and doubles it as it fills, which would hold half as much again while it
//! copies. The size of the result is known here and the window need not be larger, so the frame's header is replaced by
//! one that says so, and the decoder makes its window once.

use super::{Fault, reserve};
use alloc::vec::Vec;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use ruzstd::io::Read;

/// More than a block may overshoot before the decoder notices: 128 KiB, and one match of 128 KiB.
const OVERSHOOT: usize = 512 << 10;
/// What the decoder's window has above a power of two.
const WINDOW_SLACK: usize = 256 << 10;

/// Fields of the frame header's descriptor (RFC 8878 3.1.1.1.1).
mod descriptor {
    pub const CHECKSUM: u8 = 1 << 2;
    pub const RESERVED: u8 = 1 << 3;
    pub const SINGLE_SEGMENT: u8 = 1 << 5;
    /// A content size of four bytes.
    pub const SIZE_4: u8 = 2 << 6;
}

/// Unpacks `stream` into `out` and says how many bytes came out.
pub(super) fn unpack(stream: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    let (flags, header_len) = frame_header(stream).ok_or_else(|| Fault::corrupt("its header cannot be used"))?;
    let window = out.len().checked_add(OVERSHOOT).ok_or(Fault::Longer)?;
    let header = replacement(flags, window)?;
    // The decoder panics when the heap is too small for its window: see beforehand.
    drop(reserve(window.next_power_of_two().saturating_add(2 * WINDOW_SLACK))?);

    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(window as u64);
    // The first makes the decoder, the second its window.
    decoder.reset(header.as_slice()).map_err(Fault::corrupt)?;
    decoder.reset(header.as_slice()).map_err(Fault::corrupt)?;
    run(&mut decoder, &stream[header_len..], out)
}

fn run(decoder: &mut FrameDecoder, mut blocks: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    let mut done = 0;
    while !decoder.is_finished() {
        decoder.decode_blocks(&mut blocks, BlockDecodingStrategy::UptoBlocks(1)).map_err(Fault::corrupt)?;
        done += decoder.read(&mut out[done..]).map_err(Fault::corrupt)?;
        if decoder.can_collect() > 0 {
            return Err(Fault::Longer);
        }
    }
    match decoder.get_checksum_from_data() {
        Some(expected) if decoder.get_calculated_checksum() != Some(expected) => {
            Err(Fault::corrupt("its checksum is wrong"))
        }
        _ => Ok(done),
    }
}

/// The descriptor and the length of the frame's header, or `None` for one with a dictionary or cut short.
fn frame_header(stream: &[u8]) -> Option<(u8, usize)> {
    let flags = *stream.get(4)?;
    let single = flags & descriptor::SINGLE_SEGMENT != 0;
    if flags & (descriptor::RESERVED | 3) != 0 {
        return None;
    }
    let size_len = match flags >> 6 {
        0 => usize::from(single),
        n => 1 << n,
    };
    let len = 5 + usize::from(!single) + size_len;
    (stream.len() >= len).then_some((flags, len))
}

/// A header for one segment of `window` bytes.
fn replacement(flags: u8, window: usize) -> Result<Vec<u8>, Fault> {
    let size = u32::try_from(window).map_err(|_| Fault::Longer)?;
    let flags = descriptor::SIZE_4 | descriptor::SINGLE_SEGMENT | flags & descriptor::CHECKSUM;
    let mut header = alloc::vec![0x28, 0xb5, 0x2f, 0xfd, flags];
    header.extend_from_slice(&size.to_le_bytes());
    Ok(header)
}
