//! `[[route]]` as written.

use std::time::Duration;

use super::{AuthMode, RawClaim, RawLogin};
use crate::config::{section::section, value::Item};

section! {
    /// One route.
    RawRoute as "route" {
        name: String,
        hosts: Vec<Item<String>>,
        path: String,
        path_exact: String,
        path_template: String,
        path_regex: String,
        methods: Vec<Item<String>>,
        headers: Vec<Item<RawHeaderMatch>>,
        query: Vec<Item<RawQueryMatch>>,
        upstream: String,
        auth: AuthMode,
        providers: Vec<Item<String>>,
        scopes: Vec<Item<String>>,
        claims: Vec<Item<RawClaim>>,
        login: RawLogin,
        timeout: Duration,
    }

    RawHeaderMatch as "route.headers" {
        name: String,
        value: String,
        regex: String,
        present: bool,
    }

    RawQueryMatch as "route.query" {
        name: String,
        value: String,
        regex: String,
        present: bool,
    }
}
