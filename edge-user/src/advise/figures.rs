//! What the history has measured of each route within a period.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    config::{History, bounds},
    history::{Cell, Reader, StoreError},
};

/// The period if nobody says how long.
pub const USUAL: Duration = Duration::from_hours(24);

/// The longest period: as long as a history can be.
const LONGEST: Duration = bounds::HISTORY.1;

/// Reads how long a period is; an error is what is wrong with it.
///
/// # Errors
/// It is no duration, or out of bounds.
pub fn last(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time of the history; as in 24h or 7d, from 1s to 3 years");
    let duration = humantime::parse_duration(text).map_err(|_| wrong())?;
    if (Duration::from_secs(1)..=LONGEST).contains(&duration) {
        Ok(duration)
    } else {
        Err(wrong())
    }
}

/// From when to when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    /// Seconds since the epoch.
    pub from: i64,
    /// Later than `from`.
    pub to: i64,
}

impl Period {
    /// How long it is.
    pub fn seconds(self) -> f64 {
        (self.to - self.from).max(1) as f64
    }

    /// What came within it, as much as a day would have at this rate.
    pub fn a_day(self, amount: f64) -> f64 {
        amount / self.seconds() * 86_400.0
    }
}

/// What a route did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Requests.
    pub requests: u64,
    /// The gateway's own time of all of them, seconds.
    pub seconds: f64,
    /// The gateway's own time of half of them was at most this, seconds.
    pub p50: f64,
}

impl From<&Cell> for Measured {
    fn from(sum: &Cell) -> Self {
        Self {
            requests: sum.requests(),
            seconds: sum.tax.sum_ns as f64 / 1e9,
            p50: sum.tax.quantile_ns(0.5) / 1e9,
        }
    }
}

/// Everything that was measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// When.
    pub period: Option<Period>,
    /// Why there is nothing.
    pub unmeasured: Option<String>,
    /// By route; one that is not here was not measured.
    pub routes: BTreeMap<String, Measured>,
}

impl Figures {
    fn none(why: String) -> Self {
        Self {
            unmeasured: Some(why),
            ..Self::default()
        }
    }
}

/// Reads what was measured in the `last` time before `now` (seconds since the epoch), as far as the history goes back. That
/// there is nothing is no error.
///
/// # Errors
/// The file is there and cannot be read.
pub fn measure(history: Option<&History>, last: Duration, now: i64) -> Result<Figures, StoreError> {
    let Some(history) = history else {
        return Ok(Figures::none("the configuration has no `[history]`".to_owned()));
    };
    let path = &history.path;
    // Where nobody may look, opening it tells why.
    if path.try_exists().is_ok_and(|exists| !exists) {
        return Ok(Figures::none(format!("there is no file {} yet", path.display())));
    }
    let reader = Reader::open(path)?;
    let spans = reader.routes()?;
    let each = history.every.as_secs().max(1).cast_signed();
    let down = |at: i64| at.div_euclid(each) * each;
    let last = last.as_secs().cast_signed().max(each);
    // The cell that is not over is not there yet.
    let to = down(now);
    let begin = spans.iter().map(|span| span.first).min().unwrap_or(to);
    let from = down(to - last).max(begin);
    let nothing = "the history is empty: its first cell is not over yet, or nobody asked for anything";
    if from >= to {
        return Ok(Figures::none(nothing.to_owned()));
    }
    let mut routes = BTreeMap::new();
    for span in spans {
        let mut sum = Cell::default();
        for (_, cell) in reader.cells(&span.name, from, to)? {
            sum.merge(&cell);
        }
        if !sum.is_empty() {
            routes.insert(span.name, Measured::from(&sum));
        }
    }
    Ok(Figures {
        period: Some(Period { from, to }),
        unmeasured: None,
        routes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Store;

    fn settings(path: std::path::PathBuf) -> History {
        History {
            path,
            keep: Duration::from_hours(1000),
            max_bytes: 64 << 20,
            every: Duration::from_mins(1),
        }
    }

    #[test]
    fn figures_are_the_sums_of_the_cells_within_the_period_and_no_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = settings(folder.path().join("history.db"));
        let bounds = crate::history::Bounds {
            keep: settings.keep,
            max_bytes: settings.max_bytes,
        };
        let (mut store, _) = Store::open(&settings.path, bounds, 0).expect("opened");
        let empty = measure(Some(&settings), USUAL, 100_020).expect("read");
        assert_eq!(empty.period, None);
        assert!(empty.unmeasured.is_some_and(|why| why.contains("is empty")));
        for at in (60_000..=100_020).step_by(60) {
            let mut cell = Cell::default();
            cell.statuses[1] = 10;
            cell.tax.sum_ns = 5_000_000;
            cell.tax.count = 10;
            cell.tax.buckets.insert(100, 10);
            store
                .record(at, &[("api".to_owned(), cell)], at)
                .expect("written");
        }
        // The cell at 100,020 is not over.
        let hour = measure(Some(&settings), Duration::from_hours(1), 100_050).expect("read");
        assert_eq!(
            hour.period,
            Some(Period {
                from: 96_420,
                to: 100_020
            })
        );
        let api = &hour.routes["api"];
        assert_eq!(api.requests, 600);
        assert!((api.seconds - 0.3).abs() < 1e-9, "{api:?}");
        assert!(api.p50 > 0.0);
        // The history begins later than a day before.
        let day = measure(Some(&settings), USUAL, 100_050).expect("read");
        assert_eq!(
            day.period,
            Some(Period {
                from: 60_000,
                to: 100_020
            })
        );
        assert_eq!(day.routes["api"].requests, 6670);
        assert_eq!(day.routes.len(), 1);
        // Long after the last cell there is a period, and no figure.
        let later = measure(Some(&settings), Duration::from_hours(1), 200_040).expect("read");
        assert!(later.period.is_some() && later.routes.is_empty());
    }

    #[test]
    fn periods_are_read_or_refused() {
        for (text, want) in [
            ("24h", Some(86_400)),
            ("7d", Some(7 * 86_400)),
            ("1s", Some(1)),
            ("999ms", None),
            ("4years", None),
            ("", None),
            ("soon", None),
            ("-1h", None),
        ] {
            assert_eq!(last(text).ok().map(|last| last.as_secs()), want, "{text}");
        }
    }

    #[test]
    fn a_history_that_is_not_there_is_no_error_and_one_that_is_something_else_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let none = measure(None, USUAL, 0).expect("no error");
        assert!(none.unmeasured.is_some_and(|why| why.contains("no `[history]`")));
        let path = folder.path().join("history.db");
        let none = measure(Some(&settings(path.clone())), USUAL, 0).expect("no error");
        assert!(none.unmeasured.is_some_and(|why| why.contains("history.db")));
        std::fs::write(&path, "no database, and long enough to have a head").expect("written");
        let error = measure(Some(&settings(path)), USUAL, 0).expect_err("not ours");
        assert!(error.to_string().contains("history.db"), "{error}");
    }
}
