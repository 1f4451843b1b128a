//! Start, stop and everything between: what ties the kernel, the gateway and the scores together.
//!
//! Owns the order of things: the tables are filled before the program is attached, listeners are bound before
//! anything is attached, and whatever fails takes back what went before. Decides nothing about packets or requests.

mod advise;
mod ask;
mod authenticate;
mod capture;
mod changes;
mod conductor;
mod contents;
mod control;
mod daemon;
mod diff;
mod doctor;
mod earning;
mod enforcer;
mod error;
mod explain;
mod files;
mod handover;
mod lists;
mod manager;
mod proof;
mod quickstart;
pub mod reload;
mod report;
mod sandbox;
mod serving;
mod shield;
mod status;
mod steering;
mod top;
mod verbs;

pub use advise::advise;
pub use ask::ask;
pub use authenticate::TokenGate;
pub use capture::capture;
pub use changes::{Change, What};
pub use daemon::run;
pub use diff::{Shape, Shapes, diff};
pub use doctor::doctor;
pub use error::LifecycleError;
pub use explain::explain;
pub use lists::list;
pub use steering::{service, steer};
pub use top::top;
pub use verbs::{attach, ban, detach, status};
