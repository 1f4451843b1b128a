//! What each route did, minute by minute, for weeks: kept in SQLite, compared on demand.
//!
//! A thread of its own reads what the workers have counted, once a cell (a minute by default), and stores the difference; a
//! request pays nothing for it. What cannot be stored is lost and counted: the history never stops the traffic, nor the
//! daemon's start. Holds names of routes, counts and times, nothing of a client.
//!
//! Statistics ([`compare`]) are pure functions of cells.

mod cell;
mod chart;
pub mod compare;
mod period;
pub mod question;
mod recorder;
mod store;
mod text;

pub use cell::Cell;
pub(crate) use question::moment;
pub use recorder::{Keeper, News, Recorder, Snapshot, State};
pub use store::{Bounds, Change, Reader, RouteSpan, Store, StoreError};
pub use text::render;
