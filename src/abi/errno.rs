//! The error numbers a hypercall returns (`xen/include/public/errno.h`).
//!
//! The numbers are Xen's own, from 1 up, whatever the guest's own system calls them. A hypercall returns
//! the negative number; zero and up is success.

use core::fmt;
use core::num::NonZeroI32;

/// A positive error number. `Result<(), Errno>` takes four bytes and holds zero for success.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Errno(NonZeroI32);

impl Errno {
    /// The error with this positive number; `None` from zero down.
    pub const fn new(number: i32) -> Option<Self> {
        match NonZeroI32::new(number) {
            Some(number) if number.is_positive() => Some(Self(number)),
            _ => None,
        }
    }

    /// The positive number.
    pub const fn number(self) -> i32 {
        self.0.get()
    }

    /// What the caller of a hypercall finds in RAX: the negative number, sign-extended.
    pub const fn to_rax(self) -> u64 {
        (self.0.get() as u64).wrapping_neg()
    }

    /// The name in the header, `None` for a number that has none.
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES.iter().find(|(_, errno)| *errno == self).map(|(name, _)| *name)
    }

    const fn known(number: i32) -> Self {
        match Self::new(number) {
            Some(errno) => errno,
            None => panic!("an error number is positive"),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for Errno {}

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        impl Errno {
            $($(#[$doc])* pub const $name: Self = Self::known($number);)*

            /// Every name of the header with its number, in the header's order.
            pub const NAMES: &[(&str, Errno)] = &[$((stringify!($name), Errno::$name)),*];
        }
    };
}

errnos! {
    /// Operation not permitted.
    EPERM = 1;
    /// No such file or directory.
    ENOENT = 2;
    /// No such process.
    ESRCH = 3;
    /// Interrupted; for the hypervisor itself.
    EINTR = 4;
    /// I/O error.
    EIO = 5;
    /// No such device or address.
    ENXIO = 6;
    /// Argument list too long.
    E2BIG = 7;
    /// Not in an executable format.
    ENOEXEC = 8;
    /// Bad file number.
    EBADF = 9;
    /// No child processes.
    ECHILD = 10;
    /// Try again.
    EAGAIN = 11;
    /// The same number as [`Errno::EAGAIN`].
    EWOULDBLOCK = 11;
    /// Out of memory.
    ENOMEM = 12;
    /// Permission denied.
    EACCES = 13;
    /// Bad address.
    EFAULT = 14;
    /// Busy.
    EBUSY = 16;
    /// Exists already.
    EEXIST = 17;
    /// Across a link of devices.
    EXDEV = 18;
    /// No such device.
    ENODEV = 19;
    /// Not a directory.
    ENOTDIR = 20;
    /// Is a directory.
    EISDIR = 21;
    /// Invalid argument.
    EINVAL = 22;
    /// Table of files overflows.
    ENFILE = 23;
    /// Too many open files.
    EMFILE = 24;
    /// No space left.
    ENOSPC = 28;
    /// Read-only.
    EROFS = 30;
    /// Too many links.
    EMLINK = 31;
    /// Argument outside the domain.
    EDOM = 33;
    /// Result not representable.
    ERANGE = 34;
    /// Would deadlock.
    EDEADLK = 35;
    /// The same number as [`Errno::EDEADLK`].
    EDEADLOCK = 35;
    /// Name too long.
    ENAMETOOLONG = 36;
    /// No record locks left.
    ENOLCK = 37;
    /// Not implemented.
    ENOSYS = 38;
    /// Directory not empty.
    ENOTEMPTY = 39;
    /// No data available.
    ENODATA = 61;
    /// Timer expired.
    ETIME = 62;
    /// Not a data message.
    EBADMSG = 74;
    /// Value too large for its type.
    EOVERFLOW = 75;
    /// Illegal byte sequence.
    EILSEQ = 84;
    /// To be restarted; for the hypervisor itself.
    ERESTART = 85;
    /// Not a socket.
    ENOTSOCK = 88;
    /// Message too large.
    EMSGSIZE = 90;
    /// Operation not supported.
    EOPNOTSUPP = 95;
    /// Address in use.
    EADDRINUSE = 98;
    /// Cannot assign that address.
    EADDRNOTAVAIL = 99;
    /// No buffer space.
    ENOBUFS = 105;
    /// Connected already.
    EISCONN = 106;
    /// Not connected.
    ENOTCONN = 107;
    /// Timed out.
    ETIMEDOUT = 110;
    /// Connection refused.
    ECONNREFUSED = 111;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_and_an_error_fit_into_four_bytes() {
        assert_eq!(size_of::<Result<(), Errno>>(), 4);
    }

    #[test]
    fn an_error_prints_its_name_and_an_unnamed_one_its_number() {
        assert_eq!(format!("{} {:?}", Errno::ENOSYS, Errno::EFAULT), "ENOSYS EFAULT");
        assert_eq!(Errno::new(4000).expect("positive").to_string(), "error 4000");
    }

    #[test]
    fn a_guest_finds_the_negative_number_in_rax() {
        assert_eq!(Errno::EINVAL.to_rax(), 0xffff_ffff_ffff_ffea);
    }

    #[test]
    fn zero_and_negative_numbers_are_no_errors() {
        assert_eq!([Errno::new(0), Errno::new(-22)], [None, None]);
    }
}
