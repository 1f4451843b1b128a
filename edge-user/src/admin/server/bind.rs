//! Where the admin API listens: bound before anything else begins, so that a place that is taken is told at the start.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::{
        fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
        net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::net::{TcpListener, UnixListener};

use super::guard::Guard;
use crate::{
    admin::{peer::Admitted, router::Serves},
    config::{Admin, AdminTcp, keyfile::Fault},
    gateway::{TlsFault, tls::Terminator},
    kernel::pins::DEFAULT_BPFFS,
};

/// Where the socket is if nobody says.
const DIRECTORY: &str = "/run/breakwater";

/// The admin API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The socket.
    #[error("admin.socket: cannot listen on {}: {source}\n  {help}", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What to do.
        help: &'static str,
        /// Why.
        source: io::Error,
    },
    /// An address.
    #[error("admin.{key}: cannot listen on {address}: {source}")]
    Address {
        /// The key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The token.
    #[error("admin.token_file: {0}")]
    Token(Fault),
    /// Certificates.
    #[error("admin.tls: {0}")]
    Tls(#[from] TlsFault),
    /// The thread or its runtime.
    #[error("cannot start the thread of the admin API")]
    Thread(#[source] io::Error),
}

impl AdminError {
    /// The process's exit code, as in `cli/exit.rs`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Token(_) | Self::Tls(_) => 3,
            Self::Address { source, .. } | Self::Socket { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                4
            }
            Self::Address { .. } | Self::Socket { .. } | Self::Thread(_) => 1,
        }
    }
}

/// The socket that a command looks at by itself: one for each BPF file system, as there is one daemon for each.
pub fn default_socket(bpffs: &Path) -> PathBuf {
    if bpffs == Path::new(DEFAULT_BPFFS) {
        return Path::new(DIRECTORY).join("admin.sock");
    }
    let plain = |char: char| if char.is_ascii_alphanumeric() { char } else { '-' };
    let name: String = bpffs.to_string_lossy().chars().map(plain).collect();
    // A socket's path has 107 bytes; the end of a long name tells most.
    let start = name.len().saturating_sub(64);
    Path::new(DIRECTORY).join(format!("admin{}.sock", &name[start..]))
}

/// Listeners that are bound and do not serve yet.
pub struct Bound {
    unix: Option<(StdUnixListener, Admitted, SocketFile)>,
    tcp: Vec<(std::net::TcpListener, Serves, Guard, Option<Arc<Terminator>>)>,
}

/// A listener within the runtime.
pub(super) struct Listening {
    pub(super) source: Source,
    pub(super) serves: Serves,
}

/// What connections come from.
pub(super) enum Source {
    Unix(UnixListener, Admitted),
    Tcp(TcpListener, Guard, Option<Arc<Terminator>>),
}

/// A socket in the file system; it goes with this, unless another has its place by then.
pub(super) struct SocketFile {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

const EVERYTHING: Serves = Serves {
    health: true,
    metrics: true,
    all: true,
};

impl Bound {
    /// Binds what is configured. `takes_over` is for a process that another hands its work to: it takes the socket's
    /// place; otherwise a daemon that answers there keeps it.
    ///
    /// # Errors
    /// A place that was asked for and cannot be had. The usual socket was not asked for: without it, it is told and gone
    /// without.
    pub fn bind(config: &Admin, bpffs: &Path, takes_over: bool) -> Result<Self, AdminError> {
        let mut tcp = Vec::new();
        if let Some(AdminTcp {
            address,
            token_file,
            tls,
        }) = &config.tcp
        {
            let guard = match token_file {
                Some(file) => Guard::token(file).map_err(AdminError::Token)?,
                None => Guard::open(),
            };
            let terminator = tls
                .as_ref()
                .map(|tls| Terminator::new("admin", tls.as_listener(), None).map(Arc::new))
                .transpose()?;
            let listener = listen("address", *address, takes_over)?;
            tcp.push((listener, EVERYTHING, guard, terminator));
        }
        for (key, address, serves) in open(config) {
            tcp.push((listen(key, address, takes_over)?, serves, Guard::open(), None));
        }
        let admitted = Admitted::new(config.group.as_ref().map(|group| group.gid));
        let unix = match (&config.socket, config.enabled) {
            (_, false) => None,
            (Some(path), true) => Some(socket(path, admitted, takes_over)?),
            (None, true) => {
                let path = default_socket(bpffs);
                socket(&path, admitted, takes_over)
                    .inspect_err(|error| tracing::warn!("no admin socket: {error}"))
                    .ok()
            }
        };
        let unix = unix.map(|(listener, file)| (listener, admitted, file));
        Ok(Self { unix, tcp })
    }

    /// Where it listens over TCP, in the order of the keys.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let addresses = self.tcp.iter().map(|(listener, ..)| listener.local_addr());
        addresses.filter_map(Result::ok).collect()
    }

    /// The socket, if there is one.
    pub fn socket(&self) -> Option<&Path> {
        self.unix.as_ref().map(|(_, _, file)| file.path.as_path())
    }

    pub(super) fn terminators(&self) -> Vec<Arc<Terminator>> {
        self.tcp
            .iter()
            .filter_map(|(.., terminator)| terminator.clone())
            .collect()
    }

    pub(super) fn into_parts(self) -> (Vec<Unstarted>, Vec<SocketFile>) {
        let mut sockets = Vec::new();
        let mut unstarted = Vec::new();
        if let Some((listener, admitted, file)) = self.unix {
            sockets.push(file);
            unstarted.push(Unstarted::Unix(listener, admitted));
        }
        let tcp = self.tcp.into_iter();
        unstarted.extend(tcp.map(|(listener, serves, guard, terminator)| {
            Unstarted::Tcp(listener, serves, guard, terminator)
        }));
        (unstarted, sockets)
    }
}

/// A listener that waits for its runtime.
pub(super) enum Unstarted {
    Unix(StdUnixListener, Admitted),
    Tcp(std::net::TcpListener, Serves, Guard, Option<Arc<Terminator>>),
}

impl Unstarted {
    /// Within a runtime.
    pub(super) fn start(self) -> io::Result<Listening> {
        Ok(match self {
            Self::Unix(listener, admitted) => Listening {
                source: Source::Unix(UnixListener::from_std(listener)?, admitted),
                serves: EVERYTHING,
            },
            Self::Tcp(listener, serves, guard, terminator) => Listening {
                source: Source::Tcp(TcpListener::from_std(listener)?, guard, terminator),
                serves,
            },
        })
    }
}

/// What is open to everybody; one listener where both have the same address.
fn open(config: &Admin) -> Vec<(&'static str, SocketAddr, Serves)> {
    let serves = |metrics, health| Serves {
        health,
        metrics,
        all: false,
    };
    match (config.metrics_address, config.health_address) {
        (Some(metrics), Some(health)) if metrics == health && metrics.port() != 0 => {
            vec![("metrics_address", metrics, serves(true, true))]
        }
        (metrics, health) => {
            let metrics = metrics.map(|address| ("metrics_address", address, serves(true, false)));
            let health = health.map(|address| ("health_address", address, serves(false, true)));
            metrics.into_iter().chain(health).collect()
        }
    }
}

/// Binds an address. Two processes may have it while one takes over from the other, and else not.
fn listen(
    key: &'static str,
    address: SocketAddr,
    takes_over: bool,
) -> Result<std::net::TcpListener, AdminError> {
    let bind = |shares: bool| -> io::Result<socket2::Socket> {
        let socket =
            socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shares)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(socket)
    };
    let bound = || -> io::Result<std::net::TcpListener> {
        let mut wanted = address;
        if !takes_over {
            // Found taken by anybody, it stays theirs.
            let probe = bind(false)?;
            if let Some(found) = probe.local_addr()?.as_socket() {
                wanted = found;
            }
            probe.set_reuse_port(true)?;
            if wanted != address {
                probe.listen(128)?;
                return Ok(probe.into());
            }
        }
        let socket = bind(true)?;
        socket.listen(128)?;
        Ok(socket.into())
    };
    bound().map_err(|source| AdminError::Address { key, address, source })
}

fn socket(
    path: &Path,
    admitted: Admitted,
    takes_over: bool,
) -> Result<(StdUnixListener, SocketFile), AdminError> {
    let failed = |help| {
        move |source| AdminError::Socket {
            path: path.to_owned(),
            help,
            source,
        }
    };
    if !takes_over && StdUnixStream::connect(path).is_ok() {
        let taken = io::Error::from(io::ErrorKind::AddrInUse);
        return Err(failed("another daemon answers there: set `admin.socket`")(taken));
    }
    if path.starts_with(DIRECTORY) {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(DIRECTORY)
            .map_err(failed("the daemon's user must be able to make /run/breakwater"))?;
    }
    // Made beside its place, given its rights, and moved there: nobody meets it in between.
    let beside = path.with_extension(format!("new.{}", std::process::id()));
    let _ = fs::remove_file(&beside);
    let place = "the daemon's user must be able to make files in its directory";
    let listener = StdUnixListener::bind(&beside).map_err(failed(place))?;
    let file = SocketFile {
        identity: identity(&beside),
        path: beside.clone(),
    };
    let mode = if admitted.gid.is_some() { 0o660 } else { 0o600 };
    let prepared = || -> io::Result<()> {
        fs::set_permissions(&beside, fs::Permissions::from_mode(mode))?;
        if admitted.gid.is_some() {
            std::os::unix::fs::chown(&beside, None, admitted.gid)?;
        }
        listener.set_nonblocking(true)?;
        fs::rename(&beside, path)
    };
    prepared().map_err(failed("the daemon's user must be a member of `admin.group`"))?;
    let moved = SocketFile {
        identity: file.identity,
        path: path.to_owned(),
    };
    // Its name is another now; nothing is at the old one.
    drop(file);
    Ok((listener, moved))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bpf_file_system_has_a_socket_with_a_path_that_fits() {
        assert_eq!(
            default_socket(Path::new("/sys/fs/bpf")),
            Path::new("/run/breakwater/admin.sock")
        );
        let other = default_socket(Path::new("/tmp/bpf"));
        assert_eq!(other, Path::new("/run/breakwater/admin-tmp-bpf.sock"));
        let long = default_socket(Path::new(&format!("/{}", "a/".repeat(300))));
        assert!(long.as_os_str().len() < 107, "{}", long.display());
    }

    #[test]
    fn a_socket_that_is_answered_stays_and_one_that_was_left_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("admin.sock");
        let admitted = Admitted::new(None);
        let (first, file) = socket(&path, admitted, false).expect("a free place");
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(socket(&path, admitted, false).is_err());
        let (second, its) = socket(&path, admitted, true).expect("handed over");
        drop((first, file));
        assert!(path.exists(), "the first takes only its own away");
        drop(second);
        let (_third, last) = socket(&path, admitted, false).expect("nobody answers");
        drop(its);
        assert!(path.exists());
        drop(last);
        assert!(!path.exists());
    }

    #[test]
    fn an_address_that_is_taken_is_not_shared() {
        let first = listen("address", SocketAddr::from(([127, 0, 0, 1], 0)), false).expect("free");
        let address = first.local_addr().expect("bound");
        assert!(listen("address", address, false).is_err());
        assert!(listen("address", address, true).is_ok());
    }
}
