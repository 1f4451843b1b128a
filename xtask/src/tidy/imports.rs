//! Who may name which library: the walls between the rooms of `edge-user`.
//!
//! Looks at identifiers in code; what comments and string literals say is free.

use super::{Finding, Source};

/// A library, the modules of `edge-user` that may name it, and why the others may not.
struct Wall {
    /// The library, or the beginning of its companions' names (`aya_log`).
    library: &'static str,
    /// Modules with all that is in them, or one file of another module.
    rooms: &'static [&'static str],
    reason: &'static str,
}

const WALLS: [Wall; 2] = [
    Wall {
        library: "aya",
        rooms: &["kernel"],
        reason: "only `kernel` talks to the kernel's BPF",
    },
    Wall {
        library: "hyper",
        rooms: &["gateway", "upstream", "admin", "auth/jwks/fetch.rs"],
        reason: "only `gateway`, `upstream`, `admin` and the fetcher of key sets speak HTTP",
    },
];
const CRATE: &str = "edge-user/src/";

/// Looks at every line of a file of `edge-user`.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(module) = source.path.strip_prefix(CRATE) else {
        return findings;
    };
    let room = module.split(['/', '.']).next().unwrap_or_default();
    for wall in WALLS
        .iter()
        .filter(|wall| !wall.rooms.iter().any(|open| *open == room || *open == module))
    {
        for (number, line) in source.lines() {
            if identifiers(line).iter().any(|name| is_of(name, wall.library)) {
                findings.push(source.finding(number, format!("names {}: {}", wall.library, wall.reason)));
            }
        }
    }
    findings
}

fn is_of(name: &str, library: &str) -> bool {
    name.strip_prefix(library)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

/// The identifiers of a line, without its strings and its comment.
fn identifiers(line: &str) -> Vec<String> {
    let mut code = String::new();
    let mut in_string = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if in_string => drop(characters.next()),
            '"' => in_string = !in_string,
            '/' if !in_string && characters.peek() == Some(&'/') => break,
            _ if in_string => {}
            _ => code.push(character),
        }
    }
    code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    #[test]
    fn each_wall_is_guarded() {
        for (path, text) in [
            ("edge-user/src/gateway.rs", "use aya::maps::Map;"),
            (
                "edge-user/src/gateway/forward.rs",
                "    let x = aya_log::EbpfLogger::init();",
            ),
            ("edge-user/src/kernel/load.rs", "use hyper::Request;"),
            ("edge-user/src/cli/run.rs", "use hyper_util::rt::TokioIo;"),
            ("edge-user/src/main.rs", "fn f(_: &aya::Ebpf) {}"),
            ("edge-user/src/auth/jwks.rs", "use hyper::Request;"),
        ] {
            assert_eq!(check(&source(path, text)).len(), 1, "{path}: {text}");
        }
    }

    #[test]
    fn the_rooms_themselves_comments_and_strings_are_free() {
        for (path, text) in [
            ("edge-user/src/kernel.rs", "use aya::Ebpf;"),
            ("edge-user/src/kernel/maps.rs", "use aya::maps::Map;"),
            ("edge-user/src/gateway/listen.rs", "use hyper::server;"),
            ("edge-user/src/auth/jwks/fetch.rs", "use hyper::client;"),
            ("edge-user/src/cli.rs", "//! Never names aya or hyper."),
            ("edge-user/src/cli.rs", "let x = 1; // not through aya"),
            (
                "edge-user/src/cli.rs",
                "let x = \"aya=warn,\\\"hyper=warn\"; let papaya = hypertext;",
            ),
            ("edge-user/tests/load.rs", "use aya::Ebpf;"),
            ("edge-common/src/abi.rs", "unsafe impl aya::Pod for Key {}"),
        ] {
            assert!(check(&source(path, text)).is_empty(), "{path}: {text}");
        }
    }
}
