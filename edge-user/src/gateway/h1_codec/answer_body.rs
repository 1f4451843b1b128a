//! The body of an answer that this codec reads and another one passes on: in pieces, without its framing.

use std::{
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    link::{Link, UpstreamIo},
    timers::Timer,
};
use crate::gateway::{gate::chunked::Chunked, refusal::Reason, worker::Worker};

/// How the body ends.
#[derive(Debug)]
pub(super) enum Length {
    /// After so many more bytes.
    Known(u64),
    /// By its chunks.
    Chunked(Box<Chunked>),
    /// With the connection.
    UntilClose,
}

/// A piece of a body.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Data.
    Data(Bytes),
    /// The lines of its trailers, which passed the gate; the last piece.
    Trailers(Vec<Vec<u8>>),
}

/// A body on its way.
pub(crate) struct AnswerBody {
    worker: Rc<Worker>,
    /// Gone once the body is over, whichever way.
    link: Option<Link<UpstreamIo>>,
    length: Length,
    trailers: Option<Vec<Vec<u8>>>,
    timer: Timer,
    armed: bool,
    idle: Duration,
    deadline: Option<Instant>,
    /// The connection may be used again.
    keeps: bool,
}

impl AnswerBody {
    pub(super) fn new(
        worker: Rc<Worker>,
        link: Link<UpstreamIo>,
        length: Length,
        timer: Timer,
        idle: Duration,
        deadline: Option<Instant>,
        keeps: bool,
    ) -> Self {
        let length = match length {
            Length::Chunked(_) => Length::Chunked(Box::new(Chunked::keeping_trailers())),
            other => other,
        };
        Self {
            worker,
            link: Some(link),
            length,
            trailers: None,
            timer,
            armed: false,
            idle,
            deadline,
            keeps,
        }
    }

    /// Whether nothing more comes.
    pub(crate) fn is_over(&self) -> bool {
        self.link.is_none() && self.trailers.is_none()
    }

    /// How many bytes are to come, if that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match &self.length {
            Length::Known(left) => Some(*left),
            Length::Chunked(_) | Length::UntilClose => None,
        }
    }

    /// The upstream is given up: its connection is closed.
    pub(crate) fn give_up(&mut self) {
        self.link = None;
        self.trailers = None;
    }

    /// Gives the connection back if all of the body was taken from it.
    pub(super) fn settle(&mut self) {
        let ended = match &self.length {
            Length::Known(left) => *left == 0,
            Length::Chunked(chunked) => chunked.is_done(),
            Length::UntilClose => self.link.as_ref().is_none_or(|link| link.side.ended),
        };
        if !ended {
            return;
        }
        if let Some(mut link) = self.link.take()
            && self.keeps
            && link.side.unread().is_empty()
            && !link.side.ended
        {
            link.side.release(self.worker.h1().buffers());
            link.put_back(Instant::now());
        }
    }

    /// The next piece; `None` at the end.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Piece, Reason>>> {
        match self.poll_piece(context) {
            Poll::Ready(Some(Err(reason))) => {
                if reason.is_of_upstream()
                    && let Some(link) = &self.link
                {
                    link.attempt.failed();
                }
                self.give_up();
                Poll::Ready(Some(Err(reason)))
            }
            polled => polled,
        }
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Piece, Reason>>> {
        loop {
            let Some(link) = &mut self.link else {
                return Poll::Ready(self.trailers.take().map(|lines| Ok(Piece::Trailers(lines))));
            };
            let unread = link.side.unread();
            if !unread.is_empty() {
                self.armed = false;
                let data = match &mut self.length {
                    Length::Known(left) => {
                        let take = usize::try_from(*left).map_or(unread.len(), |left| left.min(unread.len()));
                        *left -= take as u64;
                        let data = Bytes::copy_from_slice(unread.get(..take).unwrap_or_default());
                        link.side.consume(take);
                        data
                    }
                    Length::Chunked(chunked) => {
                        let mut data = Vec::with_capacity(unread.len());
                        let Ok(used) = chunked.feed_data(unread, |run| data.extend_from_slice(run)) else {
                            return Poll::Ready(Some(Err(Reason::UpstreamMalformed)));
                        };
                        if chunked.is_done() {
                            self.trailers = chunked.take_trailers();
                        }
                        link.side.consume(used);
                        Bytes::from(data)
                    }
                    Length::UntilClose => {
                        let data = Bytes::copy_from_slice(unread);
                        link.side.consume(data.len());
                        data
                    }
                };
                self.settle();
                if !data.is_empty() {
                    return Poll::Ready(Some(Ok(Piece::Data(data))));
                }
                continue;
            }
            match link.side.poll_fill(context, self.worker.h1().buffers(), false) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) if matches!(self.length, Length::UntilClose) => self.settle(),
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Some(Err(Reason::UpstreamCutShort))),
                Poll::Pending => return self.poll_patience(context).map(|reason| Some(Err(reason))),
            }
        }
    }

    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<Reason> {
        self.timer.register(context);
        if !self.armed {
            self.armed = true;
            self.timer.arm(match self.deadline {
                Some(deadline) => self.idle.min(deadline.saturating_duration_since(Instant::now())),
                None => self.idle,
            });
        } else if self.timer.expired() {
            return Poll::Ready(if self.is_late() {
                Reason::RequestTimeout
            } else {
                Reason::UpstreamStalled
            });
        }
        Poll::Pending
    }

    /// Whether it has taken longer than its route allows.
    pub(crate) fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }
}
