//! Hands a running daemon's work to another process: its listening sockets, the claim on the shield, and at last the
//! right to enforce.
//!
//! ```text
//! old                                     new, started by the old one
//!   claim, sockets, end of list  ──►
//!                                         loads, binds what is missing, adopts the shield, accepts
//!                                ◄──      ready
//!   stops enforcing
//!   it is yours                  ──►
//!                                         enforces
//!   finishes its connections
//! ```
//! The way is a socket pair that the new process has as its standard input. Both have the same sockets meanwhile, so no
//! connection waits in a queue that nobody takes from. Whatever goes wrong before `ready` ends the new process, and the old
//! one carries on.

use std::{
    ffi::OsString,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::TcpListener,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, send, sendmsg, socketpair,
    },
};

/// Tells a new process that its standard input is the way to the old one.
pub(super) const VARIABLE: &str = "BREAKWATER_HANDOVER";
/// Its value.
const BY_STDIN: &str = "stdin";
/// Tells a new process how many upgrades led to it.
const COUNT_VARIABLE: &str = "BREAKWATER_UPGRADES";

/// Descriptors in one message; the kernel takes 253 (net/core/scm.c, `SCM_MAX_FD`).
const AT_ONCE: usize = 64;
/// Longest message.
const MAX_MESSAGE: usize = 4096;
/// Most sockets that are taken over.
const MAX_SOCKETS: usize = 65_536;
/// How long a new process waits for what it takes over, and for the right to enforce.
const PATIENCE: Duration = Duration::from_secs(30);

const CLAIM: u8 = b'C';
const SOCKETS: u8 = b'S';
const END: u8 = b'E';
const READY: u8 = b'R';
const FAILED: u8 = b'F';
const YOURS: u8 = b'Y';

/// Why a hand-over came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The new process could not be started.
    #[error("cannot start {}: {source}", binary.display())]
    Start {
        /// Which binary.
        binary: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ended.
    #[error("the new process ended before it was ready ({how}); its log says why")]
    Ended {
        /// How, in words.
        how: String,
        /// Its exit code, if it had one.
        code: Option<i32>,
    },
    /// It said why.
    #[error("the new process could not start: {0}")]
    Failed(String),
    /// It took too long.
    #[error("the new process was not ready within {0:?} (gateway.upgrade_timeout), and was ended")]
    TooSlow(Duration),
    /// The way between the two.
    #[error("handing over: {0}")]
    Way(#[from] io::Error),
    /// What came was something else.
    #[error("the old process sent something that this one does not understand")]
    Foreign,
}

impl HandoverError {
    /// The exit code of a command that asked for it: 3 if the new process found the configuration invalid, else 1.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Ended { code: Some(3), .. } => 3,
            _ => 1,
        }
    }
}

/// What was taken over from another process.
pub(super) struct Inherited {
    pub(super) sockets: Vec<TcpListener>,
    pub(super) claim: Option<OwnedFd>,
    pub(super) way: Way,
}

/// One end of the way.
pub(super) struct Way(OwnedFd);

fn is_successor() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|value| value == BY_STDIN)
}

/// How many upgrades, one after the other, led to this process.
pub(super) fn upgrades() -> u64 {
    let count = std::env::var(COUNT_VARIABLE).ok().filter(|_| is_successor());
    count.and_then(|count| count.parse().ok()).unwrap_or_default()
}

/// How to start this program again.
#[derive(Debug, Clone)]
pub(super) struct Program {
    binary: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// This process's own; a binary that is replaced later is found under the same name.
    pub(super) fn own() -> io::Result<Self> {
        Ok(Self {
            binary: std::env::current_exe()?,
            arguments: std::env::args_os().skip(1).collect(),
        })
    }

    /// Starts it with these sockets and waits until it is ready. Blocks.
    ///
    /// # Errors
    /// It is not ready in time; it does not run any more then.
    pub(super) fn start(
        &self,
        sockets: &[TcpListener],
        claim: Option<BorrowedFd<'_>>,
        limit: Duration,
    ) -> Result<(Child, Way), HandoverError> {
        let deadline = Instant::now() + limit;
        let (own, other) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(io::Error::from)?;
        let mut child = Command::new(&self.binary)
            .args(&self.arguments)
            .env(VARIABLE, BY_STDIN)
            .env(COUNT_VARIABLE, upgrades().saturating_add(1).to_string())
            .stdin(Stdio::from(other))
            .spawn()
            .map_err(|source| HandoverError::Start {
                binary: self.binary.clone(),
                source,
            })?;
        let way = Way(own);
        let ready = way
            .give(sockets, claim)
            .map_err(HandoverError::Way)
            .and_then(|()| way.wait_ready(&mut child, deadline, limit));
        match ready {
            Ok(()) => Ok((child, way)),
            Err(error) => {
                // It may have ended by itself.
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }
}

impl Inherited {
    /// What another process hands over, if this one was started for that. Blocks.
    ///
    /// # Errors
    /// The other process does not say what it should.
    pub(super) fn take() -> Result<Option<Self>, HandoverError> {
        if !is_successor() {
            return Ok(None);
        }
        let way = Way(io::stdin().as_fd().try_clone_to_owned()?);
        // Standard input is the way for nobody else, and a double of it must not keep it open.
        let nothing = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(&nothing).map_err(io::Error::from)?;
        let deadline = Instant::now() + PATIENCE;
        let (mut sockets, mut claim) = (Vec::new(), None);
        loop {
            let Some((message, mut descriptors)) = way.receive(deadline)? else {
                return Err(HandoverError::Foreign);
            };
            match message.first() {
                Some(&CLAIM) => claim = descriptors.pop(),
                Some(&SOCKETS) if sockets.len() < MAX_SOCKETS => {
                    sockets.extend(descriptors.into_iter().map(TcpListener::from));
                }
                Some(&END) => break,
                _ => return Err(HandoverError::Foreign),
            }
        }
        Ok(Some(Self { sockets, claim, way }))
    }
}

impl Way {
    fn give(&self, sockets: &[TcpListener], claim: Option<BorrowedFd<'_>>) -> io::Result<()> {
        if let Some(claim) = claim {
            self.send(CLAIM, &[claim])?;
        }
        for some in sockets.chunks(AT_ONCE) {
            let descriptors: Vec<_> = some.iter().map(AsFd::as_fd).collect();
            self.send(SOCKETS, &descriptors)?;
        }
        self.send(END, &[])
    }

    fn send(&self, kind: u8, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        sendmsg(
            &self.0,
            &[IoSlice::new(&[kind])],
            &mut control,
            SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }

    /// The next message; none if the other end is gone.
    fn receive(&self, deadline: Instant) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        if !self.wait(deadline)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut bytes = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            &self.0,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        );
        let received = match received {
            Ok(received) => received.bytes,
            // The process at the other end has ended.
            Err(rustix::io::Errno::CONNRESET) => 0,
            Err(error) => return Err(error.into()),
        };
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                descriptors.extend(some);
            }
        }
        bytes.truncate(received);
        Ok((received > 0).then_some((bytes, descriptors)))
    }

    /// Whether there is something to receive before the deadline.
    fn wait(&self, deadline: Instant) -> io::Result<bool> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
            let mut one = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut one, Some(&timeout)) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn wait_ready(&self, child: &mut Child, deadline: Instant, limit: Duration) -> Result<(), HandoverError> {
        match self.receive(deadline) {
            Ok(Some((message, _))) => match message.split_first() {
                Some((&READY, _)) => Ok(()),
                Some((&FAILED, why)) => Err(HandoverError::Failed(String::from_utf8_lossy(why).into_owned())),
                _ => Err(HandoverError::Foreign),
            },
            Ok(None) => {
                let ended = child.wait();
                Err(HandoverError::Ended {
                    code: ended.as_ref().ok().and_then(ExitStatus::code),
                    how: ended.map_or_else(|error| error.to_string(), |status| status.to_string()),
                })
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(HandoverError::TooSlow(limit)),
            Err(error) => Err(error.into()),
        }
    }

    /// The old process's last word: the new one enforces from now on.
    pub(super) fn hand_on(&self) -> io::Result<()> {
        self.send(YOURS, &[])
    }

    /// The new process is ready; returns when it has the right to enforce, or the old process is gone. Blocks.
    pub(super) fn ready(&self) -> io::Result<()> {
        self.send(READY, &[])?;
        match self.receive(Instant::now() + PATIENCE) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The new process cannot.
    pub(super) fn failed(&self, why: &str) {
        let mut message = vec![FAILED];
        message.extend_from_slice(why.as_bytes());
        message.truncate(MAX_MESSAGE);
        // If nobody hears it, the exit code says it.
        let _ = send(&self.0, &message, SendFlags::NOSIGNAL);
    }
}
