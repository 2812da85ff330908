//! The numbers by which domains, virtual CPUs and ports are known.

use core::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($int:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub $int);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id!(/// A domain's number (`domid_t`), below `DOMID_FIRST_RESERVED` (0x7ff0).
    DomId(u16), "d");
id!(/// A virtual CPU's number within its domain.
    VcpuId(u32), "v");
id!(/// A physical CPU's number, dense from zero, in the order the CPUs were brought up.
    CpuId(u32), "cpu");
