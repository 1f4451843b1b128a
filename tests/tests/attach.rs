//! Attaching: all interfaces or none, refusals in words, and foreign programs that have to go.
#![expect(
    clippy::expect_used,
    reason = "a step of a test that fails has to stop that test"
)]

use tests::{
    config::Settings,
    daemon::{self, cli},
    lab::Lab,
    link::LinkState,
    stage,
    token::Signer,
    xdp::{Action, ForeignXdp, Mode},
};

/// A lab with a configuration file for it.
fn prepared(name: &str) -> Option<(Lab, String)> {
    let lab = daemon::lab(name)?;
    let signer = Signer::hs256();
    let origin = stage::origin(&lab);
    let settings = Settings::standard(&lab, &signer, origin.address());
    let config = lab.write("edge.toml", settings.text());
    let config = config.to_str().expect("the path is text").to_owned();
    Some((lab, config))
}

fn xdp(lab: &Lab, interface: &str) -> Option<(&'static str, u64)> {
    let state = LinkState::read(lab.edge(), interface).expect("the interface exists");
    state.xdp().map(|xdp| (xdp.mode, xdp.id))
}

/// What the far end of a veth pair is set to is what the driver looks at.
fn far_mtu(lab: &Lab, mtu: u32) {
    let client = lab.client();
    client
        .namespace
        .ip(&format!("link set dev {} mtu {mtu}", client.interface))
        .expect("set");
}

#[test]
fn a_refusal_has_the_drivers_words_and_attaches_nothing() {
    let Some((lab, config)) = prepared("attach-words") else {
        return;
    };
    far_mtu(&lab, 9000);
    lab.edge().ip("link set dev wan0 mtu 9000").expect("set");
    let attach = ["attach", "--config", &config, "--mode", "native"];
    let complaint = cli(&lab, attach).failure_with(1);
    for named in [
        "wan0",
        "native",
        "MTU of wan0 is 9000",
        "3498",
        "the driver says",
        "MTU is too large",
    ] {
        assert!(complaint.contains(named), "{named:?} in {complaint}");
    }
    for interface in ["wan0", "wan1"] {
        assert_eq!(xdp(&lab, interface), None, "{interface}");
    }
    assert!(lab.bpffs().pins().is_empty());
    // Where generic mode is allowed, it is taken, and the reason is told all the same.
    let attach = ["attach", "--config", &config, "--mode", "auto", "--allow-generic"];
    let told = cli(&lab, attach).success();
    assert!(
        told.contains("wan0: attached, generic") && told.contains("MTU"),
        "{told}"
    );
    assert!(told.contains("wan1: attached, native"), "{told}");
    // A mode that cannot be had leaves the one that is.
    let complaint = cli(&lab, ["attach", "--config", &config, "--mode", "native"]).failure_with(1);
    assert!(complaint.contains("wan0"), "{complaint}");
    assert_eq!(xdp(&lab, "wan0").map(|(mode, _)| mode), Some("generic"));
    cli(&lab, ["detach"]).success();
}

#[test]
fn a_second_interface_that_fails_changes_nothing_of_a_running_shield() {
    let Some((lab, config)) = prepared("attach-all") else {
        return;
    };
    cli(
        &lab,
        [
            "attach",
            "--config",
            &config,
            "--interface",
            "wan1",
            "--mode",
            "native",
        ],
    )
    .success();
    let before = xdp(&lab, "wan1");
    // What the interfaces' own chatter (neighbour discovery) adds meanwhile is no change.
    let settled = || {
        let mut status = cli(&lab, ["status", "--json"]).json();
        status["unjudged"].take();
        status
    };
    let status = settled();
    far_mtu(&lab, 9000);
    // Other limits and another list, which must not be in force afterwards either.
    let text = std::fs::read_to_string(&config).expect("it was written");
    let changed = text.replace("[shield]\n", "[shield]\ndeny = [\"203.0.113.0/24\"]\n");
    let changed = lab.write("changed.toml", changed);
    let changed = changed.to_str().expect("the path is text");
    let attach = [
        "attach",
        "--config",
        changed,
        "--interface",
        "wan1",
        "--interface",
        "wan0",
        "--mode",
        "native",
    ];
    let complaint = cli(&lab, attach).failure_with(1);
    assert!(complaint.contains("wan0"), "{complaint}");
    assert_eq!(xdp(&lab, "wan1"), before, "not even the program is another");
    assert_eq!(xdp(&lab, "wan0"), None);
    assert_eq!(settled(), status);
    far_mtu(&lab, 1500);
    let told = cli(&lab, attach).success();
    assert!(
        told.contains("wan1: updated in place") && told.contains("wan0: attached"),
        "{told}"
    );
    cli(&lab, ["detach"]).success();
}

#[test]
fn replace_takes_the_place_of_a_foreign_program_that_a_link_holds() {
    let Some((lab, config)) = prepared("attach-replace") else {
        return;
    };
    for mode in [Mode::Native, Mode::Generic] {
        let foreign =
            ForeignXdp::attach(lab.edge(), "wan1", Action::Pass, mode).expect("veth takes programs");
        let id = xdp(&lab, "wan1").expect("it is attached").1;
        let attach = [
            "attach",
            "--config",
            &config,
            "--interface",
            "wan1",
            "--mode",
            "native",
        ];
        cli(&lab, attach).failure_with(1);
        assert_eq!(xdp(&lab, "wan1").expect("it stays").1, id);
        let told = cli(&lab, attach.into_iter().chain(["--replace"]).collect::<Vec<_>>()).success();
        assert!(told.contains("wan1: attached, native"), "{told}");
        assert_ne!(xdp(&lab, "wan1").expect("ours is attached").1, id);
        // Its owner's end takes nothing off that is ours.
        drop(foreign);
        assert_ne!(xdp(&lab, "wan1").expect("ours stays").1, id);
        cli(&lab, ["detach"]).success();
        assert_eq!(xdp(&lab, "wan1"), None);
    }
}

#[test]
fn lists_by_hand_and_in_the_configuration_keep_apart() {
    let Some((lab, config)) = prepared("lists") else {
        return;
    };
    let text = std::fs::read_to_string(&config).expect("it was written");
    let text = text.replace(
        "[shield]\n",
        "[shield]\ndeny = [\"203.0.113.0/24\"]\ndeny_file = \"deny.list\"\n",
    );
    let config = lab.write("lists.toml", text);
    let config = config.to_str().expect("the path is text");
    let file = lab.write("deny.list", "# a feed\n203.0.113.77\n");
    let attach = || cli(&lab, ["attach", "--config", config, "--mode", "native"]).success();
    attach();
    let shown = || cli(&lab, ["list", "show", "deny", "--json"]).json()["deny"].to_string();
    let has = |network: &str| shown().contains(&format!("\"{network}\""));

    let client = lab.client();
    let address = client.v4.to_string();
    let vip = stage::vips()[0];
    let listener = lab
        .edge()
        .enter(|| std::net::TcpListener::bind(stage::gateway(vip)))
        .expect("the port is free");
    let answered = |limit| stage::is_answered(client, vip, limit);
    assert!(answered(tests::wait::PATIENCE));
    cli(&lab, ["list", "add", "deny", &address]).success();
    assert!(!answered(stage::SILENCE), "a denied source is dropped");
    // A start changes the configuration's part alone.
    attach();
    assert!(has(&format!("{address}/32")) && has("203.0.113.77/32"));
    assert!(!answered(stage::SILENCE));
    let refused = cli(&lab, ["list", "add", "allow", &address]).failure_with(1);
    assert!(refused.contains("deny list"), "{refused}");
    cli(&lab, ["list", "del", "deny", &address]).success();
    assert!(answered(tests::wait::PATIENCE));
    let refused = cli(&lab, ["list", "del", "deny", "203.0.113.0/24"]).failure_with(1);
    assert!(refused.contains("configuration"), "{refused}");
    assert!(has("203.0.113.0/24"), "nothing is removed that would come back");

    // For good: in the file and in force, comments kept.
    cli(
        &lab,
        ["list", "add", "deny", "198.51.100.0/24", "--config", config],
    )
    .success();
    let kept = std::fs::read_to_string(&file).expect("it is there");
    assert_eq!(kept, "# a feed\n203.0.113.77\n198.51.100.0/24\n");
    assert!(has("198.51.100.0/24"));
    cli(&lab, ["list", "del", "deny", "203.0.113.77", "--config", config]).success();
    assert!(!has("203.0.113.77/32"));
    attach();
    assert!(has("198.51.100.0/24") && !has("203.0.113.77/32"));

    // A file with a mistake changes nothing and is told by its line.
    let bad = lab.write("bad.list", "192.0.2.1\n# fine\n192.0.2.300\n");
    let bad = bad.to_str().expect("the path is text");
    let before = shown();
    let complaint = cli(&lab, ["list", "replace", "deny", bad]).failure_with(daemon::INVALID_CONFIG);
    assert!(
        complaint.contains("bad.list:3:1") && complaint.contains("192.0.2.300"),
        "{complaint}"
    );
    assert_eq!(shown(), before);
    // Many at once, and gone at once.
    let many: Vec<String> = (0..5_000_u32)
        .map(|number| format!("10.{}.{}.0/24", number >> 8, number & 255))
        .collect();
    let many = lab.write("many.list", many.join("\n"));
    let many = many.to_str().expect("the path is text");
    let told = cli(&lab, ["list", "replace", "deny", many]).success();
    assert!(told.contains("5000 networks"), "{told}");
    assert!(has("10.19.135.0/24") && has("203.0.113.0/24"));
    let none = lab.write("none.list", "");
    cli(&lab, ["list", "replace", "deny", none.to_str().expect("text")]).success();
    assert!(!has("10.19.135.0/24") && has("203.0.113.0/24"));
    drop(listener);
    cli(&lab, ["detach"]).success();
}
