//! A real Prometheus scrapes a daemon with traffic: every query of the dashboard and of the alert rules is understood,
//! and what should show something does.
#![expect(
    clippy::expect_used,
    reason = "a step of a test that fails has to stop that test"
)]

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use tests::{
    config::PRIVATE,
    http::Request,
    lab::Lab,
    skip,
    stage::{Stage, gateway, vips},
    wait::eventually,
};

/// Parts of queries that are empty when all is well, or when the configuration has no such thing.
const MAY_BE_EMPTY: [&str; 8] = [
    "> 0",
    "limit_refused",
    "limit_observed",
    "upstream_failures",
    "provider_keys_age",
    "offences_lost",
    "trace_spans",
    "code=\"5xx\"",
];

/// A process that ends with this.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn deployed(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

/// Every expression of the dashboard, with the instance filled in.
fn panels() -> Vec<String> {
    let text = fs::read_to_string(deployed("grafana/breakwater.json")).expect("it is deployed");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let mut found = Vec::new();
    let mut open = vec![&dashboard];
    while let Some(panel) = open.pop() {
        open.extend(panel["panels"].as_array().into_iter().flatten());
        let targets = panel["targets"].as_array().into_iter().flatten();
        found.extend(
            targets
                .filter_map(|target| target["expr"].as_str())
                .map(|expr| expr.replace("$instance", ".*")),
        );
    }
    found
}

/// Every expression of the rules that Prometheus has loaded.
fn rules(lab: &Lab, at: SocketAddr) -> Vec<Value> {
    let mut command = Command::new("curl");
    command
        .args(["-sS", "--max-time", "10"])
        .arg(format!("http://{at}/api/v1/rules"));
    let output = lab.edge().output(command).expect("curl runs");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let groups = answer["data"]["groups"].as_array().into_iter().flatten();
    groups
        .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
        .collect()
}

/// What an expression gives, as promtool prints it.
fn query(lab: &Lab, at: SocketAddr, expression: &str) -> Result<String, String> {
    let mut command = Command::new("promtool");
    command
        .args(["query", "instant"])
        .arg(format!("http://{at}"))
        .arg(expression);
    let output = lab.edge().output(command).expect("promtool runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

#[test]
fn a_real_prometheus_understands_every_query_and_most_show_something() {
    const NAME: &str = "a_real_prometheus_understands_every_query_and_most_show_something";
    if Command::new("prometheus").arg("--version").output().is_err() {
        skip::report(NAME, "prometheus (Debian package prometheus) is not installed");
        return;
    }
    let metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, 9190));
    let Some(stage) = Stage::new("prometheus", |mut settings| {
        settings.extra =
            format!("[admin]\nmetrics_address = \"{metrics}\"\n[gateway.access_log]\nenabled = false");
        settings
    }) else {
        return;
    };
    let lab = &stage.lab;
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 9191));
    let config = lab.write(
        "prometheus.yml",
        format!(
            "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files:\n  - {}\nscrape_configs:\n  \
             - job_name: breakwater\n    static_configs:\n      - targets: [\"{metrics}\"]\n",
            deployed("prometheus/alerts.yml").canonicalize().expect("it is deployed").display()
        ),
    );
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            lab.directory().join("tsdb").display()
        ))
        .arg(format!("--web.listen-address={at}"))
        .stdout(Stdio::null())
        .stderr(fs::File::create(lab.directory().join("prometheus.log")).expect("a file of the lab"));
    let _server = Server(lab.edge().spawn(command).expect("prometheus starts"));

    // Traffic of every kind that the panels tell apart, until two scrapes have seen it.
    let client = lab.client();
    let vip = vips()[0];
    let token = stage.signer.token();
    let traffic = || {
        for request in [Request::get("/"), Request::get(PRIVATE).bearer(&token)] {
            stage.request(client, vip, &request).expect("an answer");
        }
    };
    // Enough to be banned for, from somebody else.
    for _ in 0..20 {
        let _ = stage.request(lab.attacker(), vip, &Request::get(PRIVATE).bearer("forged"));
    }
    let number = |expression: &str| {
        let answer = query(lab, at, expression).unwrap_or_default();
        // `{…} => 12 @[…]`
        let value = answer.split("=> ").nth(1).and_then(|rest| rest.split(' ').next());
        value
            .and_then(|value| value.parse::<f64>().ok())
            .unwrap_or_default()
    };
    eventually("the first scrape", || {
        traffic();
        (number("sum(breakwater_requests_total)") > 0.0).then_some(())
    });
    eventually("a rate", || {
        traffic();
        (number("sum(rate(breakwater_requests_total[1m]))") > 0.0).then_some(())
    });
    assert!(number("up") > 0.5);
    assert_eq!(gateway(vip).ip(), vip);

    let panels = panels();
    assert!(panels.len() > 40, "{}", panels.len());
    let mut empty = Vec::new();
    for expression in &panels {
        let answer = query(lab, at, expression);
        let shown = answer.unwrap_or_else(|error| panic!("{expression}: {error}"));
        let is_empty = shown.is_empty() || shown.contains("=> NaN");
        if is_empty && !MAY_BE_EMPTY.iter().any(|part| expression.contains(part)) {
            empty.push(expression);
        }
    }
    assert!(empty.is_empty(), "these show nothing: {empty:#?}");

    let rules = rules(lab, at);
    let text = fs::read_to_string(deployed("prometheus/alerts.yml")).expect("it is deployed");
    assert_eq!(rules.len(), text.matches("- alert:").count());
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule:#}");
        assert_ne!(rule["state"], "firing", "all is well: {rule:#}");
    }
}
