use std::sync::atomic::AtomicUsize;

use super::*;

/// An arena that counts what it is asked for, and throws nothing: a test has nobody to catch it.
#[repr(C)]
struct Arena {
    raw: OrtAllocator,
    asked: AtomicUsize,
    limit: usize,
    held: AtomicUsize,
    /// Bytes that it says it has.
    kept: AtomicUsize,
}

unsafe extern "system" fn arena_alloc(this: *mut OrtAllocator, size: usize) -> *mut c_void {
    // SAFETY: only ever called with the arena of a test.
    let arena = unsafe { &*this.cast::<Arena>() };
    arena.asked.store(size, Ordering::Relaxed);
    if size > arena.limit {
        return ptr::null_mut();
    }
    arena.held.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the layout has a size.
    unsafe { alloc(Layout::from_size_align(size, 256).expect("a layout")).cast() }
}

unsafe extern "system" fn arena_reserve(this: *const OrtAllocator, size: usize) -> *mut c_void {
    // SAFETY: as above.
    unsafe { arena_alloc(this.cast_mut(), size) }
}

unsafe extern "system" fn arena_free(this: *mut OrtAllocator, start: *mut c_void) {
    // SAFETY: as above; what a test takes from the arena has this size.
    unsafe {
        (*this.cast::<Arena>()).held.fetch_sub(1, Ordering::Relaxed);
        dealloc(start.cast(), Layout::from_size_align(LARGE + ALIGNMENT + BEHIND, 256).expect("a layout"));
    }
}

const LARGE: usize = SMALL_BYTES + 1;
const LIMIT: usize = 1 << 40;

fn arena() -> &'static Arena {
    // SAFETY: plain data, for which no function is a value.
    let raw = unsafe {
        OrtAllocator {
            Alloc: Some(arena_alloc),
            Reserve: Some(arena_reserve),
            Free: Some(arena_free),
            ..OrtAllocator::default()
        }
    };
    Box::leak(Box::new(Arena {
        raw,
        asked: AtomicUsize::new(0),
        limit: LIMIT,
        held: AtomicUsize::new(0),
        kept: AtomicUsize::new(0),
    }))
}

impl Behind for Arena {
    fn held_bytes(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    fn give_back(&self) {
        self.kept.store(0, Ordering::Relaxed);
    }
}

fn before(arena: &'static Arena) -> *mut OrtAllocator {
    limited(arena, LIMIT)
}

fn limited(arena: &'static Arena, limit: usize) -> *mut OrtAllocator {
    let raw = (&raw const arena.raw).cast_mut();
    // SAFETY: the arena has its functions and lives on.
    unsafe { Allocator::new(raw, arena, ptr::null(), Some(limit)).cast() }
}

#[test]
fn small_tensors_are_aligned_apart_and_not_of_the_arena() {
    let arena = arena();
    let allocator = before(arena);
    let sizes = [1, 3, 15, 16, 63, 64, 65, 1_000, 4_096, 32_769, SMALL_BYTES];
    // SAFETY: the allocator is alive; each tensor is written within its size, and freed once.
    unsafe {
        let tensors = sizes.map(|size| {
            let tensor = allocate(allocator, size).cast::<u8>();
            assert_eq!(tensor.addr() % ALIGNMENT, 0, "{size}");
            tensor.write_bytes(size.to_le_bytes()[0], size);
            (tensor, size)
        });
        for (tensor, size) in tensors {
            assert!(std::slice::from_raw_parts(tensor, size).iter().all(|byte| *byte == size.to_le_bytes()[0]));
            give_back(allocator, tensor.cast());
        }
    }
    assert_eq!(arena.asked.load(Ordering::Relaxed), 0);
}

#[test]
fn large_tensors_and_weights_are_of_the_arena_and_go_back_to_it() {
    let arena = arena();
    let allocator = before(arena);
    // SAFETY: as above.
    unsafe {
        let tensors = [allocate(allocator, LARGE), reserve_weights(allocator, LARGE)];
        assert_eq!(arena.held.load(Ordering::Relaxed), 2);
        for tensor in tensors {
            assert_eq!(tensor.addr() % ALIGNMENT, 0);
            tensor.cast::<u8>().write_bytes(1, LARGE);
            give_back(allocator, tensor);
        }
    }
    assert_eq!(arena.held.load(Ordering::Relaxed), 0);
}

#[test]
fn what_is_over_the_limit_is_asked_of_the_arena_on_top_of_it_and_does_not_count() {
    let arena = arena();
    let allocator = before(arena);
    for size in [LIMIT + 1, 1 << 62, TOO_MANY - 1, usize::MAX, usize::MAX - ALIGNMENT] {
        // SAFETY: the allocator is alive; nothing comes of it.
        assert!(unsafe { allocate(allocator, size) }.is_null());
        let asked = arena.asked.load(Ordering::Relaxed);
        assert!(asked > LIMIT && asked <= TOO_MANY, "{size}: {asked}");
        assert!(bytes_in_use() < LIMIT, "{size}");
    }
}

#[test]
fn nothing_is_nothing() {
    let allocator = before(arena());
    // SAFETY: the allocator is alive.
    unsafe {
        assert!(allocate(allocator, 0).is_null());
        give_back(allocator, ptr::null_mut());
    }
}

#[test]
fn a_thread_that_ends_tells_what_it_took() {
    let allocator = before(arena()).expose_provenance();
    let size = COUNTED_BYTES / 2;
    let taken = std::thread::spawn(move || {
        // SAFETY: the allocator is alive; the tensor is freed below.
        unsafe { allocate(ptr::with_exposed_provenance_mut(allocator), size) }.expose_provenance()
    });
    let tensor = taken.join().expect("the thread ends");
    // Other tests' threads tell at most as much as one of them holds.
    assert!(bytes_in_use() > 0);
    // SAFETY: taken from this allocator above.
    unsafe { give_back(ptr::with_exposed_provenance_mut(allocator), ptr::with_exposed_provenance_mut(tensor)) };
}

#[test]
fn a_limit_beyond_all_numbers_is_none() {
    let allocator = limited(arena(), usize::MAX);
    // SAFETY: the allocator is alive; the tensor is freed once.
    unsafe {
        let tensor = allocate(allocator, 1);
        assert!(!tensor.is_null());
        give_back(allocator, tensor);
    }
}

#[test]
fn what_the_arena_keeps_for_later_makes_room_for_small_tensors() {
    let arena = arena();
    let allocator = limited(arena, 64 << 20);
    // SAFETY: the allocator is alive; each tensor is freed once.
    unsafe {
        arena.kept.store(60 << 20, Ordering::Relaxed);
        let large = allocate(allocator, LARGE);
        assert_eq!(arena.kept.load(Ordering::Relaxed), 60 << 20, "there is room for both");
        let small: Vec<_> = (0..128).map(|_| allocate(allocator, SMALL_BYTES)).collect();
        assert_eq!(arena.kept.load(Ordering::Relaxed), 0);
        for tensor in small.into_iter().chain([large]) {
            assert!(!tensor.is_null());
            give_back(allocator, tensor);
        }
    }
}

#[test]
fn a_tensor_counts_with_what_it_takes_beside_its_values() {
    let allocator = before(arena());
    // SAFETY: the allocator is alive; each tensor is freed once.
    unsafe {
        let before = small_in_use();
        let tensors: Vec<_> = (0..10_000).map(|_| allocate(allocator, 1)).collect();
        // Other tests take and give back a few MiB meanwhile.
        assert!(small_in_use() + (16 << 20) > before + 10_000 * BESIDE_BYTES);
        for tensor in tensors {
            give_back(allocator, tensor);
        }
    }
}
