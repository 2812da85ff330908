//! The interrupt command register, destinations and the messages between APICs (SDM 3A 10.6, 10.12.9, 10.12.10).
//!
//! A write to ICR becomes an [`Ipi`]. The caller gives its [`Message`] with [`Lapic::deliver`] to every APIC
//! that [`Ipi::reaches`], or for the lowest-priority mode to the one that [`lowest_priority`] names.

use super::lvt::error;
use super::{Effect, Lapic, Mode};
use crate::ids::VcpuId;

/// How a message acts at its destination (SDM 3A 10.6.1, bits 10 to 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryMode(u8);

#[expect(missing_docs, reason = "the names are the architecture's")]
impl DeliveryMode {
    pub const FIXED: Self = Self(0);
    pub const LOWEST_PRIORITY: Self = Self(1);
    pub const SMI: Self = Self(2);
    pub const NMI: Self = Self(4);
    pub const INIT: Self = Self(5);
    pub const STARTUP: Self = Self(6);
    pub const EXT_INT: Self = Self(7);

    /// The field at bits 10 to 8 of an LVT entry, an ICR, an MSI or a redirection entry.
    pub fn from_bits(value: u32) -> Self {
        Self(value.to_le_bytes()[1] & 7)
    }
}

/// Edge or level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Once an edge.
    Edge,
    /// As long as the line is active.
    Level,
}

/// Which APICs a message names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// All.
    Broadcast,
    /// The one with this id.
    Physical(u32),
    /// Those whose logical id has this in it, in the receiver's mode.
    Logical(u32),
}

impl Destination {
    /// An 8-bit destination: of a sender in xAPIC mode, an I/O APIC or an MSI.
    pub fn from_xapic(dest: u8, logical: bool) -> Self {
        match (dest, logical) {
            (0xff, _) => Self::Broadcast,
            (_, false) => Self::Physical(u32::from(dest)),
            (_, true) => Self::Logical(u32::from(dest)),
        }
    }

    /// A 32-bit destination: of a sender in x2APIC mode.
    pub fn from_x2apic(dest: u32, logical: bool) -> Self {
        match (dest, logical) {
            (u32::MAX, _) => Self::Broadcast,
            (_, false) => Self::Physical(dest),
            (_, true) => Self::Logical(dest),
        }
    }
}

/// The ICR's short way to name a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shorthand {
    /// None: the destination counts.
    None,
    /// The sender alone.
    Own,
    /// All and the sender.
    All,
    /// All but the sender.
    Others,
}

/// What arrives at an APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// How it acts.
    pub mode: DeliveryMode,
    /// Vector; for STARTUP the page at which to start.
    pub vector: u8,
    /// Edge or level.
    pub trigger: Trigger,
}

/// An interprocessor interrupt, to route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipi {
    /// The destination, where no shorthand is given.
    pub dest: Destination,
    /// The shorthand.
    pub shorthand: Shorthand,
    /// What to deliver.
    pub message: Message,
}

/// What a message or an event means for the virtual CPU that got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wakeup {
    /// Nothing.
    None,
    /// An interrupt is pending in IRR: wake or kick the CPU, which asks for [`Lapic::highest_pending`].
    Interrupt,
    /// A non-maskable interrupt.
    Nmi,
    /// INIT: reset the CPU with [`Lapic::init`], and let it wait for a start-up message.
    Init,
    /// Start-up: a CPU that waits for it starts in real mode at this many times 4096.
    Startup(u8),
    /// An interrupt whose vector the PIC knows.
    ExtInt,
}

impl Ipi {
    /// Whether the APIC `target` is among those meant; `sender` is the id of the APIC that sends.
    pub fn reaches(&self, sender: u32, target: &Lapic) -> bool {
        match self.shorthand {
            Shorthand::None => target.matches(self.dest),
            Shorthand::Own => target.id() == sender,
            Shorthand::All => target.mode() != Mode::Disabled,
            Shorthand::Others => target.mode() != Mode::Disabled && target.id() != sender,
        }
    }

    /// The id of the one that is meant, if it is named by that.
    pub fn single(&self) -> Option<u32> {
        match (self.shorthand, self.dest) {
            (Shorthand::None, Destination::Physical(id)) => Some(id),
            _ => None,
        }
    }

    fn shorthand(low: u32) -> Shorthand {
        match (low >> 18) & 3 {
            0 => Shorthand::None,
            1 => Shorthand::Own,
            2 => Shorthand::All,
            _ => Shorthand::Others,
        }
    }
}

const LOGICAL: u32 = 1 << 11;
const ASSERT: u32 = 1 << 14;
const LEVEL: u32 = 1 << 15;
/// Bits of the low half of ICR that exist in x2APIC mode (SDM 3A figure 10-28).
pub(super) const ICR_BITS: u32 = 0xff | 7 << 8 | LOGICAL | ASSERT | LEVEL | 3 << 18;

impl Lapic {
    /// Sends what the ICR holds.
    pub(super) fn send(&mut self, icr: u64) -> Effect {
        let Some(ipi) = self.decode_icr(icr) else {
            return Effect::None;
        };
        let needs_vector = matches!(ipi.message.mode, DeliveryMode::FIXED | DeliveryMode::LOWEST_PRIORITY);
        if needs_vector && ipi.message.vector < 16 {
            self.record_error(error::SEND_ILLEGAL_VECTOR);
            return Effect::None;
        }
        match ipi.shorthand {
            Shorthand::Own => {
                // Only a fixed interrupt can be sent to oneself by shorthand (SDM 3A table 10-3).
                if ipi.message.mode == DeliveryMode::FIXED {
                    self.accept(ipi.message.vector, Trigger::Edge);
                }
                Effect::None
            }
            _ => Effect::Ipi(ipi),
        }
    }

    /// `None` for what no processor sends any more: the level de-assert of INIT, and reserved modes.
    fn decode_icr(&self, icr: u64) -> Option<Ipi> {
        let [vector, _, _, _, d0, d1, d2, d3] = icr.to_le_bytes();
        let (low, high) = (low_half(icr), u32::from_le_bytes([d0, d1, d2, d3]));
        let mode = DeliveryMode::from_bits(low);
        let sent = [
            DeliveryMode::FIXED,
            DeliveryMode::LOWEST_PRIORITY,
            DeliveryMode::NMI,
            DeliveryMode::INIT,
            DeliveryMode::STARTUP,
        ];
        let de_assert = mode == DeliveryMode::INIT && low & LEVEL != 0 && low & ASSERT == 0;
        if !sent.contains(&mode) || de_assert {
            return None;
        }
        let logical = low & LOGICAL != 0;
        let dest = match self.mode() {
            Mode::X2Apic => Destination::from_x2apic(high, logical),
            _ => Destination::from_xapic(d3, logical),
        };
        // An IPI is an edge, whatever its trigger bit says (SDM 3A 10.6.1, trigger mode).
        let message = Message { mode, vector, trigger: Trigger::Edge };
        Some(Ipi { dest, shorthand: Ipi::shorthand(low), message })
    }

    /// Takes in a message that was sent to this APIC.
    pub fn deliver(&mut self, message: Message) -> Wakeup {
        if self.mode() == Mode::Disabled {
            return Wakeup::None;
        }
        match message.mode {
            DeliveryMode::FIXED | DeliveryMode::LOWEST_PRIORITY => self.accept(message.vector, message.trigger),
            DeliveryMode::NMI => Wakeup::Nmi,
            DeliveryMode::INIT => Wakeup::Init,
            DeliveryMode::STARTUP => Wakeup::Startup(message.vector),
            DeliveryMode::EXT_INT if self.is_enabled() => Wakeup::ExtInt,
            _ => Wakeup::None,
        }
    }

    /// Whether a destination names this APIC (SDM 3A 10.6.2, 10.12.10). A switched-off one has no name.
    pub fn matches(&self, dest: Destination) -> bool {
        match (self.mode(), dest) {
            (Mode::Disabled, _) => false,
            (_, Destination::Broadcast) => true,
            (Mode::X2Apic, Destination::Physical(id)) => id == self.id(),
            (Mode::XApic, Destination::Physical(id)) => id == self.id() & 0xff,
            (Mode::X2Apic, Destination::Logical(mda)) => {
                let ldr = self.ldr_register();
                mda >> 16 == ldr >> 16 && mda & ldr & 0xffff != 0
            }
            (Mode::XApic, Destination::Logical(mda)) => self.matches_xapic_logical(mda),
        }
    }

    fn matches_xapic_logical(&self, mda: u32) -> bool {
        let own = self.ldr >> 24;
        match self.dfr >> 28 {
            0xf => mda & own & 0xff != 0,
            0x0 => (mda >> 4 == own >> 4 || mda >> 4 == 0xf) && mda & own & 0xf != 0,
            _ => false,
        }
    }
}

pub(super) fn low_half(value: u64) -> u32 {
    let [b0, b1, b2, b3, ..] = value.to_le_bytes();
    u32::from_le_bytes([b0, b1, b2, b3])
}

/// The receiver of a lowest-priority message among the APICs it names: the enabled one with the lowest
/// processor priority, of equals the first. A caller that begins with another candidate each time is fair.
pub fn lowest_priority<'a>(candidates: impl Iterator<Item = (VcpuId, &'a Lapic)>) -> Option<VcpuId> {
    candidates.filter(|(_, apic)| apic.is_enabled()).min_by_key(|(_, apic)| apic.ppr()).map(|(vcpu, _)| vcpu)
}
