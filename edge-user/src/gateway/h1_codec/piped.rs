//! A large body on its way through a [`Pipe`](super::pipes::Pipe): the part of a [`Flow`] that moves no bytes itself.

use std::{
    io,
    task::{Context, Poll, ready},
    time::Instant,
};

use super::{
    buffers::Buffers,
    flow::{Flow, FlowFault, Framing, TURN, Waits},
    side::{Side, Transport},
};

impl Flow {
    /// Moves what is left of a body of known length from socket to socket, until its turn ends or a side has to be waited
    /// for.
    pub(super) fn poll_pipe<A: Transport, B: Transport>(
        &mut self,
        context: &mut Context<'_>,
        buffers: &Buffers,
        from: &Side<A>,
        to: &B,
    ) -> Poll<Result<(), FlowFault>> {
        let turn_ends = self.moved + TURN as u64;
        let mut polled = Poll::Ready(Ok(()));
        while let (Some(source), Some(sink)) = (from.io.plain(), to.plain())
            && let Some(pipe) = &mut self.pipe
            && let Framing::Length(left) = &mut self.framing
        {
            if pipe.held() > 0 {
                self.waits = Waits::Sink;
                match pipe.give(sink) {
                    Ok(0) => return Poll::Ready(Err(FlowFault::Sink(io::ErrorKind::WriteZero.into()))),
                    Ok(given) => {
                        self.moved += given as u64;
                        self.taken(given as u64)?;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        if let Some(taker) = &mut self.taker {
                            taker.wait(Instant::now());
                        }
                        ready!(sink.poll_write_ready(context)).map_err(FlowFault::Sink)?;
                    }
                    Err(error) => return Poll::Ready(Err(FlowFault::Sink(error))),
                }
                continue;
            }
            if *left == 0 {
                self.framing = Framing::Done;
                break;
            }
            if self.moved >= turn_ends {
                break;
            }
            match pipe.take(source, *left) {
                Ok(0) => return Poll::Ready(Err(FlowFault::CutShort)),
                Ok(taken) => {
                    *left -= taken as u64;
                    self.data += taken as u64;
                    self.whole = false;
                    self.came(taken)?;
                    if self.limit.is_some_and(|limit| self.data > limit) {
                        return Poll::Ready(Err(FlowFault::TooLarge));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if source
                        .poll_read_ready(context)
                        .map_err(FlowFault::Source)?
                        .is_pending()
                    {
                        self.wait_for_source();
                        // Whoever waits needs no pipe.
                        polled = Poll::Pending;
                        break;
                    }
                }
                // A kernel or a sandbox that does not do this with sockets.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
                    ) =>
                {
                    self.unpiped = true;
                    break;
                }
                Err(error) => return Poll::Ready(Err(FlowFault::Source(error))),
            }
        }
        if let Some(pipe) = self.pipe.take() {
            buffers.pipes().put(pipe);
        }
        polled
    }
}
