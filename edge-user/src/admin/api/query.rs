//! The part of a URL after `?`: only what the operation knows, and each once.

use std::str::FromStr;

use crate::admin::{problem::Problem, router::decode};

/// Most entries of one page.
pub(super) const MOST_OF_A_PAGE: usize = 1000;
/// Entries of a page if nobody says how many.
const USUAL_PAGE: usize = 100;

/// Parameters in their order.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Takes a query apart.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let parameters = text.split('&').filter(|part| !part.is_empty()).map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.replace('+', " ");
            Some((decode(name)?, decode(&value)?))
        });
        let parameters: Option<Vec<_>> = parameters.collect();
        let parameters = parameters.ok_or_else(|| Problem::bad("the query is not percent-encoded UTF-8"))?;
        let mut names: Vec<_> = parameters.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        if let Some([twice, _]) = names.array_windows().find(|[one, next]| one == next) {
            return Err(Problem::bad(format!("`{twice}` is given twice")));
        }
        Ok(Self(parameters))
    }

    /// Refuses what is not one of `known`.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Problem> {
        match self.0.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) if known.is_empty() => Err(Problem::bad(format!(
                "unknown parameter `{name}`: this takes none"
            ))),
            Some((name, _)) => Err(Problem::bad(format!(
                "unknown parameter `{name}`: there are {}",
                known.join(", ")
            ))),
        }
    }

    /// The value of a parameter, if it is there.
    pub(super) fn get<T: FromStr>(&self, name: &str, what: &str) -> Result<Option<T>, Problem> {
        let Some((_, value)) = self.0.iter().find(|(own, _)| own == name) else {
            return Ok(None);
        };
        let parsed = value.parse().ok();
        parsed
            .map(Some)
            .ok_or_else(|| Problem::bad(format!("`{name}` is {what}")))
    }

    /// A number within bounds.
    pub(super) fn number(&self, name: &str, usual: u64, least: u64, most: u64) -> Result<u64, Problem> {
        let what = format!("a whole number from {least} to {most}");
        let number = self.get(name, &what)?.unwrap_or(usual);
        if (least..=most).contains(&number) {
            Ok(number)
        } else {
            Err(Problem::bad(format!("`{name}` is {what}")))
        }
    }

    /// How many entries a page has.
    pub(super) fn page(&self) -> Result<usize, Problem> {
        let page = self.number("limit", USUAL_PAGE as u64, 1, MOST_OF_A_PAGE as u64)?;
        Ok(page as usize)
    }
}

/// The page of sorted `entries` after `after`, and where the next begins.
pub(super) fn page<T, K: Ord>(
    entries: Vec<T>,
    key: impl Fn(&T) -> K,
    after: Option<&K>,
    most: usize,
) -> (Vec<T>, Option<K>) {
    let mut rest = entries
        .into_iter()
        .filter(|entry| after.is_none_or(|after| key(entry) > *after));
    let page: Vec<T> = rest.by_ref().take(most).collect();
    let next = rest.next().and_then(|_| page.last().map(&key));
    (page, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_or_out_of_bounds_is_refused() {
        let query = Query::parse("limit=5&after=a%2Fb").expect("a query");
        assert_eq!(query.page().expect("a number"), 5);
        assert_eq!(
            query.get::<String>("after", "").expect("text"),
            Some("a/b".into())
        );
        assert!(query.only(&["limit", "after"]).is_ok() && query.only(&["limit"]).is_err());
        for bad in [
            "limit=0",
            "limit=1001",
            "limit=-1",
            "limit=x",
            "limit=",
            "limit=1e3",
        ] {
            assert!(Query::parse(bad).expect("a query").page().is_err(), "{bad}");
        }
        for bad in ["a=1&a=2", "%zz", "a=%ff"] {
            assert!(Query::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pages_join_without_gap_or_overlap() {
        let all: Vec<u32> = (0..7).collect();
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let (some, next) = page(all.clone(), |entry| *entry, after.as_ref(), 3);
            seen.extend(some);
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, all);
        assert_eq!(page(vec![1, 2], |entry| *entry, None, 2).1, None);
    }
}
