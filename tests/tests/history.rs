//! The history of a running daemon: what it remembers, what it says of a change, and that nothing of it stops the traffic.
#![expect(
    clippy::expect_used,
    reason = "a step of a test that fails has to stop that test"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::{
    admin::ask,
    daemon::{Daemon, cli},
    http::{Client, Request},
    lab::{Lab, VIP_V4},
    origin::{Origin, Reply},
    stage::{gateway, vips},
    wait::eventually,
};

fn socket(lab: &Lab) -> PathBuf {
    lab.directory().join("admin.sock")
}

/// Settings with a history in cells of a second.
fn settings(lab: &Lab, origin: &Origin, path: &Path) -> tests::config::Settings {
    let signer = tests::token::Signer::hs256();
    let mut settings = tests::config::Settings::standard(lab, &signer, origin.address());
    settings.extra = format!(
        "[admin]\nsocket = \"{}\"\n[history]\npath = \"{}\"\nevery = \"1s\"\nmax_bytes = 1048576\n",
        socket(lab).display(),
        path.display()
    );
    settings
}

#[track_caller]
fn get(lab: &Lab, target: &str) -> Value {
    let answer = ask(&socket(lab), "GET", target, None).expect("the socket answers");
    assert_eq!(answer.status, 200, "{target}: {answer:?}");
    answer.json()
}

/// Asks for the open route, over and over, until told to stop.
fn traffic(lab: &Lab) -> (Arc<AtomicBool>, thread::JoinHandle<u64>) {
    let stop = Arc::<AtomicBool>::default();
    let stopped = Arc::clone(&stop);
    let mut client = Client::connect(&lab.client().namespace, gateway(VIP_V4.into())).expect("connected");
    let thread = thread::spawn(move || {
        let mut answered = 0;
        while !stopped.load(Relaxed) {
            let response = client.send(&Request::get("/")).expect("served");
            assert_eq!(response.status, 200);
            answered += 1;
        }
        answered
    });
    (stop, thread)
}

fn row<'v>(comparison: &'v Value, figure: &str) -> &'v Value {
    let rows = comparison["rows"].as_array().into_iter().flatten();
    rows.into_iter()
        .find(|row| row["figure"] == figure)
        .expect("a row")
}

/// Holds a comparison to the daemon's own description of it.
fn described(lab: &Lab, comparison: &Value) {
    let api = get(lab, "/v1/openapi.json");
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "components": api["components"],
        "allOf": [{ "$ref": "#/components/schemas/Comparison" }],
    });
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let errors: Vec<String> = validator
        .iter_errors(comparison)
        .map(|error| format!("{error} at {}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn an_upstream_that_became_slower_is_found_around_the_change_and_a_kill_loses_nothing_old() {
    let Some(lab) = tests::daemon::lab("history") else {
        return;
    };
    let delay = Arc::new(AtomicU64::new(4));
    let waits = Arc::clone(&delay);
    let origin = Origin::start(&lab.origin().namespace, (lab.origin().v4, 0).into(), move |_| {
        thread::sleep(Duration::from_millis(waits.load(Relaxed)));
        Reply::Body(200, b"hello".to_vec())
    })
    .expect("a port is free");
    // The folder is made.
    let path = lab.directory().join("state").join("history.db");
    let mut settings = settings(&lab, &origin, &path);
    let daemon = Daemon::start(&lab, &settings.text());
    let (stop, client) = traffic(&lab);
    let begun = Instant::now();
    thread::sleep(Duration::from_secs(15));

    // A change of the configuration, and an upstream that is slower from then on.
    settings.offences.1 = "7m";
    delay.store(10, Relaxed);
    lab.write("breakwater.toml", settings.text());
    assert!(
        daemon.logged("\"reloaded\"", Duration::from_secs(10)),
        "{:#?}",
        daemon.log()
    );
    thread::sleep(Duration::from_secs(15));
    stop.store(true, Relaxed);
    let answered = client.join().expect("it ended");
    thread::sleep(Duration::from_secs(2));

    let socket_text = socket(&lab).display().to_string();
    let asked = [
        "compare",
        "--route",
        "open",
        "--around",
        "last",
        "--for",
        "12s",
        "--socket",
        &socket_text,
    ];
    let comparison = cli(&lab, [&asked[..], &["--json"]].concat()).json();
    described(&lab, &comparison);
    let p50 = row(&comparison, "p50");
    assert_eq!(p50["verdict"], "higher", "{comparison:#}");
    let difference = p50["difference"].as_f64().expect("a number");
    assert!((0.005..0.008).contains(&difference), "{p50}");
    assert_eq!(row(&comparison, "rate")["verdict"], "lower");
    assert_eq!(row(&comparison, "errors")["verdict"], "same");
    let changes = comparison["changes"].as_array().expect("changes");
    assert!(
        changes.iter().any(|change| {
            change["kind"] == "reload"
                && change["detail"]
                    .as_str()
                    .is_some_and(|detail| detail.contains("offences"))
        }),
        "{changes:?}"
    );
    let text = cli(&lab, asked).success();
    assert!(
        text.contains("p50") && text.contains("higher (+") && text.contains("changes:"),
        "{text}"
    );

    // Every request is in it, once.
    let ago = begun.elapsed().as_secs() + 5;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("later")
        .as_secs();
    let target = format!("/v1/history/series?route=open&from={}&to={now}", now - ago);
    let series = get(&lab, &target);
    let points = series["points"].as_array().expect("points").clone();
    let counted: u64 = points.iter().filter_map(|point| point["requests"].as_u64()).sum();
    assert_eq!(counted, answered);

    daemon.sigkill();
    let daemon = Daemon::start(&lab, &settings.text());
    assert_eq!(get(&lab, &target)["points"].as_array(), Some(&points));
    let routes = get(&lab, "/v1/history/routes");
    assert_eq!(routes["state"]["error"], Value::Null);
    assert_eq!(routes["routes"][0]["name"], "open");
    daemon.sigterm();
}

/// A file system that is unmounted with this.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).expect("a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=512k", "tmpfs"])
            .arg(at)
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then(|| Self(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_stops_the_history_and_not_the_traffic() {
    let Some(lab) = tests::daemon::lab("history-full") else {
        return;
    };
    let folder = lab.directory().join("small");
    let Some(_small) = Small::mount(&folder) else {
        tests::skip::report("history-full", "no tmpfs can be mounted here");
        return;
    };
    let filler = folder.join("filler");
    // Until nothing more fits.
    let full = fs::write(&filler, vec![1; 1 << 20]);
    assert!(full.is_err(), "it is small");
    let origin = tests::stage::origin(&lab);
    let settings = settings(&lab, &origin, &folder.join("history.db"));
    let daemon = Daemon::start(&lab, &settings.text());
    let ask_once = || {
        for vip in vips() {
            let client = &lab.client().namespace;
            let response = tests::http::once(client, gateway(vip), &Request::get("/")).expect("served");
            assert_eq!(response.status, 200);
        }
    };
    let metric = |name: &str| {
        let answer = ask(&socket(&lab), "GET", "/metrics", None).expect("the socket answers");
        let line = answer
            .body
            .lines()
            .find(|line| line.starts_with(name))
            .expect("a metric")
            .to_owned();
        line.rsplit(' ')
            .next()
            .and_then(|value| value.parse::<f64>().ok())
            .expect("a number")
    };
    eventually("cells to be lost", || {
        ask_once();
        (metric("breakwater_history_cells_total{result=\"lost\"}") >= 2.0).then_some(())
    });
    assert!(metric("breakwater_history_writing") < 0.5);
    assert!(daemon.logged("the history is not written", Duration::from_secs(5)));

    fs::remove_file(&filler).expect("it is there");
    eventually("the history to be written again", || {
        ask_once();
        (metric("breakwater_history_writing") > 0.5).then_some(())
    });
    eventually("the route to be in it", || {
        let routes = get(&lab, "/v1/history/routes");
        (routes["routes"][0]["name"] == "open").then_some(())
    });
    daemon.sigterm();
}
