//! Writable uses of frames, and the end of a reference. None of this needs a lock: grants, copies and the
//! hypervisor's own uses of a guest's memory come from any CPU.

use abi::errno::Errno;

use super::validate::Walk;
use super::{Entries, HYPERVISOR, Memory, Mmu, Stop};
use crate::addr::Mfn;
use crate::ids::DomId;
use crate::page::{Effect, Type, TypeRefused};

/// Takes a reference to a frame of `owner`, and a writable use.
///
/// `is_foreign`: the frame will be mapped by another domain than its owner. Refused while the frame is a page table or
/// descriptors, with `EBUSY`; a page table that was left partial is undone by [`Mmu::get_writable`].
pub fn get_writable<M: Memory>(memory: &mut M, mfn: Mfn, owner: DomId, is_foreign: bool) -> Result<(), Errno> {
    let frame = memory.frame(mfn).ok_or(Errno::EINVAL)?;
    if owner == HYPERVISOR || frame.get_owned(owner).is_err() {
        return Err(Errno::EINVAL);
    }
    if is_foreign {
        frame.note_foreign();
    }
    get_writable_type(memory, frame).map_err(|_| {
        put_page(memory, mfn);
        Errno::EBUSY
    })
}

/// Gives back what [`get_writable`] took. Whatever mapping it was for is gone.
pub fn put_writable<M: Memory>(memory: &mut M, mfn: Mfn) {
    if let Some(frame) = memory.frame(mfn) {
        put_type(memory, frame, Type::Writable);
        put_page(memory, mfn);
    }
}

/// Drops a reference to a frame, whose mapping, if it was for one, is gone. The last one frees the frame.
pub fn put_page<M: Memory>(memory: &mut M, mfn: Mfn) {
    let Some(frame) = memory.frame(mfn) else { return };
    // Processors may know the frame for some time yet. The owner, when it gives up its own reference, sees to it that
    // they forget; after that, whoever drops one of the rest leaves word.
    if !frame.count().is_allocated() {
        frame.stamp(memory.stamp());
    }
    let effect = frame.put();
    debug_assert!(effect.is_ok(), "a reference that was taken can be dropped: {mfn}, {effect:?}");
    if let Ok(Effect::Free { owner }) = effect {
        free(memory, mfn, frame, owner);
    }
}

pub(super) fn free<M: Memory>(memory: &mut M, mfn: Mfn, frame: M::Record, owner: DomId) {
    let stamp = frame.type_word().stamp();
    frame.forget_type();
    memory.free(mfn, owner, stamp);
}

/// Takes a writable use of a frame to which the caller has a reference.
pub(super) fn get_writable_type<M: Memory>(memory: &mut M, frame: M::Record) -> Result<(), TypeRefused> {
    loop {
        match frame.get_type(Type::Writable) {
            Err(TypeRefused::Unused) => {}
            answer => return answer,
        }
        let seen = frame.type_word();
        // In use by now: it is asked for again.
        let Ok((next, flush)) = seen.claim(Type::Writable) else { continue };
        // Somebody else may use and leave it meanwhile, with a later stamp: then the word is not what was seen.
        if let Some(stamp) = flush {
            memory.flush_since(stamp);
        }
        if frame.exchange_type(seen, next) {
            return Ok(());
        }
    }
}

/// Ends a use that is not the last one of a page table.
pub(super) fn put_type<M: Entries>(memory: &M, frame: M::Record, kind: Type) {
    let effect = frame.put_type(kind, memory.stamp());
    debug_assert!(effect.is_ok(), "a use that was taken can be ended: {effect:?}, {:?}", frame.type_word());
}

impl<M: Memory> Mmu<'_, M> {
    /// Takes a reference to a frame of `owner`, and a writable use of it.
    pub fn get_writable(&mut self, mfn: Mfn, owner: DomId) -> Result<(), Stop> {
        self.finish()?;
        if owner == self.domain && self.own(mfn)?.type_word().is_partial() {
            self.undo(mfn)?;
        }
        Ok(get_writable(self.memory, mfn, owner, owner != self.domain)?)
    }

    /// Gives back what [`Mmu::get_writable`] took.
    pub fn put_writable(&mut self, mfn: Mfn) {
        put_writable(self.memory, mfn);
    }

    /// Takes a writable use of a frame to which the caller has a reference. A page table of the domain's own that was
    /// left partial is undone, unless it is in `walk`.
    pub(super) fn get_writable_type(&mut self, mfn: Mfn, frame: M::Record, walk: &Walk) -> Result<(), Stop> {
        loop {
            match get_writable_type(self.memory, frame) {
                Ok(()) => return Ok(()),
                Err(TypeRefused::Partial) if self.own(mfn).is_ok() && !walk.contains(mfn) => self.undo(mfn)?,
                Err(_) => return Err(Errno::EBUSY.into()),
            }
        }
    }
}
