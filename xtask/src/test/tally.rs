//! What tests came to: read from the runners' own output, and added up.

use std::fmt;
use std::ops::AddAssign;

/// How the line of a test starts that skipped itself; the runner itself counts it as passed.
const SKIPPED: &str = "SKIPPED: ";

/// Counts of tests and checks.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    /// One check.
    pub(crate) fn of(passed: bool) -> Self {
        Self {
            passed: u64::from(passed),
            failed: u64::from(!passed),
            skipped: 0,
        }
    }

    /// One thing that could not be run.
    pub(crate) fn skip() -> Self {
        Self {
            skipped: 1,
            ..Self::default()
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

/// Reads the output of test programs line by line.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    tally: Tally,
    said_skipped: u64,
}

impl Reader {
    /// Takes a line.
    pub(crate) fn line(&mut self, line: &str) {
        if line.starts_with(SKIPPED) {
            self.said_skipped += 1;
        }
        if let Some(result) = result(line) {
            self.tally += result;
        }
    }

    /// The sum, given whether the runner itself succeeded: one that failed without a failed test did so elsewhere
    /// (a program that does not build, crashes or never ends), and that is a failure too.
    pub(crate) fn finish(self, succeeded: bool) -> Tally {
        let mut tally = self.tally;
        let skipped = self.said_skipped.min(tally.passed);
        tally.passed -= skipped;
        tally.skipped += skipped;
        if !succeeded && tally.failed == 0 {
            tally.failed = 1;
        }
        tally
    }
}

/// The counts of a line `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; …`.
fn result(line: &str) -> Option<Tally> {
    let (_, counts) = line
        .trim_start()
        .strip_prefix("test result: ")?
        .split_once(". ")?;
    let count = |what: &str| {
        let field = counts.split("; ").find_map(|field| field.strip_suffix(what))?;
        field.trim().parse::<u64>().ok()
    };
    Some(Tally {
        passed: count("passed")?,
        failed: count("failed")?,
        skipped: count("ignored")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(output: &str, succeeded: bool) -> String {
        let mut reader = Reader::default();
        output.lines().for_each(|line| reader.line(line));
        reader.finish(succeeded).to_string()
    }

    const TWO: &str = "running 4 tests\ntest a ... ok\n\
        test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s\n\n\
        test result: FAILED. 5 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s\n";

    #[test]
    fn several_programs_are_added_up() {
        assert_eq!(read(TWO, false), "8 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn what_skipped_itself_did_not_pass() {
        let output = format!("test b ... \nSKIPPED: b: needs root\nok\n{TWO}");
        assert_eq!(read(&output, false), "7 passed, 2 failed, 2 skipped");
    }

    #[test]
    fn a_runner_that_failed_without_a_failed_test_is_a_failure() {
        let output =
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0s";
        assert_eq!(read(output, true), "3 passed, 0 failed, 0 skipped");
        assert_eq!(read(output, false), "3 passed, 1 failed, 0 skipped");
        assert_eq!(
            read("error: could not compile", false),
            "0 passed, 1 failed, 0 skipped"
        );
    }
}
