//! Requests as an access log has them, by their shape.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, BufRead},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

/// Most shapes; requests of others are left out, and told.
const MOST_SHAPES: usize = 20_000;
/// Longest line, in bytes: the gateway's own are shorter.
const LONGEST: u64 = 1024 * 1024;

/// What requests have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// Their method.
    pub method: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Host, and port if it was told.
    pub host: String,
    /// The normalised path.
    pub path: String,
    /// They were refused for their token, or for want of one.
    pub token_refused: bool,
    /// The first client that asked.
    #[serde(skip)]
    pub client: SocketAddr,
    /// How many.
    pub requests: u64,
}

/// All of a log's last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shapes {
    list: Vec<Shape>,
    requests: u64,
    seconds: u64,
    left_out: u64,
}

/// What tells shapes apart.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    method: String,
    scheme: String,
    host: String,
    path: String,
    token_refused: bool,
}

impl Key {
    fn of(line: Line) -> Self {
        Self {
            token_refused: line.reason.starts_with("token_"),
            method: line.method,
            scheme: line.scheme,
            host: line.host,
            path: line.path,
        }
    }

    fn shape(&self, client: SocketAddr, requests: u64) -> Shape {
        Shape {
            method: self.method.clone(),
            scheme: self.scheme.clone(),
            host: self.host.clone(),
            path: self.path.clone(),
            token_refused: self.token_refused,
            client,
            requests,
        }
    }
}

/// A line of the access log, as far as it says what was asked.
#[derive(Deserialize)]
struct Line {
    time: String,
    client: Option<SocketAddr>,
    scheme: String,
    method: String,
    host: String,
    path: String,
    #[serde(default)]
    reason: String,
}

impl Shapes {
    /// Reads a log in JSON, and keeps what came within `last` before its newest line.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(mut log: impl BufRead, last: Duration) -> io::Result<Self> {
        let mut shapes: HashMap<Arc<Key>, (SocketAddr, u64)> = HashMap::new();
        let mut kept: VecDeque<(SystemTime, Arc<Key>)> = VecDeque::new();
        let mut left_out = 0;
        let mut text = Vec::new();
        loop {
            text.clear();
            if io::Read::take(&mut log, LONGEST).read_until(b'\n', &mut text)? == 0 {
                break;
            }
            if text.trim_ascii().is_empty() {
                continue;
            }
            let Some((at, line)) = line(&text) else {
                left_out += 1;
                continue;
            };
            // First: what is too old makes room.
            while kept
                .front()
                .is_some_and(|(old, _)| at.duration_since(*old).is_ok_and(|age| age > last))
                && let Some((_, key)) = kept.pop_front()
                && let Some((_, requests)) = shapes.get_mut(&key)
            {
                *requests -= 1;
                if *requests == 0 {
                    shapes.remove(&key);
                }
            }
            let client = line.client.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
            let key = Key::of(line);
            let key = match shapes.get_key_value(&key) {
                Some((known, _)) => Arc::clone(known),
                None if shapes.len() < MOST_SHAPES => Arc::new(key),
                None => {
                    left_out += 1;
                    continue;
                }
            };
            shapes.entry(Arc::clone(&key)).or_insert((client, 0)).1 += 1;
            kept.push_back((at, key));
        }
        let (first, newest) = (kept.front().map(|(at, _)| *at), kept.back().map(|(at, _)| *at));
        let seconds = first
            .zip(newest)
            .and_then(|(first, newest)| newest.duration_since(first).ok());
        let mut sorted: Vec<_> = shapes
            .iter()
            .map(|(key, (client, requests))| key.shape(*client, *requests))
            .collect();
        sorted.sort_by(|a, b| {
            let order = b.requests.cmp(&a.requests);
            order.then_with(|| (&a.path, &a.host, &a.method).cmp(&(&b.path, &b.host, &b.method)))
        });
        Ok(Self {
            requests: kept.len() as u64,
            seconds: seconds.unwrap_or_default().as_secs(),
            list: sorted,
            left_out,
        })
    }

    /// They, the most frequent first.
    pub fn list(&self) -> &[Shape] {
        &self.list
    }

    /// Requests of all shapes.
    pub const fn requests(&self) -> u64 {
        self.requests
    }

    /// From the first to the last of them.
    pub const fn seconds(&self) -> u64 {
        self.seconds
    }

    /// Lines that say nothing that could be asked again.
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }
}

/// What a line says; none if it is none, or if what was asked was not understood then either.
fn line(text: &[u8]) -> Option<(SystemTime, Line)> {
    let line: Line = serde_json::from_slice(text).ok()?;
    let is_plain = |text: &str| !text.contains(|letter: char| letter.is_control() || letter == ' ');
    let is_whole = is_plain(&line.path) && is_plain(&line.host) && is_plain(&line.method);
    let is_asked = line.path.starts_with('/') && !line.method.is_empty() && !line.host.is_empty();
    let at = humantime::parse_rfc3339(&line.time).ok()?;
    (is_whole && is_asked).then_some((at, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_at(second: u32, path: &str, reason: &str) -> String {
        format!(
            "{{\"time\":\"2026-11-27T12:{:02}:{:02}.5Z\",\"client\":\"192.0.2.1:5\",\"scheme\":\"https\",\"method\":\"GET\",\
             \"host\":\"a.example\",\"path\":\"{path}\",\"reason\":\"{reason}\",\"status\":200}}\n",
            second / 60,
            second % 60
        )
    }

    #[test]
    fn shapes_of_long_ago_take_no_room() {
        let lines =
            (0..2 * MOST_SHAPES as u32).map(|number| line_at(number / 1000, &format!("/{number}"), ""));
        let log: String = lines.collect();
        let read = Shapes::read(log.as_bytes(), Duration::from_secs(5)).expect("read");
        assert_eq!(
            (read.requests(), read.list().len(), read.left_out()),
            (6000, 6000, 0)
        );
        let most = Shapes::read(log.as_bytes(), Duration::from_hours(1)).expect("read");
        assert_eq!(
            (most.list().len(), most.left_out()),
            (MOST_SHAPES, MOST_SHAPES as u64)
        );
    }

    #[test]
    fn the_last_time_counts_and_what_says_nothing_is_told() {
        let mut log = String::new();
        for second in 0..100 {
            log += &line_at(second, if second % 2 == 0 { "/even" } else { "/odd" }, "");
        }
        log += &line_at(100, "/private", "token_missing");
        log += "no json\n\n{\"time\":\"yesterday\"}\n";
        log += &line_at(100, "", "bad_syntax");
        log += &line_at(100, "/a b", "");
        let read = Shapes::read(log.as_bytes(), Duration::from_secs(10)).expect("read");
        let counts: Vec<_> = read
            .list()
            .iter()
            .map(|shape| (shape.path.as_str(), shape.requests, shape.token_refused))
            .collect();
        assert_eq!(
            counts,
            [("/even", 5, false), ("/odd", 5, false), ("/private", 1, true)]
        );
        assert_eq!((read.requests(), read.seconds(), read.left_out()), (11, 10, 4));
        let all = Shapes::read(log.as_bytes(), Duration::from_hours(1)).expect("read");
        assert_eq!((all.requests(), all.seconds()), (101, 100));
        assert_eq!(
            Shapes::read(&b""[..], Duration::ZERO).expect("read").requests(),
            0
        );
    }
}
