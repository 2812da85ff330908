//! The frame table and the allocator over it: who owns each frame of RAM, and which are free.

use core::slice;
use core::sync::atomic::{AtomicU64, Ordering};

use model::addr::{MachineAddr, Mfn, PAGE_SIZE};
use model::ids::DomId;
use model::page::{Buddy, CountWord, Effect, Frame, FrameLinks, Refused};
use spin::Mutex;

use super::layout::{self, FRAME_TABLE};

static BUDDY: Mutex<Buddy> = Mutex::new(Buddy::new());
/// Frames that the table has records for.
static LEN: AtomicU64 = AtomicU64::new(0);

/// Who owns what the hypervisor itself uses (`DOMID_XEN` of `xen.h`).
pub const HYPERVISOR: DomId = DomId(0x7ff2);

/// Says that the table is mapped, with records for frames 0 up to `len`.
///
/// # Safety
/// The table is mapped at [`FRAME_TABLE`] for good, all zeros, writable wherever there is RAM.
pub unsafe fn open(len: u64) {
    LEN.store(len, Ordering::Release);
}

/// The records of all frames.
fn table() -> &'static [Frame] {
    let len = LEN.load(Ordering::Acquire) as usize;
    // SAFETY: `open` was told that so many records are mapped; zeros are valid records, and they are shared.
    unsafe { slice::from_raw_parts(FRAME_TABLE as *const Frame, len) }
}

/// The record of a frame; `None` beyond the end of RAM.
pub fn record(mfn: Mfn) -> Option<&'static Frame> {
    table().get(usize::try_from(mfn.raw()).ok()?)
}

/// How many frames have records.
pub fn count() -> u64 {
    LEN.load(Ordering::Acquire)
}

/// How many frames are free.
pub fn free_frames() -> u64 {
    BUDDY.lock().free_frames()
}

/// Makes frames of RAM free that nobody uses. What they hold counts as dirt.
pub fn add(first: Mfn, end: Mfn) {
    for raw in first.raw()..end.raw() {
        if let Some(frame) = record(Mfn::new(raw)) {
            // A frame in use is refused, and then it is a mistake to add it.
            frame.soil().expect("a frame that is added is not in use");
        }
    }
    BUDDY.lock().add_range(&mut FrameLinks(table()), first, end);
}

/// Takes `2^order` free frames, below frame `below` if given, zeroed, for `owner`, each with the owner's own reference.
pub fn allocate(owner: DomId, order: u8, below: Option<Mfn>) -> Option<Mfn> {
    let mut most = u64::MAX;
    allocate_part(owner, order, below, &mut most).expect("so many frames may be filled")
}

/// Frames that are taken in the same part in which some have been filled.
const TAKE_AT_ONCE: u64 = 512;

/// Not so many frames may be filled with zeros at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Again;

/// As [`allocate`], filling at most `most` frames with zeros, of which those that were are taken off. [`Again`]: what
/// was filled is free and stays so filled, and the allocator gives it to the next who asks for as much.
pub fn allocate_part(owner: DomId, order: u8, below: Option<Mfn>, most: &mut u64) -> Result<Option<Mfn>, Again> {
    let first = BUDDY.lock().allocate(&mut FrameLinks(table()), order, below);
    let Some(first) = first else { return Ok(None) };
    let frames = || (first.raw()..first.raw() + (1 << order)).map(Mfn::new);
    let before = *most;
    let mut is_clean = true;
    for mfn in frames() {
        let frame = record(mfn).expect("a frame that was free has a record");
        if !frame.count().is_dirty() {
            continue;
        }
        is_clean = *most > 0;
        if !is_clean {
            break;
        }
        *most -= 1;
        scrub(mfn);
        frame.scrubbed().expect("a frame that was free is not in use");
    }
    // To fill frames and to take very many are two parts, for who counts them.
    let is_bounded = before < 1 << order;
    if !is_clean || is_bounded && 1 << order > TAKE_AT_ONCE && *most < before {
        BUDDY.lock().free(&mut FrameLinks(table()), first, order);
        return Err(Again);
    }
    for mfn in frames() {
        let frame = record(mfn).expect("a frame that was free has a record");
        frame.allocate(owner).expect("a frame that was free and clean can be allocated");
    }
    Ok(Some(first))
}

/// Gives back a frame that [`allocate_part`] gave and nobody has written to.
pub fn release_untouched(mfn: Mfn) -> Result<(), Refused> {
    let frame = record(mfn).ok_or(Refused::Free)?;
    if let Effect::Free { .. } = frame.release()? {
        frame.scrubbed()?;
        BUDDY.lock().free(&mut FrameLinks(table()), mfn, 0);
    }
    Ok(())
}

/// Fills a frame that is not in use with zeros.
fn scrub(mfn: Mfn) {
    let words = layout::direct(mfn.base()).cast::<u64>();
    // SAFETY: the frame is RAM, mapped by the direct map, and nobody has a reference to it.
    unsafe { core::ptr::write_bytes(words, 0, PAGE_SIZE as usize / 8) };
}

/// Takes a reference to a frame, if `owner` owns it.
pub fn get_owned(mfn: Mfn, owner: DomId) -> Result<(), Refused> {
    record(mfn).ok_or(Refused::Free)?.get_owned(owner)
}

/// Drops a reference. Says whose frame became free, if it did.
pub fn put(mfn: Mfn) -> Option<DomId> {
    let effect = record(mfn).expect("a frame with a reference has a record").put();
    finish(mfn, effect.expect("a reference that was taken can be dropped"))
}

/// Drops the owner's own reference. Says whose frame became free, if it did; `Err` if the reference is gone already.
pub fn release(mfn: Mfn) -> Result<Option<DomId>, Refused> {
    let effect = record(mfn).ok_or(Refused::Free)?.release()?;
    Ok(finish(mfn, effect))
}

/// Gives a frame another owner; see [`model::page::CountWord::hand_over`].
pub fn hand_over(mfn: Mfn, from: DomId, to: DomId) -> Result<(), Refused> {
    record(mfn).ok_or(Refused::Free)?.hand_over(from, to)
}

/// Gives a frame to the allocator whose last reference was dropped through its record, by the one who was told so.
pub fn free(mfn: Mfn) {
    let frame = record(mfn).expect("a frame that had a reference has a record");
    assert!(frame.count() == CountWord::DIRTY, "a frame is freed once: {mfn}");
    BUDDY.lock().free(&mut FrameLinks(table()), mfn, 0);
}

fn finish(mfn: Mfn, effect: Effect) -> Option<DomId> {
    match effect {
        Effect::None => None,
        Effect::Free { owner } => {
            if let Some(frame) = record(mfn) {
                frame.forget_type();
            }
            BUDDY.lock().free(&mut FrameLinks(table()), mfn, 0);
            Some(owner)
        }
    }
}

/// Takes frames for the hypervisor's own use.
pub(super) fn take(order: u8, below: Option<Mfn>) -> Option<MachineAddr> {
    allocate(HYPERVISOR, order, below).map(Mfn::base)
}

/// Gives back `count` frames from `base` that [`take`] gave.
pub(crate) fn give_back(base: MachineAddr, count: u64) {
    for raw in base.frame().raw()..base.frame().raw() + count {
        release(Mfn::new(raw)).expect("a frame of the hypervisor's own is released once");
    }
}
