//! `cargo xtask bench instructions`: what one request costs in user instructions (callgrind) and system calls (strace).
//!
//! Counts repeat within a percent where times do not, so they guard against regressions on any machine. A request is
//! the difference between a short and a long run, so starting and stopping count nothing. The load is in step, over
//! HTTP/1 and over HTTP/2 in the clear: all
//! connections are asked, then all are answered, which keeps the number of turns of the event loop the same.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use rustix::process::{Pid, Signal, kill_process};

use crate::process;

mod http2;

/// How long the gateway may take to start under valgrind, and to stop.
const PATIENCE: Duration = Duration::from_mins(1);

/// Connections of the load.
const CONNECTIONS: usize = 16;

/// Rounds of the short run and the long one; each asks once on every connection.
const SHORT: usize = 50;
const LONG: usize = 250;

/// What to measure.
#[derive(Parser, Debug)]
#[command(name = "cargo xtask bench instructions", no_binary_name = true)]
struct Options {
    /// Profile that Breakwater is built in.
    #[arg(long, default_value = "release")]
    profile: String,
    /// A binary to measure instead of building one.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Fails if a plain request takes more user instructions.
    #[arg(long)]
    most: Option<u64>,
    /// Fails if a request over HTTP/2 takes more user instructions.
    #[arg(long)]
    most_http2: Option<u64>,
    /// Leaves the profiles of the long runs in this file, with `http1` and `http2` for its extension, for `callgrind_annotate`.
    #[arg(long)]
    keep: Option<PathBuf>,
}

/// Measures.
///
/// # Errors
/// When a tool is missing, something does not start, or the count is above `--most`.
pub(super) fn run(arguments: &[String]) -> Result<()> {
    let options = Options::try_parse_from(arguments)?;
    for program in ["valgrind", "strace"] {
        if !process::in_path(program) {
            bail!("{program} is missing: apt-get install {program}");
        }
    }
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => crate::build::in_profile(&options.profile)?,
    };
    let folder = process::target_dir().join("bench-instructions");
    fs::create_dir_all(&folder)?;
    let origin = origin()?;
    let instructions = |rounds: usize, load: Load| -> Result<u64> {
        let file = folder.join("callgrind.out");
        let mut command = Command::new("valgrind");
        command
            .args(["--tool=callgrind", "--quiet"])
            .arg(format!("--callgrind-out-file={}", file.display()));
        drive(&mut command, &binary, &folder, origin, rounds, load)?;
        let text = fs::read_to_string(&file).context("callgrind wrote nothing")?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("summary:").or(line.strip_prefix("totals:")));
        if let (LONG, Some(keep)) = (rounds, &options.keep) {
            fs::copy(&file, keep.with_extension(load.name()))?;
        }
        line.and_then(|count| count.split_whitespace().next()?.parse().ok())
            .context("callgrind told no sum")
    };
    let calls = |rounds: usize, load: Load| -> Result<Vec<(String, u64)>> {
        let file = folder.join("strace.out");
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-o"]).arg(&file);
        drive(&mut command, &binary, &folder, origin, rounds, load)?;
        Ok(summary(
            &fs::read_to_string(&file).context("strace wrote nothing")?,
        ))
    };
    let mut over = Vec::new();
    for (load, most) in [(Load::Http1, options.most), (Load::Http2, options.most_http2)] {
        let requests = ((LONG - SHORT) * load.at_once()) as u64;
        let user = (instructions(LONG, load)? - instructions(SHORT, load)?) / requests;
        println!("{}: user instructions a request: {user}", load.name());
        let (short, long) = (calls(SHORT, load)?, calls(LONG, load)?);
        let before = |name: &str| {
            short
                .iter()
                .find(|(have, _)| have == name)
                .map_or(0, |(_, count)| *count)
        };
        println!("{}: system calls a request:", load.name());
        for (name, count) in &long {
            let each = count.saturating_sub(before(name)) as f64 / requests as f64;
            if each >= 0.01 {
                println!("  {name:14} {each:.2}");
            }
        }
        if let Some(most) = most.filter(|most| user > *most) {
            over.push(format!(
                "{}: {user} user instructions a request, above {most}",
                load.name()
            ));
        }
    }
    if over.is_empty() {
        Ok(())
    } else {
        bail!("{}", over.join("; "))
    }
}

/// How the gateway is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Load {
    /// One request on each connection.
    Http1,
    /// Several streams on each connection, in the clear.
    Http2,
}

impl Load {
    fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
        }
    }

    /// Requests of one round.
    fn at_once(self) -> usize {
        match self {
            Self::Http1 => CONNECTIONS,
            Self::Http2 => http2::CONNECTIONS * http2::STREAMS,
        }
    }

    fn ask(self, address: SocketAddr, rounds: usize) -> Result<()> {
        match self {
            Self::Http1 => ask(address, rounds),
            Self::Http2 => http2::ask(address, rounds),
        }
    }
}

/// Starts the gateway under a tool, asks it, and stops it.
fn drive(
    tool: &mut Command,
    binary: &Path,
    folder: &Path,
    origin: SocketAddr,
    rounds: usize,
    load: Load,
) -> Result<()> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let file = folder.join("edge.toml");
    let mut parts = vec![format!(
        "[gateway]\nworkers = 1\n[gateway.access_log]\nenabled = false\n\n[[listener]]\nname = \"plain\"\naddress = \"{address}\"\n\n\
         [[upstream]]\nname = \"origin\"\nendpoints = [\"{origin}\"]\n\n"
    )];
    for (name, path) in [("all", "/"), ("one", "/api/one"), ("two", "/api/two")] {
        parts.push(format!(
            "[[route]]\nname = \"{name}\"\npath = \"{path}\"\nupstream = \"origin\"\nauth = \"none\"\n\n"
        ));
    }
    fs::write(&file, parts.concat())?;
    let mut child = tool
        .arg(binary)
        .args(["run", "--config"])
        .arg(&file)
        .env("BREAKWATER_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(folder.join("log"))?)
        .spawn()
        .with_context(|| format!("cannot start {}", process::shown(tool)))?;
    let asked = load.ask(address, rounds);
    // The tool's child is the gateway under strace; valgrind is the gateway itself.
    for pid in children(child.id()).into_iter().chain([child.id()]) {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
            if process_name_is_tool(tool) {
                continue;
            }
        }
        break;
    }
    match process::wait_limited(&mut child, PATIENCE)? {
        process::Ended::Exited(_) => asked,
        process::Ended::TimedOut => bail!("the gateway does not stop"),
    }
}

/// Whether signals should go to the tool itself.
fn process_name_is_tool(tool: &Command) -> bool {
    tool.get_program() == "valgrind"
}

/// The children of a process.
fn children(pid: u32) -> Vec<u32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// A request as a browser's API call sends it.
const REQUEST: &[u8] =
    b"GET /api/one/items?page=2 HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bench/1.0\r\n\
    Accept: application/json\r\nAccept-Encoding: gzip, br\r\nCookie: theme=dark; session=abcdefgh\r\n\r\n";

/// Opens connections, as soon as the gateway listens.
fn connect(address: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    let begun = Instant::now();
    let mut connections = Vec::with_capacity(count);
    while connections.len() < count {
        match TcpStream::connect(address) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                connections.push(stream);
            }
            Err(error) if begun.elapsed() > PATIENCE => {
                return Err(error).context("the gateway does not listen");
            }
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
    Ok(connections)
}

fn ask(address: SocketAddr, rounds: usize) -> Result<()> {
    let mut connections = connect(address, CONNECTIONS)?;
    let mut buffer = [0; 4096];
    for _ in 0..rounds {
        for stream in &mut connections {
            stream.write_all(REQUEST)?;
        }
        for stream in &mut connections {
            let read = stream.read(&mut buffer)?;
            if !buffer[..read].starts_with(b"HTTP/1.1 200") {
                bail!("answered {:?}", String::from_utf8_lossy(&buffer[..read]));
            }
        }
    }
    Ok(())
}

/// Starts an origin that answers each request; it lives as long as this process.
fn origin() -> Result<SocketAddr> {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
        Content-Type: application/json\r\nCache-Control: no-store\r\nContent-Length: 16\r\n\r\n{\"answer\": \"ok\"}";
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let _ = stream.set_nodelay(true);
                let mut buffer = [0; 4096];
                // A small request comes whole.
                while stream.read(&mut buffer).is_ok_and(|read| read > 0) && stream.write_all(ANSWER).is_ok()
                {
                }
            });
        }
    });
    Ok(address)
}

/// Names and counts from strace's table.
fn summary(text: &str) -> Vec<(String, u64)> {
    text.lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (name, count) = (words.last()?, words.get(3)?);
            Some(((*name).to_owned(), count.parse().ok()?))
        })
        .filter(|(name, _)| name != "total")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::summary;

    #[test]
    fn straces_table_is_read() {
        let text = "% time     seconds  usecs/call     calls    errors syscall\n------ ----------- ----------- --------- --------- ----------------\n \
            60.00    0.1     10      200       4 recvfrom\n 40.00    0.1    9     100     sendto\n100.00 0.2 9 300 4 total\n";
        assert_eq!(
            summary(text),
            [("recvfrom".to_owned(), 200), ("sendto".to_owned(), 100)]
        );
    }
}
