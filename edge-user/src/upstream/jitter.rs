//! A little randomness, so that what happens at intervals does not happen at once everywhere.

use std::time::Duration;

use super::maglev::mix;

/// Random numbers from a seed.
#[derive(Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// Begins with a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// `time`, give or take a tenth.
    pub fn around(&mut self, time: Duration) -> Duration {
        time.mul_f64(0.9 + 0.2 * self.share())
    }

    /// Up to a tenth of `time`.
    pub fn within(&mut self, time: Duration) -> Duration {
        time.mul_f64(0.1 * self.share())
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.0) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_and_no_more() {
        let mut jitter = Jitter::new(1);
        let second = Duration::from_secs(1);
        let times: Vec<_> = (0..1000).map(|_| jitter.around(second)).collect();
        let (least, most) = (times.iter().min(), times.iter().max());
        assert!(least >= Some(&Duration::from_millis(899)) && least < Some(&Duration::from_millis(920)));
        assert!(most <= Some(&Duration::from_millis(1101)) && most > Some(&Duration::from_millis(1080)));
    }
}
