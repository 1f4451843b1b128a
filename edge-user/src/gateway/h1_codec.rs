//! HTTP/1.1 by bytes: the cheap way through, for clients and upstreams that both speak HTTP/1.
//!
//! A head is taken apart where it was read, judged by the gate, decided about by the stages, and what is kept of it is
//! copied once, into the buffer that is written, with the beginning of its body behind it. No map of headers is built, no
//! task started, no timer of the runtime set for a request. Gate, path, header policy and stages are the same as for
//! [`hyper_codec`](super::hyper_codec): this is another way to move bytes, not another set of rules.
//!
//! Layers: [`side::Transport`] is what it speaks over (TCP, TLS over TCP), for clients and upstreams alike; a [`flow`]
//! moves one direction of an exchange in constant memory; [`exchange`], [`forward`] and [`answer`] are one request and its answer;
//! [`connection`] is a client's connection.
//! [`ask`](mod@ask) and [`answer_body`] are the half towards the upstream for clients of HTTP/2.
//!
//! What it does not do it declines before anything has gone out: [`Ended::Declined`] gives the connection back with
//! its unread bytes, and hyper serves it from there on. Which requests those are the stages
//! say ([`Decision::Declined`](super::worker::Decision::Declined)).
//!
//! Never here: a decision about a request, HTTP/2, compression.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Instant, SystemTime},
};

mod answer;
mod answer_body;
mod ask;
mod buffers;
mod connection;
mod exchange;
mod flow;
mod forward;
mod linger;
mod link;
mod own;
mod piped;
mod pipes;
mod side;
mod timers;
mod tunnel;
mod websocket;
mod writing;

pub(crate) use answer_body::{AnswerBody, Piece};
pub(crate) use ask::{Question, ask};
use buffers::Buffers;
pub(crate) use connection::{Ended, serve};
pub(crate) use linger::close;
use link::Links;
pub(crate) use link::{Link, UpstreamIo, dial};
pub(crate) use timers::TICK;
use timers::Timers;

use super::{
    gate::{RequestShape, ResponseShape},
    header_policy::Dialect,
};

/// This codec frames and upgrades by itself, and passes expectations on.
const DIALECT: Dialect = Dialect {
    framing: true,
    expect: true,
    upgrade: true,
};

/// What the connections of one worker share.
#[derive(Debug)]
pub(crate) struct Local {
    timers: Rc<Timers>,
    buffers: Buffers,
    links: Links,
    /// Shapes that no request uses: one is lent to each while it is decided about.
    requests: RefCell<Vec<RequestShape>>,
    /// Filled and read without a pause in between, so one serves all.
    response: RefCell<ResponseShape>,
}

/// Most shapes that are kept.
const KEPT_SHAPES: usize = 16;

impl Local {
    /// What a worker begins with.
    pub(crate) fn new(now: Instant, date: SystemTime) -> Self {
        Self {
            timers: Timers::new(now, date),
            buffers: Buffers::default(),
            links: Links::default(),
            requests: RefCell::default(),
            response: RefCell::default(),
        }
    }

    fn take_shape(&self) -> RequestShape {
        self.requests.borrow_mut().pop().unwrap_or_default()
    }

    fn put_shape(&self, shape: RequestShape) {
        let mut kept = self.requests.borrow_mut();
        if kept.len() < KEPT_SHAPES {
            kept.push(shape);
        }
    }

    /// An empty buffer for a head.
    pub(crate) fn take_buffer(&self) -> Vec<u8> {
        self.buffers.take_head()
    }

    /// Takes such a buffer back.
    pub(crate) fn put_buffer(&self, buffer: Vec<u8>) {
        self.buffers.put(buffer);
    }

    /// Deadlines of the connections.
    pub(crate) fn timers(&self) -> &Rc<Timers> {
        &self.timers
    }

    /// Buffers to be lent.
    pub(crate) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// Idle upstream connections.
    pub(crate) fn links(&self) -> &Links {
        &self.links
    }
}
