//! What the daemon gives up before it serves: it has nothing to do with most of what a process may.
//!
//! Three things, each inherited by every thread and by the process that an upgrade starts: capabilities beyond those that
//! are used (and new ones by exec: no_new_privs), writing outside of a few directories (Landlock), and system calls that
//! change the machine or look into other processes (seccomp). What needs more was done before.
//!
//! Reading is not restricted: a reload may name any file. A kernel without Landlock or seccomp costs their part, which is
//! told.

use std::path::{Path, PathBuf};

use caps::{CapSet, Capability, CapsHashSet};
use landlock::{
    ABI, Access as _, AccessFs, BitFlags, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus,
    path_beneath_rules,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

use crate::config::Config;

/// What the shield and ports below 1024 take.
const NEEDED: [Capability; 4] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
    Capability::CAP_NET_BIND_SERVICE,
];

/// What root has beside: files of other users stay readable at a reload, logs writable after a rotation, and the admin
/// socket can be given to a group.
const FILES: [Capability; 4] = [
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_CHOWN,
    Capability::CAP_FOWNER,
];

/// Where sockets and other run-time files are.
const RUN: &str = "/run/breakwater";

/// Calls that are refused (EPERM). None of them is made by this program.
const REFUSED: &[libc::c_long] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // The kernel and the machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_quotactl,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_personality,
    libc::SYS_fanotify_init,
    libc::SYS_open_by_handle_at,
    // What a file system and a namespace are.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    // Keys and identities.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
];

/// Why something could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Capabilities.
    #[error("cannot drop capabilities: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    /// Landlock.
    #[error("cannot restrict writing to files: {0}")]
    Files(#[from] landlock::RulesetError),
    /// Seccomp.
    #[error("cannot restrict system calls: {0}")]
    Calls(String),
}

/// What was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Confined {
    /// Writing outside of these directories is refused; none if the kernel has no Landlock.
    pub(super) writable: Option<Vec<PathBuf>>,
    /// Whether system calls are refused.
    pub(super) calls: bool,
}

/// Where the daemon of `config` writes.
pub(super) fn writable(config: &Config, bpffs: &Path) -> Vec<PathBuf> {
    let mut paths = vec![bpffs.to_owned(), PathBuf::from(RUN), PathBuf::from("/dev")];
    // A rule is for a directory that is there; the usual one is made by whoever is first.
    if let Err(error) = std::fs::create_dir_all(RUN) {
        tracing::debug!(%error, RUN, "no directory for sockets");
    }
    let files = config.access_log.file.iter().chain(&config.admin.socket);
    let history = config.history.as_ref().map(|history| &history.path);
    let files = files.chain(history);
    paths.extend(files.filter_map(|file| file.parent()).map(Path::to_owned));
    if config.shield.set_sysctls {
        paths.push(PathBuf::from("/proc/sys/net"));
    }
    paths
}

/// Gives it up, for this thread and those that it starts: to be called before there are others.
///
/// # Errors
/// The kernel refuses.
pub(super) fn confine(writable: Vec<PathBuf>) -> Result<Confined, SandboxError> {
    drop_capabilities()?;
    let writable = restrict_files(writable)?;
    let calls = restrict_calls()?;
    Ok(Confined { writable, calls })
}

fn drop_capabilities() -> Result<(), SandboxError> {
    let has = caps::read(None, CapSet::Permitted)?;
    let is_root = rustix::process::geteuid().is_root();
    let kept: CapsHashSet = has
        .iter()
        .copied()
        .filter(|capability| NEEDED.contains(capability) || is_root && FILES.contains(capability))
        .collect();
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::read(None, CapSet::Bounding)?.difference(&kept) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    // Ambient ones are what an upgrade inherits where the user is not root.
    for capability in caps::read(None, CapSet::Ambient)?.difference(&kept) {
        caps::drop(None, CapSet::Ambient, *capability)?;
    }
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    let inheritable = caps::read(None, CapSet::Inheritable)?;
    let inheritable: CapsHashSet = inheritable.intersection(&kept).copied().collect();
    caps::set(None, CapSet::Inheritable, &inheritable)?;
    Ok(())
}

/// Rights that change something.
fn writing() -> BitFlags<AccessFs> {
    let execute_is_reading = AccessFs::from_read(ABI::V3);
    AccessFs::from_all(ABI::V3) & !execute_is_reading
}

/// Sets no_new_privs, too.
fn restrict_files(writable: Vec<PathBuf>) -> Result<Option<Vec<PathBuf>>, SandboxError> {
    let existing: Vec<PathBuf> = writable.into_iter().filter(|path| path.exists()).collect();
    let status = Ruleset::default()
        .handle_access(writing())?
        .create()?
        .add_rules(path_beneath_rules(&existing, writing()))?
        .restrict_self()?;
    Ok((status.ruleset != RulesetStatus::NotEnforced).then_some(existing))
}

/// The version of Landlock that the running kernel has, if it has it (landlock_create_ruleset(2)).
pub(super) fn landlock_version() -> Option<i64> {
    const LANDLOCK_CREATE_RULESET_VERSION: libc::c_long = 1;
    let nothing: *const libc::c_void = std::ptr::null();
    // SAFETY: with this flag the call takes no pointer and no size, and makes nothing.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            nothing,
            0,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    (version > 0).then_some(version)
}

fn restrict_calls() -> Result<bool, SandboxError> {
    let told = |error: &dyn std::fmt::Display| SandboxError::Calls(error.to_string());
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else {
        return Ok(false);
    };
    let rules = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).map_err(|error| told(&error))?;
    let program = BpfProgram::try_from(filter).map_err(|error| told(&error))?;
    match apply_filter(&program) {
        Ok(()) => Ok(true),
        Err(error) => {
            tracing::warn!(%error, "system calls are not restricted");
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    //! What is refused is refused, and what is needed is not. Each on a thread of its own, which ends with it.

    use std::{fs, io, thread};

    use super::*;

    #[test]
    fn writing_elsewhere_and_foreign_calls_are_refused_and_the_daemons_own_work_is_not() {
        let (allowed, elsewhere) = (
            tempfile::tempdir().expect("one"),
            tempfile::tempdir().expect("two"),
        );
        fs::write(elsewhere.path().join("there"), "1").expect("written");
        let (inside, outside) = (allowed.path().to_owned(), elsewhere.path().to_owned());
        let thread = thread::spawn(move || {
            let confined = confine(vec![inside.clone()]).expect("confined");
            assert!(confined.calls, "this kernel has seccomp");
            let refused = |done: io::Result<()>| done.map_err(|error| error.kind());
            assert_eq!(refused(fs::write(inside.join("new"), "1")), Ok(()));
            assert_eq!(
                refused(fs::rename(inside.join("new"), inside.join("other"))),
                Ok(())
            );
            assert_eq!(fs::read(outside.join("there")).ok().as_deref(), Some(&b"1"[..]));
            if confined.writable.is_some() {
                let denied = Err(io::ErrorKind::PermissionDenied);
                assert_eq!(refused(fs::write(outside.join("new"), "1")), denied);
                assert_eq!(refused(fs::write(outside.join("there"), "2")), denied);
                assert_eq!(refused(fs::remove_file(outside.join("there"))), denied);
                assert_eq!(refused(fs::create_dir(outside.join("dir"))), denied);
            } else {
                println!("SKIPPED: sandbox: no Landlock in this kernel");
            }
            for call in REFUSED {
                // SAFETY: the filter answers before the kernel looks at any argument.
                let done = unsafe { libc::syscall(*call, 0, 0, 0, 0, 0, 0) };
                let error = io::Error::last_os_error().raw_os_error();
                assert_eq!((done, error), (-1, Some(libc::EPERM)), "call {call}");
            }
            // What an upgrade needs.
            let started = std::process::Command::new("/bin/true").status();
            assert!(started.is_ok_and(|status| status.success()));
            assert!(std::net::TcpListener::bind("127.0.0.1:0").is_ok());
            let permitted = caps::read(None, CapSet::Permitted).expect("readable");
            assert!(
                permitted
                    .iter()
                    .all(|capability| NEEDED.contains(capability) || FILES.contains(capability)),
                "{permitted:?}"
            );
            let status = fs::read_to_string("/proc/thread-self/status").expect("readable");
            assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        });
        thread.join().expect("the thread does not panic");
    }
}
