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
use std::mem::{size_of, transmute};
use std::ptr;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};

use ort_sys::{OrtAllocator, OrtMemoryInfo};

/// Larger tensors are few. What lies free at the ends of heaps the C allocator keeps, in a process that is not ours.
const SMALL_BYTES: usize = 64 << 10;
/// What kernels expect of a tensor's address, and the room before it that says what it is.
const ALIGNMENT: usize = 64;
/// Kernels may read so far beyond a tensor (the runtime's own allocator leaves 30 bytes for them on ARM).
const BEHIND: usize = 64;
/// What a tensor takes beside its values, here and in the runtime's own objects: many small ones would be free otherwise.
const BESIDE_BYTES: usize = 256;
/// A thread counts for itself up to here: loops that run tiny batches write nothing that others read.
const COUNTED_BYTES: usize = 64 << 10;
/// More than any arena has.
const TOO_MANY: usize = isize::MAX as usize;

/// Bytes of small tensors of the process, but for what threads have not told yet.
static SMALL: AtomicIsize = AtomicIsize::new(0);
/// Bytes of large ones.
static LARGE: AtomicIsize = AtomicIsize::new(0);

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
        SMALL.fetch_add(self.0.get(), Ordering::Relaxed);
    }
}

/// What lies before a tensor.
struct Header {
    /// Where its memory begins.
    start: *mut u8,
    /// Bytes of the tensor.
    size: usize,
}

/// The arena behind an allocator.
pub(crate) trait Behind {
    /// Bytes that it has taken from the system.
    fn held_bytes(&self) -> usize;

    /// Gives back what no tensor uses.
    fn give_back(&self);
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
    behind: &'static dyn Behind,
    /// Bytes that the arena held when it was asked last.
    held: AtomicUsize,
    limit: usize,
}

impl Allocator {
    /// An allocator that is never released, of at most `limit` bytes, what it gives to be told by `info`.
    ///
    /// # Safety
    /// `arena` is an allocator of the runtime's own, with every function; it and `info` are alive and never released.
    pub(crate) unsafe fn new(
        arena: *mut OrtAllocator,
        behind: &'static dyn Behind,
        info: *const OrtMemoryInfo,
        limit: Option<usize>,
    ) -> *mut Self {
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
        let (held, limit) = (AtomicUsize::new(0), limit.unwrap_or(TOO_MANY).min(TOO_MANY));
        Box::into_raw(Box::new(Self { raw, info, arena, alloc, reserve, free, behind, held, limit }))
    }

    /// Memory for `size` bytes. What the arena throws passes through, so nothing here may wait to be dropped.
    unsafe fn take(&self, size: usize, large: impl FnOnce(usize) -> *mut c_void) -> *mut c_void {
        if size == 0 {
            return ptr::null_mut();
        }
        let room = size.saturating_add(ALIGNMENT + BEHIND);
        if !self.has_room(size) {
            return self.refuse(room);
        }
        let start: *mut u8 = if let Some(layout) = small_layout(size) {
            // SAFETY: the layout has a size.
            unsafe { alloc(layout) }
        } else {
            large(room).cast()
        };
        if start.is_null() {
            return self.refuse(TOO_MANY);
        }
        count(size, 1);
        if size > SMALL_BYTES {
            self.keep_within_limit();
        }
        // SAFETY: there are at least as many bytes before the next multiple of the alignment as a header has, as all
        // memory is aligned to that; and as many as the alignment more than the tensor has.
        unsafe {
            let tensor = start.add(ALIGNMENT - start.addr() % ALIGNMENT);
            header_of(tensor).write(Header { start, size });
            tensor.cast()
        }
    }

    /// Whether `size` bytes more are within the limit. Nothing is counted yet: what is refused must not be in others' way.
    fn has_room(&self, size: usize) -> bool {
        let small = small_in_use();
        let after = size.saturating_add(BESIDE_BYTES).saturating_add(small);
        if after.saturating_add(large_in_use()) > self.limit {
            return false;
        }
        // The arena keeps to the limit by itself.
        if size <= SMALL_BYTES && after.saturating_add(self.held.load(Ordering::Relaxed)) > self.limit {
            self.keep_within_limit();
        }
        true
    }

    /// Lets the arena give back what it keeps for later, if there is no room for that beside small tensors.
    fn keep_within_limit(&self) {
        let mut held = self.behind.held_bytes();
        let keeps_for_later = held > large_in_use().saturating_add(SMALL_BYTES);
        if keeps_for_later && small_in_use().saturating_add(held) > self.limit {
            self.behind.give_back();
            held = self.behind.held_bytes();
        }
        self.held.store(held, Ordering::Relaxed);
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
    SMALL.load(Ordering::Relaxed).max(0).cast_unsigned() + large_in_use()
}

/// Bytes of large tensors.
fn large_in_use() -> usize {
    LARGE.load(Ordering::Relaxed).max(0).cast_unsigned()
}

/// Bytes of small tensors, as far as this thread knows.
fn small_in_use() -> usize {
    let untold = UNTOLD.try_with(|Untold(untold)| untold.get()).unwrap_or(0);
    SMALL.load(Ordering::Relaxed).saturating_add(untold).max(0).cast_unsigned()
}

/// Notes that a tensor was taken (`sign` 1) or given back (-1).
fn count(size: usize, sign: isize) {
    let bytes = sign * size.saturating_add(BESIDE_BYTES).cast_signed();
    if size > SMALL_BYTES {
        LARGE.fetch_add(bytes, Ordering::Relaxed);
        return;
    }
    let noted = UNTOLD.try_with(|Untold(untold)| {
        let sum = untold.get() + bytes;
        let is_much = sum.unsigned_abs() >= COUNTED_BYTES;
        untold.set(if is_much { 0 } else { sum });
        if is_much {
            SMALL.fetch_add(sum, Ordering::Relaxed);
        }
    });
    if noted.is_err() {
        // The thread is ending.
        SMALL.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// How a small tensor's memory is laid out; `None`: it is large.
fn small_layout(size: usize) -> Option<Layout> {
    if size > SMALL_BYTES {
        return None;
    }
    Layout::from_size_align(size + ALIGNMENT + BEHIND, size_of::<Header>()).ok()
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
        count(size, -1);
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
