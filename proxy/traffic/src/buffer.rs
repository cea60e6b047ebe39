//! Byte buffers of a worker, taken only while there is something to read or write.
//!
//! In: nothing. Out: [`Input`] (initialised memory with a filled part) and [`Output`] (bytes to send), both given back to the
//! thread's pool on drop. Idle connections hold none, so memory follows requests in flight, not connections.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// One TLS record (16 KiB) and room for a head before it.
pub const SIZE: usize = 16 * 1024 + 512;

/// What a buffer begins with: one page holds an ordinary head and a small body, so that a thousand requests that wait for
/// their answers cost megabytes rather than tens of them. A buffer that was filled to its end gives way to a full-sized one.
pub const SMALL: usize = 4096;

/// How many free buffers of each kind a thread keeps: enough for the concurrency at which reuse matters, about 2 MiB at most.
const KEEP: usize = 48;
const KEEP_SMALL: usize = 256;

#[derive(Default)]
struct Pool {
    inputs: Vec<Box<[u8]>>,
    small: Vec<Box<[u8]>>,
    outputs: Vec<Vec<u8>>,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::new(Pool::default());
}

/// A buffer that is read into: `filled` holds what was received and not yet consumed.
#[derive(Debug, Default)]
pub struct Input {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    /// A read filled the whole buffer: more comes at once than a small one takes.
    busy: bool,
}

impl Input {
    /// A buffer that holds no memory until something is read.
    pub fn none() -> Self {
        Self::default()
    }

    /// What was received and not yet consumed.
    #[inline]
    pub fn filled(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// The same, to be changed where it is.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// How many bytes wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Takes `count` bytes from the front.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Room to read into, at least one byte unless `limit` bytes already wait. Takes memory from the pool when there is none.
    pub fn room(&mut self, limit: usize) -> &mut [u8] {
        if self.is_empty() && self.busy && self.bytes.len() < SIZE {
            recycle_input(std::mem::take(&mut self.bytes));
        }
        if self.bytes.is_empty() {
            self.bytes = if self.busy { take(SIZE) } else { take(SMALL) };
        }
        if self.end == self.bytes.len() {
            if self.start > 0 {
                self.bytes.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            } else if self.bytes.len() < limit {
                let mut larger = if self.bytes.len() < SIZE {
                    take(SIZE)
                } else {
                    vec![0; (self.bytes.len() * 2).min(limit.max(SIZE))].into_boxed_slice()
                };
                if let Some(front) = larger.get_mut(..self.end) {
                    front.copy_from_slice(self.bytes.get(..self.end).unwrap_or_default());
                }
                recycle_input(std::mem::replace(&mut self.bytes, larger));
            }
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// Says that `count` bytes of the room were filled.
    #[inline]
    pub fn fill(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
        self.busy = self.end == self.bytes.len();
    }

    /// Appends bytes that were read elsewhere (sniffed before the protocol was known).
    pub fn extend(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.room(self.len() + bytes.len() + SIZE);
            let count = room.len().min(bytes.len());
            let (now, later) = bytes.split_at(count);
            if let Some(front) = room.get_mut(..count) {
                front.copy_from_slice(now);
            }
            self.fill(count);
            bytes = later;
        }
    }

    /// Gives the memory back if nothing waits.
    pub fn release(&mut self) {
        if self.is_empty() && !self.bytes.is_empty() {
            recycle_input(std::mem::take(&mut self.bytes));
            self.start = 0;
            self.end = 0;
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            recycle_input(std::mem::take(&mut self.bytes));
        }
    }
}

fn take(size: usize) -> Box<[u8]> {
    let free = POOL.with_borrow_mut(|pool| {
        if size == SMALL {
            pool.small.pop()
        } else {
            pool.inputs.pop()
        }
    });
    free.unwrap_or_else(|| vec![0; size].into_boxed_slice())
}

fn recycle_input(bytes: Box<[u8]>) {
    // At thread exit the pool may be gone already; then the memory is freed.
    let _gone = POOL.try_with(|pool| {
        let Ok(mut pool) = pool.try_borrow_mut() else { return };
        match bytes.len() {
            SMALL if pool.small.len() < KEEP_SMALL => pool.small.push(bytes),
            SIZE if pool.inputs.len() < KEEP => pool.inputs.push(bytes),
            _ => {}
        }
    });
}

/// Bytes to send; a `Vec` from the pool.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    sent: usize,
}

impl Output {
    /// A buffer that holds no memory until something is written.
    pub const fn none() -> Self {
        Self {
            bytes: Vec::new(),
            sent: 0,
        }
    }

    /// The vector to append to, with pooled capacity.
    pub fn vec(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = POOL
                .with_borrow_mut(|pool| pool.outputs.pop())
                .unwrap_or_else(|| Vec::with_capacity(SMALL));
        }
        &mut self.bytes
    }

    /// What is still to be sent.
    #[inline]
    pub fn pending(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    /// Whether everything was sent.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.sent >= self.bytes.len()
    }

    /// How many more bytes fit before the buffer counts as full.
    #[inline]
    pub fn space(&self) -> usize {
        SIZE.saturating_sub(self.bytes.len())
    }

    /// Says that `count` pending bytes were sent.
    #[inline]
    pub fn advance(&mut self, count: usize) {
        self.sent += count;
        if self.is_empty() {
            self.bytes.clear();
            self.sent = 0;
        }
    }

    /// Gives the memory back if nothing is pending.
    pub fn release(&mut self) {
        if self.is_empty() {
            self.recycle();
        }
    }

    fn recycle(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        self.sent = 0;
        if bytes.capacity() >= SMALL && bytes.capacity() <= 2 * SIZE {
            bytes.clear();
            let _gone = POOL.try_with(|pool| {
                if let Ok(mut pool) = pool.try_borrow_mut()
                    && pool.outputs.len() < KEEP_SMALL
                {
                    pool.outputs.push(bytes);
                }
            });
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.recycle();
    }
}

/// A value from a thread's pool of `T`; for what is too large to live in every connection's task.
#[derive(Debug)]
pub struct Pooled<T: Recycle>(Option<Box<T>>);

/// What a thread keeps for reuse.
pub trait Recycle: Sized + 'static {
    /// A new one.
    fn fresh() -> Self;
    /// Runs `f` on this thread's free list, unless the thread ends.
    fn pool(f: impl FnOnce(&mut Vec<Box<Self>>));
}

impl<T: Recycle> Pooled<T> {
    /// Takes one from the pool or makes one.
    pub fn take() -> Self {
        let mut value = None;
        T::pool(|free| value = free.pop());
        Self(Some(value.unwrap_or_else(|| Box::new(T::fresh()))))
    }
}

impl<T: Recycle> Deref for Pooled<T> {
    type Target = T;
    fn deref(&self) -> &T {
        match &self.0 {
            Some(value) => value,
            None => unreachable!("a pooled value is only taken out on drop"),
        }
    }
}

impl<T: Recycle> DerefMut for Pooled<T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.0 {
            Some(value) => value,
            None => unreachable!("a pooled value is only taken out on drop"),
        }
    }
}

impl<T: Recycle> Drop for Pooled<T> {
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            T::pool(|free| {
                if free.len() < KEEP_SMALL {
                    free.push(value);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_buffer_makes_room_by_moving_then_by_growing_up_to_the_limit() {
        let mut input = Input::default();
        assert_eq!(input.room(4 * SIZE).len(), SMALL);
        input.fill(SMALL);
        input.consume(10);
        assert_eq!(input.room(4 * SIZE).len(), 10);
        input.fill(10);
        assert_eq!((input.len(), input.room(4 * SIZE).len()), (SMALL, SIZE - SMALL));
        input.fill(SIZE - SMALL);
        assert_eq!(input.room(4 * SIZE).len(), SIZE);
        input.fill(SIZE);
        assert!(input.room(2 * SIZE).is_empty());
    }

    #[test]
    fn busy_buffer_gives_way_to_a_large_one_once_it_is_empty() {
        let mut input = Input::default();
        let small = input.room(SIZE).len();
        input.fill(small);
        input.consume(small);
        assert_eq!(input.room(SIZE).len(), SIZE);
        input.fill(100);
        input.consume(100);
        input.release();
        assert_eq!(input.room(SIZE).len(), SMALL);
    }

    #[test]
    fn memory_goes_back_to_the_pool() {
        let mut input = Input::default();
        input.extend(b"abc");
        let before = input.filled().as_ptr();
        input.consume(3);
        input.release();
        let mut next = Input::default();
        next.extend(b"x");
        assert_eq!(next.filled().as_ptr(), before);
    }

    #[test]
    fn output_forgets_what_was_sent() {
        let mut output = Output::none();
        output.vec().extend_from_slice(b"hello");
        output.advance(2);
        assert_eq!(output.pending(), b"llo");
        output.advance(3);
        assert!(output.is_empty());
        assert_eq!(output.vec().len(), 0);
    }
}
