//! Where listeners are, what has their place already, and how much room there is.

use super::*;

fn with_listeners(listeners: &str, routes: &str) -> String {
    format!("[shield]\ninterfaces = ['eth0']\n{listeners}{APP}{routes}")
}

fn listener(name: &str, address: &str) -> String {
    format!("[[listener]]\nname = '{name}'\naddress = '{address}'\n")
}

#[test]
fn addresses_that_only_this_machine_has_are_not_steered() {
    let site = plain("site", "path = '/'");
    for address in ["127.0.0.1:80", "[::1]:80", "[fe80::1]:80", "169.254.1.1:80"] {
        let all = of(&with_listeners(&listener("inner", address), &site));
        let [one] = all.as_slice() else { panic!("{all:#?}") };
        assert_eq!(
            (one.verdict, keys(one), &one.snippet),
            (Verdict::Stays, vec!["listener.inner.address"], &None),
            "{address}"
        );
    }
    // Another listener goes without it, and so does a host; who came by which is not known.
    let both = listener("inner", "127.0.0.1:81") + &listener("web", "198.51.100.7:80");
    let all = of(&with_listeners(&both, &site));
    assert_eq!(
        (all[0].verdict, all[0].names.join(" "), all[0].at_most),
        (Verdict::Direct, "web".to_owned(), true)
    );
    let routes = plain("h", "hosts = ['h.example']\npath = '/'")
        + &route(
            "slow",
            &format!("path = '/'\nupstream = 'app'\nbody_limit = 9\n{OPEN}"),
        );
    let text = with_listeners(&both, &routes);
    let host = &of(&text)[0];
    assert_eq!(
        (host.kind, host.verdict, host.at_most),
        (Kind::Host, Verdict::OwnAddress, true)
    );
    let snippet = host.snippet.as_deref().expect("a snippet");
    assert_eq!(
        (
            snippet.matches("[[service]]").count(),
            snippet.contains("port = 81")
        ),
        (1, false)
    );
}

#[test]
fn services_that_have_the_place_are_told_of() {
    let wide = "[[service]]\nname = 'wide'\nprotocol = 'tcp'\nport = 80\n";
    let text = with_listeners(&listener("web", "198.51.100.7:80"), &plain("site", "path = '/'"));
    let all = of(&format!("{text}{wide}"));
    let snippet = all[0].snippet.as_deref().expect("a snippet");
    assert!(
        snippet.contains("# The service `wide` has this port of every address"),
        "{snippet}"
    );
    assert!(load(&format!("{text}{wide}{snippet}")).is_ok());
    // One of just this address has to go, and that is said beforehand.
    let narrow = wide.replace("wide", "narrow") + "address = '198.51.100.7'\n";
    let one = &of(&format!("{text}{wide}{narrow}"))[0];
    let snippet = one.snippet.as_deref().expect("a snippet");
    assert!(
        one.first[0].starts_with("take the service `narrow` out") && !snippet.contains("`wide`"),
        "{one:#?}"
    );
    assert!(load(&format!("{text}{wide}{narrow}{snippet}")).is_err());
    assert!(load(&format!("{text}{wide}{snippet}")).is_ok());
}

#[test]
fn what_saves_most_gets_the_room_that_the_kernel_has() {
    let mut routes = route(
        "rest",
        &format!("path = '/'\nupstream = 'app'\nbody_limit = 9\n{OPEN}"),
    );
    for number in 0..20 {
        routes += &plain(
            &format!("r{number}"),
            &format!("hosts = ['h{number}.example']\npath = '/'"),
        );
    }
    let text = with_listeners(&listener("web", "198.51.100.7:80"), &routes);
    let all = advise(&config(&text), &figures(&[("r19", 900), ("r3", 800)]));
    let written: Vec<&Advice> = all.iter().filter(|one| one.snippet.is_some()).collect();
    let first: Vec<&str> = written.iter().map(|one| one.routes[0].name.as_str()).collect();
    assert_eq!((first.len(), &first[..2]), (16, ["r19", "r3"].as_slice()));
    let without = all
        .iter()
        .filter(|one| one.verdict == Verdict::OwnAddress && one.snippet.is_none());
    let told: Vec<bool> = without
        .map(|one| one.first.iter().any(|step| step.starts_with("make room: ")))
        .collect();
    assert_eq!(told, [true; 4]);
    let mut with = text;
    for one in written {
        let _ = writeln!(with, "{}", one.snippet.as_deref().unwrap_or_default());
    }
    // Those are steered then, and there is no room for more.
    let more = of(&with);
    assert!(more.iter().all(|one| one.snippet.is_none()), "{more:#?}");
}

#[test]
fn strings_of_a_check_are_toml_and_move_no_cursor() {
    let body = "a\\u007f\\u001b[31m\\u009b31m\\u0000\\n\\\"\\\\";
    let upstream = format!("health = {{ probe = 'http', path = '/x', body = \"{body}\" }}\n");
    let text = with_listeners(
        &listener("web", "198.51.100.7:80"),
        &format!("{upstream}{}", plain("site", "path = '/'")),
    );
    let before = config(&text);
    let all = of(&text);
    let snippet = all[0].snippet.as_deref().expect("a snippet");
    assert!(
        snippet.chars().all(|c| c == '\n' || !c.is_control()),
        "{snippet:?}"
    );
    let after = config(&format!("{text}{snippet}"));
    let direct = after.services[0].direct.as_ref().expect("direct");
    assert_eq!(direct.health, before.upstreams[0].health);
}

#[test]
fn a_host_that_has_some_paths_is_not_told_to_get_hosts() {
    let text = with_listeners(
        &listener("web", "198.51.100.7:80"),
        &plain("api", "hosts = ['h.example']\npath = '/api'"),
    );
    let shown = render(&report(&config(&text), figures(&[("api", 1)])));
    assert!(
        shown.contains("route.api.path: ") && !shown.contains("itself needs nothing"),
        "{shown}"
    );
    assert!(shown.contains("route api  1 request, "), "{shown}");
}

#[test]
fn forwarding_is_told_of_for_each_interface_and_family_of_backends() {
    let base = with_listeners(&listener("web", "198.51.100.7:80"), &plain("site", "path = '/'"));
    let both = base.replace("10.0.0.1:80", "[2001:db8::9]:80");
    for (text, interfaces, want) in [
        (&base, "'eth0'", Some("net.ipv4.conf.eth0.forwarding=1")),
        (
            &both,
            "'eth0', 'v.7'",
            Some(
                "net.ipv4.conf.eth0.forwarding=1 net.ipv6.conf.eth0.forwarding=1 \
                 net.ipv4.conf.v/7.forwarding=1 net.ipv6.conf.v/7.forwarding=1",
            ),
        ),
        (&base, "", None),
    ] {
        let all = of(&text.replace("'eth0'", interfaces));
        let told = all[0]
            .first
            .iter()
            .find_map(|step| step.split_once("`sysctl -w "));
        let told = told.map(|(_, settings)| settings.trim_end_matches('`'));
        assert_eq!(told, want, "{:?}", all[0].first);
    }
}

#[test]
fn what_a_host_has_already_is_told_of() {
    let routes = plain("h", "hosts = ['h.example']\npath = '/'")
        + &route(
            "slow",
            &format!("path = '/'\nupstream = 'app'\nbody_limit = 9\n{OPEN}"),
        );
    let text = with_listeners(&listener("web", "0.0.0.0:80"), &routes);
    let is_told = |text: &str| {
        let told = "look whether it is done: the direct service `h-direct`";
        let all = of(text);
        all.iter()
            .any(|one| one.first.iter().any(|step| step.starts_with(told)))
    };
    let snippet = of(&text)[0].snippet.clone().expect("a snippet");
    let with = format!("{text}{snippet}");
    assert!(is_told(&with) && !is_told(&text));
    assert!(!is_told(&with.replacen("port = 80\n", "port = 81\n", 1)));
    assert!(!is_told(&format!(
        "{with}\n[[service.backend]]\naddress = '10.0.0.3'\n"
    )));
}

#[test]
fn hosts_that_share_routes_belong_together() {
    let hosts = |name: &str, hosts: &str| {
        route(
            name,
            &format!("hosts = [{hosts}]\npath = '/{name}'\nupstream = 'app'\nbody_limit = 9\n{OPEN}"),
        )
    };
    let routes = hosts("one", "'a.example', 'b.example'")
        + &hosts("two", "'c.example'")
        + &hosts("three", "'d.example', '*.example'")
        + &hosts("four", "'c.example', 'b.example', 'e.example'");
    let mut all: Vec<(String, String)> = of(&with_listeners(&listener("web", "198.51.100.7:80"), &routes))
        .into_iter()
        .map(|one| {
            let routes: Vec<String> = one.routes.into_iter().map(|route| route.name).collect();
            (one.names.join(" "), routes.join(" "))
        })
        .collect();
    all.sort();
    let want = [
        ("*.example d.example", "three"),
        ("a.example b.example c.example e.example", "one two four"),
    ];
    assert_eq!(
        all,
        want.map(|(hosts, routes)| (hosts.to_owned(), routes.to_owned()))
    );
}
