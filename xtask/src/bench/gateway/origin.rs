//! What the proxies forward to: nginx for downloads, and for uploads a server that reads all before it answers.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use anyhow::{Context, Result};

use super::{load::on_cpu, proxies::Site, running::Running};

/// Bytes of a small answer.
pub(super) const PLAIN: usize = 128;

/// The origins; ended when dropped.
#[derive(Debug)]
pub(super) struct Origins {
    _nginx: Running,
}

impl Origins {
    /// Starts them and notes their addresses.
    pub(super) fn start(site: &mut Site) -> Result<Self> {
        let folder = site.folder.join("origin");
        fs::create_dir_all(&folder)?;
        for (name, size) in [("100k", 100 * 1024), ("10m", 10 * 1024 * 1024)] {
            fs::write(folder.join(name), vec![b'x'; size])?;
        }
        site.origin = free_address()?;
        let path = folder.display();
        let configuration = format!(
            "daemon off; worker_processes 1; pid {path}/pid; error_log {path}/error.log;\n\
             events {{ worker_connections 15000; }}\n\
             http {{\n  access_log off; sendfile on; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 300;\n  \
             client_body_temp_path {path}/body; proxy_temp_path {path}/proxy; fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;\n  \
             server {{ listen {}; root {path};\n    location = /plain {{ default_type text/plain; return 200 '{}'; }}\n    \
             location /r {{ default_type text/plain; return 200 'ok'; }}\n  }}\n}}\n",
            site.origin,
            "x".repeat(PLAIN),
        );
        let file = folder.join("nginx.conf");
        fs::write(&file, configuration)?;
        let mut command = on_cpu(site, site.load_cpu, "nginx");
        command
            .arg("-c")
            .arg(&file)
            .arg("-e")
            .arg(folder.join("error.log"));
        let mut nginx = Running::start(&mut command, &folder.join("log"))?;
        nginx.listens(site.origin).context("the origin")?;
        site.sink = sink(site.load_cpu)?;
        Ok(Self { _nginx: nginx })
    }
}

/// An address nobody has.
pub(super) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Starts the server for uploads; it lives as long as this process.
fn sink(cpu: u32) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        let mut one = rustix::thread::CpuSet::new();
        one.set(cpu as usize);
        // Untied it only measures less well.
        let _ = rustix::thread::sched_setaffinity(None, &one);
        for stream in listener.incoming().flatten() {
            thread::spawn(move || drop(swallow(stream)));
        }
    });
    Ok(address)
}

/// Reads requests with a `Content-Length` and answers each after its last byte.
fn swallow(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 256 * 1024];
    let mut have = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = have.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            have.extend_from_slice(&buffer[..read]);
        };
        let head = String::from_utf8_lossy(&have[..end]).to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let mut left = length.unwrap_or(0).saturating_sub(have.len() - end);
        have.clear();
        while left > 0 {
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            left = left.saturating_sub(read);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
    }
}
