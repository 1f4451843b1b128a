//! Whether an idle HTTP/1 connection has said something that nobody asked for. Such bytes would be taken for the answer
//! to the next request, which is somebody else's (response queue poisoning).
//!
//! The read that ended the last answer found nothing behind it, and the runtime knows of bytes that came before it last
//! looked at its sockets. Either is had for nothing, and is enough while it is fresh, the second for a connection that
//! became idle before that look. Otherwise the kernel is asked, by one peek. Bytes that come later still, and those on their way, are beyond anybody's knowledge: HTTP/1.1 has nothing
//! that says which request an answer is for.

use std::{
    cell::Cell,
    io,
    time::{Duration, Instant},
};

use rustix::net::{RecvFlags, recv};
use tokio::net::TcpStream;

/// How old a look at a socket may be that is believed: the last read, or the runtime's.
const FRESH: Duration = Duration::from_micros(100);

thread_local! {
    /// When this thread's runtime last looked at its sockets, or a little after.
    static LOOKED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Notes that this thread's runtime has looked at its sockets: for its hook after parking.
pub fn looked() {
    LOOKED.set(Some(Instant::now()));
}

/// Whether bytes that came on a connection that is idle `since` would be known by now; `None` is not known.
pub fn is_known(since: Option<Instant>, now: Instant) -> bool {
    let is_fresh = |look: Instant| now.saturating_duration_since(look) <= FRESH;
    since.is_some_and(|since| {
        is_fresh(since)
            || LOOKED
                .get()
                .is_some_and(|looked| since < looked && is_fresh(looked))
    })
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
    fn a_look_is_believed_while_it_is_fresh() {
        let (before, more) = (Instant::now(), FRESH + Duration::from_nanos(1));
        assert!(is_known(Some(before), before + FRESH), "its last read");
        assert!(!is_known(Some(before), before + more), "nobody has looked since");
        while LOOKED.get().is_none_or(|at| at <= before + FRESH) {
            looked();
        }
        let looked = LOOKED.get().expect("just now");
        assert!(is_known(Some(before), looked + FRESH));
        assert!(!is_known(Some(before), looked + more));
        assert!(!is_known(Some(looked), looked + more), "idle since that turn");
        assert!(!is_known(None, looked));
    }
}
