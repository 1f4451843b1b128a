//! The listeners: who may come in, how long they may take, how many there may be.
//!
//! On a thread of its own with a runtime of its own. Every connection has a deadline; when there are too many, the one that
//! has been there longest makes way, so that slow callers never keep quick ones out.

mod bind;
mod guard;
mod service;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    io,
    pin::pin,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::Builder,
    sync::watch,
    task::{AbortHandle, JoinHandle},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    context::{Context, Turned},
    router::Serves,
};
use crate::gateway::tls;

pub use bind::{AdminError, Bound, default_socket};
use bind::{Listening, Source, Unstarted};
use guard::Guard;

/// Connections of one listener at once.
pub const MAX_CONNECTIONS: usize = 64;
/// From the beginning of a connection, or the end of an answer, to the end of a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// A handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection as a whole: long enough for what waits, short enough for who does not read.
const CONNECTION_TIMEOUT: Duration = Duration::from_mins(2);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 * 1024;
/// How long accepting rests when the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long answers under way have when the daemon ends.
const END_GRACE: Duration = Duration::from_millis(250);
/// Time between two looks whether they have ended.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The admin API while it runs; it ends with this.
pub struct Running {
    stop: watch::Sender<bool>,
    thread: Option<thread::JoinHandle<()>>,
    _watching: Option<mpsc::Sender<()>>,
    _sockets: Vec<bind::SocketFile>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // One that has panicked has ended too.
            let _ = thread.join();
        }
    }
}

impl Bound {
    /// Begins to serve.
    ///
    /// # Errors
    /// There can be no thread, or no runtime.
    pub fn serve(self, context: Context) -> Result<Running, AdminError> {
        if let Some(socket) = self.socket() {
            tracing::info!(socket = %socket.display(), "the admin API listens");
        }
        for address in self.addresses() {
            tracing::info!(%address, "the admin API listens");
        }
        let (stop, stopped) = watch::channel(false);
        let watching = self.watch_certificates();
        let (listening, sockets) = self.into_parts();
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(AdminError::Thread)?;
        let thread = thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || {
                runtime.block_on(serve(listening, Arc::new(context), stopped));
                runtime.shutdown_timeout(END_GRACE);
            })
            .map_err(AdminError::Thread)?;
        Ok(Running {
            stop,
            thread: Some(thread),
            _watching: watching,
            _sockets: sockets,
        })
    }

    /// Follows the files of certificates until the sender is dropped.
    fn watch_certificates(&self) -> Option<mpsc::Sender<()>> {
        let terminators = self.terminators();
        if terminators.is_empty() {
            return None;
        }
        let (watching, stop) = mpsc::channel();
        thread::Builder::new()
            .name("admin-certs".to_owned())
            .spawn(move || tls::watch::run(|| terminators.clone(), &stop))
            .inspect_err(
                |error| tracing::error!(%error, "certificate files of the admin API are not watched"),
            )
            .ok()?;
        Some(watching)
    }
}

async fn serve(listeners: Vec<Unstarted>, context: Arc<Context>, mut stop: watch::Receiver<bool>) {
    let mut accepting: Vec<JoinHandle<()>> = Vec::with_capacity(listeners.len());
    for listener in listeners {
        match listener.start() {
            Ok(listening) => {
                accepting.push(tokio::spawn(accept(
                    listening,
                    Arc::clone(&context),
                    stop.clone(),
                )));
            }
            Err(error) => tracing::error!(%error, "a listener of the admin API cannot serve"),
        }
    }
    // A sender that is gone is a stop too.
    let _ = stop.wait_for(|stop| *stop).await;
    // Who has asked for the end hears that it has begun.
    let ends = async {
        for task in &mut accepting {
            let _ = task.await;
        }
    };
    if timeout(END_GRACE, ends).await.is_err() {
        for task in accepting {
            task.abort();
        }
    }
}

/// The connections of one listener, the oldest first.
#[derive(Default)]
struct Crowd(VecDeque<AbortHandle>);

impl Crowd {
    /// Makes room for one more; whether somebody had to go.
    fn make_room(&mut self) -> bool {
        self.0.retain(|task| !task.is_finished());
        if self.0.len() < MAX_CONNECTIONS {
            return false;
        }
        if let Some(oldest) = self.0.pop_front() {
            oldest.abort();
        }
        true
    }

    /// Waits until all have ended.
    async fn ended(&self) {
        while !self.0.iter().all(AbortHandle::is_finished) {
            sleep(LOOK_AGAIN).await;
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

async fn accept(listening: Listening, context: Arc<Context>, mut stop: watch::Receiver<bool>) {
    let mut crowd = Crowd::default();
    let stopped = stop.clone();
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => {}
        () = accept_all(listening, context, &mut crowd, &stopped) => {}
    }
    crowd.ended().await;
}

async fn accept_all(
    listening: Listening,
    context: Arc<Context>,
    crowd: &mut Crowd,
    stop: &watch::Receiver<bool>,
) {
    let Listening { source, serves } = listening;
    loop {
        let stop = stop.clone();
        let accepted = match &source {
            Source::Unix(listener, admitted) => listener.accept().await.map(|(stream, _)| {
                let admits = admitted.admits(&stream);
                let context = Arc::clone(&context);
                tokio::spawn(async move {
                    if admits {
                        talk(stream, serves, Guard::local(), &context, stop).await;
                    } else {
                        context.callers.turned(Turned::Peer);
                        talk(stream, serves, Guard::closed(), &context, stop).await;
                    }
                })
            }),
            Source::Tcp(listener, guard, terminator) => listener.accept().await.map(|(stream, _)| {
                // An answer is one write; without it nothing is lost but time.
                let _ = stream.set_nodelay(true);
                let (context, guard) = (Arc::clone(&context), guard.clone());
                let terminator = terminator.clone();
                tokio::spawn(async move {
                    let Some(terminator) = terminator else {
                        return talk(stream, serves, guard, &context, stop).await;
                    };
                    let acceptor = TlsAcceptor::from(terminator.config());
                    match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => talk(stream, serves, guard, &context, stop).await,
                        Ok(Err(_)) | Err(_) => context.callers.turned(Turned::Tls),
                    }
                })
            }),
        };
        match accepted {
            Ok(task) => {
                if crowd.make_room() {
                    context.callers.turned(Turned::Crowded);
                }
                crowd.0.push_back(task.abort_handle());
            }
            Err(error) => {
                tracing::debug!(%error, "the admin API cannot accept");
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Serves one connection to its end.
async fn talk<S>(
    stream: S,
    serves: Serves,
    guard: Guard,
    context: &Arc<Context>,
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| service::serve(request, serves, &guard, context));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let talked = async {
        tokio::select! {
            ended = connection.as_mut() => return ended,
            _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    };
    // How a caller leaves is its own business.
    let _ = timeout(CONNECTION_TIMEOUT, talked).await;
}
