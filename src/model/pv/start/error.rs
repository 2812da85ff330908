//! Why a PV guest cannot be built, in an operator's words.

use core::fmt;

/// Why a PV guest cannot be built. Its text says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PvError {
    /// The kernel has no `XEN_ELFNOTE_ENTRY`.
    NoEntry,
    /// A 32-bit kernel.
    Not64Bit,
    /// The kernel is made for another interface than "xen-3.0".
    OtherInterface,
    /// The kernel wants neither the generic loader nor calls itself Linux.
    OtherLoader,
    /// The kernel's `XEN_ELFNOTE_SUPPORTED_FEATURES` does not have `XENFEAT_dom0`.
    NotForDom0,
    /// The kernel needs what a PV guest on x86-64 does not get.
    Needs {
        /// The feature's name in features.h.
        feature: &'static str,
    },
    /// A note has a value that cannot be.
    BadNote {
        /// The note's name, less `XEN_ELFNOTE_`.
        note: &'static str,
        /// Its value.
        value: u64,
        /// What it must be.
        expected: &'static str,
    },
    /// A segment lies before the first frame.
    BelowBase {
        /// The segment's physical address.
        paddr: u64,
    },
    /// The entry lies outside of all segments.
    EntryOutside {
        /// The entry's virtual address.
        entry: u64,
    },
    /// There are too few virtual addresses behind the kernel, or they are the hypervisor's.
    NoAddresses {
        /// What does not fit.
        what: &'static str,
    },
    /// The memory is too small.
    NoRoom {
        /// What does not fit.
        what: &'static str,
        /// Frames that it would take.
        needs: u64,
        /// Frames that the guest has.
        has: u64,
    },
}

impl fmt::Display for PvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |frames: u64| frames >> 8;
        match *self {
            Self::NoEntry => write!(
                f,
                "no PV entry (ELF note XEN_ELFNOTE_ENTRY): a Linux kernel needs CONFIG_XEN_PV=y; \
                 a kernel with a PVH entry alone starts with type = \"pvh\", or dom0=pvh"
            ),
            Self::Not64Bit => write!(f, "a 32-bit kernel: PV guests are 64-bit; use an x86-64 kernel"),
            Self::OtherInterface => {
                write!(f, "the kernel is not made for Xen 3.0 or later (ELF note XEN_ELFNOTE_XEN_VERSION)")
            }
            Self::OtherLoader => write!(
                f,
                "the kernel wants a loader of its own (ELF note XEN_ELFNOTE_LOADER): only generic ones and Linux start"
            ),
            Self::NotForDom0 => write!(
                f,
                "the kernel cannot be the initial domain: a Linux kernel needs CONFIG_XEN_DOM0=y \
                 (Debian's cloud kernels have it not; take the normal ones)"
            ),
            Self::Needs { feature } => write!(f, "the kernel needs \"{feature}\", which PV guests do not get"),
            Self::BadNote { note, value, expected } => {
                write!(f, "the kernel's ELF note XEN_ELFNOTE_{note} is {value:#x}; it must be {expected}")
            }
            Self::BelowBase { paddr } => {
                write!(f, "a segment at physical {paddr:#x} lies before XEN_ELFNOTE_PADDR_OFFSET")
            }
            Self::EntryOutside { entry } => {
                write!(f, "the kernel's PV entry {entry:#x} lies in none of its segments")
            }
            Self::NoAddresses { what } => {
                write!(
                    f,
                    "the {what} reaches the hypervisor's addresses or the last one; use a smaller ramdisk or memory"
                )
            }
            Self::NoRoom { what, needs, has } => write!(
                f,
                "memory is too small: with the {what} it takes {} MiB and the domain has {} MiB; raise memory=",
                mib(needs) + 1,
                mib(has)
            ),
        }
    }
}

impl core::error::Error for PvError {}
