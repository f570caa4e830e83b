//! Where tensors come from: small ones from the C allocator, large ones from the runtime's arena. Hot path.
//!
//! The arena has one lock, and searches, asks the system for memory and gives it back while it holds it: a run that makes
//! small tensors by the thousand would keep everybody else waiting, and each of them would be an extent of its own. What is
//! made of both counts towards one limit. An allocator that refuses has to throw a C++ exception, which the arena can: what
//! is refused is asked of it, in a size that it does not have.
//!
//! **Source:** docs/decisions/0002-onnx-runtime-sessions.md.

use std::alloc::{Layout, alloc, dealloc};
use std::cell::Cell;
use std::ffi::c_void;
use std::mem::{align_of, size_of, transmute};
use std::ptr;
use std::sync::atomic::{AtomicIsize, Ordering};

use ort_sys::{OrtAllocator, OrtMemoryInfo};

/// Larger tensors are few, and worth keeping for later.
const SMALL_BYTES: usize = 1 << 20;
/// What kernels expect of a tensor's address, and the room before it that says what it is.
const ALIGNMENT: usize = 64;
/// A thread counts for itself up to here: loops that run tiny batches write nothing that others read.
const COUNTED_BYTES: usize = 64 << 10;
/// More than any arena has.
const TOO_MANY: usize = isize::MAX as usize;

/// Bytes of all tensors of the process, weights included, but for what threads have not told yet.
static IN_USE: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    static UNTOLD: Untold = const { Untold(Cell::new(0)) };
}

/// As in the header of the runtime, but that they may throw.
type Alloc = unsafe extern "C-unwind" fn(*mut OrtAllocator, usize) -> *mut c_void;
type Reserve = unsafe extern "C-unwind" fn(*const OrtAllocator, usize) -> *mut c_void;
type Free = unsafe extern "C-unwind" fn(*mut OrtAllocator, *mut c_void);

/// Bytes that a thread has taken, less those that it has given back.
struct Untold(Cell<isize>);

impl Drop for Untold {
    fn drop(&mut self) {
        IN_USE.fetch_add(self.0.get(), Ordering::Relaxed);
    }
}

/// What lies before a tensor.
struct Header {
    /// Where its memory begins.
    start: *mut u8,
    /// Bytes of the tensor.
    size: usize,
}

/// An allocator for sessions, with the arena behind it. The runtime is given its address.
#[repr(C)]
pub(crate) struct Allocator {
    raw: OrtAllocator,
    info: *const OrtMemoryInfo,
    arena: *mut OrtAllocator,
    alloc: Alloc,
    reserve: Reserve,
    free: Free,
    limit: usize,
}

impl Allocator {
    /// An allocator that is never released, of at most `limit` bytes, what it gives to be told by `info`.
    ///
    /// # Safety
    /// `arena` is an allocator of the runtime's own, with every function; it and `info` are alive and never released.
    pub(crate) unsafe fn new(arena: *mut OrtAllocator, info: *const OrtMemoryInfo, limit: Option<usize>) -> *mut Self {
        // SAFETY: alive, and it has these functions; their calling convention is the same whether they may throw or not.
        let (alloc, reserve, free) = unsafe {
            let functions = &*arena;
            (
                transmute::<Option<unsafe extern "system" fn(_, _) -> _>, Alloc>(functions.Alloc),
                transmute::<Option<unsafe extern "system" fn(_, _) -> _>, Reserve>(functions.Reserve),
                transmute::<Option<unsafe extern "system" fn(_, _)>, Free>(functions.Free),
            )
        };
        // SAFETY: as above; the structure is plain data, for which no function is a value.
        let raw = unsafe {
            OrtAllocator {
                Alloc: Some(transmute::<Alloc, unsafe extern "system" fn(_, _) -> _>(allocate)),
                Reserve: Some(transmute::<Reserve, unsafe extern "system" fn(_, _) -> _>(reserve_weights)),
                Free: Some(transmute::<Free, unsafe extern "system" fn(_, _)>(give_back)),
                Info: Some(tell_info),
                ..OrtAllocator::default()
            }
        };
        Box::into_raw(Box::new(Self { raw, info, arena, alloc, reserve, free, limit: limit.unwrap_or(TOO_MANY) }))
    }

    /// Memory for `size` bytes. What the arena throws passes through, so nothing here may wait to be dropped.
    unsafe fn take(&self, size: usize, large: impl FnOnce(usize) -> *mut c_void) -> *mut c_void {
        if size == 0 {
            return ptr::null_mut();
        }
        let room = size.saturating_add(ALIGNMENT);
        if room > TOO_MANY || !self.count(size) {
            return self.refuse(room);
        }
        let start: *mut u8 = if let Some(layout) = small_layout(size) {
            // SAFETY: the layout has a size.
            unsafe { alloc(layout) }
        } else {
            // If it throws, the bytes must not count.
            tell(-size.cast_signed());
            let start = large(room).cast();
            tell(size.cast_signed());
            start
        };
        if start.is_null() {
            tell(-size.cast_signed());
            return self.refuse(TOO_MANY);
        }
        // SAFETY: there are at least as many bytes before the next multiple of the alignment as a header has, as all
        // memory is aligned to that; and as many as the alignment more than the tensor has.
        unsafe {
            let tensor = start.add(ALIGNMENT - start.addr() % ALIGNMENT);
            header_of(tensor).write(Header { start, size });
            tensor.cast()
        }
    }

    /// Counts `size` bytes more, if they are within the limit.
    fn count(&self, size: usize) -> bool {
        let untold = tell(size.cast_signed());
        let in_use = IN_USE.load(Ordering::Relaxed).saturating_add(untold);
        let fits = in_use <= self.limit.cast_signed();
        if !fits {
            tell(-size.cast_signed());
        }
        fits
    }

    /// Throws what the arena throws when it is asked for more than it may have. [`crate::fault`] reads how much it was.
    #[cold]
    fn refuse(&self, room: usize) -> *mut c_void {
        // SAFETY: the arena is alive; it has not as much.
        unsafe { (self.alloc)(self.arena, self.limit.saturating_add(room).min(TOO_MANY)) }
    }
}

/// Bytes of tensors in use, less what threads have not told: at most 64 KiB each.
pub(crate) fn bytes_in_use() -> usize {
    IN_USE.load(Ordering::Relaxed).max(0).cast_unsigned()
}

/// Notes bytes taken or given back by this thread; returns what it has not told.
fn tell(bytes: isize) -> isize {
    let noted = UNTOLD.try_with(|Untold(untold)| {
        let sum = untold.get() + bytes;
        if sum.unsigned_abs() < COUNTED_BYTES {
            untold.set(sum);
            return sum;
        }
        untold.set(0);
        IN_USE.fetch_add(sum, Ordering::Relaxed);
        0
    });
    // The thread is ending.
    noted.unwrap_or_else(|_| {
        IN_USE.fetch_add(bytes, Ordering::Relaxed);
        0
    })
}

/// How a small tensor's memory is laid out; `None`: it is large.
fn small_layout(size: usize) -> Option<Layout> {
    if size > SMALL_BYTES {
        return None;
    }
    Layout::from_size_align(size + ALIGNMENT, size_of::<Header>().max(align_of::<Header>())).ok()
}

#[allow(clippy::cast_ptr_alignment, reason = "a tensor is aligned to four headers")]
unsafe fn header_of(tensor: *mut u8) -> *mut Header {
    // SAFETY: up to the caller: it lies behind a header.
    unsafe { tensor.sub(size_of::<Header>()).cast() }
}

unsafe extern "C-unwind" fn allocate(this: *mut OrtAllocator, size: usize) -> *mut c_void {
    // SAFETY: the runtime passes the address that it was given, which is ours.
    unsafe {
        let this = &*this.cast::<Allocator>();
        this.take(size, |room| (this.alloc)(this.arena, room))
    }
}

unsafe extern "C-unwind" fn reserve_weights(this: *const OrtAllocator, size: usize) -> *mut c_void {
    // SAFETY: as above.
    unsafe {
        let this = &*this.cast::<Allocator>();
        this.take(size, |room| (this.reserve)(this.arena, room))
    }
}

unsafe extern "C-unwind" fn give_back(this: *mut OrtAllocator, tensor: *mut c_void) {
    if tensor.is_null() {
        return;
    }
    // SAFETY: as above; the tensor is ours, given back once, by the layout that it was taken with.
    unsafe {
        let this = &*this.cast::<Allocator>();
        let Header { start, size } = header_of(tensor.cast()).read();
        tell(-size.cast_signed());
        match small_layout(size) {
            Some(layout) => dealloc(start, layout),
            None => (this.free)(this.arena, start.cast()),
        }
    }
}

unsafe extern "system" fn tell_info(this: *const OrtAllocator) -> *const OrtMemoryInfo {
    // SAFETY: as above.
    unsafe { (*this.cast::<Allocator>()).info }
}

#[cfg(test)]
mod tests;
