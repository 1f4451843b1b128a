//! Names that the pages mention are names that the code has: metrics, reasons, offences, keys.

use std::collections::BTreeSet;

use edge_common::abi;

use super::{Page, pages, rows, spans};
use crate::{
    admin,
    auth::{Defect, Refusal},
    config,
    gateway::{self, Closing},
    offence::OffenceKind,
};

/// One of each.
fn refusals() -> [Refusal; 21] {
    let scope = "read".into();
    let (provider, may_come) = (0, false);
    [
        Refusal::Missing,
        Refusal::Malformed(Defect::Parts),
        Refusal::Ambiguous,
        Refusal::CriticalExtension,
        Refusal::AlgorithmRefused,
        Refusal::AlgorithmMismatch,
        Refusal::UnknownKey { provider, may_come },
        Refusal::KeysUnavailable { provider, may_come },
        Refusal::BadSignature,
        Refusal::WrongType,
        Refusal::WrongIssuer,
        Refusal::WrongAudience,
        Refusal::Expired,
        Refusal::NoExpiry,
        Refusal::NotYetValid,
        Refusal::IssuedInFuture,
        Refusal::TooLongLived,
        Refusal::Revoked,
        Refusal::UnfitClaim,
        Refusal::MissingScope { scope },
        Refusal::ClaimMismatch,
    ]
}

fn page(path: &str) -> Page {
    pages().into_iter().find(|page| page.path == path).expect(path)
}

/// The rows under one heading, as the names in their first cell and the other cells.
fn table<'p>(page: &'p str, heading: &str) -> Vec<(Vec<&'p str>, Vec<&'p str>)> {
    let rows = rows(page, heading).into_iter();
    rows.map(|row| (spans(row[0]).collect(), row[1..].to_vec()))
        .collect()
}

fn names<'p>(table: &[(Vec<&'p str>, Vec<&'p str>)]) -> Vec<&'p str> {
    table
        .iter()
        .flat_map(|(names, _)| names.iter().copied())
        .collect()
}

#[test]
fn every_metric_that_a_page_mentions_is_told() {
    let told: BTreeSet<String> = admin::metrics::ALL.iter().map(|family| family.name()).collect();
    let is_told = |word: &str| {
        let stems = ["", "_bucket", "_sum", "_count"].map(|suffix| word.strip_suffix(suffix));
        stems.into_iter().flatten().any(|name| told.contains(name))
    };
    let mut seen = 0;
    for Page { path, text } in pages() {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        for word in words.filter(|word| word.starts_with("breakwater_") || word.starts_with("process_")) {
            // The package's file is `breakwater_*.deb`.
            assert!(
                word == "breakwater_" || is_told(word),
                "{path}: {word} is no metric"
            );
            seen += 1;
        }
    }
    assert!(seen > 70, "{seen}");
}

#[test]
fn every_reason_in_a_table_is_one() {
    let mut known: BTreeSet<&str> = abi::Reason::ALL.iter().map(|reason| reason.name()).collect();
    known.extend(gateway::Reason::ALL.iter().map(|reason| reason.slug()));
    known.extend(Closing::ALL.iter().map(|closing| closing.slug()));
    known.extend(refusals().iter().map(Refusal::reason));
    let mut seen = 0;
    for Page { path, text } in pages() {
        let mut named = names(&table(&text, "reason"));
        named.extend(names(&table(&text, "reason (metric label)")));
        for (_, cells) in table(&text, "the upstream") {
            named.extend(cells.last().into_iter().flat_map(|cell| spans(cell)));
        }
        for name in named {
            assert!(known.contains(name), "{path}: {name} is no reason");
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen}");
}

#[test]
fn the_page_about_tokens_has_every_refusal_with_its_answer() {
    let page = page("docs/authentication.md");
    let table = table(&page.text, "reason (metric label)");
    for refusal in refusals() {
        let name = refusal.reason();
        let (_, cells) = table
            .iter()
            .find(|(names, _)| names.contains(&name))
            .unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(cells[0], refusal.status().to_string(), "{name}");
        let code = refusal
            .code()
            .map_or("none".to_owned(), |code| format!("`{code}`"));
        assert_eq!(cells[1], code, "{name}");
    }
    assert_eq!(names(&table).len(), refusals().len());
}

#[test]
fn the_page_about_listeners_has_every_closing_with_its_offence() {
    let page = page("docs/listeners.md");
    let table = table(&page.text, "reason");
    let all: Vec<&str> = Closing::ALL.iter().map(|closing| closing.slug()).collect();
    let mut named = names(&table);
    named.sort_by_key(|name| all.iter().position(|known| known == name));
    assert_eq!(named, all);
    for closing in Closing::ALL {
        let (_, cells) = table
            .iter()
            .find(|(names, _)| names.contains(&closing.slug()))
            .expect("checked");
        let offence = closing.offence().map(OffenceKind::name);
        assert_eq!(spans(cells[1]).next(), offence, "{}", closing.slug());
    }
}

#[test]
fn troubleshooting_has_every_reason_of_the_shield_in_the_code_s_words() {
    let page = page("docs/troubleshooting.md");
    let (packets, requests) = page
        .text
        .split_once("## Why a request was refused")
        .expect("both parts");
    let told = table(packets, "reason");
    for reason in abi::Reason::ALL {
        let name = reason.name();
        let (_, cells) = told
            .iter()
            .find(|(names, _)| *names == [name])
            .unwrap_or_else(|| panic!("{name} is missing"));
        assert!(cells[0].starts_with(reason.text()), "{name}: {}", reason.text());
        // The first table is of what is dropped, and has a third column.
        let drops = matches!(reason.outcome(), abi::Outcome::Drop);
        assert_eq!(cells.len() == 2, drops, "{name}");
    }
    assert_eq!(told.len(), abi::Reason::ALL.len());

    let told = table(requests, "reason");
    for reason in gateway::Reason::ALL {
        let (_, cells) = told
            .iter()
            .find(|(names, _)| *names == [reason.slug()])
            .unwrap_or_else(|| panic!("{} is missing", reason.slug()));
        assert_eq!(cells[0], reason.status().to_string(), "{}", reason.slug());
    }
    assert_eq!(told.len(), gateway::Reason::ALL.len());
}

/// `section.key` between backquotes, where the section is one of the configuration's.
#[test]
fn every_key_that_a_page_mentions_is_one() {
    let sections = config::sections();
    let mut seen = 0;
    for Page { path, text } in pages() {
        let prose = text.lines().filter(|line| !line.starts_with("    "));
        for span in prose.flat_map(spans) {
            let name = span.split([' ', '=', '[']).next().unwrap_or_default();
            let Some((section, key)) = name.rsplit_once('.') else {
                continue;
            };
            let is_word =
                |word: &str| !word.is_empty() && word.bytes().all(|c| c.is_ascii_lowercase() || c == b'_');
            if name != span || section.is_empty() || !is_word(key) {
                continue;
            }
            if let Some((_, keys)) = sections.iter().find(|(known, _)| *known == section) {
                assert!(keys.contains(&key), "{path}: `{span}` is no key");
                seen += 1;
            }
        }
    }
    assert!(seen >= 40, "{seen}");
}
