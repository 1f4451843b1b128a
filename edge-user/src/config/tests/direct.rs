//! Direct services: what is read, and every mistake.

use std::fmt::Write as _;

use super::{key_dir, mistakes, options};
use crate::config::{Affinity, Direct, Forward, Probe, load};

const HEAD: &str = "[[service]]\nname = \"s\"\nprotocol = \"tcp\"\nport = 443\naddress = \"203.0.113.1\"\n";

fn direct(text: &str) -> Direct {
    let loaded = load::parse(text, "t.toml", key_dir().path(), &options()).unwrap();
    assert_eq!(loaded.warnings, []);
    loaded.config.services[0].direct.clone().unwrap()
}

#[test]
fn what_is_written_is_read() {
    let one = direct(&format!(
        "{HEAD}kind = \"direct\"\nforward = \"dsr-l2\"\nbackend = [{{ address = \"10.0.0.1\" }}]\n"
    ));
    assert_eq!(
        (one.forward, one.affinity, one.table_size, one.health),
        (Forward::DsrL2, Affinity::Flow, 65_537, None)
    );
    assert_eq!((one.backends.len(), one.backends[0].weight.get()), (1, 1));
    let translated = direct(&format!(
        "{HEAD}kind = \"direct\"\nforward = \"nat\"\nnat_source = \"10.0.0.9\"\n[[service.backend]]\naddress = \"10.0.0.1\"\nport = \
         8443\n[[service.backend]]\naddress = \"10.0.0.2\"\n"
    ));
    let nat = translated.nat.unwrap();
    assert_eq!(nat.source, std::net::IpAddr::from([10, 0, 0, 9]));
    assert_eq!((nat.ports.low, nat.ports.high), (61_000, 65_535));
    let ports = translated
        .backends
        .iter()
        .map(|backend| backend.port.map(u16::from));
    assert_eq!(ports.collect::<Vec<_>>(), [Some(8_443), None]);
    let two = direct(&format!(
        "{HEAD}kind = \"direct\"\nforward = \"ipip\"\naffinity = \"source\"\ntable_size = 1009\n\
         health = {{ probe = \"tcp\" }}\nsyn = {{ budget = {{ per_second = 100, burst = 100 }}, cookies = \"off\" }}\n\
         [[service.backend]]\naddress = \"10.0.0.1\"\nweight = 3\n[[service.backend]]\naddress = \"fd00::2\"\n"
    ));
    assert_eq!(
        (two.forward, two.affinity, two.table_size),
        (Forward::Ipip, Affinity::Source, 1_009)
    );
    assert_eq!(two.health.unwrap().probe, Probe::Tcp);
    assert_eq!(two.backends[0].weight.get(), 3);
}

#[test]
fn every_mistake_is_told_where_it_stands() {
    let service = |rest: &str| format!("{HEAD}kind = \"direct\"\n{rest}");
    let backend = |address: &str| {
        service(&format!(
            "forward = \"dsr-l2\"\n[[service.backend]]\naddress = \"{address}\"\n"
        ))
    };
    let mut many = service("forward = \"ipip\"\ntable_size = 251\n");
    for last in 1..=3 {
        let _ = writeln!(many, "[[service.backend]]\naddress = \"10.0.0.{last}\"");
    }
    let rows: Vec<(String, Vec<&str>)> = vec![
        (
            format!("{HEAD}forward = \"ipip\"\nbackend = [{{ address = \"10.0.0.1\" }}]\n"),
            vec![
                "6 service[0].forward: has no meaning unless",
                "7 service[0].backend: has no meaning unless",
            ],
        ),
        (
            service(""),
            vec![
                "1 service[0].forward: missing key `forward`",
                "1 service[0].backend: missing key `backend`",
            ],
        ),
        (
            service("forward = \"vxlan\"\nbackend = [{ address = \"10.0.0.1\" }]\n"),
            vec!["7 service[0].forward: unknown way of forwarding `vxlan`"],
        ),
        (
            service("forward = \"nat\"\nbackend = [{ address = \"10.0.0.1\" }]\n"),
            vec!["1 service[0].nat_source: missing key `nat_source`"],
        ),
        (
            service("forward = \"nat\"\nnat_source = \"fd00::1\"\nbackend = [{ address = \"fd00::2\", port = 0 }]\n"),
            vec![
                "8 service[0].nat_source: cannot carry packets for 203.0.113.1 from fd00::1, of the other address family",
                "9 service[0].backend[0].address: of the other address family",
                "9 service[0].backend[0].port: must be between 1 and 65535, is 0",
            ],
        ),
        (
            service("forward = \"nat\"\nnat_source = \"127.0.0.1\"\nnat_ports = \"9000-9006\"\nbackend = [{ address = \"10.0.0.2\" }]\n"),
            vec![
                "8 service[0].nat_source: not an address that a backend can answer to",
                "9 service[0].nat_ports: must be at least 8 ports",
            ],
        ),
        (
            service("forward = \"nat\"\nnat_source = \"203.0.113.1\"\nnat_ports = \"400-500\"\nbackend = [{ address = \"10.0.0.2\" }]\n"),
            vec!["8 service[0].nat_source: the service's own port 443 is among the ports 400-500"],
        ),
        (
            service("forward = \"nat\"\nnat_source = \"10.0.0.1\"\nnat_ports = \"500-400\"\nbackend = [{ address = \"10.0.0.2\" }]\n"),
            vec!["9 service[0].nat_ports: `500-400` is not a range of ports"],
        ),
        (
            service("forward = \"ipip\"\nnat_source = \"10.0.0.1\"\nbackend = [{ address = \"10.0.0.2\", port = 80 }]\n"),
            vec![
                "8 service[0].nat_source: has no meaning unless `forward` is \"nat\"",
                "9 service[0].backend[0].port: has no meaning unless `forward` is \"nat\"",
            ],
        ),
        (
            service("forward = \"ipip\"\nbackend = []\n"),
            vec!["8 service[0].backend: needs at least one backend"],
        ),
        (backend("127.0.0.1"), vec!["9 service[0].backend[0].address: not an address of a backend"]),
        (backend("203.0.113.1"), vec!["9 service[0].backend[0].address: round in circles"]),
        (backend("fd00::1"), vec!["9 service[0].backend[0].address: of the other address family"]),
        (
            service("forward = \"ipip\"\nbackend = [{ address = \"10.0.0.1\" }, { address = \"10.0.0.1\" }]\n"),
            vec!["8 service[0].backend[1].address: backend `10.0.0.1` is given twice"],
        ),
        (
            service("forward = \"ipip\"\ntable_size = 1000\nbackend = [{ address = \"10.0.0.1\" }]\n"),
            vec!["8 service[0].table_size: a prime number of places, and 1000 is none"],
        ),
        (
            service("forward = \"ipip\"\ntable_size = 100003\nbackend = [{ address = \"10.0.0.1\" }]\n"),
            vec!["8 service[0].table_size: must be a prime from 251 to 65537"],
        ),
        (many, vec!["9 service[0].backend: 3 backends are more than a table of 251 places"]),
        (
            "[[service]]\nname = \"s\"\nprotocol = \"udp\"\nport = 53\nkind = \"direct\"\nforward = \"ipip\"\n\
             backend = [{ address = \"10.0.0.1\" }]\n"
                .to_owned(),
            vec!["1 service[0]: needs an `address`"],
        ),
        (
            service("forward = \"ipip\"\nbackend = [{ address = \"10.0.0.1\" }]\nsyn = { cookies = \"always\" }\n"),
            vec!["9 service[0].syn: no SYN cookies for a service of kind \"direct\""],
        ),
    ];
    let rows: Vec<(&str, &[&str])> = rows
        .iter()
        .map(|(text, expected)| (text.as_str(), expected.as_slice()))
        .collect();
    mistakes::errors(&rows);
}

#[test]
fn no_service_leads_around_authentication() {
    let file = |listener: &str, auth: &str| {
        format!(
            "{HEAD}kind = \"direct\"\nforward = \"ipip\"\nbackend = [{{ address = \"10.0.0.1\" }}]\n\
             [[listener]]\nname = \"l\"\naddress = \"{listener}\"\n[[upstream]]\nname = \"u\"\nendpoints = [\"10.0.0.1:1\"]\n\
             [[provider]]\nname = \"p\"\nalgorithms = [\"HS256\"]\nsecret_file = \"good.key\"\nsources = [\"bearer\"]\n\
             [[route]]\nname = \"r\"\npath = \"/\"\nupstream = \"u\"\n{auth}\n"
        )
    };
    let (wanted, open) = ("auth = \"required\"\nproviders = [\"p\"]", "auth = \"none\"");
    let problems = |text: &str| match load::parse(text, "t.toml", key_dir().path(), &options()) {
        Ok(loaded) => (false, loaded.warnings),
        Err(error) => (true, error.problems().to_vec()),
    };
    for listener in ["0.0.0.0:443", "203.0.113.1:443"] {
        let (failed, found) = problems(&file(listener, wanted));
        let told = found
            .iter()
            .find(|problem| problem.key == "service[0].kind")
            .unwrap_or_else(|| panic!("{found:?}"));
        assert!(
            failed && told.message.contains("would lead around authentication"),
            "{told:?}"
        );
        assert!(told.message.contains("the route `r` asks for a token"));
        let (_, found) = problems(&file(listener, open));
        let told = found
            .iter()
            .find(|problem| problem.key == "service[0].kind")
            .unwrap();
        assert!(told.message.contains("gets no connections"), "{told:?}");
    }
    for listener in ["0.0.0.0:444", "203.0.113.2:443", "[::]:443"] {
        let (_, found) = problems(&file(listener, wanted));
        assert!(
            !found.iter().any(|problem| problem.key == "service[0].kind"),
            "{listener}: {found:?}"
        );
    }
}
