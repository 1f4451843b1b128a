//! Two small services to try the gateway on: `/` and `/graphql`, within the process, on loopback.
//!
//! They are real HTTP servers on ports the kernel picks; the gateway reaches them like any other upstream.

use std::{convert::Infallible, io, net::SocketAddr, thread};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    runtime::{Builder, LocalOptions},
    sync::oneshot,
    task::spawn_local,
};

/// The field in which the gateway names the token's subject.
pub const SUBJECT_FIELD: &str = "x-auth-subject";

/// Two running services; they end when this is dropped.
#[derive(Debug)]
pub struct Demo {
    /// Where the service for `/` listens.
    pub web: SocketAddr,
    /// Where the service for `/graphql` listens.
    pub graphql: SocketAddr,
    // Dropping it tells the thread.
    _stop: oneshot::Sender<()>,
}

/// Starts both services.
///
/// # Errors
/// No loopback port or no thread was to be had.
pub fn start() -> io::Result<Demo> {
    let (web, web_address) = bind()?;
    let (graphql, graphql_address) = bind()?;
    let (stop, stopped) = oneshot::channel();
    let services = move || -> io::Result<()> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .build_local(LocalOptions::default())?;
        runtime.block_on(async {
            spawn_local(serve(TcpListener::from_std(web)?, welcome));
            spawn_local(serve(TcpListener::from_std(graphql)?, answer_query));
            // An error is the sender's end, which is what is waited for.
            let _ = stopped.await;
            Ok(())
        })
    };
    thread::Builder::new().name("demo".to_owned()).spawn(move || {
        if let Err(error) = services() {
            tracing::warn!(%error, "demo services ended");
        }
    })?;
    Ok(Demo {
        web: web_address,
        graphql: graphql_address,
        _stop: stop,
    })
}

fn bind() -> io::Result<(std::net::TcpListener, SocketAddr)> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

async fn serve(listener: TcpListener, answer: fn(&Request<Incoming>) -> Response<Full<Bytes>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        spawn_local(async move {
            let service = service_fn(|request| async move { Ok::<_, Infallible>(answer(&request)) });
            if let Err(error) = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
            {
                tracing::debug!(%error, "demo connection failed");
            }
        });
    }
}

fn welcome(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let body = format!(
        "Hello from behind Breakwater. You asked for {}.\n",
        request.uri().path()
    );
    respond("text/plain; charset=utf-8", body)
}

fn answer_query(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let subject = request
        .headers()
        .get(SUBJECT_FIELD)
        .and_then(|subject| subject.to_str().ok());
    let body = serde_json::json!({ "data": { "viewer": { "subject": subject } } });
    respond("application/json", format!("{body}\n"))
}

fn respond(media_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(media_type));
    response
}
