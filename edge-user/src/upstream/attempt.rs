//! One try of one request at one endpoint: it is counted while it lasts, and tells how it went.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use super::{
    chooser::{Chooser, Hold},
    circuit::Permit,
    cluster::Cluster,
    endpoint::Endpoint,
};

/// A try. Dropped without a word it says nothing about its endpoint: the client went away.
#[derive(Debug)]
#[must_use]
pub struct Attempt {
    chooser: Rc<Chooser>,
    endpoint: Hold,
    counted: bool,
    _permit: Permit,
}

impl Attempt {
    pub(super) fn new(chooser: Rc<Chooser>, endpoint: Hold, permit: Permit) -> Self {
        let counted = chooser.cluster().counts_active();
        if counted {
            endpoint.began();
        }
        Self {
            chooser,
            endpoint,
            counted,
            _permit: permit,
        }
    }

    /// Where it goes.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The endpoint as this worker holds it.
    pub fn hold(&self) -> &Hold {
        &self.endpoint
    }

    /// The upstream.
    pub fn cluster(&self) -> &Cluster {
        self.chooser.cluster()
    }

    /// Whether somebody wants to know how long the answer took.
    pub fn is_timed(&self) -> bool {
        self.counted
    }

    /// Notes that a response head with `status` came `latency` after the request went out.
    pub fn answered(&self, status: u16, latency: Duration, now: Instant) {
        let failure = match self.chooser.cluster().config().ejection {
            Some(ejection) => status >= 502 || (ejection.count_500 && status >= 500),
            None => false,
        };
        if failure {
            self.failed();
        } else {
            self.endpoint.succeeded(self.chooser.worker());
        }
        self.chooser.measured(&self.endpoint, latency, now);
    }

    /// Notes that it came to nothing by the endpoint's fault: no connection, a reset, no answer in time, or one that
    /// nobody can read.
    pub fn failed(&self) {
        let in_a_row = self.endpoint.failed(self.chooser.worker());
        if let Some(ejection) = self.chooser.cluster().config().ejection
            && in_a_row % ejection.consecutive == 0
        {
            self.chooser.cluster().tell_failing();
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.counted {
            self.endpoint.ended();
        }
    }
}
