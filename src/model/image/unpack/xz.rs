//! xz, as Linux uses it: LZMA2 behind the x86 branch filter, with a 32 MiB dictionary and a CRC-32.
//!
//! The filter rewrites what leaves the dictionary, so the result cannot serve as the dictionary, which is
//! what the heap must hold beside it.

use super::{Fault, reserve};
use alloc::boxed::Box;
use alloc::vec::Vec;
use xz4rust::{XzDecoder, XzError, XzNextBlockResult};

/// The largest dictionary to make: `xz -9` takes 64 MiB.
const DICTIONARY_MAX: usize = 64 << 20;

/// Unpacks `stream` into `out` and says how many bytes came out.
pub(super) fn unpack(stream: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    // A first run without dictionary names the size that the stream needs.
    match run(Vec::new(), stream, out) {
        Err(XzError::DictionaryTooLarge(size)) => {
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            if size > DICTIONARY_MAX {
                return Err(Fault::NoMemory(size));
            }
            let mut dictionary = reserve(size)?;
            dictionary.resize(size, 0);
            length(run(dictionary, stream, out), out)
        }
        other => length(other, out),
    }
}

/// One call decodes all there is room for, as the whole stream is at hand. The decoder allocates nothing.
fn run(dictionary: Vec<u8>, stream: &[u8], out: &mut [u8]) -> Result<XzNextBlockResult, XzError> {
    let mut decoder: Box<XzDecoder<'static>> = XzDecoder::in_heap_with_alloc_dict(dictionary, 0);
    let mut used = 0;
    let mut done = 0;
    loop {
        let step = decoder.decode(&stream[used..], &mut out[done..])?;
        used += step.input_consumed();
        done += step.output_produced();
        match step {
            XzNextBlockResult::EndOfStream(..) => return Ok(XzNextBlockResult::EndOfStream(used, done)),
            _ if !step.made_progress() => return Ok(XzNextBlockResult::NeedMoreData(used, done)),
            _ => {}
        }
    }
}

fn length(result: Result<XzNextBlockResult, XzError>, out: &[u8]) -> Result<usize, Fault> {
    match result {
        Ok(XzNextBlockResult::EndOfStream(_, done)) => Ok(done),
        Ok(XzNextBlockResult::NeedMoreData(_, done)) if done == out.len() => Err(Fault::Longer),
        Ok(XzNextBlockResult::NeedMoreData(..)) | Err(XzError::NeedsLargerInputBuffer) => {
            Err(Fault::corrupt("it ends too early"))
        }
        Err(why) => Err(Fault::corrupt(why)),
    }
}
