//! Kernels in boot modules: unpacked once for all domains that are made from one at the same time.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use model::image::{Elf, Kind, decompress, inspect};
use sync::place::{self, Root};
use sync::{Cx, Lock};

/// Unpacked kernels may have this many bytes.
const MAX_KERNEL: u64 = 256 << 20;

/// An ELF kernel: a module as it is, or unpacked.
enum KernelBytes {
    Module(&'static [u8]),
    Unpacked(Vec<u8>),
}

/// A kernel that domains are made from; several share it.
pub struct Kernel {
    /// Where its module begins, by which it is known.
    module: usize,
    bytes: KernelBytes,
    elf: Elf,
}

impl Kernel {
    /// What its file says of it.
    pub fn elf(&self) -> &Elf {
        &self.elf
    }

    /// The file.
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            KernelBytes::Module(bytes) => bytes,
            KernelBytes::Unpacked(bytes) => bytes,
        }
    }
}

/// The kernel in a module, unpacked unless it is a plain ELF; one that another domain has is shared.
pub fn unpack(cx: &mut Cx<'_, Root>, module: &'static [u8]) -> Result<Arc<Kernel>, String> {
    static KERNELS: Lock<place::DomainList, Vec<Weak<Kernel>>> = Lock::new(Vec::new());
    {
        let (mut kernels, _) = cx.lock(&KERNELS);
        kernels.retain(|kernel| kernel.strong_count() > 0);
        let found = kernels.iter().filter_map(Weak::upgrade).find(|kernel| kernel.module == module.as_ptr() as usize);
        if let Some(found) = found {
            return Ok(found);
        }
    }
    let bytes = match inspect(module, MAX_KERNEL).map_err(|error| error.to_string())? {
        Kind::Elf => KernelBytes::Module(module),
        Kind::Packed(packed) => {
            let len = packed.unpacked_len;
            log::info!("unpacking a kernel of {} KiB to {} KiB", module.len() >> 10, len >> 10);
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(len).map_err(|_| format!("no {len} bytes of memory to unpack the kernel"))?;
            bytes.resize(len, 0);
            decompress(module, &packed, &mut bytes).map_err(|error| error.to_string())?;
            KernelBytes::Unpacked(bytes)
        }
    };
    let elf = match &bytes {
        KernelBytes::Module(bytes) => Elf::parse(bytes),
        KernelBytes::Unpacked(bytes) => Elf::parse(bytes),
    };
    let elf = elf.map_err(|error| error.to_string())?;
    let kernel = Arc::new(Kernel { module: module.as_ptr() as usize, bytes, elf });
    cx.lock(&KERNELS).0.push(Arc::downgrade(&kernel));
    Ok(kernel)
}
