//! The thread that keeps the history: once a cell, what came since the last.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use super::{Cell, Store, StoreError, store::Bounds};
use crate::{config, gateway::counters::RouteSnapshot};

/// Reads what the workers have counted.
pub type Snapshot = Box<dyn Fn() -> Vec<RouteSnapshot> + Send>;

/// What is to be remembered of changes since it was asked last: when, which kind, what.
pub type News = Box<dyn FnMut() -> Vec<(f64, String, String)> + Send>;

/// How the history does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct State {
    /// The file.
    pub path: PathBuf,
    /// Whether the last cell was written; true before the first.
    pub is_writing: bool,
    /// Why not.
    pub error: Option<String>,
    /// Cells of time that were written.
    pub written: u64,
    /// That were lost.
    pub lost: u64,
    /// Bytes of the file, without its log.
    pub bytes: u64,
}

/// A hold on the history, for whoever reads it.
#[derive(Debug)]
pub struct Keeper {
    /// Where it is, and how long a cell is.
    pub settings: config::History,
    state: Mutex<State>,
}

impl Keeper {
    /// How it does.
    pub fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The thread; it writes what is left when this ends.
#[derive(Debug)]
pub struct Recorder {
    keeper: Arc<Keeper>,
    end: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Recorder {
    /// Starts it.
    ///
    /// # Errors
    /// There is no thread to be had. What is wrong with the file is told in [`Keeper::state`], and tried again.
    pub fn start(settings: config::History, snapshot: Snapshot, news: News) -> std::io::Result<Self> {
        let keeper = Arc::new(Keeper {
            state: Mutex::new(State {
                path: settings.path.clone(),
                is_writing: true,
                ..State::default()
            }),
            settings,
        });
        let (end, ended) = mpsc::channel();
        let mut book = Book {
            keeper: Arc::clone(&keeper),
            store: None,
            before: HashMap::new(),
            snapshot,
            news,
        };
        let thread = thread::Builder::new().name("history".to_owned()).spawn(move || {
            let every = book.keeper.settings.every;
            book.open(now());
            loop {
                let waited = ended.recv_timeout(until_next(every));
                let at = now();
                book.close_cell(at);
                if waited != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
        })?;
        Ok(Self {
            keeper,
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// A hold on it.
    pub fn keeper(&self) -> Arc<Keeper> {
        Arc::clone(&self.keeper)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // One that has panicked has ended too.
            let _ = thread.join();
        }
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Until the present cell ends.
fn until_next(every: Duration) -> Duration {
    let (now, every) = (now().as_nanos(), every.as_nanos().max(1));
    let left = every - now % every;
    // A little later, so that a clock that is corrected does not end it twice.
    Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX)) + Duration::from_millis(20)
}

/// What the thread has.
struct Book {
    keeper: Arc<Keeper>,
    store: Option<Store>,
    before: HashMap<String, Cell>,
    snapshot: Snapshot,
    news: News,
}

impl Book {
    fn open(&mut self, at: Duration) {
        let settings = &self.keeper.settings;
        let bounds = Bounds {
            keep: settings.keep,
            max_bytes: settings.max_bytes,
        };
        match Store::open(&settings.path, bounds, at.as_secs().cast_signed()) {
            Ok((store, aside)) => {
                if let Some(aside) = aside {
                    tracing::error!(path = %settings.path.display(), aside = %aside.display(),
                        "the history was damaged: it is set aside, and begins anew");
                }
                self.store = Some(store);
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Writes what came since the last time, into the cell that has just ended.
    fn close_cell(&mut self, at: Duration) {
        let every = self.keeper.settings.every.as_secs().max(1).cast_signed();
        let seconds = at.as_secs().cast_signed();
        // A cell is closed a moment after it has ended.
        let cell = (seconds - 1).div_euclid(every) * every;
        let mut cells = Vec::new();
        for route in (self.snapshot)() {
            let now = Cell::from(&route);
            let since = match self.before.get(&route.name) {
                Some(before) => now.since(before),
                None => now.clone(),
            };
            if !since.is_empty() {
                cells.push((route.name.clone(), since));
                self.before.insert(route.name, now);
            }
        }
        let news = (self.news)();
        if self.store.is_none() {
            self.open(at);
        }
        let Some(store) = &mut self.store else {
            self.keeper.set(|state| state.lost += 1);
            return;
        };
        let mut written = store.record(cell, &cells, seconds);
        for (at, kind, detail) in &news {
            written = written.and_then(|()| store.change(*at, kind, detail));
        }
        let bytes = store.bytes();
        match written {
            Ok(()) => self.keeper.set(|state| {
                if !state.is_writing {
                    tracing::info!("the history is written again");
                }
                state.is_writing = true;
                state.error = None;
                state.written += 1;
                state.bytes = bytes;
            }),
            Err(error) => {
                self.keeper.set(|state| state.lost += 1);
                self.failed(&error);
                // It is looked at anew when it is needed.
                self.store = None;
            }
        }
    }

    fn failed(&self, error: &StoreError) {
        let text = error.to_string();
        self.keeper.set(|state| {
            if state.error.as_ref() != Some(&text) {
                tracing::error!(
                    error = text,
                    "the history is not written; the traffic is not concerned"
                );
            }
            state.is_writing = false;
            state.error = Some(text);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(path: PathBuf) -> config::History {
        config::History {
            path,
            keep: Duration::from_hours(1),
            max_bytes: 16 << 20,
            every: Duration::from_mins(1),
        }
    }

    fn book(path: PathBuf, snapshot: Snapshot) -> Book {
        Book {
            keeper: Arc::new(Keeper {
                settings: settings(path),
                state: Mutex::default(),
            }),
            store: None,
            before: HashMap::new(),
            snapshot,
            news: Box::new(Vec::new),
        }
    }

    /// Counters that grow by 5 each time, as the workers' do.
    fn growing() -> Snapshot {
        let asked = std::cell::Cell::new(0);
        Box::new(move || {
            asked.set(asked.get() + 5);
            let mut route = RouteSnapshot {
                name: "api".into(),
                ..RouteSnapshot::default()
            };
            route.statuses[1] = asked.get();
            vec![route]
        })
    }

    #[test]
    fn each_cell_has_what_came_in_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("history.db");
        let mut book = book(path.clone(), growing());
        for at in [60, 120, 180] {
            book.close_cell(Duration::from_secs(at) + Duration::from_millis(20));
        }
        // What is left at the end belongs to the cell that is not over.
        book.close_cell(Duration::from_secs(200));
        let reader = super::super::Reader::open(&path).expect("a history");
        let cells = reader.cells("api", 0, 1000).expect("cells");
        let got: Vec<_> = cells.iter().map(|(at, cell)| (*at, cell.requests())).collect();
        assert_eq!(got, [(0, 5), (60, 5), (120, 5), (180, 5)]);
        assert_eq!(reader.routes().expect("routes")[0].last, 180);
        assert_eq!(book.keeper.state().written, 4);
    }

    #[test]
    fn what_is_wrong_with_the_file_is_told_and_costs_cells_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("history.db");
        std::fs::write(&path, "[shield]\ninterfaces = []\n".repeat(50)).expect("written");
        let mut book = book(path.clone(), growing());
        book.close_cell(Duration::from_mins(1));
        let state = book.keeper.state();
        assert!(!state.is_writing && state.lost == 1, "{state:?}");
        assert!(state.error.expect("an error").contains("not a history"));
        // Left alone; and once it is gone, it goes on.
        assert!(
            std::fs::read_to_string(&path)
                .expect("as it was")
                .starts_with("[shield]")
        );
        std::fs::remove_file(&path).expect("removed");
        book.close_cell(Duration::from_mins(2));
        assert_eq!(
            (book.keeper.state().written, book.keeper.state().error),
            (1, None)
        );
    }

    #[test]
    fn what_is_too_old_or_too_much_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("history.db");
        let bounds = Bounds {
            keep: Duration::from_mins(100),
            max_bytes: 1 << 20,
        };
        let (mut store, _) = Store::open(&path, bounds, 0).expect("opened");
        let cell = |at: i64| {
            let mut cell = Cell::default();
            cell.statuses[1] = 1;
            // As many bytes as a busy route has.
            for bucket in 0..100 {
                cell.latency.buckets.insert(bucket, at.unsigned_abs() * 1000 + 1);
            }
            cell.latency.count = cell.latency.buckets.values().sum();
            cell
        };
        for at in (0..60_000).step_by(60) {
            let cells: Vec<_> = (0..20).map(|route| (format!("r{route}"), cell(at))).collect();
            store.record(at, &cells, at).expect("written");
            assert!(store.bytes() <= bounds.max_bytes, "{}", store.bytes());
        }
        let reader = super::super::Reader::open(&path).expect("a history");
        let spans = reader.routes().expect("routes");
        assert_eq!(spans.len(), 20);
        assert!(
            spans
                .iter()
                .all(|span| span.last == 59_940 && span.first >= 59_940 - 6000),
            "{spans:?}"
        );
        assert!(std::fs::metadata(&path).expect("a file").len() <= bounds.max_bytes);
    }

    #[test]
    fn a_damaged_file_of_ours_is_set_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("history.db");
        let mut first = book(path.clone(), growing());
        for at in 1..200 {
            first.close_cell(Duration::from_secs(at * 60));
        }
        drop(first);
        let mut bytes = std::fs::read(&path).expect("a file");
        let from = 4096;
        bytes[from..].fill(0xa5);
        std::fs::write(&path, bytes).expect("written");
        let mut second = book(path.clone(), growing());
        second.close_cell(Duration::from_mins(1));
        assert_eq!(second.keeper.state().error, None);
        let names: Vec<_> = std::fs::read_dir(folder.path())
            .expect("a folder")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("a name")
            })
            .collect();
        assert!(names.iter().any(|name| name.contains(".damaged-")), "{names:?}");
    }

    #[test]
    fn two_processes_add_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("history.db");
        let (mut one, mut other) = (book(path.clone(), growing()), book(path.clone(), growing()));
        one.close_cell(Duration::from_mins(1));
        other.close_cell(Duration::from_mins(1));
        let reader = super::super::Reader::open(&path).expect("a history");
        assert_eq!(reader.cells("api", 0, 60).expect("cells")[0].1.requests(), 10);
    }
}
