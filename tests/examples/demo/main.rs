//! `cargo xtask demo`: the story that Breakwater comes from, played with real packets in network namespaces.
//!
//! A site at `/` and an API at `/graphql` that wants a token in a cookie; an attacker that guesses tokens until the
//! kernel drops whatever it sends; a change of the configuration under load; and what the change did. Everything that
//! is told was measured while it is told; what goes otherwise than told ends the demo with an error. Leaves a picture, and the
//! dashboard's where there is a browser.
#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a narrator prints, and a step that fails has to stop the story"
)]

mod client;
mod picture;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use client::{Asked, Client};
use serde_json::Value;
use tests::{
    browser::{self, Browser},
    config::PORT,
    daemon::{Daemon, cli},
    frame::SYN,
    http::{self, Request},
    lab::{Lab, VIP_V4},
    origin::{Origin, Reply},
    sender::{Bounds, Flood},
    stage,
    token::{AUDIENCE, ISSUER, Signer, forged},
};

/// Opens the dashboard.
const ADMIN_TOKEN: &str = "the-token-of-a-demo";
/// What the old API gateway of the story adds to every request.
const OLD_GATEWAY: Duration = Duration::from_millis(8);
/// How long the client is watched before the change and after it.
const WATCH: Duration = Duration::from_secs(20);
/// How long the attack goes on in the kernel.
const ATTACK: Duration = Duration::from_secs(5);
/// Frames a second of it, so that a small machine has time for the others.
const PACE: u32 = 20_000;

/// Where it happens, with everything that runs in it.
struct Story {
    daemon: Daemon,
    site: Origin,
    old: Origin,
    api: Origin,
    signer: Signer,
    lab: Lab,
}

fn main() {
    let pictures = std::env::args()
        .nth(1)
        .map_or_else(|| PathBuf::from("."), PathBuf::from);
    if let Some(missing) = tests::skip::missing() {
        eprintln!("error: the demo {missing}");
        std::process::exit(1);
    }
    fs::create_dir_all(&pictures).expect("the directory for pictures");
    let begun = Instant::now();
    let story = Story::begin();
    story.tokens();
    let client = Client::start(&story.lab, story.signer.token());
    thread::sleep(WATCH / 4);
    let attack = story.attack(&client);
    thread::sleep(WATCH.saturating_sub(client.since()));
    let change = story.change(&client);
    thread::sleep(WATCH);
    let asked = client.stop();
    story.judge(&asked, change);
    let file = pictures.join("demo.svg");
    picture::draw(&file, &asked, attack, change).expect("the picture is written");
    told(&format!("The picture: {}", file.display()));
    story.dashboard(&pictures.join("dashboard.png"));
    assert!(asked.iter().all(|one| one.is_good), "no request was lost");
    story.daemon.sigterm();
    chapter(&format!("The end, after {} s.", begun.elapsed().as_secs()));
}

fn chapter(title: &str) {
    println!("\n== {title}");
}

fn told(line: &str) {
    println!("   {line}");
}

fn vip() -> SocketAddr {
    (VIP_V4, PORT).into()
}

impl Story {
    fn begin() -> Self {
        chapter("An edge node with a site, an API behind an old gateway, a client and an attacker");
        let lab = tests::daemon::lab("demo").expect("a lab");
        let at = |name: &'static str, delay| {
            let address = (lab.origin().v4, 0).into();
            Origin::start(&lab.origin().namespace, address, move |_| {
                thread::sleep(delay);
                Reply::Body(200, format!("{{\"served_by\":\"{name}\"}}").into_bytes())
            })
            .expect("a free port")
        };
        let (site, old, api) = (
            at("site", Duration::ZERO),
            at("old gateway", OLD_GATEWAY),
            at("api", Duration::ZERO),
        );
        let signer = Signer::hs256();
        lab.write("jwt.secret", signer.verifying_key());
        lab.write("admin.token", ADMIN_TOKEN);
        let config = config(&lab, &site, &old);
        let daemon = Daemon::start(&lab, &config);
        told(&format!(
            "breakwater run: XDP on {}, listening at {}",
            lab.wan_interfaces().join(" and "),
            vip()
        ));
        Self {
            daemon,
            site,
            old,
            api,
            signer,
            lab,
        }
    }

    /// One request of the client: status, and who served it.
    fn ask(&self, path: &str, cookie: Option<&str>) -> (u16, String) {
        let mut request = Request::get(path);
        if let Some(token) = cookie {
            request = request.cookie("session", token);
        }
        let answer = http::once(&self.lab.client().namespace, vip(), &request).expect("an answer");
        let by = if answer.status == 200 {
            answer.json()["served_by"].as_str().unwrap_or_default().to_owned()
        } else {
            String::new()
        };
        (answer.status, by)
    }

    fn tokens(&self) {
        chapter("Routes, and a token in a cookie");
        let token = self.signer.token();
        for (path, cookie, what, wanted) in [
            ("/", None, "without a token", (200, "site")),
            ("/graphql", None, "without a token", (401, "")),
            ("/graphql", Some(forged(&token)), "with a forged token", (401, "")),
            ("/graphql", Some(token), "with its token", (200, "old gateway")),
        ] {
            let (status, by) = self.ask(path, cookie.as_deref());
            assert_eq!((status, by.as_str()), wanted, "{path} {what}");
            let by = if by.is_empty() {
                by
            } else {
                format!(", by the {by}")
            };
            told(&format!("GET {path} {what}: {status}{by}"));
        }
    }

    /// Somebody guesses tokens, is found out, and floods. Returns from when to when, since the client began.
    fn attack(&self, client: &Client) -> (Duration, Duration) {
        chapter("An attacker guesses tokens");
        let from = client.since();
        let attacker = self.lab.attacker();
        let forged = forged(&self.signer.token());
        let request = Request::get("/graphql").cookie("session", &forged);
        let mut guesses = 0;
        while let Ok(mut connection) =
            http::Client::connect_within(&attacker.namespace, vip(), Duration::from_millis(500))
        {
            while connection.send(&request).is_ok() {
                guesses += 1;
            }
            assert!(guesses < 1000, "the attacker is banned");
        }
        let bans = cli(&self.lab, ["ban", "list", "--json"]).json();
        assert!(stage::names_address(&bans, attacker.v4.into()), "{bans}");
        told(&format!(
            "after {guesses} guesses {} is banned, in the kernel",
            attacker.v4
        ));
        let dropped = || stage::packets(&cli(&self.lab, ["status", "--json"]).json(), "banned");
        let before = dropped();
        let syn = attacker.frame(stage::segment(attacker, vip(), SYN));
        let bounds = Bounds {
            frames: u64::MAX,
            time: ATTACK,
            rate: PACE,
        };
        let sent = Flood::start(attacker, bounds, move |_| syn.clone()).finish();
        let dropped = dropped() - before;
        told(&format!(
            "it floods: {sent} packets in {} s, {dropped} dropped before the network stack saw them",
            ATTACK.as_secs()
        ));
        assert!(dropped * 100 >= sent * 99, "{dropped} of {sent}");
        (from, client.since())
    }

    /// The API is asked without the old gateway from now on. Returns when, since the client began.
    fn change(&self, client: &Client) -> Duration {
        chapter("The old gateway is taken out, under load");
        self.lab
            .write("breakwater.toml", config(&self.lab, &self.site, &self.api));
        let at = client.since();
        let socket = self.lab.directory().join("admin.sock");
        let reloaded = cli(
            &self.lab,
            ["reload", "--socket", socket.to_str().expect("the path is text")],
        )
        .success();
        for line in reloaded.lines().filter(|line| !line.is_empty()) {
            told(&format!("breakwater reload: {line}"));
        }
        let (status, by) = self.ask("/graphql", Some(&self.signer.token()));
        assert_eq!((status, by.as_str()), (200, "api"));
        told(&format!("GET /graphql with its token: {status}, by the {by}"));
        at
    }

    fn judge(&self, asked: &[Asked], change: Duration) {
        chapter("What became of the client meanwhile");
        let lost = asked.iter().filter(|one| !one.is_good).count();
        told(&format!("{} requests, {lost} lost", asked.len()));
        let median = |after: bool| {
            let mut took: Vec<_> = asked
                .iter()
                .filter(|one| (one.at >= change) == after)
                .map(|one| one.took)
                .collect();
            took.sort_unstable();
            took.get(took.len() / 2).copied().unwrap_or_default()
        };
        told(&format!(
            "median before the change {:.2?}, after it {:.2?}",
            median(false),
            median(true)
        ));
        assert!(median(true) < median(false), "the old gateway's time is gone");
        assert!(!self.old.received().is_empty() && !self.api.received().is_empty());
        chapter("breakwater compare --route graphql --around last --for 15s");
        let socket = self.lab.directory().join("admin.sock");
        let arguments = [
            "compare", "--route", "graphql", "--around", "last", "--for", "15s", "--socket",
        ];
        let arguments = [&arguments[..], &[socket.to_str().expect("the path is text")]].concat();
        let compared = cli(&self.lab, &arguments).success();
        println!("{compared}");
        let told: Value = cli(&self.lab, [&arguments[..], &["--json"]].concat()).json();
        assert_eq!(told["rows"][0]["verdict"], "lower", "{told}");
    }

    fn dashboard(&self, file: &Path) {
        let Some(program) = browser::program() else {
            told("There is no browser here (Debian: chromium), so the dashboard has no picture.");
            return;
        };
        let mut browser = Browser::start(self.lab.edge(), program);
        browser.open("http://127.0.0.1:9180/");
        browser.wait("document.activeElement.id === 'token'");
        browser.write(ADMIN_TOKEN);
        browser.press("Enter");
        browser.wait("document.querySelector('#c-route').options.length > 0");
        browser.choose("#c-route", "graphql");
        browser.wait("document.querySelector('#routes').innerText.includes('graphql')");
        fs::write(file, browser.screenshot()).expect("the picture is written");
        told(&format!("The dashboard: {}", file.display()));
    }
}

/// The configuration of the story, with the API where it is told.
fn config(lab: &Lab, site: &Origin, api: &Origin) -> String {
    let at = |name: &str| lab.directory().join(name).display().to_string();
    format!(
        r#"
[shield]
interfaces = {interfaces:?}

[[service]]
name = "web"
address = "{address}"
protocol = "tcp"
port = {PORT}

[[listener]]
name = "web"
address = "{vip}"

[[upstream]]
name = "site"
endpoints = ["{site}"]

[[upstream]]
name = "api"
endpoints = ["{api}"]

[[provider]]
name = "login"
algorithms = ["HS256"]
secret_file = "{secret}"
issuer = "{ISSUER}"
audiences = ["{AUDIENCE}"]
sources = ["cookie:session", "bearer"]

[[route]]
name = "site"
path = "/"
upstream = "site"
auth = "none"

[[route]]
name = "graphql"
path = "/graphql"
upstream = "api"
auth = "required"
providers = ["login"]

[offences]
threshold = 20
half_life = "60s"
ban = "10m"

[gateway]
watch = false
access_log.enabled = false

[admin]
socket = "{socket}"
address = "127.0.0.1:9180"
token_file = "{token}"

[history]
path = "{history}"
every = "1s"
"#,
        interfaces = lab.wan_interfaces(),
        address = VIP_V4,
        vip = vip(),
        site = site.address(),
        api = api.address(),
        secret = at("jwt.secret"),
        socket = at("admin.sock"),
        token = at("admin.token"),
        history = at("history.db"),
    )
}
