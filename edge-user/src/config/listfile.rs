//! Files with one network a line, as `shield.allow_file` and `shield.deny_file` name them: read, edited, written.
//!
//! Editing keeps what people wrote: comments, order, blank lines. A file is replaced whole, so a reader sees the old
//! one or the new one.

use std::{
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown},
    path::{Path, PathBuf},
};

use ipnet::IpNet;

use super::{
    Config, ConfigError, MAX_FILE_BYTES, Report,
    trusted::{self, Exposure, Fault, Terms},
    value,
};

/// Why a file of networks cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ListFileError {
    /// The file itself.
    #[error(transparent)]
    File(#[from] Fault),
    /// Lines of it; each problem tells where.
    #[error("{}", told(.0))]
    Lines(Report),
}

/// Reads a file of networks by the rules of the configuration; each network once, in the order of addresses.
///
/// # Errors
/// It cannot be read, a line is no network, or there are too many: told with file, line and column.
pub fn read(path: &Path) -> Result<Vec<IpNet>, ListFileError> {
    trusted::open(
        path,
        Terms {
            exposure: Exposure::Public,
            most_bytes: MAX_FILE_BYTES,
            may_be_empty: true,
        },
    )?;
    let shown = path.display().to_string();
    // The rest is what a configuration that names the file would get to hear; quoted as TOML wants it.
    let text = format!("shield.deny_file = {}", toml::Value::String(shown.clone()));
    match Config::parse(&text, &shown, Path::new("")) {
        Ok(loaded) => Ok(loaded.config.shield.deny),
        Err(ConfigError::Invalid(mut report)) => {
            for problem in &mut report.errors {
                problem.key.clear();
            }
            Err(ListFileError::Lines(report))
        }
        Err(other) => Err(Fault::new(other.to_string(), "name a file of networks, one a line").into()),
    }
}

fn told(report: &Report) -> String {
    let mut text = String::new();
    for problem in &report.errors {
        // Writing to a string cannot fail.
        let _ = write!(text, "{problem}\n\n");
    }
    let count = report.errors.len() + report.omitted;
    let plural = if count == 1 { "" } else { "s" };
    let _ = write!(text, "{count} error{plural}; nothing was changed");
    text
}

/// What of `text` is left without `remove`, with `add` at its end.
pub fn edited(text: &str, add: &[IpNet], remove: &[IpNet]) -> String {
    let is_removed = |line: &str| {
        let content = line.split('#').next().unwrap_or_default().trim();
        value::network(content).is_ok_and(|network| remove.contains(&network))
    };
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n').filter(|line| !is_removed(line)) {
        out.push_str(line);
    }
    if !add.is_empty() && !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    for network in add {
        out.push_str(&network.to_string());
        out.push('\n');
    }
    out
}

/// Replaces the file at `path` by `text`; owner and mode stay.
///
/// # Errors
/// It cannot be written; the old one is as it was then.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    // Where a link points, so that the link stays one.
    let path = fs::canonicalize(path)?;
    let old = fs::metadata(&path)?;
    let beside: PathBuf = {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        path.with_file_name(name)
    };
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(old.mode() & 0o777)
            .open(&beside)?;
        // Fails for whoever is not root, and then the file is theirs.
        _ = fchown(&file, Some(old.uid()), Some(old.gid()));
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &path)
    })();
    if written.is_err() {
        _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    #[test]
    fn editing_keeps_what_people_wrote() {
        let text = "# bad neighbours\n10.0.0.0/8 # all of it\n\n192.0.2.1\n  2001:db8::/32";
        let out = edited(
            text,
            &[net("198.51.100.0/24")],
            &[net("192.0.2.1/32"), net("10.0.0.0/9")],
        );
        assert_eq!(
            out,
            "# bad neighbours\n10.0.0.0/8 # all of it\n\n  2001:db8::/32\n198.51.100.0/24\n"
        );
        assert_eq!(edited("", &[net("::1/128")], &[]), "::1/128\n");
        assert_eq!(edited(text, &[], &[]), text);
    }

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_mistakes_are_told_by_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a \"list\"");
        fs::write(&path, "10.0.0.0/8\n192.0.2.1\n").expect("written");
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).expect("set");
        assert_eq!(
            read(&path).expect("read"),
            [net("10.0.0.0/8"), net("192.0.2.1/32")]
        );
        write(&path, "10.0.0.1/8\n").expect("written");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(directory.path()).expect("read").count(), 1);
        let told = read(&path).expect_err("bits beyond the prefix").to_string();
        assert!(
            told.contains("list\":1:1") && told.contains("10.0.0.0/8"),
            "{told}"
        );
    }
}
