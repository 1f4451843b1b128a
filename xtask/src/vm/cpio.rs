//! Writes the archive that the kernel unpacks at boot: cpio in the "newc" format.
//!
//! Format: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel. Every entry is a header of
//! thirteen 8-digit hexadecimal fields, the name with its zero byte, and the data, each padded to 4 bytes.

use std::collections::BTreeSet;
use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive under construction. Folders above an entry are added by themselves.
pub(crate) struct Archive<W> {
    out: W,
    inode: u32,
    folders: BTreeSet<String>,
}

struct Entry<'a> {
    name: &'a str,
    mode: u32,
    data: &'a [u8],
    /// Of a device file: major and minor number.
    device: (u32, u32),
}

impl<W: Write> Archive<W> {
    /// An empty archive.
    pub(crate) fn new(out: W) -> Self {
        Self {
            out,
            inode: 0,
            folders: BTreeSet::new(),
        }
    }

    /// Adds an executable file; `path` may begin with a slash.
    pub(crate) fn file(&mut self, path: &str, data: &[u8]) -> io::Result<()> {
        let name = path.trim_start_matches('/');
        self.parents(name)?;
        self.entry(&Entry {
            name,
            mode: FILE,
            data,
            device: (0, 0),
        })
    }

    /// Adds an empty folder.
    pub(crate) fn folder(&mut self, path: &str) -> io::Result<()> {
        let name = path.trim_matches('/');
        self.parents(name)?;
        if self.folders.insert(name.to_owned()) {
            self.entry(&Entry {
                name,
                mode: DIRECTORY,
                data: &[],
                device: (0, 0),
            })?;
        }
        Ok(())
    }

    /// Adds a character device.
    pub(crate) fn device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        let name = path.trim_start_matches('/');
        self.parents(name)?;
        self.entry(&Entry {
            name,
            mode: CHARACTER_DEVICE,
            data: &[],
            device: (major, minor),
        })
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.entry(&Entry {
            name: "TRAILER!!!",
            mode: 0,
            data: &[],
            device: (0, 0),
        })?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn parents(&mut self, name: &str) -> io::Result<()> {
        for (at, _) in name.match_indices('/') {
            let folder = &name[..at];
            if self.folders.insert(folder.to_owned()) {
                self.entry(&Entry {
                    name: folder,
                    mode: DIRECTORY,
                    data: &[],
                    device: (0, 0),
                })?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        self.inode += 1;
        let too_big = |_| {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{} exceeds 4 GiB", entry.name),
            )
        };
        let size = u32::try_from(entry.data.len()).map_err(too_big)?;
        let name_size = u32::try_from(entry.name.len() + 1).map_err(too_big)?;
        let (major, minor) = entry.device;
        // Magic, inode, mode, uid, gid, links, mtime, size, device of the file system, device, name size, checksum.
        write!(self.out, "070701{:08X}{:08X}", self.inode, entry.mode)?;
        write!(self.out, "{:08X}{:08X}{:08X}{:08X}{size:08X}", 0, 0, 1, 0)?;
        write!(
            self.out,
            "{:08X}{:08X}{major:08X}{minor:08X}{name_size:08X}{:08X}",
            0, 0, 0
        )?;
        self.out.write_all(entry.name.as_bytes())?;
        self.out.write_all(&[0])?;
        self.pad(HEADER + entry.name.len() + 1)?;
        self.out.write_all(entry.data)?;
        self.pad(entry.data.len())
    }

    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..written.wrapping_neg() % 4])
    }
}

/// Bytes of an entry's header.
const HEADER: usize = 110;

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use super::*;

    fn sample() -> Vec<u8> {
        let mut archive = Archive::new(Vec::new());
        archive.folder("/proc").unwrap();
        archive.file("/usr/bin/one", b"hello").unwrap();
        archive.file("/usr/bin/two", b"").unwrap();
        archive.device("/dev/console", 5, 1).unwrap();
        archive.finish().unwrap()
    }

    #[test]
    fn every_part_is_aligned_and_parents_come_first_and_once() {
        let bytes = sample();
        let mut names = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            assert_eq!(at % 4, 0);
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |index: usize| {
                let start = at + 6 + index * 8;
                usize::from_str_radix(std::str::from_utf8(&bytes[start..start + 8]).unwrap(), 16).unwrap()
            };
            let (size, name_size) = (field(6), field(11));
            let name = &bytes[at + HEADER..at + HEADER + name_size - 1];
            names.push(String::from_utf8(name.to_vec()).unwrap());
            let data = (at + HEADER + name_size).next_multiple_of(4);
            if names.last().unwrap() == "usr/bin/one" {
                assert_eq!(&bytes[data..data + size], b"hello");
            }
            at = (data + size).next_multiple_of(4);
        }
        assert_eq!(
            names,
            [
                "proc",
                "usr",
                "usr/bin",
                "usr/bin/one",
                "usr/bin/two",
                "dev",
                "dev/console",
                "TRAILER!!!"
            ]
        );
    }

    #[test]
    fn cpio_itself_reads_it() {
        let Ok(mut cpio) = Command::new("cpio")
            .arg("-t")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
        else {
            // The layout is checked above; this second opinion needs the program.
            return;
        };
        cpio.stdin.take().unwrap().write_all(&sample()).unwrap();
        let mut listing = String::new();
        cpio.stdout.take().unwrap().read_to_string(&mut listing).unwrap();
        assert!(cpio.wait().unwrap().success());
        assert!(listing.lines().any(|line| line == "usr/bin/one"));
    }
}
