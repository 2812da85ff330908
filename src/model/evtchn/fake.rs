//! A guest's shared words in plain memory, for the tests.

use super::{EvtchnPort, InfoBits, SharedBits};
use crate::ids::VcpuId;
use core::cell::RefCell;
use std::collections::BTreeSet;

#[derive(Default)]
pub(super) struct Words {
    pub(super) pending: BTreeSet<u32>,
    pub(super) masked: BTreeSet<u32>,
    pub(super) selected: BTreeSet<(u32, u32)>,
    pub(super) upcall: BTreeSet<u32>,
}

#[derive(Default)]
pub(super) struct Fake(pub(super) RefCell<Words>);

impl Fake {
    pub(super) fn mask(&self, port: EvtchnPort) {
        self.0.borrow_mut().masked.insert(port.raw());
    }
    /// What a guest does in its callback: takes all pending ports.
    pub(super) fn take_upcall(&self, vcpu: u32) -> Vec<u32> {
        let mut words = self.0.borrow_mut();
        words.upcall.remove(&vcpu);
        let selected: Vec<u32> = words.selected.iter().filter(|s| s.0 == vcpu).map(|s| s.1).collect();
        words.selected.retain(|s| s.0 != vcpu);
        let open = |p: &u32| selected.contains(&(p / 64)) && !words.masked.contains(p);
        let taken: Vec<u32> = words.pending.iter().copied().filter(open).collect();
        words.pending.retain(|p| !taken.contains(p));
        taken
    }
}

impl SharedBits for Fake {
    fn set_pending(&self, port: EvtchnPort) -> bool {
        !self.0.borrow_mut().pending.insert(port.raw())
    }
    fn clear_pending(&self, port: EvtchnPort) {
        self.0.borrow_mut().pending.remove(&port.raw());
    }
    fn is_pending(&self, port: EvtchnPort) -> bool {
        self.0.borrow().pending.contains(&port.raw())
    }
    fn is_masked(&self, port: EvtchnPort) -> bool {
        self.0.borrow().masked.contains(&port.raw())
    }
    fn clear_mask(&self, port: EvtchnPort) -> bool {
        self.0.borrow_mut().masked.remove(&port.raw())
    }
    fn info_of(&self, vcpu: VcpuId) -> Option<impl InfoBits> {
        Some(Info { words: &self.0, vcpu: vcpu.0 })
    }
}

/// One virtual CPU's part.
struct Info<'a> {
    words: &'a RefCell<Words>,
    vcpu: u32,
}

impl InfoBits for Info<'_> {
    fn set_selector(&self, word: u32) -> bool {
        !self.words.borrow_mut().selected.insert((self.vcpu, word))
    }
    fn set_upcall_pending(&self) -> bool {
        !self.words.borrow_mut().upcall.insert(self.vcpu)
    }
}
