//! The daemon as a service: what it may do, and what it says of the machine.

use std::{fs, path::Path, process::Command};

use tests::{
    daemon::{self, bare_cli, cli},
    skip,
    stage::Stage,
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
