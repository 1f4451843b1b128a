//! A round of endpoints by weight: each appears as often as it weighs, spread as evenly as can be.
//!
//! Going round costs one index per request, whatever the weights; the work is done when the set changes.

/// Longest round; weights that add up to more are scaled down, none to nothing.
pub(super) const MAX_ROUND: usize = 8192;

/// The round for `weights`; entries are their indices.
pub(super) fn round(weights: &[u32]) -> Box<[u32]> {
    let common = weights.iter().copied().filter(|weight| *weight > 0).fold(0, gcd);
    if common == 0 {
        return Box::default();
    }
    let sum: u64 = weights.iter().map(|weight| u64::from(weight / common)).sum();
    let scaled = |weight: u32| -> u64 {
        let weight = u64::from(weight / common);
        if weight == 0 || sum <= MAX_ROUND as u64 {
            weight
        } else {
            (weight * MAX_ROUND as u64 / sum).max(1)
        }
    };
    // The k-th of n appearances stands at (k + 1/2) / n of the round; the index breaks ties.
    let mut places: Vec<(u64, u32)> = Vec::with_capacity(weights.len());
    for (index, weight) in weights.iter().enumerate() {
        let times = scaled(*weight);
        places.extend((0..times).map(|k| (((2 * k + 1) << 32) / (2 * times), index as u32)));
    }
    places.sort_unstable();
    places.into_iter().map(|(_, index)| index).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_weights_take_turns() {
        assert_eq!(*round(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(*round(&[7, 7]), [0, 1]);
        assert_eq!(*round(&[0, 3, 0]), [1]);
        assert!(round(&[]).is_empty() && round(&[0, 0]).is_empty());
    }

    #[test]
    fn shares_are_exact_and_spread() {
        let round = round(&[5, 1, 2]);
        let count = |index| round.iter().filter(|have| **have == index).count();
        assert_eq!((count(0), count(1), count(2)), (5, 1, 2));
        // The heaviest never comes more than twice in a row here.
        assert!(!round.windows(3).any(|three| three == [0, 0, 0]), "{round:?}");
    }

    #[test]
    fn a_round_is_bounded_and_leaves_nobody_out() {
        let mut weights = vec![1000; 100];
        weights.push(1);
        let round = round(&weights);
        assert!(round.len() <= MAX_ROUND + weights.len());
        assert!(round.contains(&100));
    }
}
