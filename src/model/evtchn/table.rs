//! One domain's ports: allocation, binding, closing, status.

use super::poll::Pollers;
use super::{Error, EvtchnPort, MAX_VCPUS, NR_PORTS, NR_VIRQS, Peer, SERVICE_DOMAIN, SharedBits, virq_is_global};
use crate::ids::{DomId, VcpuId};
use alloc::vec::Vec;

/// Ports by which a table grows; a number past the last growth is [`Error::BadPort`], as in Xen.
const BUCKET: usize = 64;

/// What one port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Free.
    Closed,
    /// Port 0, never given out.
    Reserved,
    /// Waits for a connection from this domain.
    Unbound(DomId),
    /// Connected.
    Interdomain(Peer),
    /// Receives this VIRQ.
    Virq(u32),
    /// Receives what the domain itself sends to it.
    Ipi,
    /// Connected to a service of the hypervisor, by the service's own number.
    Service(u8),
}

/// One port, with the virtual CPU that is told of its events.
#[derive(Clone, Copy, Debug)]
pub(super) struct Channel {
    pub(super) state: State,
    pub(super) vcpu: VcpuId,
}

impl Channel {
    const CLOSED: Channel = Channel { state: State::Closed, vcpu: VcpuId(0) };
}

/// What is left to do at the other end of a port that was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Closed {
    /// Nothing.
    Alone,
    /// Hand this to [`Channels::peer_closed`] of the table of `peer.domain`.
    Peer {
        /// The other end.
        peer: Peer,
        /// The end that was closed, as the other one knows it.
        from: Peer,
    },
    /// The hypervisor's service of this number has lost its guest.
    Service(u8),
}

/// What `EVTCHNOP_status` tells of a port. Each comes with the virtual CPU that the port notifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the header's EVTCHNSTAT_*")]
pub enum Status {
    Closed,
    Unbound { domain: DomId },
    Interdomain { domain: DomId, port: EvtchnPort },
    Virq { virq: u32 },
    Ipi,
}

/// A domain's event channels.
#[derive(Debug)]
pub struct Channels {
    pub(super) owner: DomId,
    /// The highest port number that may be given out.
    max_port: u32,
    pub(super) ports: Vec<Channel>,
    /// For each virtual CPU the port of each VIRQ, 0 for none. Global VIRQs are in row 0. Its length is the
    /// domain's number of virtual CPUs.
    pub(super) virqs: Vec<[u32; NR_VIRQS as usize]>,
    pub(super) pollers: Pollers,
    /// The number of the next connection: above that of each connection this table has had.
    pub(super) next_link: u64,
    dying: bool,
}

impl Channels {
    /// A table with no port in use, for `nr_vcpus` virtual CPUs (1 to [`MAX_VCPUS`]) and port numbers up to `max_port`.
    ///
    /// [`Error::NoVcpu`] for another number of virtual CPUs.
    pub fn new(owner: DomId, nr_vcpus: u32, max_port: u32) -> Result<Self, Error> {
        if nr_vcpus == 0 || nr_vcpus > MAX_VCPUS {
            return Err(Error::NoVcpu);
        }
        let mut virqs = Vec::new();
        virqs.try_reserve_exact(nr_vcpus as usize).map_err(|_| Error::NoMemory)?;
        virqs.resize(nr_vcpus as usize, [0; NR_VIRQS as usize]);
        let mut table = Self {
            owner,
            max_port: max_port.min(NR_PORTS - 1),
            ports: Vec::new(),
            virqs,
            pollers: Pollers::default(),
            next_link: 0,
            dying: false,
        };
        table.grow()?;
        table.ports[0].state = State::Reserved;
        Ok(table)
    }

    /// From now on no port above `max_port` is given out.
    pub fn limit(&mut self, max_port: u32) {
        self.max_port = max_port.min(NR_PORTS - 1);
    }

    /// Whose ports these are.
    pub fn owner(&self) -> DomId {
        self.owner
    }

    /// Virtual CPUs of the domain.
    pub fn nr_vcpus(&self) -> u32 {
        self.virqs.len() as u32
    }

    /// `EVTCHNOP_alloc_unbound`: a port that waits for `remote` (never `DOMID_SELF`: the caller has resolved it).
    pub fn alloc_unbound(&mut self, remote: DomId) -> Result<EvtchnPort, Error> {
        self.open(State::Unbound(remote), VcpuId(0))
    }

    /// A port whose other end is the hypervisor's own `service`; the guest sees it as interdomain.
    pub fn bind_service(&mut self, service: u8) -> Result<EvtchnPort, Error> {
        self.open(State::Service(service), VcpuId(0))
    }

    /// `EVTCHNOP_bind_virq`.
    pub fn bind_virq(&mut self, virq: u32, vcpu: VcpuId) -> Result<EvtchnPort, Error> {
        if virq >= NR_VIRQS || (virq_is_global(virq) && vcpu != VcpuId(0)) {
            return Err(Error::BadVirq);
        }
        self.check_vcpu(vcpu)?;
        if self.virqs[vcpu.0 as usize][virq as usize] != 0 {
            return Err(Error::VirqBound);
        }
        let port = self.open(State::Virq(virq), vcpu)?;
        self.virqs[vcpu.0 as usize][virq as usize] = port.raw();
        Ok(port)
    }

    /// `EVTCHNOP_bind_ipi`.
    pub fn bind_ipi(&mut self, vcpu: VcpuId) -> Result<EvtchnPort, Error> {
        self.check_vcpu(vcpu)?;
        self.open(State::Ipi, vcpu)
    }

    /// `EVTCHNOP_bind_vcpu`: which virtual CPU hears of the port. A pending event stays where it was announced.
    pub fn bind_vcpu(&mut self, port: EvtchnPort, vcpu: VcpuId) -> Result<(), Error> {
        self.check_vcpu(vcpu)?;
        let channel = self.channel_mut(port)?;
        match channel.state {
            State::Unbound(_) | State::Interdomain(_) | State::Service(_) => {}
            State::Virq(virq) if virq_is_global(virq) => {}
            _ => return Err(Error::BadState),
        }
        channel.vcpu = vcpu;
        Ok(())
    }

    /// `EVTCHNOP_close`: frees the port and clears its pending bit.
    pub fn close(&mut self, port: EvtchnPort, bits: &impl SharedBits) -> Result<Closed, Error> {
        let closed = match self.channel(port)?.state {
            State::Closed | State::Reserved => return Err(Error::BadState),
            State::Unbound(_) | State::Ipi => Closed::Alone,
            State::Virq(virq) => {
                self.forget_virq(virq, port);
                Closed::Alone
            }
            State::Service(service) => Closed::Service(service),
            State::Interdomain(peer) => Closed::Peer { peer, from: Peer { domain: self.owner, port, link: peer.link } },
        };
        bits.clear_pending(port);
        *self.channel_mut(port)? = Channel::CLOSED;
        Ok(closed)
    }

    /// The other end, `from`, of our port `at` was closed: `at` waits again for a connection from that domain.
    /// Does nothing if `at` belongs to another connection by now.
    pub fn peer_closed(&mut self, at: Peer, from: Peer) {
        if let Some(channel) = self.connected(at.port, from) {
            channel.state = State::Unbound(from.domain);
        }
    }

    /// One step of `EVTCHNOP_reset` or of the domain's end: closes the first open port from number `from` on.
    ///
    /// Answers where to go on and what to do at the other end; `None` when no port is left.
    pub fn close_next(&mut self, from: u32, bits: &impl SharedBits) -> Option<(u32, Closed)> {
        for raw in from..self.ports.len() as u32 {
            if let Ok(closed) = self.close(EvtchnPort::new(raw), bits) {
                return Some((raw + 1, closed));
            }
        }
        None
    }

    /// From now on no port is given out: the domain is being destroyed.
    pub fn set_dying(&mut self) {
        self.dying = true;
    }

    /// `EVTCHNOP_status`, with the virtual CPU that the port notifies.
    pub fn status(&self, port: EvtchnPort) -> Result<(Status, VcpuId), Error> {
        let channel = self.channel(port)?;
        let status = match channel.state {
            State::Closed | State::Reserved => Status::Closed,
            State::Unbound(domain) => Status::Unbound { domain },
            State::Interdomain(peer) => Status::Interdomain { domain: peer.domain, port: peer.port },
            State::Service(service) => {
                Status::Interdomain { domain: SERVICE_DOMAIN, port: EvtchnPort::new(u32::from(service)) }
            }
            State::Virq(virq) => Status::Virq { virq },
            State::Ipi => Status::Ipi,
        };
        Ok((status, channel.vcpu))
    }

    /// The ports that are open, for a debug key, in order of number.
    pub fn open_ports(&self) -> impl Iterator<Item = EvtchnPort> + '_ {
        let is_open = |c: &Channel| !matches!(c.state, State::Closed | State::Reserved);
        self.ports.iter().zip(0..).filter(move |(c, _)| is_open(c)).map(|(_, raw)| EvtchnPort::new(raw))
    }

    /// `EVTCHNOP_init_control`, `expand_array` and `set_priority`: FIFO event channels are not built.
    pub fn init_control(&self) -> Result<(), Error> {
        Err(Error::Unsupported)
    }

    #[inline]
    pub(super) fn channel(&self, port: EvtchnPort) -> Result<&Channel, Error> {
        self.ports.get(port.raw() as usize).ok_or(Error::BadPort)
    }

    #[inline]
    pub(super) fn channel_mut(&mut self, port: EvtchnPort) -> Result<&mut Channel, Error> {
        self.ports.get_mut(port.raw() as usize).ok_or(Error::BadPort)
    }

    /// The port, if it is an end of the connection whose other end is `from`.
    #[inline]
    pub(super) fn connected(&mut self, port: EvtchnPort, from: Peer) -> Option<&mut Channel> {
        self.channel_mut(port).ok().filter(|channel| channel.state == State::Interdomain(from))
    }

    pub(super) fn check_vcpu(&self, vcpu: VcpuId) -> Result<(), Error> {
        if vcpu.0 < self.nr_vcpus() { Ok(()) } else { Err(Error::NoVcpu) }
    }

    /// The lowest free port number, with room made for it.
    pub(super) fn free_port(&mut self) -> Result<EvtchnPort, Error> {
        if self.dying {
            return Err(Error::Dying);
        }
        let free = self.ports.iter().position(|channel| channel.state == State::Closed);
        let raw = free.unwrap_or(self.ports.len()) as u32;
        if raw > self.max_port {
            return Err(Error::Full);
        }
        if free.is_none() {
            self.grow()?;
        }
        Ok(EvtchnPort::new(raw))
    }

    fn open(&mut self, state: State, vcpu: VcpuId) -> Result<EvtchnPort, Error> {
        let port = self.free_port()?;
        *self.channel_mut(port)? = Channel { state, vcpu };
        Ok(port)
    }

    fn grow(&mut self) -> Result<(), Error> {
        self.ports.try_reserve_exact(BUCKET).map_err(|_| Error::NoMemory)?;
        self.ports.resize(self.ports.len() + BUCKET, Channel::CLOSED);
        Ok(())
    }

    fn forget_virq(&mut self, virq: u32, port: EvtchnPort) {
        for row in &mut self.virqs {
            if row[virq as usize] == port.raw() {
                row[virq as usize] = 0;
            }
        }
    }
}
