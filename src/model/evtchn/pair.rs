//! `EVTCHNOP_bind_interdomain`, which changes a port in each of two tables, or two ports of one.

use super::table::{Channel, State};
use super::{Channels, Error, EvtchnPort, Peer, SharedBits, Wake};
use crate::ids::{DomId, VcpuId};

/// Connects a new port of `local` to `port` of `remote`, which waits for `local`'s domain.
///
/// The new port is at once pending, in case the peer sent before it was bound (`bits` are `local`'s).
/// On an error neither table is changed.
pub fn bind_interdomain(
    local: &mut Channels,
    remote: &mut Channels,
    port: EvtchnPort,
    bits: &impl SharedBits,
) -> Result<(EvtchnPort, Wake), Error> {
    let here = local.free_port()?;
    remote.accepts(port, local.owner)?;
    let link = local.next_link.max(remote.next_link);
    remote.next_link = link + 1;
    remote.channel_mut(port)?.state = State::Interdomain(Peer { domain: local.owner, port: here, link });
    let peer = Peer { domain: remote.owner, port, link };
    Ok((here, local.connect(here, peer, bits)?))
}

/// [`bind_interdomain`] of a domain with itself.
pub fn bind_loopback(
    table: &mut Channels,
    port: EvtchnPort,
    bits: &impl SharedBits,
) -> Result<(EvtchnPort, Wake), Error> {
    let here = table.free_port()?;
    table.accepts(port, table.owner)?;
    let (domain, link) = (table.owner, table.next_link);
    table.channel_mut(port)?.state = State::Interdomain(Peer { domain, port: here, link });
    Ok((here, table.connect(here, Peer { domain, port, link }, bits)?))
}

impl Channels {
    fn accepts(&self, port: EvtchnPort, from: DomId) -> Result<(), Error> {
        match self.channel(port)?.state {
            State::Unbound(domain) if domain == from => Ok(()),
            _ => Err(Error::BadPeer),
        }
    }

    fn connect(&mut self, here: EvtchnPort, peer: Peer, bits: &impl SharedBits) -> Result<Wake, Error> {
        self.next_link = peer.link + 1;
        *self.channel_mut(here)? = Channel { state: State::Interdomain(peer), vcpu: VcpuId(0) };
        Ok(self.raise(here, bits))
    }
}
