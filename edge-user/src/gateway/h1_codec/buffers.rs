//! Read buffers of one worker, lent to whoever has bytes in them.
//!
//! A connection that waits owns no buffer, so ten thousand idle connections cost no buffers, and those in use are the
//! ones used a moment ago, warm in the cache. What is kept is bounded; what was grown for a large head is given back to
//! the allocator.

use std::cell::RefCell;

use super::pipes::Pipes;

/// Bytes of a buffer in which a head is put together, with a small body behind it. A request holds one for as long as it
/// waits for its answer.
const HEAD: usize = 8 * 1024;

/// Bytes of a buffer for reading heads and small bodies.
pub(crate) const SMALL: usize = 16 * 1024;

/// Bytes of a buffer for bodies known or found to be large: one read of it replaces thirty-two.
pub(crate) const LARGE: usize = 512 * 1024;

/// Most buffers kept of each size.
const KEPT_SMALL: usize = 64;
const KEPT_LARGE: usize = 4;

/// Buffers that nobody uses.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    heads: RefCell<Vec<Vec<u8>>>,
    small: RefCell<Vec<Vec<u8>>>,
    large: RefCell<Vec<Vec<u8>>>,
    pipes: Pipes,
}

impl Buffers {
    /// An empty buffer of [`HEAD`] bytes.
    pub(crate) fn take_head(&self) -> Vec<u8> {
        let kept = self.heads.borrow_mut().pop();
        kept.unwrap_or_else(|| Vec::with_capacity(HEAD))
    }

    /// An empty buffer of [`SMALL`] bytes.
    pub(crate) fn take(&self) -> Vec<u8> {
        let kept = self.small.borrow_mut().pop();
        kept.unwrap_or_else(|| Vec::with_capacity(SMALL))
    }

    /// An empty buffer of [`LARGE`] bytes.
    pub(crate) fn take_large(&self) -> Vec<u8> {
        let kept = self.large.borrow_mut().pop();
        kept.unwrap_or_else(|| Vec::with_capacity(LARGE))
    }

    /// Pipes to be lent.
    pub(super) fn pipes(&self) -> &Pipes {
        &self.pipes
    }

    /// Takes a buffer back.
    pub(crate) fn put(&self, mut buffer: Vec<u8>) {
        let (kept, most) = match buffer.capacity() {
            HEAD => (&self.heads, KEPT_SMALL),
            SMALL => (&self.small, KEPT_SMALL),
            LARGE => (&self.large, KEPT_LARGE),
            _ => return,
        };
        let mut kept = kept.borrow_mut();
        if kept.len() < most {
            buffer.clear();
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_empty() {
        let buffers = Buffers::default();
        for _ in 0..KEPT_SMALL + 5 {
            let mut buffer = Vec::with_capacity(SMALL);
            buffer.push(1);
            buffers.put(buffer);
            buffers.put(Vec::with_capacity(LARGE));
            buffers.put(Vec::with_capacity(HEAD));
            buffers.put(Vec::with_capacity(SMALL * 2));
            buffers.put(Vec::new());
        }
        assert_eq!(buffers.small.borrow().len(), KEPT_SMALL);
        assert_eq!(buffers.large.borrow().len(), KEPT_LARGE);
        assert_eq!(buffers.heads.borrow().len(), KEPT_SMALL);
        assert!(buffers.take().is_empty());
        assert_eq!(buffers.take_large().capacity(), LARGE);
    }
}
