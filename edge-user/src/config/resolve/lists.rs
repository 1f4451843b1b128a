//! The allow and the deny list: what stands in the configuration and in the files it names, each network once.
//!
//! A list may have a million entries, so everything here is a sort or one pass. What is in a file is shown only
//! where it looks like an address: the wrong file may have been named, and that may be a secret one.

use ipnet::IpNet;

use super::Checks;
use crate::config::{
    MAX_FILE_BYTES, MAX_PROBLEMS,
    problem::{Elsewhere, Finding, Place},
    raw::RawShield,
    section::{Field, Key},
    source::{self, ReadError, Source},
    trusted::{self, Exposure, Fault, Terms},
    value::{self, BadText, Item},
};

/// The networks to allow and those to deny, in the order of addresses.
pub(super) fn lists(raw: &RawShield, checks: &mut Checks<'_>) -> (Vec<IpNet>, Vec<IpNet>) {
    let allow = List::read(&raw.allow, &raw.allow_file, checks);
    let deny = List::read(&raw.deny, &raw.deny_file, checks);
    contradictions(&allow, &deny, checks);
    (allow.networks(), deny.networks())
}

/// One list with where its entries come from.
struct List<'r> {
    inline: Option<&'r Field<Vec<Item<IpNet>>>>,
    file: Option<ListFile<'r>>,
    /// In order, each network once, by its first place.
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    network: IpNet,
    origin: Origin,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    /// Index in the list of the configuration.
    Inline(usize),
    /// Offset in the file.
    File(usize),
}

struct ListFile<'r> {
    shown: String,
    text: String,
    at: &'r Place,
}

impl ListFile<'_> {
    /// Reports `message` where `span` lies in the file.
    fn error(
        &self,
        source: &Source<'_>,
        span: &std::ops::Range<usize>,
        BadText { message, help, .. }: BadText,
        checks: &mut Checks<'_>,
    ) {
        let is_fit = self.text.get(span.clone()).is_some_and(is_like_an_address);
        let message = if is_fit {
            message
        } else {
            "this is not a network in CIDR form".to_owned()
        };
        let elsewhere = Elsewhere::new(&self.shown, source, span, is_fit);
        checks.findings.push(
            Finding::error(self.at.clone(), message)
                .help(help)
                .within(elsewhere),
        );
    }
}

impl<'r> List<'r> {
    fn read(inline: &'r Key<Vec<Item<IpNet>>>, file: &'r Key<String>, checks: &mut Checks<'_>) -> Self {
        let most = checks.options.max_list;
        checks.bounded(inline, most);
        let inline = inline.field();
        let mut entries: Vec<_> = inline
            .map_or(&[][..], |field| &field.value)
            .iter()
            .enumerate()
            .map(|(index, item)| Entry {
                network: item.value,
                origin: Origin::Inline(index),
            })
            .collect();
        let is_small = entries.len() <= most;
        let file = file.field().and_then(|field| open(field, checks));
        if let Some(file) = &file
            && parse(file, &mut entries, most, checks).is_err()
            && is_small
        {
            let with = if inline.is_some() {
                ", with those given beside it,"
            } else {
                ""
            };
            checks.error(
                file.at,
                format!(
                    "{}{with} has more than the {most} entries allowed",
                    file.at.subject()
                ),
            );
        }
        merge(&mut entries);
        Self {
            inline,
            file,
            entries,
        }
    }

    fn networks(&self) -> Vec<IpNet> {
        self.entries.iter().map(|entry| entry.network).collect()
    }
}

fn merge(entries: &mut Vec<Entry>) {
    entries.sort_unstable();
    entries.dedup_by_key(|entry| entry.network);
}

/// Reads the file; whatever prevents that is reported.
fn open<'r>(field: &'r Field<String>, checks: &mut Checks<'_>) -> Option<ListFile<'r>> {
    let Field { value, at } = field;
    let path = checks.base_dir.join(value);
    let terms = Terms {
        exposure: Exposure::Public,
        most_bytes: MAX_FILE_BYTES,
        may_be_empty: true,
    };
    let opened = match trusted::open(&path, terms) {
        Ok(file) => file,
        Err(Fault { message, help }) => {
            checks.error_help(at, message, help);
            return None;
        }
    };
    let mut file = ListFile {
        shown: path.display().to_string(),
        text: String::new(),
        at,
    };
    match source::text(opened) {
        Ok(text) => file.text = text,
        Err(ReadError::NotUtf8 { before, byte }) => {
            let end = before.len()..before.len();
            let elsewhere = Elsewhere::new(&file.shown, &Source::new(&before), &end, false);
            let message = format!("the file is not UTF-8: byte 0x{byte:02x} is out of place");
            checks.findings.push(
                Finding::error(at.clone(), message)
                    .help("one network a line; `#` starts a comment")
                    .within(elsewhere),
            );
            return None;
        }
        Err(ReadError::Io(error)) => {
            let Fault { message, help } = trusted::unreadable(&path, &error);
            checks.error_help(at, message, help);
            return None;
        }
        Err(ReadError::TooLarge) => {
            checks.error(
                at,
                format!("{} is larger than {MAX_FILE_BYTES} bytes", file.shown),
            );
            return None;
        }
    }
    Some(file)
}

/// The file has more different networks than a list may have.
struct TooMany;

/// Adds the networks of the file; lines that are none are reported.
fn parse(
    file: &ListFile<'_>,
    entries: &mut Vec<Entry>,
    most: usize,
    checks: &mut Checks<'_>,
) -> Result<(), TooMany> {
    let mut bad = Vec::new();
    let mut omitted = 0;
    let mut start = 0;
    let mut result = Ok(());
    for line in file.text.split_inclusive('\n') {
        let line_start = start;
        start += line.len();
        let content = line.split('#').next().unwrap_or_default();
        let network = content.trim();
        if network.is_empty() {
            continue;
        }
        let offset = line_start + (content.len() - content.trim_start().len());
        match value::network(network) {
            Ok(network) => entries.push(Entry {
                network,
                origin: Origin::File(offset),
            }),
            Err(error) if bad.len() < MAX_PROBLEMS => bad.push((offset..offset + network.len(), error)),
            Err(_) => omitted += 1,
        }
        // Doubles are merged when there are about as many of them as there may be entries: rarely enough to be cheap.
        if entries.len() > most.saturating_mul(2) {
            merge(entries);
            if entries.len() > most {
                result = Err(TooMany);
                break;
            }
        }
    }
    merge(entries);
    if entries.len() > most {
        result = Err(TooMany);
    }
    if !bad.is_empty() {
        let source = Source::new(&file.text);
        for (span, error) in bad {
            file.error(&source, &span, error, checks);
        }
        checks.findings.omit(omitted);
    }
    result
}

/// Whether a text from a file may be shown: it is what an address is made of, and neither a word nor a number.
fn is_like_an_address(text: &str) -> bool {
    const LONGEST: usize = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255/128".len();
    text.len() <= LONGEST
        && text.contains(['.', ':'])
        && text
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':' | b'/'))
}

/// Reports every network that is in both lists, where the deny list has it.
fn contradictions(allow: &List<'_>, deny: &List<'_>, checks: &mut Checks<'_>) {
    let mut allowed = allow.entries.iter().map(|entry| entry.network).peekable();
    let mut both = deny.entries.iter().filter(|entry| {
        while allowed.next_if(|network| *network < entry.network).is_some() {}
        allowed.peek() == Some(&entry.network)
    });
    let first: Vec<_> = both.by_ref().take(MAX_PROBLEMS).collect();
    let omitted = both.count();
    if first.is_empty() {
        return;
    }
    let source = deny.file.as_ref().map(|file| (file, Source::new(&file.text)));
    for Entry { network, origin } in first {
        let message = format!("`{network}` is both allowed and denied");
        let help = "remove it from one of the two lists";
        match (origin, deny.inline, &source) {
            (Origin::Inline(index), Some(inline), _) => {
                let at = inline.value.get(*index).map(|item| item.at(&inline.at));
                checks.error_help(at.as_ref().unwrap_or(&inline.at), message, help);
            }
            (Origin::File(offset), _, Some((file, source))) => {
                let rest = file.text.get(*offset..).unwrap_or_default();
                let length = rest
                    .find(|c: char| c.is_whitespace() || c == '#')
                    .unwrap_or(rest.len());
                file.error(
                    source,
                    &(*offset..offset + length),
                    BadText::new(message, help),
                    checks,
                );
            }
            (Origin::Inline(_), None, _) | (Origin::File(_), _, None) => {}
        }
    }
    checks.findings.omit(omitted);
}
