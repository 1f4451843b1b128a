//! A flood from very many forged sources against the whole edge: what it costs a client, and that nothing is forgotten.
//!
//! `cargo xtask bench flood [-- FRAMES]`, ten million without a number, half of them IPv6. Needs root.

use anyhow::{Context, Result, ensure};
use tests::{
    flood::{Idle, blast, requests},
    stage::{Limit, Stage, vips},
};

const FRAMES: u64 = 10_000_000;
const IDLE: u32 = 1_000;
const LIMIT: Limit = Limit {
    per_second: 2_000,
    burst: 2_000,
};

fn main() -> Result<()> {
    let frames = match std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with("--"))
    {
        Some(number) => number.parse().context("a number of frames")?,
        None => FRAMES,
    };
    let Some(stage) = Stage::new("bench-flood", |settings| {
        settings
            .limit("source_packets", LIMIT)
            .limit("source_syns", LIMIT)
    }) else {
        return Ok(());
    };
    let idle = Idle::plant(&stage.lab, IDLE)?;
    println!(
        "{IDLE} idle bans, {} idle sources with exact state",
        idle.earned()
    );
    for vip in vips() {
        let (blasted, (answered, asked)) = std::thread::scope(|scope| {
            let sender = scope.spawn(|| blast(stage.lab.attacker(), vip, frames / 2));
            let mut sum = (0, 0);
            while !sender.is_finished() {
                let (answered, asked) = requests(stage.lab.client(), vip, 100);
                sum = (sum.0 + answered, sum.1 + asked);
            }
            (sender.join(), sum)
        });
        let blasted = blasted.map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        let seconds = blasted.time.as_secs_f64();
        println!(
            "{vip}: {} frames of as many sources in {seconds:.1} s ({:.0}/s); client: {answered} of {asked} requests",
            blasted.sent,
            blasted.sent as f64 / seconds
        );
        ensure!(
            answered * 1000 >= asked * 999,
            "less than 99.9 % of the client's requests"
        );
    }
    idle.check(&stage.lab)?;
    println!("every ban and every source with exact state is there");
    Ok(())
}
