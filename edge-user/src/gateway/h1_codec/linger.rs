//! Closing a connection so that the client can read what it was told.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::side::Transport;
use crate::gateway::limits::{LINGER_BYTES, LINGER_TIME};

/// Closes a connection. One whose client may still be sending is read from for a while: the kernel answers bytes to
/// a closed socket with a reset, which may overtake the response that says why.
pub(crate) async fn close<S: Transport>(mut stream: S, linger: bool) {
    if !linger && !stream.has_goodbye() {
        return;
    }
    if stream.shutdown().await.is_err() || !linger {
        return;
    }
    let drain = async {
        let (mut drained, mut buffer) = (0, vec![0; 16 * 1024]);
        while drained < LINGER_BYTES {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(read) => drained += read,
            }
        }
    };
    // Running out of time is the normal end for a client that never closes.
    let _ = timeout(LINGER_TIME, drain).await;
}
