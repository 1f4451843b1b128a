//! What operators and their machines see of a running daemon: metrics, health, the admin API.
//!
//! Runs on a thread of its own, so that nothing that is asked of it delays a request, a packet or a ban. Reads what the
//! others have counted and asks them to do things; decides nothing itself. Never shows a secret.

pub mod metrics;
