//! From what somebody asks to what the history has: which stretches, and what became of them.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{
    Change, Reader, RouteSpan, StoreError,
    compare::{self, CONFIDENCE, Point, Row, Stretch, point},
    period::{self, With},
};

/// Seconds that are compared if nobody says how many.
const USUAL_LENGTH: i64 = 3600;

/// Longest that is compared, seconds: what has more cells is not drawn again in a moment.
pub const LONGEST: i64 = 7 * 24 * 3600;

/// Changes that an answer has at most.
const MOST_CHANGES: usize = 100;

/// What is asked, as it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// The route.
    pub route: String,
    /// With what: `1 week ago`, `before`, a moment.
    pub with: Option<String>,
    /// How long: `1h`.
    pub length: Option<String>,
    /// The number of a change, or `last`: the time after it is compared.
    pub around: Option<String>,
    /// Where the time ends; now if absent.
    pub until: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    /// An argument makes no sense.
    #[error("`{name}`: {why}")]
    Argument {
        /// Which.
        name: &'static str,
        /// Why.
        why: String,
    },
    /// The history has nothing there.
    #[error("{0}")]
    Missing(String),
    /// It cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Where it begins, seconds since the epoch.
    pub from: i64,
    /// Where it ends.
    pub to: i64,
    /// Requests in it.
    pub requests: u64,
    /// Of them answered with 5xx.
    pub errors: u64,
    /// Cells that have requests.
    pub cells: usize,
    /// How it went.
    pub curve: Vec<Point>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The route.
    pub route: String,
    /// Seconds of a cell.
    pub cell_seconds: u32,
    /// How sure all intervals are together.
    pub confidence: f64,
    /// The earlier time.
    pub before: Side,
    /// The later time.
    pub now: Side,
    /// Each figure.
    pub rows: Vec<Row>,
    /// Changes within the later time.
    pub changes: Vec<Change>,
}

/// Compares two times of a route.
///
/// # Errors
/// What is asked makes no sense, or there is nothing.
pub fn compare(path: &Path, question: &Question, cell_seconds: u32, now: i64) -> Result<Comparison, Wrong> {
    let reader = Reader::open(path)?;
    let spans = reader.routes()?;
    let span = known(&spans, &question.route)?;
    let each = i64::from(cell_seconds.max(1));
    let down = |at: i64| at.div_euclid(each) * each;
    let length = length(question.length.as_deref(), each)?;
    let change = around(question.around.as_deref(), &reader)?;
    let until = match question.until.as_deref() {
        None => now,
        Some(text) => period::moment(text).ok_or_else(|| Wrong::Argument {
            name: "until",
            why: format!("{text:?} is no moment; as in \"2026-11-19 14:00\", in UTC"),
        })?,
    };
    let (from, to) = match &change {
        // The cell in which the change was has both.
        Some(change) => {
            let from = down(change.at as i64) + each;
            (from, down(until.min(from + length)))
        }
        None => (down(until) - length, down(until)),
    };
    if to <= from {
        return Err(Wrong::Missing(format!(
            "the first {} after that are not over yet",
            shown(each)
        )));
    }
    let usual = if change.is_some() { "before" } else { "1 week ago" };
    let text = question.with.as_deref().unwrap_or(usual);
    let with = With::parse(text).ok_or_else(|| Wrong::Argument {
        name: "with",
        why: format!("{text:?} is no time; {}", period::WITH),
    })?;
    let earlier = match with {
        With::Ago(ago) => down(from.saturating_sub(ago.as_secs().cast_signed())),
        With::From(at) => down(at),
        // What is compared with the time after a change ends where the cell of the change begins.
        With::Before if change.is_some() => from - each - (to - from),
        With::Before => from - (to - from),
    };
    // Where there was no history yet, nobody knows what there was.
    let begin = spans.iter().map(|span| span.first).min().unwrap_or(from);
    let side = |asked: i64, to: i64| -> Result<(Side, Stretch), Wrong> {
        let from = asked.max(begin.min(to));
        let cells = reader.cells(&question.route, from, to)?;
        let stretch = Stretch::lay_out(cells, from, to, cell_seconds);
        let sum = stretch.sum();
        if sum.is_empty() {
            return Err(Wrong::Missing(format!(
                "route {:?} has no request from {} to {}; its history is from {} to {}",
                question.route,
                moment(asked),
                moment(to),
                moment(span.first),
                moment(span.last + each)
            )));
        }
        let side = Side {
            from,
            to,
            requests: sum.requests(),
            errors: sum.errors(),
            cells: stretch.asked(),
            curve: stretch.curve(),
        };
        Ok((side, stretch))
    };
    let (now_side, now_stretch) = side(from, to)?;
    let (before, before_stretch) = side(earlier, earlier + (to - from))?;
    let mut changes = reader.changes(to as f64, MOST_CHANGES as u64)?;
    changes.retain(|change| change.at >= (from - each) as f64);
    Ok(Comparison {
        route: question.route.clone(),
        cell_seconds,
        confidence: CONFIDENCE,
        rows: compare::rows(&before_stretch, &now_stretch),
        before,
        now: now_side,
        changes,
    })
}

/// Points of a route from one moment to another, `step` seconds each; one of the whole time if that is no longer than a step.
///
/// # Errors
/// There is no such route, or the file cannot be read.
pub fn series(
    path: &Path,
    route: &str,
    (from, to): (i64, i64),
    step: i64,
) -> Result<Vec<(i64, Point)>, Wrong> {
    let reader = Reader::open(path)?;
    known(&reader.routes()?, route)?;
    let mut points: Vec<(i64, super::Cell)> = Vec::new();
    for (at, cell) in reader.cells(route, from, to)? {
        let at = if to - from <= step {
            from
        } else {
            at.div_euclid(step) * step
        };
        match points.last_mut() {
            Some((last, sum)) if *last == at => sum.merge(&cell),
            _ => points.push((at, cell)),
        }
    }
    let points = points.into_iter();
    Ok(points
        .map(|(at, cell)| (at, point((at - from).max(0).unsigned_abs(), &cell)))
        .collect())
}

fn known<'s>(spans: &'s [RouteSpan], route: &str) -> Result<&'s RouteSpan, Wrong> {
    spans.iter().find(|span| span.name == route).ok_or_else(|| {
        let names: Vec<_> = spans.iter().take(20).map(|span| span.name.as_str()).collect();
        Wrong::Missing(if names.is_empty() {
            "the history is empty: its first cell is not over yet, or nobody asked for anything".to_owned()
        } else {
            format!(
                "there is no history of route {route:?}; there is of {}",
                names.join(", ")
            )
        })
    })
}

fn length(text: Option<&str>, each: i64) -> Result<i64, Wrong> {
    let Some(text) = text else {
        return Ok(USUAL_LENGTH.max(each));
    };
    let wrong = |why: String| Wrong::Argument { name: "for", why };
    let length = humantime::parse_duration(text)
        .map_err(|_| wrong(format!("{text:?} is no duration; as in 30m, 1h or 1day")))?
        .as_secs()
        .cast_signed();
    if !(each..=LONGEST).contains(&length) {
        return Err(wrong(format!(
            "from {} (a cell of the history) to 7 days",
            shown(each)
        )));
    }
    Ok(length / each * each)
}

fn around(text: Option<&str>, reader: &Reader) -> Result<Option<Change>, Wrong> {
    let Some(text) = text else { return Ok(None) };
    let latest = reader.changes(f64::MAX, 1)?;
    let newest = latest.first().map_or(0, |change| change.number);
    let number = match text {
        "last" => newest,
        text => text.parse().map_err(|_| Wrong::Argument {
            name: "around",
            why: format!("{text:?} is not the number of a change, nor `last`"),
        })?,
    };
    let found = reader.change(number)?;
    found.map(Some).ok_or_else(|| {
        Wrong::Missing(if newest == 0 {
            "the history has no change yet".to_owned()
        } else {
            format!("there is no change {number}; the last is {newest}")
        })
    })
}

fn shown(seconds: i64) -> String {
    humantime::format_duration(std::time::Duration::from_secs(seconds.unsigned_abs())).to_string()
}

/// A moment for people, in UTC.
pub(crate) fn moment(at: i64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(at.max(0).unsigned_abs());
    humantime::format_rfc3339_seconds(time)
        .to_string()
        .replace('T', " ")
        .trim_end_matches('Z')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::history::{Cell, Store, compare::Verdict, store::Bounds};

    /// 100,000 s after the epoch.
    const NOW: i64 = 100_020;

    fn history(folder: &Path) -> std::path::PathBuf {
        let path = folder.join("history.db");
        let bounds = Bounds {
            keep: Duration::from_hours(1000),
            max_bytes: 64 << 20,
        };
        let (mut store, _) = Store::open(&path, bounds, 0).expect("opened");
        for at in (60_000..100_000).step_by(60) {
            let mut cell = Cell::default();
            cell.statuses[1] = 100;
            // Twice as slow from 96,420 on: two octaves further.
            cell.latency
                .buckets
                .insert(if at < 96_420 { 200 } else { 216 }, 100);
            cell.latency.count = 100;
            store
                .record(at, &[("api".to_owned(), cell)], at)
                .expect("written");
        }
        store
            .change(96_400.5, "reload", "upstream app changed")
            .expect("written");
        path
    }

    fn ask(with: Option<&str>, around: Option<&str>, length: Option<&str>) -> Question {
        let own = |text: Option<&str>| text.map(ToOwned::to_owned);
        Question {
            route: "api".into(),
            with: own(with),
            length: own(length),
            around: own(around),
            until: None,
        }
    }

    #[test]
    fn times_and_changes_find_their_stretches() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = history(folder.path());
        let got = compare(&path, &ask(Some("5h ago"), None, None), 60, NOW).expect("an answer");
        assert_eq!((got.now.from, got.now.to), (96_420, 100_020));
        assert_eq!((got.before.from, got.before.to), (78_420, 82_020));
        assert_eq!(got.rows[0].verdict, Verdict::Higher);
        assert!(
            (got.rows[0].now / got.rows[0].before - 2.0).abs() < 0.1,
            "{:?}",
            got.rows[0]
        );
        assert_eq!(got.changes.len(), 1);

        let got = compare(&path, &ask(None, Some("last"), Some("30m")), 60, NOW).expect("an answer");
        assert_eq!((got.now.from, got.now.to), (96_420, 98_220));
        assert_eq!((got.before.from, got.before.to), (94_560, 96_360));
        assert_eq!(got.rows[0].verdict, Verdict::Higher);

        let got = compare(&path, &ask(Some("before"), None, Some("20m")), 60, NOW).expect("an answer");
        assert_eq!(got.rows[0].verdict, Verdict::Same);
        let points = series(&path, "api", (96_000, 97_000), 600).expect("points");
        assert_eq!(
            points.iter().map(|(at, _)| *at).collect::<Vec<_>>(),
            [96_000, 96_600]
        );
        assert_eq!(points[0].1.requests, 1000);
        // 97,200 is a multiple of the step, and divides nothing here.
        let whole = series(&path, "api", (96_300, 97_500), 1200).expect("points");
        assert_eq!(whole.len(), 1);
        assert_eq!((whole[0].0, whole[0].1.requests), (96_300, 2000));
    }

    #[test]
    fn what_makes_no_sense_is_told_with_its_argument() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = history(folder.path());
        for (question, want) in [
            (ask(Some("soon"), None, None), "`with`: \"soon\""),
            (ask(None, Some("x"), None), "`around`: \"x\""),
            (ask(None, Some("7"), None), "there is no change 7; the last is 1"),
            (ask(None, None, Some("1s")), "`for`: from 1m"),
            (ask(None, None, Some("8days")), "`for`: from 1m"),
            (ask(None, None, Some("long")), "`for`: \"long\""),
            (ask(Some("1 week ago"), None, None), "has no request from"),
        ] {
            let error = compare(&path, &question, 60, NOW).expect_err(want).to_string();
            assert!(error.contains(want), "{error} for {want}");
        }
        let other = Question {
            route: "apo".into(),
            ..Question::default()
        };
        let error = compare(&path, &other, 60, NOW).expect_err("no route").to_string();
        assert!(error.contains("there is of api"), "{error}");
    }
}
