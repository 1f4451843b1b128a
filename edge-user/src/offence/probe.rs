//! Paths that scanners look for. A request for one that is not there is an offence; where it is there, it is a request.

/// Prefixes of paths, looked up cheaply enough for every request.
#[derive(Debug)]
pub struct Probes {
    prefixes: Vec<Box<str>>,
    /// Which bytes may follow the slash.
    second: [bool; 256],
}

impl Probes {
    /// Paths that begin with any of these.
    pub fn new(prefixes: &[String]) -> Self {
        let mut second = [false; 256];
        for prefix in prefixes {
            if let Some(byte) = prefix.as_bytes().get(1) {
                second[usize::from(*byte)] = true;
            }
        }
        Self {
            prefixes: prefixes.iter().map(|prefix| prefix.as_str().into()).collect(),
            second,
        }
    }

    /// Whether a normalised path is one of them.
    pub fn matches(&self, path: &str) -> bool {
        let Some(second) = path.as_bytes().get(1) else {
            return false;
        };
        let begins = |prefix: &str| prefix.as_bytes().get(1) == Some(second) && path.starts_with(prefix);
        self.second[usize::from(*second)] && self.prefixes.iter().any(|prefix| begins(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_match_and_nothing_else() {
        let probes = Probes::new(&["/.env".into(), "/wp-".into()]);
        for (path, is_probe) in [
            ("/.env", true),
            ("/.env.local", true),
            ("/wp-login.php", true),
            ("/", false),
            ("", false),
            ("/.well-known/x", false),
            ("/w", false),
            ("/x/.env", false),
        ] {
            assert_eq!(probes.matches(path), is_probe, "{path}");
        }
        assert!(!Probes::new(&[]).matches("/.env"));
    }
}
