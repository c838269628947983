//! Memory of the buffers that requests are read into: there from the start, not when it is first touched.
//!
//! While the kernel copies a request to a process that is being killed, a page of the buffer that is not there yet is not
//! made any more: the copy fails, and the kernel ends the request with an I/O error at the application instead of
//! giving it to the next process. A page that is there is copied to all the same. (Seen with 7 of 200 processes that were
//! killed while their first large writes arrived; with resident buffers with none.)
//!
//! The buffers are `fuser`'s own, so they are recognised by their size. One of the three files with `unsafe`: an allocator is.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};

/// Size from which on an allocation of zeroes is taken for a buffer of requests: `fuser`'s are 16 MiB and a page, and
/// nothing else here is as large.
const BUFFER_MIN: usize = 16 << 20;
/// How much of it is used: the largest write, its header, and room for the alignment.
const USED: usize = (1 << 20) + (64 << 10);
/// Smallest page there is.
const PAGE: usize = 4096;

/// The system's allocator, but for buffers of requests.
struct Resident;

#[global_allocator]
static ALLOCATOR: Resident = Resident;

// SAFETY: all memory comes from and goes back to the system's allocator, with the layouts it was asked for with.
unsafe impl GlobalAlloc for Resident {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        let memory = unsafe { System.alloc_zeroed(layout) };
        if layout.size() >= BUFFER_MIN && !memory.is_null() {
            for offset in (0..USED).step_by(PAGE) {
                // SAFETY: the offset is within the allocation, which is larger than `USED` and nobody else's yet.
                unsafe { memory.add(offset).write_volatile(0) };
            }
        }
        memory
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(memory, layout, size) }
    }
}
