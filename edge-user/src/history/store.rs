//! The file: schema, what is written each cell, what is thrown away, what is read.
//!
//! Write-ahead log: a crash loses at most the cell that was not written yet. Cells of one time and route add up, so that two
//! processes may write while one takes over from the other. A file that is not ours is refused and left alone; one of ours
//! that is damaged is set aside under another name.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

use super::Cell;

/// "bkwr": marks the file as ours (SQLite's `application_id`).
const APPLICATION: i32 = 0x626b_7772;

/// The schema's version.
const VERSION: i32 = 1;

/// So long one process waits for another.
const PATIENCE: Duration = Duration::from_secs(5);

/// Most changes that are kept.
const MOST_CHANGES: i64 = 100_000;

const SCHEMA: &str = "
CREATE TABLE route (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE cell (
    route INTEGER NOT NULL REFERENCES route (id),
    at INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (route, at)
) STRICT, WITHOUT ROWID;
CREATE INDEX cell_at ON cell (at);
CREATE TABLE change (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind TEXT NOT NULL, detail TEXT NOT NULL) STRICT;
";

/// The history cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// What SQLite says.
    #[error("{}: {source}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: rusqlite::Error,
    },
    /// It is some other file.
    #[error("{} is not a history: it is left alone\n  name another file in `history.path`, or move this one away", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// A newer version has written it.
    #[error("{} has format {found}, this version reads {VERSION}: it is left alone\n  move it away to begin anew", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i32,
    },
    /// A damaged one could not be renamed.
    #[error("{} is damaged and cannot be set aside: {source}", path.display())]
    Aside {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// How long.
    pub keep: Duration,
    /// Bytes of the file.
    pub max_bytes: u64,
}

/// The file, to be written.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
    bounds: Bounds,
}

impl Store {
    /// Opens the file, or makes it. Also answers where a damaged one was put.
    ///
    /// # Errors
    /// It is not ours, newer, or cannot be read or written.
    pub fn open(path: &Path, bounds: Bounds, now: i64) -> Result<(Self, Option<PathBuf>), StoreError> {
        match Self::try_open(path, bounds) {
            Err(StoreError::Sqlite { source, .. })
                if source.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) =>
            {
                let aside = PathBuf::from(format!("{}.damaged-{now}", path.display()));
                let failed = |source| StoreError::Aside {
                    path: path.to_owned(),
                    source,
                };
                std::fs::rename(path, &aside).map_err(failed)?;
                for suffix in ["-wal", "-shm"] {
                    // Usually there is none.
                    let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
                }
                Ok((Self::try_open(path, bounds)?, Some(aside)))
            }
            opened => Ok((opened?, None)),
        }
    }

    fn try_open(path: &Path, bounds: Bounds) -> Result<Self, StoreError> {
        let failed = |source| failed(path, source);
        let connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(PATIENCE).map_err(failed)?;
        if !is_ours(&connection, path)? {
            // Before anything is in it.
            connection
                .execute_batch(
                    "PRAGMA page_size = 4096; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;",
                )
                .map_err(failed)?;
            let make = format!(
                "BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
            );
            connection.execute_batch(&make).map_err(failed)?;
        }
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 4194304;",
            )
            .map_err(failed)?;
        let sound: String = connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(failed)?;
        if sound != "ok" {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return Err(failed(rusqlite::Error::SqliteFailure(code, Some(sound))));
        }
        let store = Self {
            connection,
            path: path.to_owned(),
            bounds,
        };
        let pages = (bounds.max_bytes / store.page_bytes()?).max(16);
        store
            .connection
            .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
            .map_err(failed)?;
        Ok(store)
    }

    /// Adds what routes did in the cell that begins at `at` (seconds since the epoch), and throws away what is too old, or
    /// too much.
    ///
    /// # Errors
    /// It is not written then, as a whole.
    pub fn record(&mut self, at: i64, cells: &[(String, Cell)], now: i64) -> Result<(), StoreError> {
        let path = self.path.clone();
        self.try_record(at, cells)
            .map_err(|source| failed(&path, source))?;
        self.prune(now).map_err(|source| failed(&path, source))
    }

    fn try_record(&mut self, at: i64, cells: &[(String, Cell)]) -> rusqlite::Result<()> {
        if cells.is_empty() {
            return Ok(());
        }
        let writing = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut name = writing.prepare_cached("INSERT OR IGNORE INTO route (name) VALUES (?1)")?;
            let mut id = writing.prepare_cached("SELECT id FROM route WHERE name = ?1")?;
            let mut there = writing.prepare_cached("SELECT data FROM cell WHERE route = ?1 AND at = ?2")?;
            let mut put = writing
                .prepare_cached("INSERT OR REPLACE INTO cell (route, at, data) VALUES (?1, ?2, ?3)")?;
            for (route, cell) in cells {
                name.execute([route])?;
                let id: i64 = id.query_row([route], |row| row.get(0))?;
                let blob: Option<Vec<u8>> = there.query_row([id, at], |row| row.get(0)).optional()?;
                let mut sum = blob.and_then(|blob| Cell::decode(&blob)).unwrap_or_default();
                sum.merge(cell);
                put.execute(params![id, at, sum.encode()])?;
            }
        }
        writing.commit()
    }

    /// Adds a change.
    ///
    /// # Errors
    /// It is not written.
    pub fn change(&mut self, at: f64, kind: &str, detail: &str) -> Result<(), StoreError> {
        let insert = "INSERT INTO change (at, kind, detail) VALUES (?1, ?2, ?3)";
        let forget = "DELETE FROM change WHERE id <= (SELECT max(id) FROM change) - ?1";
        self.connection
            .execute(insert, params![at, kind, detail])
            .and_then(|_| self.connection.execute(forget, [MOST_CHANGES]))
            .map(|_| ())
            .map_err(|source| failed(&self.path, source))
    }

    fn prune(&self, now: i64) -> rusqlite::Result<()> {
        let keep = i64::try_from(self.bounds.keep.as_secs()).unwrap_or(i64::MAX);
        let oldest = now.saturating_sub(keep);
        self.connection
            .execute("DELETE FROM cell WHERE at < ?1", [oldest])?;
        self.connection
            .execute("DELETE FROM change WHERE at < ?1", [oldest])?;
        let page = self.page_bytes().unwrap_or(4096);
        // What the log of the next cells takes fits in what is left.
        while self.used_pages()? * page > self.bounds.max_bytes / 10 * 9 {
            let gone = self.connection.execute(
                "DELETE FROM cell WHERE at <= (SELECT min(at) + (max(at) - min(at)) / 20 FROM cell)",
                [],
            )?;
            if gone == 0 {
                break;
            }
        }
        self.connection.execute_batch("PRAGMA incremental_vacuum(2000);")
    }

    fn page_bytes(&self) -> Result<u64, StoreError> {
        pragma(&self.connection, "page_size").map_err(|source| failed(&self.path, source))
    }

    fn used_pages(&self) -> rusqlite::Result<u64> {
        let all = pragma(&self.connection, "page_count")?;
        Ok(all.saturating_sub(pragma(&self.connection, "freelist_count")?))
    }

    /// Bytes that the file has.
    pub fn bytes(&self) -> u64 {
        let pages = pragma(&self.connection, "page_count").unwrap_or(0);
        pages * self.page_bytes().unwrap_or(0)
    }
}

/// Whether the file has what we make; false if it is empty.
fn is_ours(connection: &Connection, path: &Path) -> Result<bool, StoreError> {
    let not_ours = || StoreError::NotOurs {
        path: path.to_owned(),
    };
    let application = match connection.query_row("PRAGMA application_id", [], |row| row.get::<_, i32>(0)) {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => return Err(not_ours()),
        answer => answer.map_err(|source| failed(path, source))?,
    };
    let one = |what: &str| {
        connection
            .query_row(what, [], |row| row.get::<_, i32>(0))
            .map_err(|source| failed(path, source))
    };
    if application == APPLICATION {
        return match one("PRAGMA user_version")? {
            VERSION => Ok(true),
            found => Err(StoreError::Newer {
                path: path.to_owned(),
                found,
            }),
        };
    }
    if application == 0 && one("SELECT count(*) FROM sqlite_schema")? == 0 {
        return Ok(false);
    }
    Err(not_ours())
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    let number: i64 = connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))?;
    Ok(number.unsigned_abs())
}

fn failed(path: &Path, source: rusqlite::Error) -> StoreError {
    StoreError::Sqlite {
        path: path.to_owned(),
        source,
    }
}

/// A route, and from when to when it has cells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteSpan {
    /// Its name.
    pub name: String,
    /// Where its first cell begins, seconds since the epoch.
    pub first: i64,
    /// Where its last cell begins.
    pub last: i64,
}

/// A change of what was in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Counts, from 1.
    pub number: i64,
    /// When, seconds since the epoch.
    pub at: f64,
    /// `start`, `reload` or `upgrade`.
    pub kind: String,
    /// What was different.
    pub detail: String,
}

/// The file, to be read while somebody writes it.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    path: PathBuf,
}

impl Reader {
    /// Opens it.
    ///
    /// # Errors
    /// It is not there, or not a history.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let failed = |source| failed(path, source);
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(PATIENCE).map_err(failed)?;
        if !is_ours(&connection, path)? {
            return Err(StoreError::NotOurs {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            connection,
            path: path.to_owned(),
        })
    }

    /// Every route that has cells, by name.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn routes(&self) -> Result<Vec<RouteSpan>, StoreError> {
        self.rows(
            "SELECT name, min(at), max(at) FROM cell JOIN route ON route.id = cell.route GROUP BY name ORDER BY name",
            [],
            |row| {
                Ok(RouteSpan {
                    name: row.get(0)?,
                    first: row.get(1)?,
                    last: row.get(2)?,
                })
            },
        )
    }

    /// The cells of a route that begin within `from..to`, by time. One that cannot be read is left out.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn cells(&self, route: &str, from: i64, to: i64) -> Result<Vec<(i64, Cell)>, StoreError> {
        let rows = self.rows(
            "SELECT at, data FROM cell WHERE route = (SELECT id FROM route WHERE name = ?1) AND at >= ?2 AND at < ?3 \
             ORDER BY at",
            params![route, from, to],
            |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?)),
        )?;
        let read = rows
            .into_iter()
            .filter_map(|(at, blob)| Some((at, Cell::decode(&blob)?)));
        Ok(read.collect())
    }

    /// The latest `most` changes before `to`, latest first.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn changes(&self, to: f64, most: u64) -> Result<Vec<Change>, StoreError> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        self.rows(
            "SELECT id, at, kind, detail FROM change WHERE at < ?1 ORDER BY id DESC LIMIT ?2",
            params![to, most],
            change,
        )
    }

    /// The change of a number.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn change(&self, number: i64) -> Result<Option<Change>, StoreError> {
        let found = self.rows(
            "SELECT id, at, kind, detail FROM change WHERE id = ?1",
            [number],
            change,
        )?;
        Ok(found.into_iter().next())
    }

    fn rows<T>(
        &self,
        query: &str,
        parameters: impl rusqlite::Params,
        read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let mut prepared = self
            .connection
            .prepare(query)
            .map_err(|source| failed(&self.path, source))?;
        let rows = prepared
            .query_map(parameters, read)
            .and_then(Iterator::collect::<rusqlite::Result<Vec<T>>>);
        rows.map_err(|source| failed(&self.path, source))
    }
}

fn change(row: &rusqlite::Row<'_>) -> rusqlite::Result<Change> {
    Ok(Change {
        number: row.get(0)?,
        at: row.get(1)?,
        kind: row.get(2)?,
        detail: row.get(3)?,
    })
}
