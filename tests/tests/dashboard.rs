//! The page for people, in a real browser: what it shows of a daemon that has nothing to show, of a busy one, and of one
//! with an upstream that is down; by mouse, by keyboard, on a phone, in both themes.
#![expect(
    clippy::expect_used,
    reason = "a step of a test that fails has to stop that test"
)]

use std::{
    io::{Read, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    thread,
    time::Duration,
};

use serde_json::json;
use tests::{
    browser::{self, Browser},
    config::{PRIVATE, Settings},
    daemon::{Daemon, cli},
    http::{self, Request},
    lab::VIP_V4,
    skip,
    stage::{self, Stage},
    token::Signer,
    wait::eventually,
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A daemon with an admin address, and a browser beside it.
fn opened(name: &str, extra: &str) -> Option<(Browser, Stage)> {
    let Some(program) = browser::program() else {
        skip::report(name, "needs a browser (package chromium)");
        return None;
    };
    let lab = tests::daemon::lab(name)?;
    let signer = Signer::hs256();
    let origin = stage::origin(&lab);
    let mut settings = Settings::standard(&lab, &signer, origin.address());
    let token = lab.write("admin.token", TOKEN);
    let (socket, history) = (
        lab.directory().join("admin.sock"),
        lab.directory().join("history.db"),
    );
    let extra = extra.replace("HISTORY", &history.display().to_string());
    settings.extra = format!(
        "[admin]\naddress = \"{}\"\ntoken_file = \"{}\"\nsocket = \"{}\"\n{extra}",
        admin(),
        token.display(),
        socket.display()
    );
    let daemon = Daemon::start(&lab, &settings.text());
    let browser = Browser::start(lab.edge(), program);
    let stage = Stage {
        daemon,
        settings,
        origin,
        signer,
        lab,
    };
    Some((browser, stage))
}

fn admin() -> SocketAddr {
    ([127, 0, 0, 1], 9180).into()
}

fn log_in(browser: &mut Browser) {
    browser.open(&format!("http://{}/", admin()));
    browser.wait("!document.querySelector('#login').hidden && document.activeElement.id === 'token'");
    browser.write(TOKEN);
    browser.press("Enter");
    browser.wait(
        "!document.querySelector('#main').hidden && document.querySelector('#state').className === 'good'",
    );
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn an_idle_daemon_says_that_there_is_nothing_and_only_the_token_opens() {
    let Some((mut browser, stage)) = opened("dashboard-idle", "") else {
        return;
    };
    browser.open(&format!("http://{}/", admin()));
    browser.wait("!document.querySelector('#login').hidden");
    assert_eq!(
        browser.value("document.querySelector('#main').hidden"),
        json!(true)
    );
    browser.wait("document.activeElement.id === 'token'");
    browser.write("another token than this one, long");
    browser.press("Enter");
    browser.wait("document.querySelector('#trouble').innerText.includes('not the token')");
    log_in(&mut browser);
    browser.wait("document.querySelector('#bans').innerText.includes('nobody is banned')");
    browser.wait("document.querySelector('#compare-said').innerText.includes('no [history]')");
    assert!(
        browser.text("#glance").contains("native"),
        "{}",
        browser.text("#glance")
    );
    assert_eq!(browser.complaints(), Vec::<String>::new());
    browser.picture("dashboard-idle");
    // A daemon that is gone is told, not shown as it was.
    stage.daemon.sigterm();
    browser.wait("document.querySelector('#state').innerText === 'no answer'");
    browser.wait("!document.querySelector('#trouble').hidden");
}

#[test]
fn a_busy_daemon_shows_traffic_bans_and_what_is_down_and_lifts_a_ban() {
    let down = "\n[[upstream]]\nname = \"dead\"\nendpoints = [\"127.0.0.1:9\"]\n\
                [upstream.health]\nprobe = \"http\"\npath = \"/healthz\"\ninterval = \"200ms\"\n\n[history]\npath = \"HISTORY\"\nevery = \"1s\"\n";
    let Some((mut browser, stage)) = opened("dashboard-busy", down) else {
        return;
    };
    let lab = &stage.lab;
    let markup = "<img src=x onerror=alert(1)>";
    cli(
        lab,
        ["ban", "add", "203.0.113.7", "--for", "10m", "--reason", markup],
    )
    .success();
    cli(lab, ["ban", "add", "192.0.2.0/24", "--reason", "scraping"]).success();
    log_in(&mut browser);
    let ask = |path: &str| ask(&stage, path);
    for _ in 0..80 {
        assert_eq!(ask("/"), 200);
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(ask(PRIVATE), 401);
    browser.wait("document.querySelector('#routes').innerText.includes('open\\tforward\\tweb')");
    browser.wait(
        "[...document.querySelectorAll('#upstreams tbody tr')].some(row => row.innerText.includes('dead') && \
         row.querySelector('.bad')?.innerText === 'down')",
    );
    browser.wait(
        "document.querySelector('#packets tbody').rows.length > 1 && document.querySelector('#packets-chart canvas')",
    );
    let drawn = "(() => { const c = document.querySelector('#packets-chart canvas'); \
                 return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(b => b !== 0); })()";
    browser.wait(drawn);

    // What comes from outside is text.
    assert!(browser.text("#bans").contains(markup));
    assert_eq!(
        browser.value("document.querySelectorAll('#main img').length"),
        json!(0)
    );

    let attacker = lab.attacker();
    let address = attacker.v4.to_string();
    cli(lab, ["ban", "add", &address, "--for", "10m", "--reason", "flood"]).success();
    eventually("the heaviest source is shown", || {
        assert!(!stage::is_answered(
            attacker,
            VIP_V4.into(),
            Duration::from_millis(100)
        ));
        let shown = browser.text("#sources");
        (shown.contains(&address) && shown.contains("banned")).then_some(())
    });
    compare(&mut browser, &stage);
    browser.picture("dashboard-light");
    lift(&mut browser, &stage);
    reach_by_keyboard(&mut browser);
    resize(&mut browser);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

fn ask(stage: &Stage, path: &str) -> u16 {
    let client = &stage.lab.client().namespace;
    let answer = http::once(client, stage::gateway(VIP_V4.into()), &Request::get(path));
    answer.expect("the gateway answers").status
}

/// This time beside the one before, of a few seconds each.
fn compare(browser: &mut Browser, stage: &Stage) {
    browser.value(
        "(() => { for (const id of ['c-for']) { const o = document.createElement('option'); o.textContent = '3s'; \
         document.getElementById(id).append(o); } })()",
    );
    browser.wait("document.querySelector('#c-route').options.length > 0");
    browser.choose("#c-route", "open");
    browser.choose("#c-for", "3s");
    for _ in 0..40 {
        ask(stage, "/");
        thread::sleep(Duration::from_millis(100));
    }
    eventually("both times have requests", || {
        for _ in 0..5 {
            ask(stage, "/");
        }
        browser.choose("#c-with", "before");
        thread::sleep(Duration::from_millis(300));
        browser
            .text("#compare-said")
            .contains("requests to")
            .then_some(())
    });
    browser.wait("document.querySelector('#compare-rows').innerText.includes('p99') && document.querySelector('#compare-chart canvas')");
}

/// One press asks, the second does.
fn lift(browser: &mut Browser, stage: &Stage) {
    let button = "#bans tr[data-key='203.0.113.7/32'] button";
    browser.wait(&format!("document.querySelector(\"{button}\")"));
    browser.click(button);
    assert_eq!(browser.text(button), "Sure?");
    assert!(stage.bans().to_string().contains("203.0.113.7"));
    browser.click(button);
    browser.wait("!document.querySelector('#bans').innerText.includes('203.0.113.7')");
    let bans = stage.bans().to_string();
    assert!(
        !bans.contains("203.0.113.7") && bans.contains("192.0.2.0/24"),
        "{bans}"
    );
}

/// The keyboard reaches everything that the mouse does.
fn reach_by_keyboard(browser: &mut Browser) {
    browser.value("document.activeElement.blur(), window.scrollTo(0, 0)");
    let mut reached = Vec::new();
    for _ in 0..30 {
        browser.press("Tab");
        let at = browser.value("document.activeElement.id || document.activeElement.innerText || document.activeElement.className");
        reached.push(at.as_str().unwrap_or_default().to_owned());
    }
    for wanted in [
        "Skip to the figures",
        "pause",
        "Unban",
        "c-route",
        "c-with",
        "c-for",
        "c-figure",
    ] {
        assert!(reached.iter().any(|own| own == wanted), "{wanted} in {reached:?}");
    }
}

/// A phone, and the dark.
fn resize(browser: &mut Browser) {
    for (width, theme) in [(360, "light"), (360, "dark"), (1280, "dark")] {
        browser.resize(width, 900, theme);
        browser.wait(&format!("innerWidth === {width}"));
        let overflow = browser.value("document.documentElement.scrollWidth - innerWidth");
        assert!(
            overflow.as_i64() <= Some(0),
            "{width} wide, {theme}: {overflow} over"
        );
        browser.picture(&format!("dashboard-{theme}-{width}"));
    }
    let ground = browser.value("getComputedStyle(document.body).backgroundColor");
    assert_eq!(ground, json!("rgb(17, 22, 28)"));
}

#[test]
fn no_other_site_acts_through_the_socket_and_open_addresses_have_no_page() {
    let health = SocketAddr::from((VIP_V4, 9181));
    let lab = tests::daemon::lab("dashboard-foreign");
    let Some(lab) = lab else { return };
    let signer = Signer::hs256();
    let origin = stage::origin(&lab);
    let mut settings = Settings::standard(&lab, &signer, origin.address());
    let socket = lab.directory().join("admin.sock");
    settings.extra = format!(
        "[admin]\nsocket = \"{}\"\nhealth_address = \"{health}\"\n",
        socket.display()
    );
    let _daemon = Daemon::start(&lab, &settings.text());
    let ask = |request: &str| {
        let mut stream = UnixStream::connect(&socket).expect("the socket listens");
        stream
            .write_all(format!("{request}\r\nConnection: close\r\n\r\n").as_bytes())
            .expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let page = ask("GET / HTTP/1.1\r\nHost: localhost:9180");
    assert!(
        page.starts_with("HTTP/1.1 200") && page.contains("<h1>Breakwater</h1>"),
        "{page}"
    );
    assert!(page.contains("frame-ancestors 'none'"), "{page}");
    for refused in [
        "POST /v1/reload HTTP/1.1\r\nHost: localhost:9180\r\nOrigin: https://evil.example",
        "POST /v1/reload HTTP/1.1\r\nHost: localhost:9180\r\nOrigin: null",
        "GET /v1/status HTTP/1.1\r\nHost: evil.example:9180",
        "GET / HTTP/1.1\r\nHost: evil.example",
    ] {
        let answer = ask(refused);
        assert!(answer.starts_with("HTTP/1.1 403"), "{refused}: {answer}");
    }
    let status = ask("GET /v1/status HTTP/1.1\r\nHost: localhost");
    assert!(status.contains("\"reloads\":0"), "{status}");
    let own = ask("POST /v1/reload HTTP/1.1\r\nHost: localhost:9180\r\nOrigin: http://localhost:9180");
    assert!(own.starts_with("HTTP/1.1 200"), "{own}");
    for path in ["/", "/dashboard/app.js"] {
        let answer = http::once(lab.edge(), health, &Request::get(path)).expect("an answer");
        assert_eq!(answer.status, 404, "{path}");
    }
}
