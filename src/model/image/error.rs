//! Why a module cannot be loaded as a kernel, in an operator's words.

use super::unpack::Format;
use alloc::string::String;
use core::fmt;

/// Why a module is not a kernel that can be loaded. Its text says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// Neither ELF, nor gzip, nor a bzImage.
    NotKernel,
    /// The headers describe more bytes than the module has.
    Truncated {
        /// Bytes that the headers describe.
        needs: u64,
        /// Bytes in the module.
        has: u64,
    },
    /// A bzImage of a boot protocol before 2.08, which does not say where its payload is.
    OldProtocol {
        /// Major number in the upper byte, minor in the lower.
        version: u16,
    },
    /// A compression that is not built in.
    UnknownCompression {
        /// The first bytes of the payload.
        magic: [u8; 4],
        /// Its name, where the bytes are known.
        name: Option<&'static str>,
    },
    /// More bytes than the caller allows.
    TooLarge {
        /// Bytes that the kernel becomes.
        unpacked: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The compressed data is damaged.
    Corrupt {
        /// How it is compressed.
        format: Format,
        /// What the decoder found.
        why: String,
    },
    /// The data unpacks to another size than it announces.
    WrongLength {
        /// Bytes announced.
        announced: u64,
        /// Bytes that came out, or at least so many.
        found: u64,
    },
    /// The heap cannot hold what the decoder needs beside the result.
    NoMemory {
        /// How the kernel is compressed.
        format: Format,
        /// Bytes that the decoder asked for in one piece.
        bytes: u64,
    },
    /// The buffer for the result has another size than [`super::Packed::unpacked_len`].
    WrongBuffer {
        /// Bytes the kernel becomes.
        needs: u64,
        /// Bytes in the buffer.
        has: u64,
    },
    /// An ELF file that cannot be loaded.
    BadElf {
        /// What is wrong with it.
        why: &'static str,
    },
    /// An ELF file for another processor.
    WrongMachine {
        /// `e_machine`.
        machine: u16,
    },
    /// An ELF file without `XEN_ELFNOTE_PHYS32_ENTRY`.
    NoPvhEntry,
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotKernel => write!(f, "not a kernel: neither ELF nor bzImage; check the module's path"),
            Self::Truncated { needs, has } => {
                write!(f, "the kernel module is truncated: header says {needs} bytes, module has {has}; copy it again")
            }
            Self::OldProtocol { version } => write!(
                f,
                "bzImage of boot protocol {}.{:02}: 2.08 or later is needed (Linux 2.6.26)",
                version >> 8,
                version & 0xff
            ),
            Self::UnknownCompression { magic, name } => unknown_compression(f, *magic, *name),
            Self::TooLarge { unpacked, limit } => {
                write!(f, "the kernel unpacks to {unpacked} bytes, more than the {limit} that there is room for")
            }
            Self::Corrupt { format, why } => {
                write!(f, "the kernel's {format} data is damaged ({why}); copy the file again")
            }
            Self::WrongLength { announced, found } => {
                write!(f, "the kernel announces {announced} bytes but unpacks to {found}; copy the file again")
            }
            Self::NoMemory { format, bytes } => {
                write!(f, "no memory to unpack the kernel: {format} needs {bytes} bytes in one piece beside the result")
            }
            Self::WrongBuffer { needs, has } => {
                write!(f, "the kernel unpacks to {needs} bytes, the buffer for it has {has}")
            }
            Self::BadElf { why } => write!(f, "the kernel's ELF file cannot be loaded: {why}"),
            Self::WrongMachine { machine } => {
                write!(f, "the kernel is for another processor (ELF machine {machine}): x86 is needed")
            }
            Self::NoPvhEntry => write!(
                f,
                "no PVH entry (ELF note XEN_ELFNOTE_PHYS32_ENTRY): a Linux kernel needs CONFIG_PVH=y or CONFIG_XEN_PVH=y"
            ),
        }
    }
}

fn unknown_compression(f: &mut fmt::Formatter<'_>, magic: [u8; 4], name: Option<&str>) -> fmt::Result {
    match name {
        Some(name) => write!(f, "the kernel is compressed with {name}")?,
        None => write!(f, "the kernel's payload begins with {magic:02x?}, which is no known compression")?,
    }
    write!(f, "; built in are gzip, xz, zstd and LZ4")
}

impl core::error::Error for ImageError {}
