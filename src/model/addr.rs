//! The kinds of address and frame number. A conversion that means something has a name that says what.
//!
//! | type | what it counts |
//! |---|---|
//! | [`MachineAddr`], [`Mfn`] | bytes and 4 KiB frames of the real machine |
//! | [`GuestPhys`], [`Gfn`] | bytes and 4 KiB frames that a guest's page tables name |
//! | [`Pfn`] | frames of the contiguous memory a PV guest believes it has |
//! | [`GuestVirt`] | a guest's linear address |

use core::fmt;

/// Bytes in a frame.
pub const PAGE_SIZE: u64 = 4096;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The number as it is.
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }
            /// The plain number.
            pub const fn raw(self) -> u64 {
                self.0
            }
            /// This many further on, or `None` past the end of 64 bits.
            pub const fn checked_add(self, count: u64) -> Option<Self> {
                match self.0.checked_add(count) {
                    Some(raw) => Some(Self(raw)),
                    None => None,
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{:#x}"), self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

number!(/// A frame of machine memory.
    Mfn, "mfn ");
number!(/// What a guest's page tables hold: a [`Pfn`] if the guest is translated, else an [`Mfn`].
    Gfn, "gfn ");
number!(/// A frame of the contiguous memory a guest believes it has.
    Pfn, "pfn ");
number!(/// A byte of machine memory.
    MachineAddr, "maddr ");
number!(/// A byte of a guest's physical memory.
    GuestPhys, "gpa ");
number!(/// A guest's linear address.
    GuestVirt, "gva ");

impl Mfn {
    /// The address of the frame's first byte.
    pub const fn base(self) -> MachineAddr {
        MachineAddr(self.0 << PAGE_SHIFT)
    }
}

impl MachineAddr {
    /// The frame that holds this byte.
    pub const fn frame(self) -> Mfn {
        Mfn(self.0 >> PAGE_SHIFT)
    }
    /// Where in its frame the byte lies.
    pub const fn offset(self) -> usize {
        (self.0 & (PAGE_SIZE - 1)) as usize
    }
}

impl Gfn {
    /// The address of the frame's first byte.
    pub const fn base(self) -> GuestPhys {
        GuestPhys(self.0 << PAGE_SHIFT)
    }
}

impl GuestPhys {
    /// The frame that holds this byte.
    pub const fn frame(self) -> Gfn {
        Gfn(self.0 >> PAGE_SHIFT)
    }
    /// Where in its frame the byte lies.
    pub const fn offset(self) -> usize {
        (self.0 & (PAGE_SIZE - 1)) as usize
    }
}

impl GuestVirt {
    /// Whether bits 63 to 47 agree, as a 48-bit linear address needs (SDM 1 3.3.7.1).
    pub const fn is_canonical(self) -> bool {
        let top = (self.0 as i64) >> 47;
        top == 0 || top == -1
    }
    /// Where in its page the byte lies.
    pub const fn offset(self) -> usize {
        (self.0 & (PAGE_SIZE - 1)) as usize
    }
}
