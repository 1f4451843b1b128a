//! Where things stand in a configuration, kept for mistakes that only show later: a key that cannot be parsed, a
//! revocation that means nothing. They are told like all others, with file, line and key.

use super::{
    Problem,
    problem::{Finding, Place, escape},
    raw::RawConfig,
    resolve::items,
    section::Section,
    source::Source,
};

/// Where the sections of one configuration and their keys stand; free of its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The file as a whole: an error at its beginning, without words.
    whole: Problem,
    providers: Vec<SectionPlaces>,
    routes: Vec<SectionPlaces>,
    gateway: Option<SectionPlaces>,
}

/// A section of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// `[[provider]]`: index into [`Config::providers`](super::Config::providers).
    Provider(usize),
    /// `[[route]]`: index into [`Config::routes`](super::Config::routes).
    Route(usize),
    /// `[gateway]`.
    Gateway,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct SectionPlaces {
    /// The section itself, in the same form.
    at: Problem,
    keys: Vec<(&'static str, Problem)>,
}

impl Places {
    pub(super) fn new(raw: &RawConfig, origin: &str, source: &Source<'_>) -> Self {
        let spot = |at: &Place| Finding::error(at.clone(), "").locate(origin, source);
        Self {
            whole: spot(raw.at()),
            providers: sections(items(&raw.provider).iter().map(|item| &item.value), spot),
            routes: sections(items(&raw.route).iter().map(|item| &item.value), spot),
            gateway: sections(raw.gateway.value(), spot).pop(),
        }
    }

    /// An error in `subject`, at the first of `keys` that it has, else at the section itself.
    pub fn problem(&self, subject: Subject, keys: &[&str], message: impl Into<String>) -> Problem {
        let section = match subject {
            Subject::Provider(index) => self.providers.get(index),
            Subject::Route(index) => self.routes.get(index),
            Subject::Gateway => self.gateway.as_ref(),
        };
        let given = section.and_then(|section| {
            keys.iter()
                .find_map(|wanted| section.keys.iter().find(|(key, _)| key == wanted))
        });
        let spot = given.map_or_else(
            || section.map_or(&self.whole, |section| &section.at),
            |(_, spot)| spot,
        );
        let mut problem = spot.clone();
        problem.message = escape(&message.into());
        problem
    }
}

fn sections<'r, S: Section + 'r>(
    raw: impl IntoIterator<Item = &'r S>,
    spot: impl Fn(&Place) -> Problem,
) -> Vec<SectionPlaces> {
    raw.into_iter()
        .map(|section| SectionPlaces {
            at: spot(section.at()),
            keys: section.given().map(|(key, at)| (key, spot(at))).collect(),
        })
        .collect()
}
