//! The daemon under a service manager: what it tells (sd_notify(3)), and the sockets that it takes (sd_listen_fds(3)).
#![expect(
    clippy::expect_used,
    reason = "a step of a test that fails has to stop that test"
)]

use std::{
    fmt::Write as _,
    fs::File,
    io::IoSliceMut,
    mem::MaybeUninit,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use rustix::{
    io::fcntl_dupfd_cloexec,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    process::{Pid, Signal, kill_process, test_kill_process},
    time::{ClockId, clock_gettime},
};
use tests::{
    config::Settings,
    daemon::{self, Daemon, command},
    http::{self, Request},
    lab::Lab,
    stage::{gateway, origin, vips},
    token::Signer,
    wait::{PATIENCE, eventually},
};

/// What the daemon is told of the watchdog, in microseconds.
const WATCHDOG: u64 = 900_000;
/// Descriptors in one message (net/core/scm.c, `SCM_MAX_FD`).
const MOST: usize = 253;

/// The manager's end.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

/// One message: its lines, and what came with it.
#[derive(Debug)]
struct Said {
    lines: Vec<String>,
    descriptors: Vec<OwnedFd>,
}

impl Said {
    fn has(&self, line: &str) -> bool {
        self.lines.iter().any(|own| own == line)
    }

    fn value(&self, key: &str) -> Option<u64> {
        let mut values = self.lines.iter().filter_map(|line| line.strip_prefix(key));
        values.next()?.strip_prefix('=')?.parse().ok()
    }
}

impl Manager {
    fn new(lab: &Lab) -> Self {
        let path = lab.directory().join("notify");
        let socket = UnixDatagram::bind(&path).expect("the place is free");
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a socket has a timeout");
        Self { socket, path }
    }

    /// The next message.
    #[track_caller]
    fn next(&self) -> Said {
        let mut bytes = [0; 4096];
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        );
        let length = received.expect("the daemon says something").bytes;
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                descriptors.extend(some);
            }
        }
        let text = String::from_utf8_lossy(&bytes[..length]);
        Said {
            lines: text.lines().map(str::to_owned).collect(),
            descriptors,
        }
    }

    /// The next message that is not about the watchdog.
    #[track_caller]
    fn news(&self) -> Said {
        loop {
            let said = self.next();
            if !said.has("WATCHDOG=1") {
                return said;
            }
        }
    }

    /// The sockets that are to be kept.
    #[track_caller]
    fn kept(&self, expected: usize) -> Vec<TcpListener> {
        let removed = self.news();
        assert!(
            removed.has("FDSTOREREMOVE=1") && removed.has("FDNAME=listeners"),
            "{removed:?}"
        );
        let mut kept = Vec::new();
        while kept.len() < expected {
            let said = self.news();
            assert!(said.has("FDSTORE=1") && said.has("FDNAME=listeners"), "{said:?}");
            assert!(!said.descriptors.is_empty(), "{said:?}");
            kept.extend(said.descriptors.into_iter().map(TcpListener::from));
        }
        kept
    }

    /// The daemon's command, with sockets from the manager from descriptor 3 on.
    fn command(&self, sockets: &[TcpListener]) -> Command {
        let binary = command();
        let mut script = String::new();
        for (at, socket) in sockets.iter().enumerate() {
            let _ = write!(script, "exec {}<&{};", at + 3, socket.as_raw_fd());
        }
        let count = sockets.len();
        let _ = write!(script, "export LISTEN_FDS={count} LISTEN_PID=$$; exec \"$@\"");
        let mut command = Command::new("bash");
        command.args(["-c", &script, "bash"]).arg(binary.get_program());
        command
            .env_remove("BREAKWATER_LOG")
            .env("NOTIFY_SOCKET", &self.path)
            .env("WATCHDOG_USEC", WATCHDOG.to_string())
            .stdin(File::open("/dev/null").expect("it is there"));
        command
    }
}

/// `CLOCK_MONOTONIC` in microseconds.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, nanos) = (now.tv_sec.cast_unsigned(), now.tv_nsec.cast_unsigned());
    seconds * 1_000_000 + nanos / 1000
}

#[test]
fn a_service_manager_hears_all_of_it_and_its_sockets_serve() {
    let Some(lab) = daemon::lab("manager") else { return };
    let signer = Signer::hs256();
    let origin = origin(&lab);
    let mut settings = Settings::standard(&lab, &signer, origin.address());
    settings.extra = "watch = false".to_owned();
    let text = settings.text();
    let manager = Manager::new(&lab);
    let asks = || {
        let served = vips().map(|vip| http::once(&lab.client().namespace, gateway(vip), &Request::get("/")));
        served.map(|response| response.map(|response| response.status).ok())
    };
    let daemon = Daemon::spawn_by(&lab, &text, manager.command(&[]));
    let first = manager.news();
    assert!(first.has("READY=1"), "{first:?}; {:#?}", daemon.log());
    assert_eq!(asks(), [Some(200); 2], "ready is who serves");
    // One for each of the two workers.
    let listeners = settings.listeners.len() * 2;
    let kept = manager.kept(listeners);
    let mut addresses: Vec<SocketAddr> = kept
        .iter()
        .filter_map(|socket| socket.local_addr().ok())
        .collect();
    addresses.sort();
    addresses.dedup();
    let mut wanted = settings.listeners.clone();
    wanted.sort();
    assert_eq!(addresses, wanted);

    // On the average, so that a busy machine does not matter: at half of the time that it has, or sooner.
    while !manager.next().has("WATCHDOG=1") {}
    let begun = Instant::now();
    for _ in 0..4 {
        assert!(manager.next().has("WATCHDOG=1"));
    }
    assert!(
        begun.elapsed() <= 4 * Duration::from_micros(WATCHDOG / 2),
        "{:?}",
        begun.elapsed()
    );

    let before = now();
    daemon.signal(Signal::HUP);
    let reloading = manager.news();
    let at = reloading.value("MONOTONIC_USEC");
    assert!(reloading.has("RELOADING=1"), "{reloading:?}");
    assert!(
        at.is_some_and(|at| (before..=now()).contains(&at)),
        "{reloading:?} not after {before}"
    );
    // What is kept is told anew in between.
    drop(manager.kept(listeners));
    let ready = manager.news();
    assert!(ready.has("READY=1"), "{ready:?}");

    daemon.signal(Signal::USR2);
    let main = manager.news();
    let process = main.value("MAINPID").and_then(|id| i32::try_from(id).ok());
    let process = process.and_then(Pid::from_raw).expect("MAINPID");
    assert!(
        process != daemon.id() && test_kill_process(process).is_ok(),
        "{main:?}"
    );
    let ready = manager.news();
    assert!(ready.has("READY=1"), "{ready:?}");
    let kept = manager.kept(listeners);
    assert!(daemon.wait().success());
    while !manager.next().has("WATCHDOG=1") {}

    // It dies, and who connects meanwhile waits for the next.
    kill_process(process, Signal::KILL).expect("it runs");
    eventually("the end", || test_kill_process(process).is_err().then_some(()));
    let high: Vec<TcpListener> = kept
        .iter()
        .map(|socket| {
            fcntl_dupfd_cloexec(socket, 100)
                .expect("there are descriptors")
                .into()
        })
        .collect();
    for socket in &high {
        rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty()).expect("it is open");
    }
    drop(kept);
    let namespace = &lab.client().namespace;
    let daemon = std::thread::scope(|scope| {
        let waits = scope.spawn(|| http::once(namespace, gateway(vips()[0]), &Request::get("/")));
        let daemon = Daemon::spawn_by(&lab, &text, manager.command(&high));
        let ready = manager.news();
        assert!(ready.has("READY=1"), "{ready:?}; {:#?}", daemon.log());
        let answer = waits.join().expect("it does not panic");
        assert_eq!(answer.expect("it was not refused").status, 200);
        daemon
    });
    drop(high);
    let again = manager.kept(listeners);
    assert_eq!(again.len(), listeners);
    assert_eq!(asks(), [Some(200); 2]);
    daemon.ask_to_stop();
    let stopping = manager.news();
    assert!(stopping.has("STOPPING=1"), "{stopping:?}");
    daemon.ended_well();
}
