//! The heap: small objects in a window that grows, large ones straight from the frame allocator.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use linked_list_allocator::Heap;
use model::addr::{MachineAddr, PAGE_SIZE};
use spin::Mutex;

use super::layout::{DIRECT_MAP, HEAP, direct};
use super::{OwnedPages, frames, map};

/// From this size on an object gets frames of its own.
const LARGE: usize = 16 << 10;
/// Bytes by which the window grows.
const STEP: u64 = 1 << 20;
/// Bytes that it may grow to.
const LIMIT: u64 = 1 << 30;

struct Window {
    heap: Heap,
    size: u64,
}

/// The global allocator.
pub struct Allocator(Mutex<Window>);

#[cfg_attr(not(test), global_allocator)]
static ALLOCATOR: Allocator = Allocator(Mutex::new(Window { heap: Heap::empty(), size: 0 }));

impl Window {
    /// Maps [`STEP`] more bytes.
    fn grow(&mut self) -> Option<()> {
        if self.size >= LIMIT {
            return None;
        }
        for offset in (0..STEP).step_by(PAGE_SIZE as usize) {
            let page = OwnedPages::zeroed(0)?;
            let to = page.addr().raw();
            core::mem::forget(page); // the heap keeps what it has
            let at = HEAP + self.size + offset;
            // SAFETY: the window is the heap's alone, and this part was not mapped, or by a step that failed half-way.
            unsafe { map::map(&mut map::Direct, map::root(), at, to, PAGE_SIZE, map::Rights::RW, 12)? };
        }
        // SAFETY: the bytes are mapped and follow those that the heap has.
        unsafe {
            if self.size == 0 {
                self.heap.init(HEAP as *mut u8, STEP as usize);
            } else {
                self.heap.extend(STEP as usize);
            }
        }
        self.size += STEP;
        Some(())
    }

    fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        loop {
            if let Ok(found) = self.heap.allocate_first_fit(layout) {
                return Some(found);
            }
            self.grow()?;
        }
    }
}

/// Bytes that the window has.
pub fn size() -> u64 {
    ALLOCATOR.0.lock().size
}

/// Frames for `size` bytes aligned as asked, with those beyond the size given back.
fn allocate_large(layout: Layout) -> Option<NonNull<u8>> {
    let pages = layout.size().div_ceil(PAGE_SIZE as usize);
    let aligned = pages.max(layout.align() / PAGE_SIZE as usize);
    let order = aligned.checked_next_power_of_two()?.trailing_zeros();
    let base = frames::take(u8::try_from(order).ok()?, None)?;
    let rest = (1u64 << order) - pages as u64;
    frames::give_back(MachineAddr::new(base.raw() + pages as u64 * PAGE_SIZE), rest);
    NonNull::new(direct(base))
}

// SAFETY: objects come from the window, whose allocator keeps them apart, or from frames that nobody else has.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let found = if layout.size() >= LARGE { allocate_large(layout) } else { self.0.lock().allocate(layout) };
        found.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        if object as u64 >= DIRECT_MAP {
            let base = MachineAddr::new(object as u64 - DIRECT_MAP);
            frames::give_back(base, layout.size().div_ceil(PAGE_SIZE as usize) as u64);
        } else if let Some(object) = NonNull::new(object) {
            // SAFETY: by the caller, the object came from `alloc` with this layout, and it lies in the window.
            unsafe { self.0.lock().heap.deallocate(object, layout) };
        }
    }
}
