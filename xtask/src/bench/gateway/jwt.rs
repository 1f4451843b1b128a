//! Tokens for the scenarios of tokens: signed by `cargo bench -p edge-user --bench auth -- --write`, and kept in the
//! output folder for a while.

use std::{fs, time::Duration};

use anyhow::Result;

use super::proxies::Site;
use crate::process;

/// How many of each algorithm: more than a worker's cache holds.
pub(super) const TOKENS: usize = 40_000;

/// Makes keys and tokens, unless there are some that are good for a while.
pub(super) fn prepare(site: &Site) -> Result<()> {
    let young = fs::metadata(site.folder.join("ES256.tokens"))
        .and_then(|metadata| metadata.modified())
        .is_ok_and(|at| at.elapsed().is_ok_and(|age| age < Duration::from_hours(12)));
    if young {
        return Ok(());
    }
    println!("signing {TOKENS} tokens of each algorithm, once a day");
    process::run(
        process::cargo()
            .args([
                "bench",
                "--locked",
                "--profile",
                "quick",
                "--package",
                "edge-user",
            ])
            .args(["--bench", "auth", "--", "--write"])
            .arg(&site.folder)
            .arg(TOKENS.to_string()),
    )
}
