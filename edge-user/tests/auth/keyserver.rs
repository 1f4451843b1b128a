//! A real HTTP server for keys that can be told to misbehave.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::support::jwks;

/// What the server does with every request.
#[derive(Debug, Clone)]
pub(crate) enum Mood {
    /// These keys, with this Cache-Control.
    Keys(Vec<Value>, &'static str),
    /// Text that is no JWKS.
    Text(String),
    /// An answer without end.
    Huge,
    /// A head, and then a byte now and then.
    Drip,
    /// The keys, but late.
    Late(Duration, Vec<Value>),
    /// A status alone.
    Status(u16),
    /// A redirect.
    Redirect(String),
    /// Not a word.
    Silent,
    /// The connection is closed at once.
    Closed,
    /// Something that is not HTTP.
    Noise,
    /// The keys, claimed to be compressed.
    Coded,
}

pub(crate) struct KeyServer {
    pub(crate) address: SocketAddr,
    mood: Arc<Mutex<Mood>>,
    hits: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

impl KeyServer {
    pub(crate) async fn start(keys: &[Value]) -> Self {
        Self::start_with(keys, None).await
    }

    pub(crate) async fn start_with(keys: &[Value], tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mood = Arc::new(Mutex::new(Mood::Keys(keys.to_vec(), "")));
        let hits = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(accept(
            listener,
            tls,
            Arc::clone(&mood),
            Arc::clone(&hits),
            address,
        ));
        Self {
            address,
            mood,
            hits,
            task,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub(crate) fn publish(&self, keys: &[Value]) {
        self.set(Mood::Keys(keys.to_vec(), ""));
    }

    /// Requests for keys so far.
    pub(crate) fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    mood: Arc<Mutex<Mood>>,
    hits: Arc<AtomicUsize>,
    address: SocketAddr,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (mood, hits, tls) = (Arc::clone(&mood), Arc::clone(&hits), tls.clone());
        tokio::spawn(async move {
            let now = mood.lock().unwrap().clone();
            match now {
                Mood::Closed => {
                    hits.fetch_add(1, Ordering::SeqCst);
                }
                Mood::Noise => {
                    hits.fetch_add(1, Ordering::SeqCst);
                    let _ = tokio::io::AsyncWriteExt::write_all(&mut { stream }, b"SSH-2.0-x\r\n").await;
                }
                _ => match tls {
                    None => serve(stream, mood, hits, address).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve(stream, mood, hits, address).await;
                        }
                    }
                },
            }
        });
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    mood: Arc<Mutex<Mood>>,
    hits: Arc<AtomicUsize>,
    address: SocketAddr,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (mood, hits) = (Arc::clone(&mood), Arc::clone(&hits));
        async move {
            if request.uri().path() == "/.well-known/openid-configuration" {
                let text = format!(r#"{{"issuer":"http://{address}","jwks_uri":"http://{address}/keys"}}"#);
                return Ok::<_, Infallible>(Response::new(full(text)));
            }
            hits.fetch_add(1, Ordering::SeqCst);
            let now = mood.lock().unwrap().clone();
            Ok(answer(now, request.uri().path()).await)
        }
    });
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed_unsync()
}

async fn answer(mood: Mood, path: &str) -> Response<Body> {
    let forever = futures_util::future::pending;
    match mood {
        Mood::Keys(keys, cache_control) => {
            let mut response = Response::new(full(jwks(&keys)));
            response
                .headers_mut()
                .insert(header::CACHE_CONTROL, cache_control.parse().unwrap());
            response
        }
        Mood::Text(text) => Response::new(full(text)),
        Mood::Huge => {
            let chunk = Bytes::from(vec![b' '; 64 * 1024]);
            let endless = futures_util::stream::repeat_with(move || Ok(Frame::data(chunk.clone())));
            Response::new(BodyExt::boxed_unsync(StreamBody::new(endless)))
        }
        Mood::Drip => {
            let drops = futures_util::stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some((Ok(Frame::data(Bytes::from_static(b" "))), ()))
            });
            Response::new(BodyExt::boxed_unsync(StreamBody::new(drops)))
        }
        Mood::Late(delay, keys) => {
            tokio::time::sleep(delay).await;
            Response::new(full(jwks(&keys)))
        }
        Mood::Status(status) => Response::builder().status(status).body(full("")).unwrap(),
        Mood::Redirect(location) if path == location => {
            Response::builder().status(404).body(full("")).unwrap()
        }
        Mood::Redirect(location) => Response::builder()
            .status(302)
            .header(header::LOCATION, location)
            .body(full(""))
            .unwrap(),
        Mood::Coded => Response::builder()
            .header(header::CONTENT_ENCODING, "gzip")
            .body(full("{}"))
            .unwrap(),
        Mood::Silent | Mood::Closed | Mood::Noise => forever().await,
    }
}
