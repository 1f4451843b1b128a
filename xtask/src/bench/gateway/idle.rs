//! Connections that ask once and then only stay.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a proxy may want to have open: two for each of 20,000 connections.
const FILES: u64 = 41_000;

/// Files that a proxy has open beside its connections.
const OTHERS: u64 = 500;

/// Raises the limit of open files, for this process and those it starts, as far as it may; answers with how many
/// connections a proxy can then have.
pub(super) fn allow_many_files() -> Result<usize> {
    let have = getrlimit(Resource::Nofile);
    let most = have.maximum.map_or(FILES, |most| most.min(FILES));
    if have.current.is_some_and(|current| current < most) {
        let raised = Rlimit {
            current: Some(most),
            ..have
        };
        setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open files")?;
    }
    Ok(usize::try_from(most.saturating_sub(OTHERS) / 2)?)
}

/// Connections that are asked at once, and answered before the next ones are opened.
const TOGETHER: usize = 256;

/// Opens connections and sends one request on each.
pub(super) fn open(address: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    let mut held: Vec<TcpStream> = Vec::with_capacity(count);
    let mut buffer = [0; 4096];
    while held.len() < count {
        let begun = held.len();
        for _ in begun..count.min(begun + TOGETHER) {
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(b"GET /plain HTTP/1.1\r\nHost: bench\r\n\r\n")?;
            held.push(stream);
        }
        for stream in held.iter_mut().skip(begun) {
            if stream.read(&mut buffer)? == 0 {
                bail!("closed instead of answered");
            }
        }
    }
    Ok(held)
}
