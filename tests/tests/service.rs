//! The daemon as a service: what it may do, what it says of the machine, and what it does with another version's shield.

use std::{fs, path::Path, process::Command};

use tests::{
    daemon::{self, Daemon, bare_cli, cli},
    frame::ACK,
    link::LinkState,
    sender::{Bounds, Flood},
    skip,
    stage::{SILENCE, Stage, behind_the_shield, gateway, is_answered, is_raw_segment, segment, vips},
    wait::PATIENCE,
};

/// Exposure that the unit may have, in tenths, as `systemd-analyze` counts.
const MOST_EXPOSED: u32 = 25;

#[test]
fn the_unit_is_hardened_and_has_four_capabilities() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/breakwater.service");
    let text = fs::read_to_string(&unit).expect("the unit is there");
    for key in ["CapabilityBoundingSet", "AmbientCapabilities"] {
        let wanted = format!("{key}=CAP_BPF CAP_NET_ADMIN CAP_PERFMON CAP_NET_BIND_SERVICE");
        assert_eq!(
            text.lines()
                .filter(|line| line.starts_with(key))
                .collect::<Vec<_>>(),
            [wanted]
        );
    }
    let analysed = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(format!("--threshold={MOST_EXPOSED}"))
        .arg(&unit)
        .output();
    match analysed {
        Err(error) => skip::report("unit", format_args!("systemd-analyze: {error}")),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{said}");
            assert!(said.contains("Overall exposure level"), "{said}");
        }
    }
}

#[test]
fn a_daemon_has_given_up_what_it_does_not_need() {
    let Some(stage) = Stage::new("confined", |settings| settings) else {
        return;
    };
    let status =
        fs::read_to_string(format!("/proc/{}/status", stage.daemon.id().as_raw_nonzero())).expect("it runs");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1))
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(
        (field("NoNewPrivs:"), field("Seccomp:")),
        ("1".to_owned(), "2".to_owned())
    );
    // CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER; NET_BIND_SERVICE, NET_ADMIN; PERFMON, BPF (linux/capability.h).
    let most: u64 = [0, 1, 2, 3, 10, 12, 38, 39].iter().map(|bit| 1 << bit).sum();
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        let has = u64::from_str_radix(&field(set), 16).expect("hexadecimal");
        assert_eq!(has & !most, 0, "{set} {has:x}");
    }
    stage.assert_served(stage.lab.client());
}

#[test]
fn doctor_names_what_is_wrong_with_a_remedy_and_an_exit_code() {
    let Some(lab) = daemon::lab("doctor") else {
        return;
    };
    let interface = &lab.wan_interfaces()[0];
    let found = cli(&lab, ["doctor", "--json", "--interface", interface]).json();
    let findings = found["findings"].as_array().expect("a list");
    let check = |name: &str| findings.iter().find(|finding| finding["check"] == name);
    for name in ["kernel", "bpffs", "capabilities", "memlock", interface] {
        assert!(
            check(name).is_some_and(|finding| finding["found"] != ""),
            "{name} in {found:#}"
        );
    }
    for finding in findings {
        assert_eq!(
            finding["health"] == "ok",
            finding.get("remedy").is_none(),
            "{finding:#}"
        );
    }
    let none = cli(&lab, ["doctor", "--interface", "nobody0"]);
    assert_eq!(none.code, Some(1), "{none:?}");
    assert!(none.stdout.contains("FAIL  nobody0"), "{none:?}");
    let nowhere = bare_cli(&lab, ["doctor", "--interface", interface, "--bpffs", "/nowhere"]);
    assert_eq!(nowhere.code, Some(1), "{nowhere:?}");
    assert!(nowhere.stdout.contains("mount -t bpf"), "{nowhere:?}");
}

#[test]
fn the_shield_of_another_layout_is_taken_over_without_a_gap() {
    let Some(Stage {
        daemon,
        settings,
        origin: _origin,
        signer: _signer,
        lab,
    }) = Stage::new("layout", |settings| settings)
    else {
        return;
    };
    let attacker = lab.attacker();
    let vip = vips()[0];
    let address = attacker.address_towards(vip).to_string();
    // On the deny list of the configuration, which both versions have.
    let text = settings
        .text()
        .replacen("mode = ", &format!("deny = [{address:?}]\nmode = "), 1);
    daemon.sigkill();
    Daemon::start(&lab, &text).sigkill();
    let all = lab.bpffs().path().join("breakwater");
    let own = fs::read_dir(&all)
        .expect("pinned")
        .flatten()
        .next()
        .expect("a layout")
        .path();
    fs::rename(&own, all.join("v0")).expect("a BPF file system renames");
    let program = |interface: &String| {
        LinkState::read(lab.edge(), interface)
            .expect("the interface exists")
            .xdp()
    };
    let before: Vec<_> = lab.wan_interfaces().iter().map(program).collect();

    let capture = behind_the_shield(&lab, attacker);
    let frame = attacker.frame(segment(attacker, gateway(vip), ACK));
    let bounds = Bounds {
        frames: u64::MAX,
        time: PATIENCE * 2,
        rate: 2000,
    };
    let flood = Flood::start(attacker, bounds, move |_| frame.clone());
    flood.wait_for(100);
    let told = cli(&lab, ["doctor", "--interface", &lab.wan_interfaces()[0]]);
    assert!(told.stdout.contains("another layout (v0"), "{told:?}");
    let daemon = Daemon::start(&lab, &text);
    let sent = flood.stop();
    assert!(daemon.logged("is replaced in place", PATIENCE));
    assert_eq!(capture.count(is_raw_segment), 0, "of {sent} denied packets");
    let after: Vec<_> = lab.wan_interfaces().iter().map(program).collect();
    assert!(
        after.iter().all(Option::is_some) && after != before,
        "{before:?} {after:?}"
    );
    assert!(
        own.exists() && !all.join("v0").exists(),
        "nothing of the other layout is left"
    );
    assert!(!is_answered(attacker, vip, SILENCE));
}
