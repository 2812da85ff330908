//! What a guest frame can be (Xen's `p2m_type_t`), and what follows for its entry.

use crate::paging::{Attributes, MemoryType, Rights};

/// What a mapped guest frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The domain's own memory.
    RamRw = 1,
    /// The domain's own memory, which it may not write: writes are ignored.
    RamRo = 2,
    /// The domain's own memory, of which the first write is to be noticed.
    RamLogDirty = 3,
    /// A granted frame of another domain, mapped to be written.
    GrantRw = 4,
    /// A granted frame of another domain, mapped to be read.
    GrantRo = 5,
    /// Another domain's frame, mapped with privilege.
    Foreign = 6,
    /// Registers of a real device.
    MmioDirect = 7,
}

impl Kind {
    /// Whether it is memory that the domain itself owns.
    pub const fn is_ram(self) -> bool {
        matches!(self, Self::RamRw | Self::RamRo | Self::RamLogDirty)
    }

    /// Whether entries of this kind hold a counted reference to a frame of RAM.
    pub const fn holds_reference(self) -> bool {
        !matches!(self, Self::MmioDirect)
    }

    /// Whether the hypervisor may write such a frame on the guest's behalf.
    pub const fn is_writable(self) -> bool {
        self.rights().contains(Rights::WRITE) || matches!(self, Self::RamLogDirty)
    }

    /// The most that a guest may do.
    pub const fn rights(self) -> Rights {
        match self {
            Self::RamRw => Rights::all(),
            Self::RamRo | Self::RamLogDirty => Rights::READ.union(Rights::EXECUTE),
            Self::GrantRw | Self::Foreign | Self::MmioDirect => Rights::READ.union(Rights::WRITE),
            Self::GrantRo => Rights::READ,
        }
    }

    /// The entry of this kind, with no more rights than `access` has, but always that of reading.
    ///
    /// RAM is write-back whatever the guest's PAT says, where the format can tell: without a real device nothing is
    /// gained by other types, and aliases of different types would upset caches.
    pub(super) fn attributes(self, access: Rights) -> Attributes {
        let mmio = self == Self::MmioDirect;
        let rights = self.rights() & (access | Rights::READ);
        let memory = if mmio { MemoryType::Uc } else { MemoryType::Wb };
        Attributes { memory, ignore_pat: !mmio, soft: self as u8, ..Attributes::ram(rights) }
    }

    /// The kind of a present entry, which [`Kind::attributes`] has written.
    pub(super) fn from_soft(soft: u8) -> Self {
        match soft {
            1 => Self::RamRw,
            2 => Self::RamRo,
            3 => Self::RamLogDirty,
            4 => Self::GrantRw,
            5 => Self::GrantRo,
            6 => Self::Foreign,
            _ => Self::MmioDirect,
        }
    }

    /// All kinds.
    #[cfg(test)]
    pub(super) const ALL: [Self; 7] =
        [Self::RamRw, Self::RamRo, Self::RamLogDirty, Self::GrantRw, Self::GrantRo, Self::Foreign, Self::MmioDirect];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_read_back_from_its_entry() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_soft(kind.attributes(Rights::all()).soft), kind);
        }
    }

    #[test]
    fn an_entry_has_no_more_rights_than_its_kind_and_its_access() {
        for kind in Kind::ALL {
            assert_eq!(kind.attributes(Rights::all()).rights, kind.rights());
            assert_eq!(kind.attributes(Rights::READ).rights, Rights::READ);
            assert_eq!(kind.attributes(Rights::empty()).rights, Rights::READ);
        }
    }

    #[test]
    fn only_device_registers_are_uncached() {
        for kind in Kind::ALL {
            let uncached = kind.attributes(Rights::all()).memory == MemoryType::Uc;
            assert_eq!(uncached, kind == Kind::MmioDirect);
        }
    }
}
