//! A set of networks that is asked about single addresses, however many networks there are. Pure.

use std::{collections::HashSet, net::IpAddr};

use ipnet::IpNet;

/// Networks, by the prefix lengths that occur.
#[derive(Debug, Default)]
pub struct Networks {
    nets: HashSet<IpNet>,
    /// Each once; few, whatever the number of networks.
    lengths: Vec<u8>,
}

impl Networks {
    /// Whether a network of the set holds this address; an IPv4-mapped one is IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.lengths
            .iter()
            .any(|length| IpNet::new(address, *length).is_ok_and(|net| self.nets.contains(&net.trunc())))
    }
}

impl FromIterator<IpNet> for Networks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(nets: I) -> Self {
        let nets: HashSet<IpNet> = nets.into_iter().map(|net| net.trunc()).collect();
        let lengths: HashSet<u8> = nets.iter().map(IpNet::prefix_len).collect();
        Self {
            nets,
            lengths: lengths.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_any_of_many_networks() {
        let many = (0..5_000_u32).map(|n| IpNet::from(IpAddr::V4((0x0a00_0000 + n).into())));
        let more =
            ["192.0.2.0/24", "2001:db8::/32", "198.51.100.7/32"].map(|net| net.parse().expect("a network"));
        let set: Networks = many.chain(more).collect();
        for (address, inside) in [
            ("10.0.0.1", true),
            ("10.0.19.136", false),
            ("192.0.2.200", true),
            ("::ffff:192.0.2.200", true),
            ("192.0.3.0", false),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
            ("198.51.100.7", true),
            ("198.51.100.8", false),
        ] {
            assert_eq!(
                set.contains(address.parse().expect("an address")),
                inside,
                "{address}"
            );
        }
        assert!(!Networks::default().contains(IpAddr::from([127, 0, 0, 1])));
    }
}
