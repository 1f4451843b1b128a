//! Every configuration in the documentation passes the check, and what is shown as wrong fails as shown.
//!
//! A block that begins with ```` ```toml ```` is a whole configuration or a part of one; what a part refers to is added to it.
//! After ```` ```toml wrong ```` the next block has what the check says.

use super::examples::with_keys;
use crate::{
    config::Config,
    documents::{blocks, pages},
};

/// What parts of configurations refer to: kind, name, and how it is defined.
const REFERRED_TO: [(&str, &str, &str); 8] = [
    ("upstream", "app", "endpoints = ['127.0.0.1:3000']"),
    ("upstream", "canary", "endpoints = ['127.0.0.1:3001']"),
    (
        "provider",
        "login",
        "algorithms = ['HS256']\nsecret_file = '/etc/breakwater/jwt.secret'",
    ),
    (
        "provider",
        "sso",
        "algorithms = ['RS256']\npem_file = '/etc/breakwater/sso.pem'\nissuer = 'https://sso.example.org'",
    ),
    ("route", "site", "path = '/'\nupstream = 'app'\nauth = 'none'"),
    (
        "route",
        "login",
        "path = '/login'\nupstream = 'app'\nauth = 'none'",
    ),
    (
        "route",
        "api",
        "path = '/api'\nupstream = 'app'\nauth = 'required'\nproviders = ['login']",
    ),
    ("listener", "web", "address = '127.0.0.1:8080'"),
];

/// A part of a configuration, with what it lacks behind it so that its lines keep their numbers.
fn completed(part: &str) -> String {
    let mut text = part.to_owned();
    let Ok(table) = part.parse::<toml::Table>() else {
        return text;
    };
    let has = |kind: &str, name: &str| {
        let named = |item: &toml::Value| item.get("name").and_then(toml::Value::as_str) == Some(name);
        let items = table.get(kind).and_then(toml::Value::as_array);
        items.is_some_and(|items| items.iter().any(named))
    };
    // A name alone says that it is referred to.
    let words: Vec<&str> = part.split('"').collect();
    let mut wanted: Vec<&str> = words;
    loop {
        let lacking = REFERRED_TO.iter().find(|(kind, name, _)| {
            wanted.contains(name) && !has(kind, name) && !text.contains(&heading(kind, name))
        });
        let Some((kind, name, definition)) = lacking else {
            return text;
        };
        text += &heading(kind, name);
        text += definition;
        text.push('\n');
        wanted.extend(definition.split('\''));
    }
}

fn heading(kind: &str, name: &str) -> String {
    format!("\n[[{kind}]]\nname = '{name}'\n")
}

#[test]
fn every_configuration_passes_the_check() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for page in pages() {
        for block in blocks(&page.text).iter().filter(|block| block.info == "toml") {
            let text = with_keys(&completed(&block.text), dir.path());
            if let Err(error) = Config::parse(&text, &page.path, dir.path()) {
                panic!("{}:{}: {error}", page.path, block.line);
            }
            seen += 1;
        }
    }
    assert!(seen >= 30, "{seen}");
}

#[test]
fn what_is_shown_as_wrong_fails_as_shown() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for page in pages() {
        let blocks = blocks(&page.text);
        for pair in blocks.windows(2).filter(|pair| pair[0].info == "toml wrong") {
            let place = format!("{}:{}", page.path, pair[0].line);
            let error = Config::parse(&pair[0].text, "edge.toml", dir.path()).expect_err(&place);
            let told = error.problems().iter().map(ToString::to_string);
            let told = told.collect::<Vec<_>>().join("\n\n");
            assert_eq!(told.trim_end(), pair[1].text.trim_end(), "{place}");
            seen += 1;
        }
    }
    assert!(seen >= 1, "no page shows a mistake");
}

/// Of each kind of block it is said what it is; a new kind wants a test of its own.
#[test]
fn every_block_is_of_a_known_kind() {
    for page in pages() {
        for block in blocks(&page.text) {
            assert!(
                ["", "text", "toml", "toml wrong"].contains(&block.info),
                "{}:{}: {:?}",
                page.path,
                block.line,
                block.info
            );
        }
    }
}

#[test]
fn a_part_gets_what_it_refers_to_and_nothing_twice() {
    let part = "[[route]]\nname = \"a\"\npath = \"/a\"\nupstream = \"app\"\nauth = \"none\"\n";
    let whole = completed(part);
    assert!(whole.starts_with(part) && whole.matches("[[upstream]]").count() == 1);
    assert_eq!(completed(&whole), whole);
    assert_eq!(completed("[shield]\n"), "[shield]\n");
    // What nobody defines stays undefined.
    let lost = completed(&part.replace("app", "gone"));
    assert!(Config::parse(&lost, "t.toml", std::path::Path::new("")).is_err());
}
