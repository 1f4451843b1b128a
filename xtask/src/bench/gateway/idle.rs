//! Connections that ask once and then only stay.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Opens connections and sends one request on each.
pub(super) fn open(address: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    let have = getrlimit(Resource::Nofile);
    let want = count as u64 + 1000;
    if have.current.is_some_and(|current| current < want) {
        let raised = Rlimit {
            current: Some(want),
            maximum: have.maximum.map(|most| most.max(want)),
        };
        setrlimit(Resource::Nofile, raised).context("cannot have so many files open: raise `ulimit -n`")?;
    }
    let mut held = Vec::with_capacity(count);
    let mut buffer = [0; 4096];
    for _ in 0..count {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET /plain HTTP/1.1\r\nHost: bench\r\n\r\n")?;
        if stream.read(&mut buffer)? == 0 {
            bail!("closed instead of answered");
        }
        held.push(stream);
    }
    Ok(held)
}
