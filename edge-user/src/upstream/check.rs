//! One active check of one endpoint, and what a row of them means.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::{Body, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::spawn_local, time::timeout};

use super::{cluster::Cluster, connect, endpoint::Endpoint};
use crate::config::{HealthCheck, Probe};

/// How much of a body is looked at, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// Why a check is bad.
#[derive(Debug, thiserror::Error)]
pub enum Bad {
    /// Took too long.
    #[error("no answer in time")]
    Timeout,
    /// No connection.
    #[error("no connection: {0}")]
    Connect(#[from] connect::ConnectError),
    /// No plain connection.
    #[error("no connection: {0}")]
    Refused(#[from] std::io::Error),
    /// HTTP went wrong.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// The request cannot be built.
    #[error("{0}")]
    Request(#[from] http::Error),
    /// Another status than expected.
    #[error("status {0}")]
    Status(u16),
    /// The expected text is not in the body.
    #[error("the body does not have the expected text")]
    Body,
}

/// Asks an endpoint once.
pub(super) async fn check(cluster: &Cluster, endpoint: &Endpoint, check: &HealthCheck) -> Result<(), Bad> {
    timeout(check.timeout, ask(cluster, endpoint, check))
        .await
        .unwrap_or(Err(Bad::Timeout))
}

async fn ask(cluster: &Cluster, endpoint: &Endpoint, check: &HealthCheck) -> Result<(), Bad> {
    let mut address = endpoint.address();
    if let Some(port) = check.port {
        address.set_port(port);
    }
    let (stream, is_http2) = connect::open(cluster, endpoint, address, None).await?;
    let Probe::Http {
        path,
        host,
        status,
        body,
    } = &check.probe
    else {
        return Ok(());
    };
    let own = endpoint.host().authority(address);
    let authority = host.as_ref().unwrap_or(&own);
    let response = if is_http2 {
        let (mut sender, connection) = http2::handshake(LocalExecutor, TokioIo::new(stream)).await?;
        spawn_local(connection);
        let scheme = if cluster.tls().is_some() { "https" } else { "http" };
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(authority.as_str())
            .path_and_query(path.as_str())
            .build()?;
        sender.send_request(request(uri)?).await?
    } else {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        spawn_local(connection);
        let request = plain_request(path, authority)?;
        sender.send_request(request).await?
    };
    judge(response, status, body.as_deref()).await
}

/// Asks an address once, in the clear.
///
/// # Errors
/// It does not answer as it should.
pub async fn probe(address: SocketAddr, check: &HealthCheck) -> Result<(), Bad> {
    timeout(check.timeout, ask_plainly(address, check))
        .await
        .unwrap_or(Err(Bad::Timeout))
}

async fn ask_plainly(address: SocketAddr, check: &HealthCheck) -> Result<(), Bad> {
    let stream = TcpStream::connect(address).await?;
    let Probe::Http {
        path,
        host,
        status,
        body,
    } = &check.probe
    else {
        return Ok(());
    };
    let own = address.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let asked = async {
        let request = plain_request(path, host.as_ref().unwrap_or(&own))?;
        let response = sender.send_request(request).await?;
        judge(response, status, body.as_deref()).await
    };
    let result = asked.await;
    connection.abort();
    result
}

fn plain_request(path: &str, authority: &str) -> Result<Request<Empty<Bytes>>, Bad> {
    let uri = Uri::builder().path_and_query(path).build()?;
    let mut request = request(uri)?;
    let fields = request.headers_mut();
    fields.insert(header::HOST, authority.parse().map_err(http::Error::from)?);
    fields.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    Ok(request)
}

fn request(uri: Uri) -> Result<Request<Empty<Bytes>>, http::Error> {
    Request::get(uri)
        .header(header::USER_AGENT, "breakwater-check")
        .body(Empty::new())
}

async fn judge(
    response: http::Response<Incoming>,
    good: &[(u16, u16)],
    text: Option<&str>,
) -> Result<(), Bad> {
    let status = response.status().as_u16();
    if !good
        .iter()
        .any(|(first, last)| (*first..=*last).contains(&status))
    {
        return Err(Bad::Status(status));
    }
    let Some(text) = text else { return Ok(()) };
    let (mut body, mut seen) = (response.into_body(), Vec::new());
    while seen.len() < MAX_BODY && !body.is_end_stream() {
        let Some(frame) = body.frame().await else { break };
        if let Ok(data) = frame?.into_data() {
            seen.extend_from_slice(&data);
        }
        if memchr::memmem::find(&seen, text.as_bytes()).is_some() {
            return Ok(());
        }
    }
    Err(Bad::Body)
}

/// Runs hyper's tasks on the checker's own thread.
#[derive(Debug, Clone, Copy)]
struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}

/// What a row of checks says about an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streak {
    /// Whether it is up; nobody knows before the first check.
    up: Option<bool>,
    /// Checks in a row that say otherwise.
    against: u32,
}

impl Streak {
    /// Notes a check; answers with the new state if that changed.
    pub fn note(&mut self, good: bool, check: &HealthCheck) -> Option<bool> {
        let Some(up) = self.up else {
            // What was never checked is taken at its word at once.
            self.up = Some(good);
            return Some(good);
        };
        if good == up {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let needed = if good { check.rise } else { check.fall };
        if self.against < needed.get() {
            return None;
        }
        *self = Self {
            up: Some(good),
            against: 0,
        };
        Some(good)
    }

    /// Whether it is up, if that is known.
    pub(super) fn up(self) -> Option<bool> {
        self.up
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use super::*;

    #[test]
    fn it_takes_a_row_to_change_and_the_first_check_counts_at_once() {
        let check = HealthCheck {
            probe: Probe::Tcp,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: NonZeroU32::MIN.saturating_add(1),
            fall: NonZeroU32::MIN.saturating_add(2),
            port: None,
        };
        let run = |results: &[bool]| {
            let mut streak = Streak::default();
            results
                .iter()
                .map(|good| streak.note(*good, &check))
                .collect::<Vec<_>>()
        };
        assert_eq!(run(&[false]), [Some(false)]);
        assert_eq!(
            run(&[true, false, false, true, false, false, false]),
            [Some(true), None, None, None, None, None, Some(false)]
        );
        assert_eq!(
            run(&[false, true, false, true, true]),
            [Some(false), None, None, None, Some(true)]
        );
    }
}
