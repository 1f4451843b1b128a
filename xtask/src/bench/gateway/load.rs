//! wrk and h2load: started on their CPU, their words taken apart.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, bail};

use super::{Sample, proxies::Site};
use crate::process;

/// One run of wrk.
#[derive(Debug, Clone)]
pub(super) struct Wrk<'a> {
    pub(super) url: &'a str,
    pub(super) connections: u32,
    pub(super) close: bool,
    /// A script in the output folder.
    pub(super) script: Option<&'a str>,
}

impl Wrk<'_> {
    /// Runs for `time`; CPU and memory are not filled in.
    pub(super) fn run(&self, site: &Site, time: Duration) -> Result<Sample> {
        let mut command = on_cpu(site, site.load_cpu, "wrk");
        command
            .args(["-t1", "--latency", "--timeout", "10s"])
            .arg(format!("-c{}", self.connections))
            .arg(format!("-d{}s", time.as_secs()));
        if self.close {
            command.args(["-H", "Connection: close"]);
        }
        if let Some(script) = self.script {
            command.arg("-s").arg(site.folder.join(script));
        }
        let text = process::output(command.arg(self.url))?;
        wrk(&text).with_context(|| format!("wrk said:\n{text}"))
    }
}

/// Takes wrk's report apart.
fn wrk(text: &str) -> Result<Sample> {
    let mut sample = Sample::default();
    for line in text.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["50%", time] => sample.p50_us = micros(time).context("50%")?,
            ["99%", time] => sample.p99_us = micros(time).context("99%")?,
            [requests, "requests", "in", time, bytes, "read"] => {
                sample.requests = requests.parse()?;
                sample.wall =
                    Duration::from_secs_f64(micros(time.trim_end_matches(',')).context("time")? / 1e6);
                sample.bytes = format!("{:.0}", size(bytes).context("bytes")?).parse()?;
            }
            ["Socket", "errors:", rest @ ..] => sample.errors += numbers(rest),
            ["Non-2xx", "or", "3xx", "responses:", count] => sample.errors += count.parse::<u64>()?,
            _ => {}
        }
    }
    if sample.requests == 0 {
        bail!("no requests");
    }
    Ok(sample)
}

/// Runs h2load over HTTP/2 for `time`.
pub(super) fn h2load(site: &Site, url: &str, time: Duration) -> Result<Sample> {
    let mut command = on_cpu(site, site.load_cpu, "h2load");
    command
        .args(["-t1", "-c16", "-m8", "--warm-up-time=0"])
        .arg(format!("-D{}", time.as_secs()))
        .arg(url);
    let text = process::output(&mut command)?;
    let mut sample = Sample {
        wall: time,
        ..Sample::default()
    };
    for line in text.lines().map(str::trim) {
        let words: Vec<&str> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        match words.as_slice() {
            ["requests:", ..] => {
                let count = |what: &str| {
                    let at = words.iter().position(|word| *word == what)?;
                    words.get(at.checked_sub(1)?)?.parse::<u64>().ok()
                };
                sample.requests = count("succeeded").unwrap_or(0);
                sample.errors = count("failed").unwrap_or(0) + count("errored").unwrap_or(0);
            }
            ["traffic:", .., data, "data"] => {
                sample.bytes = data.trim_matches(['(', ')']).parse().unwrap_or(0);
            }
            // min, max, mean, sd: h2load keeps no percentiles.
            ["time", "for", "request:", _, _, mean, ..] => sample.p50_us = micros(mean).unwrap_or(0.0),
            _ => {}
        }
    }
    if sample.requests == 0 {
        bail!("h2load said:\n{text}");
    }
    Ok(sample)
}

/// A command tied to a CPU.
pub(super) fn on_cpu(site: &Site, cpu: u32, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(cpu.to_string());
    if site.realtime {
        command.args(["chrt", "-f", "10"]);
    }
    command.arg(program);
    command
}

/// A time with its unit, in microseconds.
fn micros(text: &str) -> Option<f64> {
    [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 6e7)]
        .into_iter()
        .find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor))
}

/// A size with its unit, in bytes.
fn size(text: &str) -> Option<f64> {
    [
        ("KB", 1024.0),
        ("MB", 1024.0 * 1024.0),
        ("GB", 1024.0 * 1024.0 * 1024.0),
        ("B", 1.0),
    ]
    .into_iter()
    .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?.parse::<f64>().ok()? * factor).max(0.0)))
}

fn numbers(words: &[&str]) -> u64 {
    words
        .iter()
        .filter_map(|word| word.trim_end_matches(',').parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_wrk_is_read() {
        let text = "  Latency Distribution\n     50%    1.08ms\n     75%    1.20ms\n     99%   22.50us\n  \
            101 requests in 2.00s, 13.50MB read\n  Socket errors: connect 0, read 3, write 0, timeout 1\n  \
            Non-2xx or 3xx responses: 5\n";
        let sample = wrk(text).unwrap();
        assert_eq!(
            (sample.requests, sample.errors, sample.bytes),
            (101, 9, 14_155_776)
        );
        assert!((sample.p50_us - 1080.0).abs() < 1e-6 && (sample.p99_us - 22.5).abs() < 1e-6);
        assert!(wrk("nothing").is_err());
    }
}
