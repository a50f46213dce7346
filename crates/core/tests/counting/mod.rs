//! An allocator that counts what the code of one node has allocated and nobody has freed, whoever frees it.

#![allow(unreachable_pub, dead_code, reason = "each test file uses a part of it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};

struct Counting;

/// Whose code runs: 0 nobody's that is watched, 1 the watched node's.
static OWNER: AtomicUsize = AtomicUsize::new(0);
static ALLOCATED: AtomicI64 = AtomicI64::new(0);

/// In front of each allocation its owner is noted; this keeps the alignment.
fn padded(layout: Layout) -> (Layout, usize) {
    let front = layout.align().max(16);
    let size = layout.size().saturating_add(front);
    // SAFETY: the alignment is a power of two, and sizes near the limit are refused by the system's allocator.
    (unsafe { Layout::from_size_align_unchecked(size, front) }, front)
}

// SAFETY: everything is passed on to the system's allocator with a layout that is larger by a front of one alignment, and the pointer
// handed out is that much further on.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (outer, front) = padded(layout);
        // SAFETY: `outer` is not empty.
        let base = unsafe { System.alloc(outer) };
        if base.is_null() {
            return base;
        }
        let owner = OWNER.load(Relaxed);
        if owner == 1 {
            ALLOCATED.fetch_add(layout.size() as i64, Relaxed);
        }
        // SAFETY: the front has at least 16 bytes and their alignment.
        unsafe {
            base.cast::<usize>().write(owner);
            base.add(front)
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let (outer, front) = padded(layout);
        // SAFETY: the pointer came from `alloc` with the same layout.
        unsafe {
            let base = pointer.sub(front);
            if base.cast::<usize>().read() == 1 {
                ALLOCATED.fetch_sub(layout.size() as i64, Relaxed);
            }
            System.dealloc(base, outer);
        }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The node that is watched.
pub const SERVER: usize = 0;

/// For [`Net::watched`](crate::harness::Net::watched).
pub fn watch(running: Option<usize>) {
    OWNER.store(usize::from(running == Some(SERVER)), Relaxed);
}

/// Does what the watched node's application does: what it allocates counts.
pub fn as_application<T>(act: impl FnOnce() -> T) -> T {
    watch(Some(SERVER));
    let done = act();
    watch(None);
    done
}

pub fn allocated() -> i64 {
    ALLOCATED.load(Relaxed)
}
