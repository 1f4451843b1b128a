//! `[[limit]]` as the rest of the program sees it: how many requests of whom.

use std::{num::NonZeroU32, time::Duration};

/// `[[limit]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestLimit {
    /// Unique name, told to clients and in logs.
    pub name: String,
    /// Indices of the routes it is for, in order; all routes if empty.
    pub routes: Vec<usize>,
    /// What its requests are counted by; at least one.
    pub by: Vec<LimitKey>,
    /// How many requests in what time.
    pub rate: Option<RequestRate>,
    /// How many requests at once.
    pub concurrent: Option<NonZeroU32>,
    /// For how many keys there is room.
    pub keys: NonZeroU32,
    /// Nothing is refused, only counted.
    pub observe: bool,
    /// Answers to admitted requests say how much is left, too.
    pub tell: bool,
}

/// So many requests in such a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestRate {
    /// Requests.
    pub requests: NonZeroU32,
    /// In this time.
    pub per: Duration,
    /// Requests at once.
    pub burst: NonZeroU32,
}

/// One thing that requests are counted by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LimitKey {
    /// The client's address, IPv6 by its /64.
    Address,
    /// The route.
    Route,
    /// A field of this name, in lower case; the client's address where there is none.
    Header(String),
    /// A claim of the token; the client's address where there is none.
    Claim(Vec<String>),
}
