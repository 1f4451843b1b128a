//! Pipes of one worker, through which the kernel moves large bodies from socket to socket: their bytes are never copied
//! into this process and out again.
//!
//! Whatever a pipe holds belongs to one flow; only empty ones are kept for another. There are [`MOST`] at most, however
//! many clients read slowly: bodies beyond those, or where the process has no more files, go through buffers.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::{io::Interest, net::TcpStream};

/// Bytes that a pipe is asked to hold: as many as a large buffer.
const ROOM: usize = super::buffers::LARGE;

/// What a pipe holds that may not be larger (pipe(7)).
const LEAST_ROOM: usize = 64 * 1024;

/// Most pipes of a worker, two files each.
const MOST: usize = 64;

/// Most pipes that are kept.
const KEPT: usize = 8;

/// A pipe, and how much is in it.
#[derive(Debug)]
pub(super) struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    room: usize,
    held: usize,
    _counted: Counted,
}

/// Counts a pipe while it lives.
#[derive(Debug)]
struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn new(open: &Rc<Cell<usize>>) -> Self {
        open.set(open.get() + 1);
        Self(Rc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Pipe {
    fn new(open: &Rc<Cell<usize>>) -> io::Result<Self> {
        let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // One that may not be large is used as it is.
        let room = fcntl_setpipe_size(&into, ROOM).unwrap_or(LEAST_ROOM);
        Ok(Self {
            out,
            into,
            room,
            held: 0,
            _counted: Counted::new(open),
        })
    }

    /// Bytes in it.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Takes up to `most` bytes out of a socket; 0 at its end.
    ///
    /// # Errors
    /// The socket's; [`io::ErrorKind::WouldBlock`] if it has nothing.
    pub(super) fn take(&mut self, socket: &TcpStream, most: u64) -> io::Result<usize> {
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(self.room);
        let taken = self.moved(socket, Interest::READABLE, |pipe| {
            splice(socket.as_fd(), None, &pipe.into, None, most, flags())
        })?;
        self.held += taken;
        Ok(taken)
    }

    /// Gives what is in it to a socket, as far as that takes it.
    ///
    /// # Errors
    /// The socket's; [`io::ErrorKind::WouldBlock`] if it takes nothing.
    pub(super) fn give(&mut self, socket: &TcpStream) -> io::Result<usize> {
        let given = self.moved(socket, Interest::WRITABLE, |pipe| {
            splice(&pipe.out, None, socket.as_fd(), None, pipe.held, flags())
        })?;
        self.held -= given.min(self.held);
        Ok(given)
    }

    fn moved(
        &self,
        socket: &TcpStream,
        interest: Interest,
        splice: impl Fn(&Self) -> rustix::io::Result<usize>,
    ) -> io::Result<usize> {
        socket.try_io(interest, || splice(self).map_err(io::Error::from))
    }
}

fn flags() -> SpliceFlags {
    SpliceFlags::NONBLOCK | SpliceFlags::MOVE
}

/// Pipes of a worker.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    /// Those that nobody uses.
    kept: RefCell<Vec<Pipe>>,
    open: Rc<Cell<usize>>,
}

impl Pipes {
    /// An empty pipe, if there is one to be had.
    pub(super) fn take(&self) -> Option<Pipe> {
        let kept = self.kept.borrow_mut().pop();
        kept.or_else(|| {
            let may = self.open.get() < MOST;
            may.then(|| Pipe::new(&self.open).ok()).flatten()
        })
    }

    /// Takes a pipe back.
    pub(super) fn put(&self, pipe: Pipe) {
        let mut kept = self.kept.borrow_mut();
        if pipe.held == 0 && kept.len() < KEPT {
            kept.push(pipe);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_are_bounded_and_used_again() {
        let pipes = Pipes::default();
        let taken: Vec<Pipe> = std::iter::from_fn(|| pipes.take()).collect();
        assert_eq!(taken.len(), MOST);
        for pipe in taken {
            pipes.put(pipe);
        }
        assert_eq!((pipes.open.get(), pipes.kept.borrow().len()), (KEPT, KEPT));
        let full = Pipe {
            held: 1,
            ..pipes.take().unwrap()
        };
        pipes.put(full);
        assert_eq!(pipes.open.get(), KEPT - 1, "what holds bytes is closed");
    }
}
