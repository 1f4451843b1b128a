//! `docs/routing.md`: each of its configurations is served, and each request written in it gets what is written there.

use std::{fs, path::Path};

use super::support::{Edge, Origin};
use crate::{config::Config, gateway::Limits};

/// A comment `# METHOD TARGET [Name: value …] -> STATUS [LOCATION or BODY]`, or `-> forwarded as TARGET`.
struct Claim {
    request: String,
    method: String,
    answer: String,
}

fn claims(block: &str) -> Vec<Claim> {
    let claim = |line: &str| {
        let (request, answer) = line.strip_prefix("# ")?.split_once(" -> ")?;
        let mut words = request.splitn(3, ' ');
        let (method, target) = (words.next()?, words.next()?);
        let mut lines = format!("{method} {target} HTTP/1.1\r\n");
        let fields = words.next().unwrap_or_default();
        for field in fields.split(" & ").filter(|field| !field.is_empty()) {
            lines += field;
            lines += "\r\n";
        }
        if !lines.to_ascii_lowercase().contains("\r\nhost:") {
            lines += "Host: example.org\r\n";
        }
        Some(Claim {
            request: lines + "\r\n",
            method: method.to_owned(),
            answer: answer.to_owned(),
        })
    };
    block.lines().filter_map(claim).collect()
}

#[test]
fn its_configurations_do_what_it_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/routing.md");
    let page = fs::read_to_string(page).expect("the page");
    let blocks = page
        .split("```toml\n")
        .skip(1)
        .filter_map(|block| block.split_once("```"))
        .map(|(block, _)| block);
    let mut checked = 0;
    for block in blocks {
        let origin = Origin::ok();
        let text = block
            .replace("\"127.0.0.1:8080\"", "\"127.0.0.1:0\"")
            .replace("127.0.0.1:3000", &origin.address.to_string());
        let mut config = match Config::parse(&text, "routing.md", Path::new(".")) {
            Ok(loaded) => loaded.config,
            Err(error) => panic!("{error}"),
        };
        config.workers = std::num::NonZeroU32::new(1);
        let edge = Edge::start(&config, Limits::default());
        for Claim {
            request,
            method,
            answer,
        } in claims(block)
        {
            let mut client = edge.connect();
            client.send(request.as_bytes());
            let response = client.response_to(&method);
            if let Some(target) = answer.strip_prefix("forwarded as ") {
                assert_eq!(response.status, 200, "{request}");
                assert_eq!(
                    origin.last().line(),
                    format!("{method} {target} HTTP/1.1"),
                    "{request}"
                );
            } else {
                let (status, rest) = answer.split_once(' ').unwrap_or((&answer, ""));
                assert_eq!(response.status.to_string(), status, "{request}{}", response.body);
                let said = response.field("location").unwrap_or(&response.body);
                assert!(said.contains(rest), "{request}{said}");
            }
            checked += 1;
        }
    }
    assert!(checked >= 4, "the page has lost its requests: {checked}");
}
