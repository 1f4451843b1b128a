//! `breakwater diff` on what a running daemon recorded.
#![expect(
    clippy::expect_used,
    reason = "a step of a test that fails has to stop that test"
)]

use std::{fs, path::Path};

use tests::{
    config::{PRIVATE, Settings},
    daemon::{Daemon, bare_cli},
    http::Request,
    lab::VIP_V4,
    stage::{self, Stage},
    token::Signer,
    wait::eventually,
};

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}

/// Ten requests of three shapes, and waits until they are in the log.
fn record(stage: &Stage, log: &Path) {
    let client = stage.lab.client();
    let ask = |request: &Request| {
        let answer = stage.request(client, VIP_V4.into(), request);
        answer.expect("an answer").status
    };
    let private = Request::get(PRIVATE).bearer(&stage.signer.token());
    for _ in 0..5 {
        assert_eq!(ask(&Request::get("/page?q=1")), 200);
    }
    for _ in 0..3 {
        assert_eq!(ask(&private), 200);
    }
    for _ in 0..2 {
        assert_eq!(ask(&Request::get(PRIVATE)), 401);
    }
    eventually("ten lines are written", || {
        (fs::read_to_string(log).ok()?.lines().count() == 10).then_some(())
    });
}

#[test]
fn recorded_requests_that_another_configuration_treats_otherwise_are_told() {
    let Some(lab) = tests::daemon::lab("diff") else {
        return;
    };
    let signer = Signer::hs256();
    let origin = stage::origin(&lab);
    let mut settings = Settings::standard(&lab, &signer, origin.address());
    let log = lab.directory().join("access.log");
    settings.extra = format!("access_log.file = \"{}\"\n", log.display());
    let daemon = Daemon::start(&lab, &settings.text());
    let stage = Stage {
        daemon,
        settings,
        origin,
        signer,
        lab,
    };
    record(&stage, &log);
    let old = stage.lab.directory().join("breakwater.toml");
    let config = fs::read_to_string(&old).expect("the configuration");
    let diff = |new: &Path, more: &[&str]| {
        bare_cli(
            &stage.lab,
            [&["diff", text(&old), text(new), "--access-log", text(&log)], more].concat(),
        )
    };

    let same = diff(&old, &[]).success();
    assert!(
        same.contains("10 requests of 3 shapes") && same.contains("none would be treated otherwise"),
        "{same}"
    );

    // The page goes elsewhere and the private path is open.
    let changed = config
        .replace(
            "name = \"open\"\npath = \"/\"\nupstream = \"web\"",
            "name = \"open\"\npath = \"/\"\nrespond = { status = 410 }",
        )
        .replace("auth = \"required\"\nproviders = [\"issuer\"]", "auth = \"none\"");
    let new = stage.lab.write("new.toml", changed);
    let report = diff(&new, &["--json"]).json();
    assert_eq!(
        (&report["requests"], &report["different"]),
        (&10.into(), &10.into())
    );
    let found: Vec<_> = report["differences"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| {
            (
                one["requests"].as_u64().unwrap_or_default(),
                one["examples"][0]["path"].as_str().unwrap_or_default(),
                one["before"]["auth"].as_str().unwrap_or_default(),
                one["after"]["outcome"].as_str().unwrap_or_default(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            (5, "/page", "none", "answered by the gateway, 410"),
            (3, PRIVATE, "required, of issuer", "forwarded to web as /private"),
            (2, PRIVATE, "required, of issuer", "forwarded to web as /private"),
        ]
    );
    assert_eq!(
        report["differences"][2]["before"]["outcome"],
        "refused, 401 token_refused"
    );
    let told = diff(&new, &[]).success();
    assert!(
        told.contains("token      required, of issuer\n        -> none"),
        "{told}"
    );

    // What cannot be compared is refused by name, and nothing is told.
    let empty = stage.lab.write("empty.log", "no json\n");
    let arguments = ["diff", text(&old), text(&new), "--access-log", text(&empty)];
    let complaint = bare_cli(&stage.lab, arguments).failure_with(2);
    assert!(
        complaint.contains("empty.log") && complaint.contains("no request"),
        "{complaint}"
    );
    let broken = stage.lab.write(
        "broken.toml",
        config.replace("upstream = \"web\"", "upstream = \"wed\""),
    );
    let complaint = diff(&broken, &[]).failure_with(tests::daemon::INVALID_CONFIG);
    assert!(complaint.contains("broken.toml:"), "{complaint}");
}
