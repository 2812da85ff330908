//! A domain's memory: which frames it owns, and where it has them.
//!
//! A PV domain has no p2m: a guest frame is a machine frame, and how many it owns is counted in
//! [`crate::pv::PvDomain`].
//!
//! Each frame that a domain owns has the owner's own reference, and one more for each place in the p2m. Both are
//! dropped only after the flush that taking the frame out of the p2m asks for: an operation therefore gives back what
//! is to be [`dropped`](Dropped) by [`super::flush`].

use alloc::vec::Vec;

use abi::errno::Errno;
use machine::hw::Vendor;
use machine::mem::{GuestMemory, NestedTables, PinnedFrame, frames};
use model::addr::{Gfn, Mfn};
use model::ids::DomId;
use model::p2m::{Found, Kind, P2m, Refused, Size, Taken};
use model::page::Type;
use model::paging::Flush;
use model::pvh::MapEntry;

/// Frames that are filled with zeros before pending work is looked for.
pub const FILL_STEP: u64 = 128;

/// A domain's memory.
pub struct Memory {
    owner: DomId,
    /// Where it has its frames; none for a PV domain.
    p2m: Option<P2m>,
    /// Frames of RAM that it owns; of a translated domain.
    pages: u64,
    /// Frames of RAM that it may own.
    max_pages: u64,
    /// Frames that it owns for other ends: `shared_info`, the grant table. They are not given up with their place.
    special: Vec<Special>,
    /// At the domain's end: from this frame on so many were taken out of the p2m and are to be let go.
    taken: Option<(Mfn, u64)>,
    /// What `XENMEM_memory_map` tells.
    map: Vec<MapEntry>,
}

/// A frame for another end than RAM.
struct Special {
    mfn: Mfn,
    /// The last place that it was given. It has at most one, as in Xen: what the p2m has there decides.
    at: Option<Gfn>,
}

/// A frame taken out of the p2m, to be let go after the flush.
#[must_use]
pub struct Dropped {
    mfn: Mfn,
    /// With the owner's own reference.
    whole: bool,
}

impl Dropped {
    /// Drops the references.
    pub fn let_go(self) {
        frames::put(self.mfn);
        if self.whole {
            // Refused if a hostile guest has raced with itself to give the frame up twice: once is enough.
            let _ = frames::release(self.mfn);
        }
    }
}

impl Memory {
    /// No memory yet; `None` when there is none for the root table.
    pub fn new(owner: DomId, vendor: Vendor, largest: Size, max_pages: u64, map: Vec<MapEntry>) -> Option<Self> {
        let p2m = P2m::new(&mut NestedTables, vendor.nested(), largest)?;
        Some(Self { owner, p2m: Some(p2m), pages: 0, max_pages, special: Vec::new(), taken: None, map })
    }

    /// That of a PV domain.
    pub fn without_p2m(owner: DomId, max_pages: u64, map: Vec<MapEntry>) -> Self {
        Self { owner, p2m: None, pages: 0, max_pages, special: Vec::new(), taken: None, map }
    }

    /// The root of the nested page tables; none for a PV domain.
    pub fn root(&self) -> Option<Mfn> {
        self.p2m.as_ref().map(P2m::root)
    }
    /// Frames of RAM that it owns; of a translated domain.
    pub fn pages(&self) -> u64 {
        self.pages
    }
    /// Frames of RAM that it may own.
    pub fn max_pages(&self) -> u64 {
        self.max_pages
    }
    /// The highest guest frame that was ever there.
    pub fn max_gfn(&self) -> Gfn {
        self.p2m.as_ref().and_then(P2m::max_gfn).unwrap_or(Gfn::new(0))
    }
    /// What `XENMEM_memory_map` tells.
    pub fn map(&self) -> &[MapEntry] {
        &self.map
    }

    /// What a translated domain has at guest-physical addresses, while nobody else can change that.
    #[inline]
    pub fn guest(&mut self) -> Option<GuestMemory<'_>> {
        self.p2m.as_mut().map(GuestMemory::new)
    }

    /// The machine frame of a guest frame that is ordinary memory and may be read, or written too.
    #[inline]
    pub fn ram(&self, gfn: Gfn, for_writing: bool) -> Option<Mfn> {
        // A PV guest's frames have uses beside references: `pv::mmu` takes both.
        let entry = self.p2m.as_ref()?.get(&NestedTables, gfn).entry()?;
        (entry.kind.is_ram() && (!for_writing || entry.kind.is_writable())).then_some(entry.mfn)
    }

    /// Whether there is anything at a guest frame.
    pub fn is_hole(&self, gfn: Gfn) -> bool {
        self.p2m.as_ref().is_some_and(|p2m| matches!(p2m.get(&NestedTables, gfn), Found::Hole { .. }))
    }

    /// Adds `2^order` new frames of zeros at a place that is a hole. `false`: a bounded part of the work is done, and the
    /// same is to be asked for again.
    pub fn populate(&mut self, gfn: Gfn, order: u8) -> Result<bool, Errno> {
        let count = 1u64 << order;
        if self.pages + count > self.max_pages {
            return Err(Errno::ENOMEM);
        }
        if (0..count).any(|n| gfn.checked_add(n).is_none_or(|gfn| !self.is_hole(gfn))) {
            return Err(Errno::EINVAL);
        }
        let mut most = FILL_STEP;
        let Ok(mfn) = frames::allocate_part(self.owner, order, None, &mut most) else { return Ok(false) };
        let mfn = mfn.ok_or(Errno::ENOMEM)?;
        match self.place(gfn, mfn, order) {
            Ok(flush) => {
                debug_assert_eq!(flush, Flush::None, "a hole has no translations");
                self.pages += count;
                Ok(true)
            }
            Err((errno, done)) => {
                self.pages += done;
                for n in done..count {
                    let _ = frames::release(Mfn::new(mfn.raw() + n));
                }
                Err(errno)
            }
        }
    }

    /// Puts frames of the domain's own at a place, with a reference for each. If it fails, the first so many frames are
    /// there all the same.
    fn place(&mut self, gfn: Gfn, mfn: Mfn, order: u8) -> Result<Flush, (Errno, u64)> {
        let frame = |n| Mfn::new(mfn.raw() + n);
        for n in 0..1 << order {
            if frames::get_owned(frame(n), self.owner).is_err() {
                (0..n).for_each(|n| {
                    frames::put(frame(n));
                });
                return Err((Errno::EINVAL, 0));
            }
        }
        let p2m = self.p2m.as_mut().expect("only a translated domain has places");
        match p2m.set_entry(&mut NestedTables, gfn, order, mfn, Kind::RamRw) {
            Ok(step) => Ok(step.flush),
            Err(refused) => {
                let done = if let Refused::OutOfMemory(step) = refused { step.done } else { 0 };
                // What was placed before memory ran out stays placed, and keeps its references.
                (done..1 << order).for_each(|n| {
                    frames::put(frame(n));
                });
                Err((if let Refused::NoSuchGfn = refused { Errno::EINVAL } else { Errno::ENOMEM }, done))
            }
        }
    }

    /// A frame of zeros for another end than RAM, pinned.
    pub fn new_special(&mut self) -> Result<PinnedFrame, Errno> {
        let mfn = frames::allocate(self.owner, 0, None).ok_or(Errno::ENOMEM)?;
        self.special.push(Special { mfn, at: None });
        if self.p2m.is_none() {
            // The hypervisor writes it as long as the domain is there, so it can be no page table.
            let frame = frames::record(mfn).ok_or(Errno::ENOMEM)?;
            frame.get_owned(self.owner).map_err(|_| Errno::ENOMEM)?;
            frame.get_type(Type::Writable).map_err(|_| Errno::ENOMEM)?;
        }
        PinnedFrame::get(mfn, self.owner).map_err(|_| Errno::ENOMEM)
    }

    /// Whether a frame is for another end than RAM.
    pub fn is_special(&self, mfn: Mfn) -> bool {
        self.special.iter().any(|special| special.mfn == mfn)
    }

    /// The special frames of a PV domain at its end, each with a reference and a writable use beside the owner's own
    /// reference.
    pub fn take_special(&mut self) -> Vec<Mfn> {
        self.special.drain(..).map(|special| special.mfn).collect()
    }

    /// Puts a special frame at a place, and takes it away from where it was. What was at the new place is given up.
    /// What comes back is to be let go after the flush.
    pub fn map_special(&mut self, gfn: Gfn, mfn: Mfn) -> Result<[Option<Dropped>; 2], Errno> {
        let before = self.special.iter().find(|special| special.mfn == mfn).and_then(|special| special.at);
        let before = before.filter(|&at| at != gfn && self.mfn_at(at) == Some(mfn));
        let replaced = self.replace(gfn, mfn)?;
        // If there is no memory to split what the old place is in, the frame stays there as well.
        let moved = before.and_then(|at| self.remove(at).ok().flatten());
        if let Some(special) = self.special.iter_mut().find(|special| special.mfn == mfn) {
            special.at = Some(gfn);
        }
        Ok([replaced, moved])
    }

    /// Where a special frame is now, if anywhere.
    pub fn place_of_special(&self, mfn: Mfn) -> Option<Gfn> {
        let at = self.special.iter().find(|special| special.mfn == mfn)?.at?;
        (self.mfn_at(at) == Some(mfn)).then_some(at)
    }

    /// Gives a frame of ordinary memory another place, as [`Memory::map_special`] does.
    pub fn relocate(&mut self, from: Gfn, to: Gfn) -> Result<[Option<Dropped>; 2], Errno> {
        let mfn = self.ram(from, true).ok_or(Errno::EINVAL)?;
        if from == to {
            return Ok([None, None]);
        }
        let p2m = self.p2m.as_mut().ok_or(Errno::EACCES)?;
        let _ = p2m.remove(&mut NestedTables, from, 1, usize::MAX).map_err(|_| Errno::ENOMEM)?;
        let moved = Dropped { mfn, whole: false };
        match self.replace(to, mfn) {
            Ok(replaced) => {
                if let Some(special) = self.special.iter_mut().find(|special| special.mfn == mfn) {
                    special.at = Some(to);
                }
                Ok([replaced, Some(moved)])
            }
            Err(errno) => {
                // The tables that lead to the old place are there still, and so is what processors know of it.
                let _ = self.place(from, mfn, 0).map_err(|(errno, _)| errno)?;
                frames::put(moved.mfn);
                Err(errno)
            }
        }
    }

    /// Puts a frame at a place and gives up what was there.
    fn replace(&mut self, gfn: Gfn, mfn: Mfn) -> Result<Option<Dropped>, Errno> {
        let old = self.mfn_at(gfn);
        // A replaced entry asks for the flush that `old` stands for.
        let _ = self.place(gfn, mfn, 0).map_err(|(errno, _)| errno)?;
        Ok(old.map(|old| self.dropped(old)))
    }

    /// Takes a guest frame away. `None` if there was none.
    pub fn remove(&mut self, gfn: Gfn) -> Result<Option<Dropped>, Errno> {
        let Some(mfn) = self.mfn_at(gfn) else { return Ok(None) };
        let p2m = self.p2m.as_mut().ok_or(Errno::EACCES)?;
        if p2m.remove(&mut NestedTables, gfn, 1, usize::MAX).is_err() {
            return Err(Errno::ENOMEM);
        }
        Ok(Some(self.dropped(mfn)))
    }

    fn mfn_at(&self, gfn: Gfn) -> Option<Mfn> {
        self.p2m.as_ref()?.get(&NestedTables, gfn).entry().map(|entry| entry.mfn)
    }

    fn dropped(&mut self, mfn: Mfn) -> Dropped {
        let whole = !self.is_special(mfn);
        if whole {
            self.pages = self.pages.saturating_sub(1);
        }
        Dropped { mfn, whole }
    }

    /// A bounded step of the domain's end, with none of its virtual CPUs running any more: about `budget` entries from
    /// guest frame `from` on. `None` when all memory but the tables is gone.
    pub fn relinquish(&mut self, from: Gfn, budget: u32) -> Option<Gfn> {
        let mut from = from;
        let mut left = i64::from(budget);
        while left > 0 {
            if let Some((first, count)) = self.taken.take() {
                let now = count.min(left as u64);
                (0..now).for_each(|n| self.dropped(Mfn::new(first.raw() + n)).let_go());
                self.taken = (now < count).then(|| (Mfn::new(first.raw() + now), count - now));
                left -= now as i64;
                continue;
            }
            match self.p2m.as_mut()?.take_next(&mut NestedTables, from, 64) {
                Taken::Entry(gfn, entry) => {
                    self.taken = Some((entry.mfn, 1 << entry.order));
                    from = gfn;
                }
                Taken::More(gfn) => {
                    left -= 16;
                    from = gfn;
                }
                Taken::Empty => return None,
            }
        }
        Some(from)
    }

    /// The last step: the tables and what was kept for other ends. `false` while some are left.
    pub fn free_tables(&mut self, budget: usize) -> bool {
        if self.p2m.is_none() {
            return true;
        }
        for special in self.special.drain(..) {
            // Refused only where it was released before, which nothing does.
            let _ = frames::release(special.mfn);
        }
        self.p2m.as_mut().is_none_or(|p2m| p2m.free(&mut NestedTables, budget))
    }
}
