//! How an event travels: from a port, a VIRQ or a service to the bits that a virtual CPU looks at.

use super::table::State;
use super::{BITS_PER_WORD, Channels, Error, EvtchnPort, InfoBits, NR_VIRQS, Peer, SharedBits, Wake, virq_is_global};
use crate::ids::VcpuId;

/// What became of an event that a guest sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Sent {
    /// It arrived.
    Here(Wake),
    /// Hand this to [`Channels::deliver`] of the table of `peer.domain`.
    There {
        /// The end to notify.
        peer: Peer,
        /// The sending end, as the other one knows it.
        from: Peer,
    },
}

impl Channels {
    /// `EVTCHNOP_send`. An event to a port that nobody has bound yet is dropped.
    pub fn send(&mut self, port: EvtchnPort, bits: &impl SharedBits) -> Result<Sent, Error> {
        match self.channel(port)?.state {
            State::Interdomain(peer) => {
                Ok(Sent::There { peer, from: Peer { domain: self.owner, port, link: peer.link } })
            }
            State::Ipi => Ok(Sent::Here(self.raise(port, bits))),
            State::Unbound(_) => Ok(Sent::Here(Wake::NONE)),
            State::Service(service) => Ok(Sent::Here(Wake { service: Some(service), ..Wake::NONE })),
            State::Closed | State::Reserved | State::Virq(_) => Err(Error::BadState),
        }
    }

    /// [`Self::send`] to a port by which a domain's virtual CPUs interrupt each other, and whom that calls up. `None`, and nothing
    /// has been done, for others, and where somebody polls.
    #[inline(always)]
    pub fn send_ipi(&mut self, port: EvtchnPort, bits: &impl SharedBits) -> Option<Option<VcpuId>> {
        let channel = self.channel(port).ok()?;
        if channel.state != State::Ipi || !self.pollers.is_empty() {
            return None;
        }
        Some(if bits.set_pending(port) { None } else { announce_unmasked(port, channel.vcpu, bits) })
    }

    /// The second half of [`Sent::There`]: our port `at` is notified, if it still belongs to the sender's connection.
    #[inline]
    pub fn deliver(&mut self, at: Peer, from: Peer, bits: &impl SharedBits) -> Wake {
        if self.connected(at.port, from).is_none() {
            return Wake::NONE;
        }
        self.raise(at.port, bits)
    }

    /// A VIRQ occurred, for the virtual CPU if it has its own, else for the domain. Dropped if not bound.
    pub fn raise_virq(&mut self, vcpu: VcpuId, virq: u32, bits: &impl SharedBits) -> Wake {
        if virq >= NR_VIRQS {
            return Wake::NONE;
        }
        let row = if virq_is_global(virq) { 0 } else { vcpu.0 as usize };
        match self.virqs.get(row).map(|virqs| virqs[virq as usize]) {
            None | Some(0) => Wake::NONE,
            Some(raw) => self.raise(EvtchnPort::new(raw), bits),
        }
    }

    /// The hypervisor's service has news for the guest's end. Dropped if the port is no service's.
    pub fn raise_service(&mut self, port: EvtchnPort, bits: &impl SharedBits) -> Wake {
        match self.channel(port).map(|channel| channel.state) {
            Ok(State::Service(_)) => self.raise(port, bits),
            _ => Wake::NONE,
        }
    }

    /// `EVTCHNOP_unmask`: clears the mask bit and announces what was pending behind it.
    pub fn unmask(&mut self, port: EvtchnPort, bits: &impl SharedBits) -> Result<Wake, Error> {
        let channel = *self.channel(port)?;
        if matches!(channel.state, State::Closed | State::Reserved) {
            return Ok(Wake::NONE);
        }
        if !bits.clear_mask(port) || !bits.is_pending(port) {
            return Ok(Wake::NONE);
        }
        Ok(Wake { upcall: announce(port, channel.vcpu, bits), ..Wake::NONE })
    }

    /// Announces every word to `vcpu`, whose `vcpu_info` has just moved, so that nothing is lost.
    pub fn announce_all(&self, vcpu: VcpuId, bits: &impl SharedBits) -> Wake {
        let Some(info) = bits.info_of(vcpu) else { return Wake::NONE };
        for word in 0..BITS_PER_WORD {
            info.set_selector(word);
        }
        let was = info.set_upcall_pending();
        Wake { upcall: (!was).then_some(vcpu), ..Wake::NONE }
    }

    /// Makes an open port pending.
    #[inline]
    pub(super) fn raise(&mut self, port: EvtchnPort, bits: &impl SharedBits) -> Wake {
        let Ok(channel) = self.channel(port) else {
            return Wake::NONE;
        };
        let vcpu = channel.vcpu;
        if bits.set_pending(port) {
            return Wake::NONE;
        }
        let upcall = announce_unmasked(port, vcpu, bits);
        Wake { upcall, pollers: self.pollers.wake(port), service: None }
    }
}

/// Announces a pending port, if it is not masked. Answers whom to call up.
#[inline(always)]
fn announce_unmasked(port: EvtchnPort, vcpu: VcpuId, bits: &impl SharedBits) -> Option<VcpuId> {
    if bits.is_masked(port) { None } else { announce(port, vcpu, bits) }
}

/// Selector, then upcall flag: the guest clears them in the opposite order. Answers whom to call up.
#[inline(always)]
fn announce(port: EvtchnPort, vcpu: VcpuId, bits: &impl SharedBits) -> Option<VcpuId> {
    let info = bits.info_of(vcpu)?;
    (!info.set_selector(port.word()) && !info.set_upcall_pending()).then_some(vcpu)
}
