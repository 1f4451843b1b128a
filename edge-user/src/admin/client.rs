//! The command line's side of the admin socket.

use std::{
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::UnixStream, time::timeout};

use crate::history::question::Question;

/// Longest answer that is read.
const MOST_BYTES: usize = 64 * 1024 * 1024;
/// How long the daemon may think about something that only looks.
const LOOK: Duration = Duration::from_secs(5);
/// How long it may take to do something: a reload resolves names, an upgrade waits for a process.
const DO: Duration = Duration::from_mins(2);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Everything at a glance.
    Status,
    /// Read everything again.
    Reload,
    /// Stop in an orderly way.
    Drain {
        /// For connections, if not the configured one.
        deadline: Option<Duration>,
    },
    /// Hand over to a new process.
    Upgrade,
    /// Compare two times of a route.
    Compare(Question),
    /// Tell what could be steered past the gateway.
    Advise {
        /// How much of the history, as in `7d`.
        last: String,
    },
}

impl Call {
    /// One of each.
    pub const EACH: [Self; 4] = [
        Self::Status,
        Self::Reload,
        Self::Drain {
            deadline: Some(Duration::from_secs(5)),
        },
        Self::Upgrade,
    ];

    /// Method and path.
    pub const fn target(&self) -> (Method, &'static str) {
        match self {
            Self::Status => (Method::GET, "/v1/status"),
            Self::Reload => (Method::POST, "/v1/reload"),
            Self::Drain { .. } => (Method::POST, "/v1/drain"),
            Self::Upgrade => (Method::POST, "/v1/upgrade"),
            Self::Compare(_) => (Method::GET, "/v1/history/compare"),
            Self::Advise { .. } => (Method::GET, "/v1/history/advice"),
        }
    }

    /// What follows the path after `?`, percent-encoded.
    pub fn query(&self) -> Option<String> {
        let parameters = match self {
            Self::Compare(question) => vec![
                ("route", Some(&question.route)),
                ("with", question.with.as_ref()),
                ("for", question.length.as_ref()),
                ("around", question.around.as_ref()),
                ("until", question.until.as_ref()),
            ],
            Self::Advise { last } => vec![("last", Some(last))],
            Self::Status | Self::Reload | Self::Drain { .. } | Self::Upgrade => return None,
        };
        // Writing to a string does not fail.
        let mut query = String::new();
        for (name, value) in parameters {
            let Some(value) = value else { continue };
            let joint = if query.is_empty() { "" } else { "&" };
            let _ = write!(query, "{joint}{name}=");
            for byte in value.bytes() {
                // Everything but unreserved characters (RFC 3986 section 2.3).
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    query.push(char::from(byte));
                } else {
                    let _ = write!(query, "%{byte:02X}");
                }
            }
        }
        Some(query)
    }

    /// What is sent along.
    pub fn body(&self) -> Option<Value> {
        match self {
            Self::Drain {
                deadline: Some(deadline),
            } => Some(json!({ "deadline_seconds": deadline.as_secs() })),
            Self::Status
            | Self::Reload
            | Self::Drain { .. }
            | Self::Upgrade
            | Self::Compare(_)
            | Self::Advise { .. } => None,
        }
    }

    const fn limit(&self) -> Duration {
        match self {
            Self::Status => LOOK,
            Self::Reload | Self::Drain { .. } | Self::Upgrade | Self::Compare(_) | Self::Advise { .. } => DO,
        }
    }
}

/// The daemon did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers.
    #[error("no daemon answers at {}: {source}\n  is `breakwater run` running? another socket is named by --socket", path.display())]
    NoDaemon {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// This user may not ask.
    #[error("this user may not use {}\n  be root, the daemon's user, or a member of `admin.group`", path.display())]
    Denied {
        /// The socket.
        path: PathBuf,
    },
    /// It refuses, and says why.
    #[error("{detail}")]
    Refused {
        /// How.
        status: StatusCode,
        /// Why.
        detail: String,
    },
    /// What came is not what a daemon says.
    #[error("{} does not answer as a daemon does: {what}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What came instead.
        what: String,
    },
}

impl ClientError {
    /// The process's exit code, as in `cli/exit.rs`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Denied { .. } => 4,
            Self::Refused { status, .. } if *status == StatusCode::UNPROCESSABLE_ENTITY => 3,
            Self::NoDaemon { .. } | Self::Refused { .. } | Self::Broken { .. } => 1,
        }
    }
}

/// Asks the daemon at a socket.
///
/// # Errors
/// It is not there, does not let this user ask, refuses, or says something else.
pub async fn ask(socket: &Path, call: &Call) -> Result<Value, ClientError> {
    let stream = UnixStream::connect(socket).await.map_err(|source| {
        let path = socket.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Denied { path },
            _ => ClientError::NoDaemon { path, source },
        }
    })?;
    let broken = |what: String| ClientError::Broken {
        path: socket.to_owned(),
        what,
    };
    let (status, body) = timeout(call.limit(), exchange(stream, call))
        .await
        .map_err(|_| broken(format!("nothing came within {} s", call.limit().as_secs())))?
        .map_err(broken)?;
    let value: Value = serde_json::from_slice(&body).map_err(|error| broken(error.to_string()))?;
    if status.is_success() {
        return Ok(value);
    }
    if status == StatusCode::FORBIDDEN {
        return Err(ClientError::Denied {
            path: socket.to_owned(),
        });
    }
    let detail = value["detail"].as_str().unwrap_or("it does not say why");
    Err(ClientError::Refused {
        status,
        detail: detail.to_owned(),
    })
}

async fn exchange(stream: UnixStream, call: &Call) -> Result<(StatusCode, Bytes), String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let (method, path) = call.target();
    let uri = match call.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let body = call.body().map(|body| body.to_string());
    let mut request = Request::builder()
        .method(method)
        .uri(uri)
        .header(header::HOST, "localhost");
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let request = request
        .body(Full::new(Bytes::from(body.unwrap_or_default())))
        .map_err(|error| error.to_string())?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| error.to_string())?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MOST_BYTES)
        .collect()
        .await
        .map_err(|error| error.to_string())?
        .to_bytes();
    connection.abort();
    Ok((status, body))
}
