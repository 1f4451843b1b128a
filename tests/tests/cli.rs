//! The command line and its refusals: one clear message that names what is wrong, an exit code, and nothing half done.
#![expect(
    clippy::expect_used,
    reason = "a step of a test that fails has to stop that test"
)]

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, path::PathBuf};

use tests::{
    config::Settings,
    daemon::{self, Finished, INVALID_CONFIG, USAGE, bare_cli, cli},
    lab::Lab,
    link::LinkState,
    stage::{gateway, vips},
    token::Signer,
    xdp::{self, Action, ForeignXdp, Mode},
};

/// A lab with the text of a good configuration.
fn prepared(name: &str) -> Option<(Lab, Settings)> {
    let lab = daemon::lab(name)?;
    let settings = Settings::standard(&lab, &Signer::hs256(), (lab.origin().v4, 80).into());
    Some((lab, settings))
}

fn run(lab: &Lab, text: &str) -> Finished {
    let file = lab.write("bad.toml", text);
    cli(lab, ["run", "--config", file.to_str().expect("the path is text")])
}

/// Asserts that a refused command has left every interface as it was, and no pin.
#[track_caller]
fn assert_untouched(lab: &Lab) {
    for interface in lab.wan_interfaces() {
        let state = LinkState::read(lab.edge(), &interface).expect("the interface exists");
        assert_eq!(state.xdp(), None, "{interface}");
    }
    assert_eq!(lab.bpffs().pins(), Vec::<PathBuf>::new());
}

#[test]
fn a_bad_configuration_is_refused_by_file_line_and_key() {
    let Some((lab, settings)) = prepared("cli-config") else {
        return;
    };
    let good = settings.text();
    for (bad, named) in [
        (good.replace("mode = ", "mood = "), "mood"),
        (good.replace("mode = \"native\"", "mode = \"nativ\""), "mode"),
        (good.replace("port = 8080", "port = 80800"), "port"),
        (good.replace("upstream = \"web\"", "upstream = \"wed\""), "wed"),
        (good.replace("auth = \"required\"", "auth = \"perhaps\""), "auth"),
        (good.replace("threshold = 20", "threshold = 0"), "threshold"),
        (
            good.replace(
                "[shield.limits]",
                "[shield.limits]\nsource_packets = { per_second = 0, burst = 1 }",
            ),
            "per_second",
        ),
        (
            good.replace("[shield]", "[shield]\ndeny = [\"10.0.0.0/33\"]"),
            "deny",
        ),
        (format!("{good}\n[[listener]\n"), "bad.toml"),
    ] {
        assert_ne!(bad, good, "{named}: the test changes something");
        let complaint = run(&lab, &bad).failure_with(INVALID_CONFIG);
        assert!(complaint.contains(named), "{named}: {complaint}");
        assert!(complaint.contains("bad.toml"), "the file is named: {complaint}");
        assert_untouched(&lab);
    }
}

#[test]
fn several_mistakes_are_told_at_once() {
    let Some((lab, settings)) = prepared("cli-all") else {
        return;
    };
    let bad = settings
        .text()
        .replace("mode = \"native\"", "mode = \"nativ\"")
        .replace("threshold = 20", "threshold = 0")
        .replace("auth = \"required\"", "auth = \"perhaps\"");
    let file = lab.write("bad.toml", &bad);
    // What a check finds is its answer, so it goes to standard output.
    let checked = bare_cli(&lab, ["check", file.to_str().expect("the path is text")]);
    assert_eq!(checked.code, Some(INVALID_CONFIG), "{checked:?}");
    let complaint = checked.stdout;
    for named in ["nativ", "threshold", "perhaps"] {
        assert!(complaint.contains(named), "{named}: {complaint}");
    }
    let good = lab.write("good.toml", settings.text());
    bare_cli(&lab, ["check", good.to_str().expect("the path is text")]).success();
    assert_untouched(&lab);
}

#[test]
fn an_unreadable_configuration_is_refused_by_name() {
    let Some((lab, _)) = prepared("cli-unreadable") else {
        return;
    };
    let nowhere = lab.directory().join("nowhere.toml");
    let directory = lab.directory();
    let binary = lab.write("binary.toml", [0xff, 0xfe, 0, 1]);
    for path in [nowhere.as_path(), directory, binary.as_path()] {
        let path = path.to_str().expect("the path is text");
        for verb in [
            vec!["run", "--config", path],
            vec!["attach", "--interface", "wan0", "--config", path],
        ] {
            let complaint = cli(&lab, &verb).failure_with(INVALID_CONFIG);
            assert!(complaint.contains(path), "{complaint}");
            assert_untouched(&lab);
        }
    }
}

#[test]
fn a_missing_interface_is_refused_by_name() {
    let Some((lab, settings)) = prepared("cli-interface") else {
        return;
    };
    // The good one comes first: it must not stay attached.
    let interfaces = vec!["wan0".to_owned(), "nowhere7".to_owned()];
    let complaint = run(
        &lab,
        &Settings {
            interfaces,
            ..settings.clone()
        }
        .text(),
    )
    .failure();
    assert!(complaint.contains("nowhere7"), "{complaint}");
    assert_untouched(&lab);
    let file = lab.write("good.toml", settings.text());
    let config = file.to_str().expect("the path is text");
    let complaint = cli(
        &lab,
        [
            "attach",
            "--config",
            config,
            "--interface",
            "nowhere7",
            "--mode",
            "native",
        ],
    )
    .failure();
    assert!(complaint.contains("nowhere7"), "{complaint}");
    assert_untouched(&lab);
}

#[test]
fn a_taken_port_is_refused_by_address() {
    let Some((lab, settings)) = prepared("cli-port") else {
        return;
    };
    for vip in vips() {
        let listener = lab
            .edge()
            .enter(|| TcpListener::bind(gateway(vip)))
            .expect("the port is free");
        let complaint = run(&lab, &settings.text()).failure();
        assert!(complaint.contains(&gateway(vip).to_string()), "{complaint}");
        assert_untouched(&lab);
        drop(listener);
    }
}

#[test]
fn an_address_of_another_machine_is_refused() {
    let Some((lab, settings)) = prepared("cli-address") else {
        return;
    };
    let foreign = "192.0.2.77:8080";
    let text = settings.text().replace(&gateway(vips()[0]).to_string(), foreign);
    let complaint = run(&lab, &text).failure();
    assert!(complaint.contains(foreign), "{complaint}");
    assert_untouched(&lab);
}

#[test]
fn a_key_file_that_others_can_read_or_that_is_missing_is_refused() {
    let Some((lab, settings)) = prepared("cli-key") else {
        return;
    };
    let key = PathBuf::from(&settings.provider.1);
    for mode in [0o644, 0o604] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("the owner may change a mode");
        let complaint = run(&lab, &settings.text()).failure_with(INVALID_CONFIG);
        assert!(complaint.contains(&settings.provider.1), "{mode:o}: {complaint}");
        assert_untouched(&lab);
    }
    fs::remove_file(&key).expect("the key exists");
    let complaint = run(&lab, &settings.text()).failure_with(INVALID_CONFIG);
    assert!(complaint.contains(&settings.provider.1), "{complaint}");
    assert_untouched(&lab);
}

#[test]
fn a_foreign_program_is_refused_with_its_name_and_id_and_stays() {
    let Some((lab, settings)) = prepared("cli-foreign") else {
        return;
    };
    let file = lab.write("good.toml", settings.text());
    let config = file.to_str().expect("the path is text");
    for mode in [Mode::Native, Mode::Generic] {
        let program =
            ForeignXdp::attach(lab.edge(), "wan1", Action::Pass, mode).expect("veth takes programs");
        let before = LinkState::read(lab.edge(), "wan1").expect("the interface exists");
        let id = before.xdp().expect("the program is attached").id.to_string();
        let attach = [
            "attach",
            "--config",
            config,
            "--interface",
            "wan1",
            "--mode",
            "native",
        ];
        for refused in [run(&lab, &settings.text()), cli(&lab, attach)] {
            let complaint = refused.failure();
            for named in [xdp::NAME, id.as_str(), "wan1"] {
                assert!(complaint.contains(named), "{mode:?}: {named}: {complaint}");
            }
        }
        LinkState::read(lab.edge(), "wan1")
            .expect("the interface exists")
            .assert_same(&before);
        // Nor does detaching what is ours take what is not.
        cli(&lab, ["detach"]).success();
        LinkState::read(lab.edge(), "wan1")
            .expect("the interface exists")
            .assert_same(&before);
        let other = LinkState::read(lab.edge(), "wan0").expect("the interface exists");
        assert_eq!(other.xdp(), None, "{mode:?}: nothing is half attached");
        drop(program);
    }
    assert_untouched(&lab);
}

#[test]
fn a_ban_without_a_shield_is_refused_and_a_detach_is_done_already() {
    let Some((lab, _)) = prepared("cli-none") else {
        return;
    };
    cli(&lab, ["ban", "add", "198.18.2.10", "--for", "60s"]).failure();
    assert_untouched(&lab);
    cli(&lab, ["detach"]).success();
    assert_untouched(&lab);
}

#[test]
fn nonsense_is_refused_with_a_hint_and_help_is_help() {
    let Some((lab, _)) = prepared("cli-usage") else {
        return;
    };
    for arguments in [
        vec!["attack"],
        vec!["run", "--konfig", "x"],
        vec!["attach"],
        vec!["ban", "add"],
        vec![],
    ] {
        let complaint = bare_cli(&lab, &arguments).failure_with(USAGE);
        assert!(
            complaint.contains("--help") || complaint.contains("Usage"),
            "{arguments:?}: {complaint}"
        );
    }
    let help = bare_cli(&lab, ["--help"]).success();
    for verb in ["run", "attach", "detach", "status", "ban", "check", "token"] {
        assert!(help.contains(verb), "{verb}: {help}");
    }
}
