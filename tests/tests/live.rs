//! Watching the shield: the live view on a terminal, pictures for scripts, drops for Wireshark.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a step of a test that fails has to stop that test"
)]

use std::{fs::File, net::IpAddr, process::Command};

use pcap_file::pcapng::{Block, PcapNgReader, blocks::enhanced_packet::EnhancedPacketOption};
use serde_json::Value;
use tests::{
    daemon::{self, cli},
    frame::ACK,
    lab::Lab,
    pty::Terminal,
    sender::{Bounds, Flood},
    stage::{Limit, Stage, gateway, segment, vips},
    wait::{PATIENCE, eventually},
};

const LIMIT: Limit = Limit {
    per_second: 50,
    burst: 50,
};

fn stage(name: &str) -> Option<Stage> {
    Stage::new(name, |settings| settings.limit("source_packets", LIMIT))
}

/// A flood from the attacker that goes on until it is dropped.
fn flood(lab: &Lab) -> Flood {
    let attacker = lab.attacker();
    let frame = attacker.frame(segment(attacker, gateway(vips()[0]), ACK));
    let bounds = Bounds {
        frames: u64::MAX,
        time: PATIENCE * 2,
        rate: 2000,
    };
    Flood::start(attacker, bounds, move |_| frame.clone())
}

fn top(lab: &Lab) -> Command {
    let mut command = daemon::command();
    command
        .args(["top", "--interval", "200ms", "--bpffs"])
        .arg(lab.bpffs().path());
    command
}

#[test]
fn top_draws_follows_the_window_and_gives_the_terminal_back() {
    let Some(stage) = stage("top") else { return };
    let lab = &stage.lab;
    let terminal = Terminal::start(lab.edge(), top(lab), 120, 30).expect("a terminal");
    // What is plain is drawn word by word.
    for text in ["wan0", "nobody is banned", "nothing was dropped"] {
        terminal.wait_for(text, 0);
    }
    cli(
        lab,
        ["ban", "add", "192.0.2.77", "--for", "10m", "--reason", "scraping"],
    )
    .success();
    terminal.wait_for("192.0.2.77", 0);
    terminal.wait_for("scraping", 0);
    let flood = flood(lab);
    terminal.wait_for("source_packets", 0);
    terminal.wait_for(&lab.attacker().v4.to_string(), 0);
    // Another size is drawn anew from the top.
    let before = terminal.written().len();
    terminal.resize(60, 24).expect("resized");
    terminal.wait_for("breakwater", before);
    terminal.wait_for("Bans: 1", before);
    drop(flood);
    terminal.type_in("q").expect("typed");
    let (status, written) = terminal.wait().expect("it ends");
    assert!(status.success(), "{status}");
    for (what, sequence) in [
        ("the alternate screen", "\u{1b}[?1049l"),
        ("the cursor", "\u{1b}[?25h"),
    ] {
        assert!(written.contains(sequence), "{what} is given back");
    }
}

#[test]
fn top_ends_on_a_signal_and_without_a_terminal_says_what_to_do() {
    let Some(stage) = stage("top-end") else { return };
    let lab = &stage.lab;
    let complaint = cli(lab, ["top"]).failure_with(daemon::USAGE);
    assert!(complaint.contains("top --once"), "{complaint}");
    let terminal = Terminal::start(lab.edge(), top(lab), 80, 24).expect("a terminal");
    terminal.wait_for("q quit", 0);
    // Ctrl-C is a key in raw mode.
    terminal.type_in("\u{3}").expect("typed");
    let (status, written) = terminal.wait().expect("it ends");
    assert!(status.success() && written.contains("\u{1b}[?1049l"), "{status}");
}

fn number(document: &Value, pointer: &str) -> f64 {
    document
        .pointer(pointer)
        .and_then(Value::as_f64)
        .unwrap_or_else(|| panic!("{pointer} in {document:#}"))
}

/// The daemon reads the samples, and so do any number of others: nobody takes any away. Afterwards the same without a
/// daemon.
#[test]
fn everybody_sees_the_samples_with_and_without_a_daemon() {
    let Some(stage) = stage("capture") else { return };
    let attacker: IpAddr = stage.lab.attacker().v4.into();
    watch_all(&stage.lab, attacker, "with");
    // More than the ring buffer holds, with nobody reading.
    let Stage {
        daemon,
        lab,
        origin,
        signer,
        ..
    } = stage;
    daemon.sigkill();
    let flood = flood(&lab);
    flood.wait_for(4000);
    drop(flood);
    watch_all(&lab, attacker, "without");
    drop((origin, signer));
}

fn watch_all(lab: &Lab, attacker: IpAddr, name: &str) {
    let flood = flood(lab);
    let files: Vec<_> = (0..2)
        .map(|number| lab.directory().join(format!("{name}-{number}.pcapng")))
        .collect();
    let mut captures: Vec<_> = files
        .iter()
        .map(|file| {
            let mut command = daemon::command();
            command
                .args([
                    "capture",
                    "--dropped",
                    "--count",
                    "60",
                    "--reason",
                    "source_packets",
                ])
                .arg(file)
                .arg("--bpffs")
                .arg(lab.bpffs().path());
            lab.edge().spawn(command).expect("the binary starts")
        })
        .collect();
    let picture = cli(lab, ["top", "--json", "--interval", "500ms"]).json();
    assert!(number(&picture, "/total/dropped") > 100.0, "{picture:#}");
    assert!(
        number(&picture, "/sources/estimated_from_samples") > 10.0,
        "{picture:#}"
    );
    assert_eq!(
        picture.pointer("/sources/heaviest/0/address"),
        Some(&Value::from(attacker.to_string())),
        "{picture:#}"
    );
    for capture in &mut captures {
        let status = eventually("a capture to end by its number", || {
            capture.try_wait().expect("a child can be waited for")
        });
        assert!(status.success());
    }
    drop(flood);
    for file in files {
        let mut reader =
            PcapNgReader::new(File::open(&file).expect("it was written")).expect("a section header");
        let mut packets = 0;
        while let Some(block) = reader.next_block() {
            if let Block::EnhancedPacket(packet) = block.expect("a whole block") {
                packets += 1;
                let comment = packet.options.iter().find_map(|option| match option {
                    EnhancedPacketOption::Comment(text) => Some(text.to_string()),
                    _ => None,
                });
                assert!(
                    comment
                        .as_deref()
                        .is_some_and(|text| text.starts_with("source_packets: ")),
                    "{comment:?}"
                );
                assert_eq!(packet.data[26..30], octets(attacker), "the packet's source");
            }
        }
        assert_eq!(packets, 60, "{}", file.display());
    }
}

/// A reader that is too slow beside the daemon: what it missed is counted and told, and what it has is whole.
#[test]
fn a_capture_that_is_overtaken_tells_how_much_it_missed() {
    /// The ring buffer holds 1,310 samples.
    const MORE_THAN_IT_HOLDS: u64 = 3_000;
    let Some(stage) = stage("capture-slow") else {
        return;
    };
    let lab = &stage.lab;
    let file = lab.directory().join("slow.pcapng");
    let mut command = daemon::command();
    command
        .args(["capture", "--dropped"])
        .arg(&file)
        .arg("--bpffs")
        .arg(lab.bpffs().path())
        .stdout(std::process::Stdio::piped());
    let capture = lab.edge().spawn(command).expect("the binary starts");
    let pid = rustix::process::Pid::from_child(&capture);
    let signal = |signal| rustix::process::kill_process(pid, signal).expect("it runs");
    let flood = flood(lab);
    eventually("the first packets in the file", || {
        (std::fs::metadata(&file).ok()?.len() > 2_000).then_some(())
    });
    signal(rustix::process::Signal::STOP);
    let sampled = || {
        let status = cli(lab, ["status", "--json"]).json();
        let lost = |key: &str| status["samples_lost"][key].as_u64().expect("a number");
        tests::stage::packets(&status, "source_packets") - lost("over_budget") - lost("buffer_full")
    };
    let before = sampled();
    eventually("the buffer to be written over", || {
        (sampled() > before + MORE_THAN_IT_HOLDS).then_some(())
    });
    drop(flood);
    signal(rustix::process::Signal::CONT);
    signal(rustix::process::Signal::INT);
    let output = capture.wait_with_output().expect("it ends");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}");
    let missed = told
        .rsplit("; ")
        .next()
        .and_then(|part| {
            part.trim()
                .strip_suffix(" samples were overwritten before they were read")
        })
        .and_then(|number| number.parse::<u64>().ok());
    assert!(
        missed.is_some_and(|missed| missed > MORE_THAN_IT_HOLDS / 2),
        "{told}"
    );
    let mut reader = PcapNgReader::new(File::open(&file).expect("it was written")).expect("a section header");
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.expect("a whole block") {
            assert_eq!(
                packet.data[26..30],
                lab.attacker().v4.octets(),
                "no packet is torn"
            );
        }
    }
}

fn octets(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(_) => unreachable!("the attacker's first address is IPv4"),
    }
}

#[test]
fn captures_end_in_time_keep_files_and_name_what_is_wrong() {
    let Some(stage) = stage("capture-end") else { return };
    let lab = &stage.lab;
    let file = lab.directory().join("out.pcapng");
    let name = file.to_str().expect("the path is text");
    let told = cli(lab, ["capture", name, "--for", "100ms"]).success();
    assert!(told.contains("0 packets written"), "{told}");
    let kept = cli(lab, ["capture", name, "--for", "100ms"]).failure_with(1);
    assert!(kept.contains("--force") && kept.contains(name), "{kept}");
    cli(lab, ["capture", name, "--for", "100ms", "--force"]).success();
    let complaint = cli(lab, ["capture", name, "--reason", "sorcery"]).failure_with(daemon::USAGE);
    assert!(
        complaint.contains("sorcery") && complaint.contains("source_packets"),
        "{complaint}"
    );
    // SIGINT ends a capture in good order.
    let mut command = daemon::command();
    command
        .args(["capture", name, "--force", "--bpffs"])
        .arg(lab.bpffs().path());
    let mut capture = lab.edge().spawn(command).expect("the binary starts");
    let flood = flood(lab);
    eventually("some packets in the file", || {
        (std::fs::metadata(&file).ok()?.len() > 2000).then_some(())
    });
    let pid = rustix::process::Pid::from_child(&capture);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    let status = eventually("the capture to end", || capture.try_wait().expect("a child"));
    assert!(status.success(), "{status}");
    drop(flood);
}
