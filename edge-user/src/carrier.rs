//! What carries tokens in a request: cookies and query parameters, found and taken out.
//!
//! Shared by authentication, which finds tokens, and the gateway, which takes them out before it forwards: both must
//! read the same bytes the same way. Works on bytes and keeps every byte of what it does not take out.

pub mod cookie;
pub mod query;
