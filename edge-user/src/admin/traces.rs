//! Sends traces to a collector: OTLP over HTTP, binary (opentelemetry.io/docs/specs/otlp, "OTLP/HTTP").
//!
//! On a thread of its own. What the collector does not take within its time is lost and counted; nothing is sent twice.

use std::{io, sync::Arc, thread, time::Duration};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    runtime::Builder,
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::{
    config::Traces,
    telemetry::traces::{Traced, Tracer, encode},
};

/// Requests of one batch.
const BATCH: usize = 512;
/// How long a batch is filled.
const EVERY: Duration = Duration::from_secs(1);
/// Longest that sending one may take.
const LIMIT: Duration = Duration::from_secs(5);
/// Most bytes of a collector's answer.
const ANSWER_BYTES: usize = 64 * 1024;

/// Begins to send to the collector of `config`; it ends when nobody hands anything over any more.
///
/// # Errors
/// There can be no thread, or no runtime.
pub fn export(config: &Traces) -> io::Result<Tracer> {
    let (tracer, ended) = Tracer::new();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (config, counts) = (config.clone(), Arc::clone(tracer.counts()));
    thread::Builder::new().name("traces".to_owned()).spawn(move || {
        runtime.block_on(run(&config, ended, |count, sent| {
            if sent {
                counts.exported(count);
            } else {
                counts.lost(count);
            }
        }));
    })?;
    Ok(tracer)
}

async fn run(config: &Traces, mut traced: mpsc::Receiver<Box<Traced>>, count: impl Fn(usize, bool)) {
    let mut batch = Vec::new();
    let mut was_failing = false;
    while traced.recv_many(&mut batch, BATCH).await > 0 {
        if batch.len() < BATCH {
            sleep(EVERY).await;
            while batch.len() < BATCH
                && let Ok(more) = traced.try_recv()
            {
                batch.push(more);
            }
        }
        let body = encode(&config.service_name, &batch);
        let sent = match timeout(LIMIT, send(config, body)).await {
            Ok(sent) => sent,
            Err(_) => Err(format!("nothing came within {} s", LIMIT.as_secs())),
        };
        count(batch.len(), sent.is_ok());
        match sent {
            Ok(()) if was_failing => tracing::info!(collector = config.authority, "traces are taken again"),
            Ok(()) => {}
            Err(why) if !was_failing => {
                tracing::warn!(
                    collector = config.authority,
                    why,
                    "traces are lost until the collector takes them"
                );
                was_failing = true;
                batch.clear();
                continue;
            }
            Err(_) => {
                batch.clear();
                continue;
            }
        }
        was_failing = false;
        batch.clear();
    }
}

async fn send(config: &Traces, body: Vec<u8>) -> Result<(), String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let stream = TcpStream::connect(&config.authority)
        .await
        .map_err(|error| told(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| told(&error))?;
    let connection = tokio::spawn(connection);
    let request = Request::post(&config.path)
        .header(header::HOST, &config.authority)
        .header(header::CONTENT_TYPE, "application/x-protobuf")
        .header(
            header::USER_AGENT,
            concat!("breakwater/", env!("CARGO_PKG_VERSION")),
        )
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| told(&error))?;
    let response = sender.send_request(request).await.map_err(|error| told(&error))?;
    let status = response.status();
    // Its end is waited for, so that it can send it; what is in it changes nothing.
    let _ = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
    connection.abort();
    if status.is_success() {
        Ok(())
    } else {
        Err(format!("it answers {status}"))
    }
}
