//! `breakwater run` without a configuration: everything in one process, and what to try.

use std::{
    fs,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustix::rand::{GetRandomFlags, getrandom};

use super::LifecycleError;
use crate::{
    cli::QUICKSTART_KEY_FILE,
    config::{Config, QUICKSTART_ISSUER, Quickstart},
    gateway::demo::{self, Demo},
};

/// Where the quick start listens, if the port is free.
const PORT: u16 = 8080;
/// How long the token that is printed lasts.
const TOKEN_LIFE: Duration = Duration::from_hours(1);

/// A quick start that is prepared. Dropping it ends the demo services and removes the key.
pub(super) struct Prepared {
    pub(super) config: Config,
    listen: SocketAddr,
    token: String,
    _key: KeyFile,
    _demo: Demo,
}

/// Starts the demo services, makes a key and picks a port.
///
/// # Errors
/// No loopback port, no thread, no randomness, or no place for the key.
pub(super) fn prepare() -> Result<Prepared, LifecycleError> {
    let demo = demo::start().map_err(LifecycleError::io("starting the demo services"))?;
    let mut random = [0_u8; 32];
    getrandom(&mut random, GetRandomFlags::empty())
        .map_err(|error| LifecycleError::io("drawing a key")(error.into()))?;
    let secret = Quickstart::secret_from(random);
    let listen = free_port()?;
    let token = token(&secret).map_err(LifecycleError::io("signing a token"))?;
    let key = KeyFile::write(Path::new(QUICKSTART_KEY_FILE), &secret)
        .map_err(LifecycleError::io("writing the key to /run/breakwater"))?;
    let quickstart = Quickstart {
        listen,
        site: demo.web,
        graphql: demo.graphql,
        secret,
    };
    Ok(Prepared {
        config: quickstart.load()?,
        listen,
        token,
        _key: key,
        _demo: demo,
    })
}

impl Prepared {
    /// What was done and what to try.
    pub(super) fn banner(&self, shield: &str) -> String {
        let Self { listen, token, .. } = self;
        let other_port = if listen.port() == PORT {
            String::new()
        } else {
            format!(
                "  port {PORT} is taken, so the gateway listens on {}\n",
                listen.port()
            )
        };
        format!(
            "\nBreakwater is running.\n  gateway  http://{listen}  (/ is open, /graphql wants a token)\n  shield   {shield}, \
             judging port {} alone\n{other_port}  token    good for an hour, signed with a key made at this start:\n\n{token}\n\n\
             Try, in another terminal:\n\n  # 1. an open route\n  curl http://{listen}/\n\n  # 2. a protected route without a token: \
             401\n  curl -i http://{listen}/graphql\n\n  # 3. the same with the token, in a cookie\n  curl --cookie \
             \"session=$(breakwater token)\" http://{listen}/graphql\n  curl --cookie \"session={token}\" http://{listen}/graphql\n\n  \
             # 4. a burst of forged tokens from 127.0.0.66: after twenty refusals (401) the kernel drops it (000) for a minute\n  \
             for i in $(seq 25); do curl -s -o /dev/null -w '%{{http_code}} ' --max-time 1 --interface 127.0.0.66 \\\n      \
             -H 'Authorization: Bearer forged' http://{listen}/graphql; done; echo\n\nWatch it with `breakwater status` and \
             `breakwater ban list`. Ctrl-C stops everything and leaves nothing behind.\n",
            listen.port(),
        )
    }
}

/// The usual port, or one that the kernel picks if somebody has it.
fn free_port() -> Result<SocketAddr, LifecycleError> {
    let at = |port| SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(at(PORT))
        .or_else(|error| {
            if error.kind() == io::ErrorKind::AddrInUse {
                TcpListener::bind(at(0))
            } else {
                Err(error)
            }
        })
        .and_then(|listener| listener.local_addr())
        .map_err(LifecycleError::io("finding a free port on 127.0.0.1"))
}

fn token(secret: &[u8]) -> io::Result<String> {
    let expires = SystemTime::now() + TOKEN_LIFE;
    let seconds = expires
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(io::Error::other)?
        .as_secs();
    let claims = serde_json::json!({ "sub": "alice", "iss": QUICKSTART_ISSUER, "exp": seconds });
    jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &claims,
        &EncodingKey::from_secret(secret),
    )
    .map_err(io::Error::other)
}

/// The generated key, readable by its owner alone, for `breakwater token`; removed when dropped.
struct KeyFile(PathBuf);

impl KeyFile {
    fn write(path: &Path, secret: &[u8]) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(directory)?;
        }
        // A file that an earlier start left is not written into: it could be anybody's.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(secret)?;
        Ok(Self(path.to_path_buf()))
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        // Nobody is left to tell if this fails; the next start replaces the file.
        _ = fs::remove_file(&self.0);
        _ = self.0.parent().map(fs::remove_dir);
    }
}
