//! What is around the daemon breaks: what it pinned, the disk that it writes to, the BPF file system. Nothing of it may
//! take the shield off or stop the traffic, and each is told in words that say what to do.
#![expect(
    clippy::expect_used,
    reason = "a step of a test that fails has to stop that test"
)]

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use edge_common::abi::VERSION;
use rustix::{
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount},
    thread::{CapabilitySet, UnshareFlags, remove_capability_from_bounding_set, unshare_unsafe},
};
use tests::{
    daemon::{self, Daemon, cli, command},
    frame::ACK,
    http::Request,
    lab::{Lab, VIP_V4},
    sender::{Bounds, Flood},
    stage::{Stage, behind_the_shield, gateway, is_raw_segment, segment, vips},
    wait::{PATIENCE, eventually},
};

/// One mistake in what is pinned: its name, what makes it, and what undoes it.
type Mistake = (&'static str, fn(&Path), fn(&Path));

const MISTAKES: [Mistake; 4] = [
    (
        "map BANS is missing",
        |maps| rename(maps, "BANS", "aside"),
        |maps| rename(maps, "aside", "BANS"),
    ),
    (
        "map COUNTERS is of type",
        |maps| swap(maps, "COUNTERS", "NAMES"),
        |maps| swap(maps, "COUNTERS", "NAMES"),
    ),
    (
        "map EARNED is not a map",
        |maps| {
            rename(maps, "EARNED", "aside");
            fs::create_dir(maps.join("EARNED")).expect("bpffs takes directories");
        },
        |maps| {
            fs::remove_dir(maps.join("EARNED")).expect("it is empty");
            rename(maps, "aside", "EARNED");
        },
    ),
    (
        "map PARAMS cannot be read",
        |maps| rename(maps, "PARAMS", "aside"),
        |maps| rename(maps, "aside", "PARAMS"),
    ),
];

fn rename(maps: &Path, from: &str, to: &str) {
    fs::rename(maps.join(from), maps.join(to)).expect("the BPF file system renames pins");
}

fn swap(maps: &Path, one: &str, other: &str) {
    rename(maps, one, "aside");
    rename(maps, other, one);
    rename(maps, "aside", other);
}

#[test]
fn damaged_pins_are_refused_by_name_while_the_shield_goes_on() {
    let Some(stage) = Stage::new("damaged", |settings| settings) else {
        return;
    };
    let Stage {
        daemon,
        settings,
        lab,
        ..
    } = stage;
    let attacker = lab.attacker();
    let vip = vips()[0];
    let banned = attacker.address_towards(vip).to_string();
    cli(&lab, ["ban", "add", &banned, "--for", "1h"]).success();
    daemon.sigkill();
    let capture = behind_the_shield(&lab, attacker);
    let frame = attacker.frame(segment(attacker, gateway(vip), ACK));
    let bounds = Bounds {
        frames: u64::MAX,
        time: PATIENCE * 4,
        rate: 1000,
    };
    let flood = Flood::start(attacker, bounds, move |_| frame.clone());
    flood.wait_for(10);

    let maps = lab.bpffs().path().join(format!("breakwater/v{VERSION}/maps"));
    for (complaint, make, undo) in MISTAKES {
        make(&maps);
        let pins = lab.bpffs().pins();
        let mut refused = Daemon::spawn(&lab, &settings.text());
        eventually("the refusal", || refused.has_ended().then_some(()));
        let log = refused.log().join("\n");
        assert!(log.contains(complaint), "{complaint}: {log}");
        assert!(log.contains("breakwater detach") && log.len() < 2000, "{log}");
        assert_eq!(refused.wait().code(), Some(1));
        assert_eq!(lab.bpffs().pins(), pins, "nothing was changed");
        undo(&maps);
    }
    let again = Daemon::start(&lab, &settings.text());
    let bans = cli(&lab, ["ban", "list", "--json"]).json();
    assert!(bans.to_string().contains(&banned), "{bans:#}");
    let sent = flood.stop();
    assert!(sent > 100, "{sent}");
    assert_eq!(capture.count(is_raw_segment), 0, "of {sent} banned packets");
    again.sigterm();

    // What the remedy says works, whatever is broken.
    fs::remove_file(maps.join("SERVICES")).expect("it is there");
    cli(&lab, ["detach"]).success();
    assert_eq!(lab.bpffs().pins(), Vec::<PathBuf>::new());
    Daemon::start(&lab, &settings.text()).sigterm();
}

/// A file system of some kilobytes, in memory.
struct Small(PathBuf);

impl Small {
    fn mounted(lab: &Lab, name: &str, options: &std::ffi::CStr) -> Self {
        let path = lab.directory().join(name);
        fs::create_dir(&path).expect("a directory of the lab");
        mount("tmpfs", &path, "tmpfs", MountFlags::empty(), options).expect("root mounts tmpfs");
        Self(path)
    }

    /// Leaves no room.
    fn fill(&self) {
        let mut left = File::create(self.0.join("ballast")).expect("there is room for a name");
        while std::io::Write::write_all(&mut left, &[0; 512]).is_ok() {}
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_stops_the_log_and_nothing_else() {
    let Some(lab) = daemon::lab("full") else { return };
    let small = Small::mounted(&lab, "small", c"size=64k");
    let access = small.0.join("access.log");
    let signer = tests::token::Signer::hs256();
    let origin = tests::stage::origin(&lab);
    let mut settings = tests::config::Settings::standard(&lab, &signer, origin.address());
    settings.extra = format!("[gateway.access_log]\nfile = \"{}\"", access.display());
    let file = lab.write("breakwater.toml", settings.text());
    let said = small.0.join("daemon.log");
    let mut plain = command();
    plain
        .args(["run", "--log", "json", "--config"])
        .arg(&file)
        .arg("--bpffs")
        .arg(lab.bpffs().path())
        .stdout(Stdio::null())
        .stderr(File::create(&said).expect("there is room for a name"));
    let mut child = lab.edge().spawn(plain).expect("the binary starts");
    let ask = || {
        tests::http::once(
            &lab.client().namespace,
            gateway(VIP_V4.into()),
            &Request::get("/"),
        )
    };
    eventually("an answer", || ask().is_ok().then_some(()));
    small.fill();
    let mut before = 0;
    for _ in 0..300 {
        let answer = ask().expect("it answers on a full disk");
        assert_eq!(answer.status, 200);
        before = before.max(fs::metadata(&access).map_or(0, |file| file.len()));
    }
    assert!(child.try_wait().expect("a child").is_none(), "it runs");
    // Verbs and a reload, which write as well.
    cli(&lab, ["ban", "add", "198.51.100.77", "--for", "1h"]).success();
    cli(&lab, ["reload"]).success();
    fs::remove_file(small.0.join("ballast")).expect("it is there");
    eventually("the log to go on", || {
        let _ = ask();
        let now = fs::metadata(&access).map_or(0, |file| file.len());
        (now > before).then_some(())
    });
    for line in fs::read_to_string(&access)
        .expect("it is there")
        .lines()
        .rev()
        .take(1)
    {
        assert!(
            line.starts_with('{') && line.ends_with('}'),
            "a whole line: {line}"
        );
    }
    let id = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(id.expect("a process"), rustix::process::Signal::TERM).expect("it runs");
    assert!(child.wait().expect("a child").success());
}

/// Has the child live where no BPF file system is mounted and, with `barred`, none can be.
fn without_bpffs(command: &mut std::process::Command, barred: bool) {
    let hidden = move || {
        // SAFETY: the child has one thread between fork and exec.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
        let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", flags)?;
        while unmount("/sys/fs/bpf", UnmountFlags::DETACH).is_ok() {}
        if barred {
            // A file system of nobody's lies there, and the right to mount another is gone.
            remove_capability_from_bounding_set(CapabilitySet::SYS_ADMIN)?;
        }
        Ok(())
    };
    // SAFETY: only system calls, and the message of a failure.
    unsafe { command.pre_exec(hidden) };
}

#[test]
fn a_missing_bpf_file_system_is_mounted_or_told() {
    let Some(lab) = daemon::lab("nobpffs") else { return };
    let signer = tests::token::Signer::hs256();
    let origin = tests::stage::origin(&lab);
    let settings = tests::config::Settings::standard(&lab, &signer, origin.address());
    let file = lab.write("breakwater.toml", settings.text());
    let run = |barred: bool, bpffs: &Path| {
        let mut command = command();
        command
            .args(["attach", "--config"])
            .arg(&file)
            .arg("--bpffs")
            .arg(bpffs)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        without_bpffs(&mut command, barred);
        lab.edge()
            .spawn(command)
            .expect("the binary starts")
            .wait_with_output()
            .expect("it ends")
    };
    // Elsewhere than in a BPF file system nothing can be pinned.
    let elsewhere = lab.directory().join("plain");
    fs::create_dir(&elsewhere).expect("a directory of the lab");
    let told = run(false, &elsewhere);
    let text = String::from_utf8_lossy(&told.stderr).into_owned();
    assert_eq!(told.status.code(), Some(1), "{text}");
    assert!(
        text.contains("no BPF file system at") && text.contains("mount -t bpf"),
        "{text}"
    );
    assert_eq!(
        fs::read_dir(&elsewhere).expect("it is there").count(),
        0,
        "nothing is left"
    );

    // Barred from mounting: told, with the command that mends it.
    let told = run(true, Path::new("/sys/fs/bpf"));
    let text = String::from_utf8_lossy(&told.stderr).into_owned();
    assert_eq!(told.status.code(), Some(1), "{text}");
    assert!(
        text.contains("no BPF file system at") && text.contains("mount -t bpf"),
        "{text}"
    );

    // As root it is mounted; it is gone with the child's own mounts, and the shield with its pins.
    let mounted = run(false, Path::new("/sys/fs/bpf"));
    let text = String::from_utf8_lossy(&mounted.stderr).into_owned();
    assert!(mounted.status.success(), "{text}");
}
