//! LZ4's legacy frame, as `lz4 -l` writes it and Linux uses it: a magic number, then blocks behind their sizes.
//!
//! Each block stands alone and becomes 8 MiB, the last one less. Nothing is needed beside the result.

use super::Fault;
use crate::image::le32;
use lz4_flex::block::{DecompressError, decompress_into};

const MAGIC: u32 = 0x184c_2102;
const BLOCK: usize = 8 << 20;

/// Unpacks `stream` into `out` and says how many bytes came out.
pub(super) fn unpack(stream: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    let mut rest = stream;
    let mut done = 0;
    while let Some(word) = le32(rest, 0) {
        rest = &rest[4..];
        // A new frame may follow at any place where a block could.
        if word == MAGIC {
            continue;
        }
        let block = rest.get(..word as usize).ok_or_else(|| Fault::corrupt("a block ends after the stream"))?;
        rest = &rest[block.len()..];
        let room = (out.len() - done).min(BLOCK);
        done += decompress_into(block, &mut out[done..done + room]).map_err(|why| match why {
            DecompressError::OutputTooSmall { .. } if room < BLOCK => Fault::Longer,
            why => Fault::corrupt(why),
        })?;
    }
    if rest.is_empty() { Ok(done) } else { Err(Fault::corrupt("bytes are left after the last block")) }
}
