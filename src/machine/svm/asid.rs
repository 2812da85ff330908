//! Address-space identifiers: which TLB entries are whose (APM 2 15.16).
//!
//! Each CPU hands out its identifiers in ascending order. When they run out, a new generation begins and
//! the next VMRUN on that CPU, whoever's it is, flushes the whole TLB; a stamp of an older generation, or of another CPU, is worth nothing. So a
//! virtual CPU that comes to a CPU never meets entries that it left there before it ran elsewhere.

use model::ids::CpuId;

/// The right to use an identifier, as long as its generation lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    cpu: CpuId,
    generation: u64,
    asid: u32,
}

impl Stamp {
    /// The identifier, for the control block.
    pub(super) fn asid(self) -> u32 {
        self.asid
    }
}

/// One CPU's identifiers.
#[derive(Debug)]
pub(super) struct Pool {
    generation: u64,
    /// The next identifier to hand out; 0 is the host's.
    next: u32,
    nr_asids: u32,
    /// No VMRUN has flushed the TLB yet since the generation began.
    must_flush: bool,
}

impl Pool {
    /// No identifiers yet: the first [`Pool::take`] begins a generation.
    pub(super) const fn new() -> Self {
        Self { generation: 0, next: 0, nr_asids: 0, must_flush: false }
    }

    /// Says how many the processor has, the host's included. At least 2.
    pub(super) fn set_size(&mut self, nr_asids: u32) {
        (self.next, self.nr_asids) = (nr_asids, nr_asids);
    }

    /// Whether `stamp` may still be used on `cpu`, whose pool this is.
    pub(super) fn is_current(&self, cpu: CpuId, stamp: Stamp) -> bool {
        stamp.cpu == cpu && stamp.generation == self.generation
    }

    /// Hands out an identifier that has no entries in the TLB, once it is flushed if [`Pool::must_flush`] says so.
    pub(super) fn take(&mut self, cpu: CpuId) -> Stamp {
        if self.next >= self.nr_asids {
            self.generation += 1;
            self.next = 1;
            self.must_flush = true;
        }
        let stamp = Stamp { cpu, generation: self.generation, asid: self.next };
        self.next += 1;
        stamp
    }

    /// Whether the next VMRUN on this CPU must flush the whole TLB.
    pub(super) fn must_flush(&self) -> bool {
        self.must_flush
    }

    /// A VMRUN has flushed the whole TLB.
    pub(super) fn flushed(&mut self) {
        self.must_flush = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: CpuId = CpuId(1);

    fn pool(nr_asids: u32) -> Pool {
        let mut pool = Pool::new();
        pool.set_size(nr_asids);
        pool
    }

    #[test]
    fn no_identifier_is_given_twice_in_a_generation() {
        let mut pool = pool(4);
        let given = [0; 3].map(|_| pool.take(HERE));
        assert_eq!(given.map(Stamp::asid), [1, 2, 3]);
        assert!(given.iter().all(|&stamp| pool.is_current(HERE, stamp)));
    }

    #[test]
    fn a_generation_asks_for_one_flush_and_does_not_forget_it() {
        let mut pool = pool(3);
        assert!(!pool.must_flush());
        pool.take(HERE);
        pool.take(HERE);
        assert!(pool.must_flush());
        pool.flushed();
        assert!(!pool.must_flush());
        pool.take(HERE);
        assert!(pool.must_flush());
    }

    #[test]
    fn a_stamp_ends_with_its_generation_and_at_its_cpu() {
        let mut pool = pool(2);
        let old = pool.take(HERE);
        assert!(!pool.is_current(CpuId(0), old));
        let new = pool.take(HERE);
        assert_eq!(old.asid(), new.asid());
        assert!(!pool.is_current(HERE, old));
        assert!(pool.is_current(HERE, new));
    }
}
