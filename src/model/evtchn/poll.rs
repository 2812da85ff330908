//! `SCHEDOP_poll`: virtual CPUs that sleep until one of some ports is pending.
//!
//! As in Xen, one that polls a single port wakes for that port only, one that polls several wakes for any port of
//! its domain and looks for itself. A port wakes its pollers masked or not: Linux's paravirtual spinlocks poll a
//! masked port.

use super::{Channels, Error, EvtchnPort, SharedBits};
use crate::ids::VcpuId;

/// Ports that one poll may name.
const MAX_POLLED: usize = 128;

/// A set of a domain's virtual CPUs (numbers below 128).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuSet(u128);

impl VcpuSet {
    /// No virtual CPU.
    pub const EMPTY: VcpuSet = VcpuSet(0);

    /// Adds one; a number of 128 or more is not added.
    pub fn insert(&mut self, vcpu: VcpuId) {
        self.0 |= Self::bit(vcpu);
    }
    /// Takes one out; answers whether it was in.
    pub fn remove(&mut self, vcpu: VcpuId) -> bool {
        let had = self.contains(vcpu);
        self.0 &= !Self::bit(vcpu);
        had
    }
    /// Whether it is in.
    pub fn contains(self, vcpu: VcpuId) -> bool {
        self.0 & Self::bit(vcpu) != 0
    }
    /// Whether it has none.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// Its members in order.
    #[inline]
    pub fn iter(self) -> impl Iterator<Item = VcpuId> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let first = (rest != 0).then(|| rest.trailing_zeros())?;
            rest &= rest - 1;
            Some(VcpuId(first))
        })
    }

    fn bit(vcpu: VcpuId) -> u128 {
        1u128.checked_shl(vcpu.0).unwrap_or(0)
    }
}

/// Who polls, and who of these for one port only.
#[derive(Clone, Debug)]
pub(super) struct Pollers {
    polling: VcpuSet,
    /// The one port that the virtual CPU polls, 0 if it polls several. Valid for those in `polling`.
    only: [u16; u128::BITS as usize],
}

impl Default for Pollers {
    fn default() -> Self {
        Self { polling: VcpuSet::EMPTY, only: [0; u128::BITS as usize] }
    }
}

impl Pollers {
    /// Whether nobody polls.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.polling.is_empty()
    }

    /// Takes out those who wait for `port`.
    pub(super) fn wake(&mut self, port: EvtchnPort) -> VcpuSet {
        let mut woken = VcpuSet::EMPTY;
        if self.polling.is_empty() {
            return woken;
        }
        for vcpu in self.polling.iter() {
            let only = self.only[vcpu.0 as usize];
            if only == 0 || u32::from(only) == port.raw() {
                woken.insert(vcpu);
            }
        }
        self.polling.0 &= !woken.0;
        woken
    }
}

impl Channels {
    /// `SCHEDOP_poll`: whether `vcpu` shall sleep; `false` if one of `ports` is pending already.
    ///
    /// One that sleeps is in the `pollers` of the [`super::Wake`] that ends it, unless [`Channels::stop_polling`]
    /// was called before, as it must be when anything else wakes it (its timeout, an upcall).
    pub fn poll(&mut self, vcpu: VcpuId, ports: &[EvtchnPort], bits: &impl SharedBits) -> Result<bool, Error> {
        if ports.len() > MAX_POLLED {
            return Err(Error::TooMany);
        }
        self.check_vcpu(vcpu)?;
        for &port in ports {
            self.channel(port)?;
            if bits.is_pending(port) {
                return Ok(false);
            }
        }
        let only = if let [port] = ports { port.raw() } else { 0 };
        // Every port of the table is below 4096 (`NR_PORTS`).
        self.pollers.only[vcpu.0 as usize] = u16::try_from(only).unwrap_or(0);
        self.pollers.polling.insert(vcpu);
        Ok(true)
    }

    /// `vcpu` woke for another reason. Answers whether it was polling.
    pub fn stop_polling(&mut self, vcpu: VcpuId) -> bool {
        self.pollers.polling.remove(vcpu)
    }
}
