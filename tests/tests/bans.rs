//! Bans: by the loop from refused tokens to the kernel, by hand, and their end.
#![expect(
    clippy::expect_used,
    reason = "a step of a test that fails has to stop that test"
)]

use std::{net::IpAddr, time::Duration};

use tests::{
    config::{COOKIE, PRIVATE, Settings},
    daemon::{USAGE, cli},
    http::{Client, Request},
    lab::Host,
    stage::{self, SILENCE, Stage, gateway, is_answered, names_address, vips},
    token::forged,
    wait::{PATIENCE, eventually},
};

/// Refused tokens within a minute that ban.
const THRESHOLD: u32 = 20;

/// Time limit of a peer that may be cut off.
const CUT_OFF: Duration = Duration::from_secs(5);

/// Sends requests with forged tokens until one is not answered, for at most `limit`; gives the number of refusals.
fn offend(stage: &Stage, host: &Host, vip: IpAddr, limit: u32) -> u32 {
    let bad = forged(&stage.signer.token());
    // A header's word never counts: the client's address is put forward, the attacker's connection pays.
    let innocent = stage.lab.client().address_towards(vip).to_string();
    let request = Request::get(PRIVATE)
        .cookie(COOKIE, &bad)
        .field("X-Forwarded-For", &innocent)
        .field("Forwarded", &format!("for=\"{innocent}\""));
    let mut client =
        Client::connect_within(&host.namespace, gateway(vip), CUT_OFF).expect("the host connects");
    for refusals in 0..limit {
        match client.send(&request) {
            Ok(response) => assert_eq!(response.status, 401, "{}", response.text()),
            Err(_) => return refusals,
        }
    }
    limit
}

fn wait_for_ban(stage: &Stage, address: IpAddr) {
    eventually(format_args!("{address} to be banned"), || {
        names_address(&stage.bans(), address).then_some(())
    });
}

#[test]
fn refused_tokens_ban_their_sender_in_the_kernel_and_nobody_else() {
    let Some(stage) = Stage::new("bans", |settings| settings) else {
        return;
    };
    let (client, attacker) = (stage.lab.client(), stage.lab.attacker());
    for vip in vips() {
        let address = attacker.address_towards(vip);
        assert!(is_answered(attacker, vip, PATIENCE));
        let refusals = offend(&stage, attacker, vip, THRESHOLD * 10);
        // The answer to the last one may be cut off together with the rest.
        assert!(
            (THRESHOLD - 1..THRESHOLD * 10).contains(&refusals),
            "{refusals} refusals before the ban"
        );
        wait_for_ban(&stage, address);
        assert!(
            !is_answered(attacker, vip, SILENCE),
            "the kernel drops what the attacker sends"
        );
        assert!(Client::connect_within(&attacker.namespace, gateway(vip), SILENCE).is_err());
        assert!(
            !names_address(&stage.bans(), client.address_towards(vip)),
            "a header bans nobody"
        );
        stage.assert_served(client);

        cli(&stage.lab, ["ban", "del", &address.to_string()]).success();
        eventually("the pardoned attacker to be answered", || {
            is_answered(attacker, vip, SILENCE).then_some(())
        });
        assert!(!names_address(&stage.bans(), address));
    }
    stage.assert_served(attacker);
    let status = cli(&stage.lab, ["status", "--json"]).json();
    assert!(stage::packets(&status, "banned") > 0, "{status:#}");
}

#[test]
fn one_refusal_short_of_the_threshold_bans_nobody() {
    let Some(stage) = Stage::new("bans-below", |settings| settings) else {
        return;
    };
    let attacker = stage.lab.attacker();
    for vip in vips() {
        assert_eq!(offend(&stage, attacker, vip, THRESHOLD - 1), THRESHOLD - 1);
    }
    // Good requests are no offences, however many.
    let mut client = Client::connect(&attacker.namespace, gateway(vips()[0])).expect("the host connects");
    let good = Request::get(PRIVATE).bearer(&stage.signer.token());
    for _ in 0..THRESHOLD * 3 {
        assert_eq!(client.send(&good).expect("the host is served").status, 200);
    }
    stage.assert_served(attacker);
    assert!(!names_address(&stage.bans(), attacker.v4.into()));
}

#[test]
fn bans_by_the_loop_end_by_themselves() {
    let adjust = |settings| Settings {
        offences: (3, "60s", "10s"),
        ..settings
    };
    let Some(stage) = Stage::new("bans-end", adjust) else {
        return;
    };
    let attacker = stage.lab.attacker();
    let vip = vips()[0];
    offend(&stage, attacker, vip, 3);
    wait_for_ban(&stage, attacker.v4.into());
    eventually("the ban to end", || {
        is_answered(attacker, vip, SILENCE).then_some(())
    });
    eventually("the list to be empty", || {
        (!names_address(&stage.bans(), attacker.v4.into())).then_some(())
    });
    stage.assert_served(attacker);
}

#[test]
fn observed_offences_ban_nobody() {
    let adjust = |settings| Settings {
        offences: (3, "60s", "60s"),
        observe_offences: true,
        ..settings
    };
    let Some(stage) = Stage::new("bans-observe", adjust) else {
        return;
    };
    let attacker = stage.lab.attacker();
    let vip = vips()[0];
    assert_eq!(offend(&stage, attacker, vip, 30), 30);
    stage.assert_served(attacker);
    assert!(!names_address(&stage.bans(), attacker.v4.into()));
}

#[test]
fn bans_by_hand_take_effect_are_listed_and_end() {
    let Some(stage) = Stage::new("bans-hand", |settings| settings) else {
        return;
    };
    let attacker = stage.lab.attacker();
    for vip in vips() {
        let address = attacker.address_towards(vip).to_string();
        cli(&stage.lab, ["ban", "add", &address, "--for", "1h"]).success();
        assert!(names_address(&stage.bans(), attacker.address_towards(vip)));
        assert!(
            cli(&stage.lab, ["ban", "list"]).success().contains(&address),
            "people can read the list too"
        );
        assert!(!is_answered(attacker, vip, SILENCE));
        // A second ban replaces the first.
        cli(&stage.lab, ["ban", "add", &address, "--for", "2s"]).success();
        eventually("the ban to end", || {
            is_answered(attacker, vip, SILENCE).then_some(())
        });
        eventually("the list to be empty", || {
            (!names_address(&stage.bans(), attacker.address_towards(vip))).then_some(())
        });
    }
    stage.assert_served(stage.lab.client());
}

#[test]
fn bans_that_make_no_sense_are_refused_by_name() {
    let Some(stage) = Stage::new("bans-bad", |settings| settings) else {
        return;
    };
    for (arguments, named) in [
        (
            vec!["ban", "add", "not-an-address", "--for", "60s"],
            "not-an-address",
        ),
        (vec!["ban", "add", "198.18.2.300", "--for", "60s"], "198.18.2.300"),
        (vec!["ban", "add", "198.18.2.10", "--for", "soon"], "soon"),
        (vec!["ban", "add", "198.18.2.10", "--for", "0s"], "0s"),
        (
            vec!["ban", "add", "198.18.2.10/99", "--for", "60s"],
            "198.18.2.10/99",
        ),
        (vec!["ban", "del", "not-an-address"], "not-an-address"),
    ] {
        let complaint = cli(&stage.lab, &arguments).failure_with(USAGE);
        assert!(complaint.contains(named), "{arguments:?}: {complaint}");
    }
    assert!(!names_address(&stage.bans(), stage.lab.attacker().v4.into()));
    stage.assert_served(stage.lab.attacker());
}
