//! What of an interface stands in the way of native XDP: what is there, what is missing, and the command that mends it.
//!
//! Drivers differ, so none of this refuses anything. It explains a refusal, beside the driver's own words.

use super::{features, interfaces::Interface};

/// What fits a 4 KiB page beside 256 bytes of headroom and the skb's trailer.
pub const MAX_NATIVE_MTU: u32 = 3_498;

/// What stands in the way on `interface`, one sentence each.
pub fn obstacles(interface: &Interface) -> Vec<String> {
    let on = features::switched_on(&interface.name).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    of(interface, &on, cpus as u32)
}

fn of(interface: &Interface, on: &[String], cpus: u32) -> Vec<String> {
    let Interface {
        name, mtu, tx_queues, ..
    } = interface;
    let is_on = |feature: &str| on.iter().any(|name| name == feature);
    let mut found = Vec::new();
    if *mtu > MAX_NATIVE_MTU {
        found.push(format!(
            "the MTU of {name} is {mtu}; a packet has to fit one page with its headroom, which is {MAX_NATIVE_MTU} \
             here: `ip link set dev {name} mtu {MAX_NATIVE_MTU}`"
        ));
    }
    if is_on("rx-lro") {
        found.push(format!(
            "large receive offload is on, and makes packets larger than a page: `ethtool -K {name} lro off`"
        ));
    }
    if is_on("rx-gro-hw") {
        found.push(format!(
            "receive offload of the hardware is on, and makes packets larger than a page: \
             `ethtool -K {name} rx-gro-hw off`"
        ));
    }
    if *tx_queues > 0 && *tx_queues < cpus {
        found.push(format!(
            "{name} has {tx_queues} transmit queues for {cpus} CPUs, and some drivers want one for each: \
             `ethtool -L {name} combined {cpus}` (or `tx {cpus}`), as far as the card has them"
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{super::interfaces::XdpState, *};

    #[test]
    fn each_obstacle_is_named_with_what_is_there_and_the_command() {
        let interface = |mtu, tx_queues| Interface {
            name: "eth7".into(),
            index: 2,
            mtu,
            tx_queues,
            xdp: XdpState::None,
        };
        let on = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(of(&interface(1500, 8), &on(&["rx-gro"]), 8).is_empty());
        for (interface, on, expected) in [
            (interface(9000, 8), on(&[]), "MTU of eth7 is 9000"),
            (interface(1500, 8), on(&["rx-lro"]), "ethtool -K eth7 lro off"),
            (interface(1500, 8), on(&["rx-gro-hw"]), "rx-gro-hw off"),
            (interface(1500, 2), on(&[]), "2 transmit queues for 8 CPUs"),
        ] {
            let found = of(&interface, &on, 8);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(expected), "{found:?}");
        }
        assert_eq!(of(&interface(9000, 1), &on(&["rx-lro", "rx-gro-hw"]), 2).len(), 4);
    }
}
