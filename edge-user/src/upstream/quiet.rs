//! Whether an idle HTTP/1 connection has said something that nobody asked for. Such bytes would be taken for the answer
//! to the next request, which is somebody else's (response queue poisoning).
//!
//! The runtime knows of bytes that came before it last looked at its sockets. That is asked for nothing, and is enough
//! for a connection that became idle before that look, while the look is fresh. Otherwise the kernel is asked, by
//! one peek. Bytes that come later still, and those on their way, are beyond anybody's knowledge: HTTP/1.1 has nothing
//! that says which request an answer is for.

use std::{
    cell::Cell,
    io,
    time::{Duration, Instant},
};

use rustix::net::{RecvFlags, recv};
use tokio::net::TcpStream;

/// How old a look of the runtime's may be that is believed.
const FRESH: Duration = Duration::from_micros(100);

thread_local! {
    /// When this thread's runtime last looked at its sockets, or a little after.
    static LOOKED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Notes that this thread's runtime has looked at its sockets: for its hook after parking.
pub fn looked() {
    LOOKED.set(Some(Instant::now()));
}

/// Whether the runtime would know of bytes that came on a connection that is idle `since`; `None` is just now.
pub fn is_known(since: Option<Instant>, now: Instant) -> bool {
    let (Some(since), Some(looked)) = (since, LOOKED.get()) else {
        return false;
    };
    since < looked && now.saturating_duration_since(looked) <= FRESH
}

/// Asks the kernel whether a connection has neither bytes nor an end for us.
pub fn is_silent(socket: &TcpStream) -> bool {
    let nothing = recv(socket, &mut [0_u8; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    nothing.is_err_and(|error| io::Error::from(error).kind() == io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, io::Write, pin::Pin, task::Poll};

    use tokio::{
        io::{AsyncRead, ReadBuf},
        net::TcpListener,
        runtime::Builder,
    };

    use super::*;

    #[test]
    fn the_kernel_knows_what_the_runtime_does_not() {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("bound");
            let mut idle = TcpStream::connect(address).await.expect("it listens");
            let (other, _) = listener.accept().await.expect("a connection");
            let mut other = other.into_std().expect("a socket");
            let mut nothing = [0; 8];
            let mut pending = async |idle: &mut TcpStream| {
                poll_fn(|context| {
                    let read = Pin::new(&mut *idle).poll_read(context, &mut ReadBuf::new(&mut nothing));
                    Poll::Ready(read.is_pending())
                })
                .await
            };
            assert!(pending(&mut idle).await);
            assert!(is_silent(&idle));
            // Nothing is awaited from here on: the runtime does not look.
            other.write_all(b"HTTP").expect("room");
            assert!(pending(&mut idle).await, "the runtime knows nothing of it");
            assert!(!is_silent(&idle));
            // An end is no silence either.
            let ended = TcpStream::connect(address).await.expect("it listens");
            drop(listener.accept().await.expect("a connection"));
            ended.readable().await.expect("its end");
            assert!(!is_silent(&ended));
        });
    }

    #[test]
    fn a_look_is_believed_about_what_was_idle_before_while_it_is_fresh() {
        let before = Instant::now();
        assert!(!is_known(Some(before), before), "nobody has looked");
        while LOOKED.get().is_none_or(|at| at <= before) {
            looked();
        }
        let looked = LOOKED.get().expect("just now");
        assert!(is_known(Some(before), looked));
        assert!(is_known(Some(before), looked + FRESH));
        assert!(!is_known(Some(before), looked + FRESH + Duration::from_nanos(1)));
        assert!(!is_known(Some(looked), looked), "idle since that turn");
        assert!(!is_known(None, looked));
    }
}
