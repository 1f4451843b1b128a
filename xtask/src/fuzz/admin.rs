//! `cargo xtask fuzz admin`: the admin API of a running daemon against its own description, by schemathesis.
//!
//! Works in `target/fuzz-admin`: the tool's virtual environment, configuration, log. The daemon has the shield on `lo`, in
//! generic mode and judging one port that nobody uses, if this is root; else it has none. What ends a daemon (drain,
//! upgrade) is left out of the run, and asked for without the right to.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{build, process};

/// The release that this was written for.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";
const DESCRIPTION: &str = "edge-user/src/admin/openapi.json";
/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);
const BPFFS: &str = "/sys/fs/bpf/breakwater-fuzz";

/// Runs it; `arguments` go to schemathesis.
///
/// # Errors
/// Something answers otherwise than described, somebody without a token is let in, or a tool is missing.
pub(super) fn run(arguments: &[String]) -> Result<()> {
    let folder = process::target_dir().join("fuzz-admin");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let tool = install(&folder)?;
    let binary = build::in_profile("quick")?;
    let token = fs::read_to_string("/proc/sys/kernel/random/uuid").context("drawing a token")?;
    let token = token.trim();
    let mut daemon = Daemon::start(&binary, &folder, token)?;
    refuses_strangers(daemon.at)?;
    let mut command = Command::new(tool);
    command
        .current_dir(&folder)
        .args([
            "run",
            "--checks",
            "all",
            "--max-response-time",
            "40",
            "--request-timeout",
            "40",
        ])
        .args(["--max-examples", "30"])
        .args(["--exclude-path", "/v1/drain", "--exclude-path", "/v1/upgrade"])
        .arg(format!("--url=http://{}", daemon.at))
        .arg(format!("--header=Authorization: Bearer {token}"))
        .args(arguments)
        .arg(process::workspace().join(DESCRIPTION));
    let tried = process::run(&mut command).context("the API does not keep to its description");
    ensure!(
        daemon.child.try_wait()?.is_none(),
        "the daemon has ended; its log is {}",
        daemon.log.display()
    );
    tried
}

/// The tool, in a virtual environment of its own.
fn install(folder: &Path) -> Result<PathBuf> {
    let environment = folder.join("venv");
    let tool = environment.join("bin/schemathesis");
    if !tool.exists() {
        let hint = "python3 with its venv module is needed (Debian: python3-venv), and a package index to install from";
        process::run(Command::new("python3").args(["-m", "venv"]).arg(&environment)).context(hint)?;
        let pip = environment.join("bin/pip");
        process::run(Command::new(pip).args(["install", "--quiet", SCHEMATHESIS])).context(hint)?;
    }
    Ok(tool)
}

/// A daemon for the run.
struct Daemon {
    child: Child,
    at: SocketAddr,
    binary: PathBuf,
    log: PathBuf,
}

impl Daemon {
    fn start(binary: &Path, folder: &Path, token: &str) -> Result<Self> {
        let [at, unused] = free_addresses()?;
        let shield = if process::is_root() {
            format!(
                "[shield]\ninterfaces = [\"lo\"]\nmode = \"generic\"\n[[service]]\nname = \"unused\"\nprotocol = \"tcp\"\nport = {}\n",
                unused.port()
            )
        } else {
            println!("fuzz: without root there is no shield: what needs one answers that there is none");
            String::new()
        };
        let secret = folder.join("token");
        write_private(&secret, token)?;
        let socket = folder.join("admin.sock");
        let config = folder.join("breakwater.toml");
        let [socket, secret] = [&socket, &secret].map(|path| path.display());
        let text = format!(
            "{shield}[admin]\nsocket = \"{socket}\"\naddress = \"{at}\"\ntoken_file = \"{secret}\"\n\
             [[listener]]\nname = \"web\"\naddress = \"{unused}\"\n\
             [[upstream]]\nname = \"app\"\nendpoints = [\"127.0.0.1:9\"]\n\
             [[route]]\nname = \"all\"\npath = \"/\"\nupstream = \"app\"\nauth = \"none\"\n"
        );
        fs::write(&config, text).with_context(|| config.display().to_string())?;
        let log = folder.join("daemon.log");
        if process::is_root() {
            fs::create_dir_all(BPFFS).context(BPFFS)?;
        }
        let child = Command::new(binary)
            .args(["run", "--bpffs", BPFFS, "--config"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).with_context(|| log.display().to_string())?)
            .spawn()
            .with_context(|| binary.display().to_string())?;
        let mut daemon = Self {
            child,
            at,
            binary: binary.to_owned(),
            log,
        };
        let begun = Instant::now();
        while !matches!(ask(at, "GET", "/v1/status"), Ok(401)) {
            if begun.elapsed() > PATIENCE || daemon.child.try_wait()?.is_some() {
                bail!("the daemon does not answer; its log is {}", daemon.log.display());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = process::end(&mut self.child);
        if process::is_root() {
            let _ = Command::new(&self.binary)
                .args(["detach", "--bpffs", BPFFS])
                .status();
            let _ = fs::remove_dir_all(BPFFS);
        }
    }
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;

    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| path.display().to_string())?;
    file.write_all(text.as_bytes()).context("writing the token")
}

fn free_addresses() -> Result<[SocketAddr; 2]> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let (one, other) = (bind()?, bind()?);
    Ok([one.local_addr()?, other.local_addr()?])
}

/// Asks without any right to; the status.
fn ask(at: SocketAddr, method: &str, path: &str) -> Result<u16> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .with_context(|| format!("{method} {path}: no status in {answer:?}"))
}

/// Every operation of the description but health, without a token.
fn refuses_strangers(at: SocketAddr) -> Result<()> {
    let text = fs::read_to_string(process::workspace().join(DESCRIPTION)).context(DESCRIPTION)?;
    let description: serde_json::Value = serde_json::from_str(&text).context(DESCRIPTION)?;
    let paths = description["paths"]
        .as_object()
        .context("paths in the description")?;
    let mut tried = 0;
    for (path, methods) in paths {
        for method in methods.as_object().into_iter().flat_map(|methods| methods.keys()) {
            let method = method.to_uppercase();
            if !["GET", "POST", "DELETE", "PUT", "PATCH"].contains(&method.as_str()) || path.ends_with('z') {
                continue;
            }
            let status = ask(at, &method, &path.replace(['{', '}'], ""))?;
            ensure!(
                status == 401,
                "{method} {path} answers {status} to somebody without a token"
            );
            tried += 1;
        }
    }
    ensure!(tried > 10, "only {tried} operations in the description");
    println!("fuzz: {tried} operations refuse who has no token");
    Ok(())
}
