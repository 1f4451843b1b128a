//! The admin socket as a caller meets it: bytes over a unix socket, from whichever user.

use std::{
    fmt::Write as _,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    thread,
};

use rustix::process::{Gid, Uid};
use serde_json::Value;

use crate::wait::PATIENCE;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// The head, in lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The body, which has to be JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The media type.
    pub fn media_type(&self) -> &str {
        let field = self
            .head
            .lines()
            .find_map(|line| line.strip_prefix("content-type: "));
        field.unwrap_or_default()
    }
}

/// A request over a connection of its own. A body is sent as JSON.
pub fn ask(socket: &Path, method: &str, target: &str, body: Option<&str>) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    if let Some(body) = body {
        let _ = write!(
            text,
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
    }
    text += "\r\n";
    text += body.unwrap_or_default();
    stream.write_all(text.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::other(format!("no answer: {answer:?}")))
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some(Answer {
        status: head.split(' ').nth(1)?.parse().ok()?,
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    })
}

/// Runs `job` on a thread that belongs to another user, with these groups, the first being its own.
///
/// # Panics
/// When this process may not do that, or the job panics.
pub fn as_user<T: Send>(uid: u32, groups: &[u32], job: impl FnOnce() -> T + Send) -> T {
    let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let uid = Uid::from_raw(uid);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            rustix::thread::set_thread_groups(&groups).expect("root may set groups");
            let own = groups.first().copied().unwrap_or(Gid::from_raw(uid.as_raw()));
            rustix::thread::set_thread_res_gid(own, own, own).expect("root may be another group");
            rustix::thread::set_thread_res_uid(uid, uid, uid).expect("root may be another user");
            job()
        });
        other.join().expect("the job does not panic")
    })
}
