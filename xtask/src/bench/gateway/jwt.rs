//! Tokens for the scenario of tokens: 5,000 of them, signed once by openssl and kept in the output folder.

use std::{
    fs::{self, File},
    io::Write,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};

use super::proxies::Site;
use crate::process;

/// How many.
const TOKENS: usize = 5_000;

/// Makes key and tokens, unless there are some that are good for a while.
pub(super) fn prepare(site: &mut Site) -> Result<()> {
    let (key, tokens) = (site.folder.join("jwt-key.pem"), site.folder.join("tokens"));
    let young = fs::metadata(&tokens)
        .and_then(|metadata| metadata.modified())
        .is_ok_and(|at| at.elapsed().is_ok_and(|age| age < Duration::from_hours(12)));
    if young {
        return Ok(());
    }
    println!("signing {TOKENS} tokens, once a day");
    process::output(
        Command::new("openssl")
            .args([
                "genpkey",
                "-algorithm",
                "RSA",
                "-pkeyopt",
                "rsa_keygen_bits:2048",
                "-out",
            ])
            .arg(&key),
    )?;
    process::output(
        Command::new("openssl")
            .args(["pkey", "-pubout", "-in"])
            .arg(&key)
            .arg("-out")
            .arg(site.folder.join("jwt-public.pem")),
    )?;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_secs();
    let header = base64url(br#"{"alg":"RS256","typ":"JWT"}"#);
    let part = site.folder.join("tokens.part");
    let mut file = File::create(&part)?;
    for number in 0..TOKENS {
        let claims = format!(
            r#"{{"sub":"user-{number}","iat":{now},"exp":{}}}"#,
            now + 24 * 3600
        );
        let signed = format!("{header}.{}", base64url(claims.as_bytes()));
        let mut openssl = Command::new("openssl")
            .args(["dgst", "-sha256", "-binary", "-sign"])
            .arg(&key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        openssl
            .stdin
            .take()
            .context("a pipe")?
            .write_all(signed.as_bytes())?;
        let output = openssl.wait_with_output()?;
        if !output.status.success() {
            bail!("openssl does not sign");
        }
        writeln!(file, "{signed}.{}", base64url(&output.stdout))?;
    }
    fs::rename(part, tokens)?;
    Ok(())
}

/// Base64 for URLs, without padding (RFC 4648, 5).
fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * place) & 63) as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64url;

    #[test]
    fn base64_for_urls() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
        ] {
            assert_eq!(base64url(bytes.as_bytes()), text);
        }
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
    }
}
