//! The client of the story: asks the API all the time, on one connection, and notes what became of each request.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use tests::{
    http::{self, Request},
    lab::Lab,
};

/// Between two requests.
const PAUSE: Duration = Duration::from_millis(5);

/// A request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// When, since the client began.
    pub(crate) at: Duration,
    /// Until the whole answer was there.
    pub(crate) took: Duration,
    /// Answered with 200, on the connection that it was sent on.
    pub(crate) is_good: bool,
}

/// It, at work.
pub(crate) struct Client {
    begun: Instant,
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Vec<Asked>>,
}

impl Client {
    /// Begins, with this token in its cookie.
    pub(crate) fn start(lab: &Lab, token: String) -> Self {
        let begun = Instant::now();
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let connect = || http::Client::connect(&lab.client().namespace, super::vip()).expect("connected");
        let mut connection = connect();
        let thread = thread::spawn(move || {
            let request = Request::get("/graphql").cookie("session", &token);
            let mut asked = Vec::new();
            while !stopped.load(Relaxed) {
                let at = begun.elapsed();
                let answer = connection.send(&request);
                let is_good = answer.is_ok_and(|answer| answer.status == 200);
                asked.push(Asked {
                    at,
                    took: begun.elapsed().saturating_sub(at),
                    is_good,
                });
                if !is_good {
                    break;
                }
                thread::sleep(PAUSE);
            }
            asked
        });
        Self { begun, stop, thread }
    }

    /// Since it began.
    pub(crate) fn since(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Ends it. All that it asked.
    pub(crate) fn stop(self) -> Vec<Asked> {
        self.stop.store(true, Relaxed);
        self.thread.join().expect("the client ends well")
    }
}
