//! Two tables against a twin that knows only pairs of ends, on random operations.

use super::fake::Fake;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// An end: (domain 0 or 1, port).
type End = (usize, u32);

#[derive(Clone, Debug)]
enum Op {
    Alloc { dom: usize, remote: usize },
    Bind { dom: usize, port: u32 },
    Ipi { dom: usize, vcpu: u32 },
    Virq { dom: usize, virq: u32, vcpu: u32 },
    Close { dom: usize, port: u32 },
    Send { dom: usize, port: u32 },
    Mask { dom: usize, port: u32 },
    Unmask { dom: usize, port: u32 },
    Upcall { dom: usize, vcpu: u32 },
}

fn op() -> impl Strategy<Value = Op> {
    let (dom, port, vcpu) = (0..2usize, 0..12u32, 0..3u32);
    prop_oneof![
        (dom.clone(), 0..2usize).prop_map(|(dom, remote)| Op::Alloc { dom, remote }),
        (dom.clone(), port.clone()).prop_map(|(dom, port)| Op::Bind { dom, port }),
        (dom.clone(), vcpu.clone()).prop_map(|(dom, vcpu)| Op::Ipi { dom, vcpu }),
        (dom.clone(), 0..3u32, vcpu.clone()).prop_map(|(dom, virq, vcpu)| Op::Virq { dom, virq, vcpu }),
        (dom.clone(), port.clone()).prop_map(|(dom, port)| Op::Close { dom, port }),
        (dom.clone(), port.clone()).prop_map(|(dom, port)| Op::Send { dom, port }),
        (dom.clone(), port.clone()).prop_map(|(dom, port)| Op::Mask { dom, port }),
        (dom.clone(), port).prop_map(|(dom, port)| Op::Unmask { dom, port }),
        (dom, vcpu).prop_map(|(dom, vcpu)| Op::Upcall { dom, vcpu }),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Waiting(usize),
    Pair(End),
    Ipi,
    Virq(u32),
}

/// The twin: what each open end is, and which ends have news that their guest has not taken.
#[derive(Default)]
struct Twin {
    ends: BTreeMap<End, Kind>,
    news: BTreeMap<End, ()>,
}

impl Twin {
    fn free(&self, dom: usize) -> u32 {
        (1..).find(|&port| !self.ends.contains_key(&(dom, port))).expect("ports are endless here")
    }
    fn open(&mut self, dom: usize, kind: Kind) -> u32 {
        let port = self.free(dom);
        self.ends.insert((dom, port), kind);
        port
    }
    fn bind(&mut self, dom: usize, port: u32) -> Option<u32> {
        let far = (1 - dom, port);
        if self.ends.get(&far) != Some(&Kind::Waiting(dom)) {
            return None;
        }
        let here = self.open(dom, Kind::Pair(far));
        self.ends.insert(far, Kind::Pair((dom, here)));
        self.news.insert((dom, here), ());
        Some(here)
    }
    fn virq(&mut self, dom: usize, virq: u32, vcpu: u32) -> Option<u32> {
        let key = if virq_is_global(virq) { virq } else { virq + 100 * vcpu };
        let bound = self.ends.iter().any(|(end, kind)| end.0 == dom && *kind == Kind::Virq(key));
        if bound || (virq_is_global(virq) && vcpu != 0) {
            return None;
        }
        Some(self.open(dom, Kind::Virq(key)))
    }
    fn close(&mut self, end: End) -> bool {
        let Some(kind) = self.ends.remove(&end) else { return false };
        self.news.remove(&end);
        if let Kind::Pair(far) = kind {
            self.ends.insert(far, Kind::Waiting(end.0));
        }
        true
    }
    fn send(&mut self, end: End) -> bool {
        match self.ends.get(&end) {
            Some(Kind::Pair(far)) => self.news.insert(*far, ()),
            Some(Kind::Ipi) => self.news.insert(end, ()),
            Some(Kind::Waiting(_)) => None,
            _ => return false,
        };
        true
    }
}

struct World {
    tables: [Channels; 2],
    bits: [Fake; 2],
    twin: Twin,
    /// Virtual CPUs that were called up and have not answered.
    called: Vec<(usize, u32)>,
}

impl World {
    fn new() -> Self {
        let table = |id| Channels::new(DomId(id), 3, NR_PORTS).expect("three virtual CPUs are allowed");
        Self { tables: [table(0), table(1)], bits: Default::default(), twin: Twin::default(), called: Vec::new() }
    }

    fn woke(&mut self, dom: usize, wake: Wake) {
        if let Some(vcpu) = wake.upcall {
            assert!(!self.called.contains(&(dom, vcpu.0)), "called twice without an answer");
            self.called.push((dom, vcpu.0));
        }
    }

    fn send(&mut self, dom: usize, port: u32) {
        let sent = self.tables[dom].send(EvtchnPort::new(port), &self.bits[dom]);
        assert_eq!(sent.is_ok(), self.twin.send((dom, port)));
        match sent {
            Ok(Sent::Here(wake)) => self.woke(dom, wake),
            Ok(Sent::There { peer, from }) => {
                let far = usize::from(peer.domain.0);
                let wake = self.tables[far].deliver(peer, from, &self.bits[far]);
                self.woke(far, wake);
            }
            Err(_) => {}
        }
    }

    fn close(&mut self, dom: usize, port: u32) {
        let closed = self.tables[dom].close(EvtchnPort::new(port), &self.bits[dom]);
        assert_eq!(closed.is_ok(), self.twin.close((dom, port)));
        if let Ok(Closed::Peer { peer, from }) = closed {
            self.tables[usize::from(peer.domain.0)].peer_closed(peer, from);
        }
    }

    fn bind(&mut self, dom: usize, port: u32) {
        let [a, b] = &mut self.tables;
        let (local, remote) = if dom == 0 { (a, b) } else { (b, a) };
        let bound = bind_interdomain(local, remote, EvtchnPort::new(port), &self.bits[dom]);
        assert_eq!(bound.ok().map(|b| b.0.raw()), self.twin.bind(dom, port));
        if let Ok((_, wake)) = bound {
            self.woke(dom, wake);
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Alloc { dom, remote } => {
                let port = self.tables[dom].alloc_unbound(DomId(remote as u16)).expect("there is room");
                assert_eq!(port.raw(), self.twin.open(dom, Kind::Waiting(remote)));
            }
            Op::Bind { dom, port } => self.bind(dom, port),
            Op::Ipi { dom, vcpu } => {
                let port = self.tables[dom].bind_ipi(VcpuId(vcpu)).expect("there is room");
                assert_eq!(port.raw(), self.twin.open(dom, Kind::Ipi));
            }
            Op::Virq { dom, virq, vcpu } => {
                let port = self.tables[dom].bind_virq(virq, VcpuId(vcpu));
                assert_eq!(port.ok().map(EvtchnPort::raw), self.twin.virq(dom, virq, vcpu));
            }
            Op::Close { dom, port } => self.close(dom, port),
            Op::Send { dom, port } => self.send(dom, port),
            Op::Mask { dom, port } => self.bits[dom].mask(EvtchnPort::new(port)),
            Op::Unmask { dom, port } => {
                let wake = self.tables[dom].unmask(EvtchnPort::new(port), &self.bits[dom]).expect("a low number");
                self.woke(dom, wake);
            }
            Op::Upcall { dom, vcpu } => self.upcall(dom, vcpu),
        }
    }

    fn upcall(&mut self, dom: usize, vcpu: u32) {
        for port in self.bits[dom].take_upcall(vcpu) {
            assert!(self.twin.news.remove(&(dom, port)).is_some(), "news of port {port} from nowhere");
        }
        self.called.retain(|&c| c != (dom, vcpu));
    }

    fn check(&self) {
        for dom in 0..2 {
            let words = self.bits[dom].0.borrow();
            let news: Vec<u32> = self.twin.news.keys().filter(|e| e.0 == dom).map(|e| e.1).collect();
            assert_eq!(words.pending.iter().copied().collect::<Vec<_>>(), news);
            let open: Vec<u32> = self.twin.ends.keys().filter(|e| e.0 == dom).map(|e| e.1).collect();
            assert_eq!(self.tables[dom].open_ports().map(EvtchnPort::raw).collect::<Vec<_>>(), open);
        }
    }

    /// Every port with news that is open to it has its virtual CPU called.
    fn check_nothing_is_lost(&self) {
        for &(dom, port) in self.twin.news.keys() {
            let (_, vcpu) = self.tables[dom].status(EvtchnPort::new(port)).expect("a port with news is open");
            let masked = self.bits[dom].is_masked(EvtchnPort::new(port));
            assert!(masked || self.called.contains(&(dom, vcpu.0)), "port {port} is lost");
        }
    }
}

proptest! {
    #[test]
    fn two_tables_behave_like_their_naive_twin(ops in proptest::collection::vec(op(), 1..120)) {
        let mut world = World::new();
        for op in ops {
            world.apply(op);
            world.check();
            world.check_nothing_is_lost();
        }
    }
}
