//! Whether a request shows what its listener asks for.

use std::{path::Path, sync::Arc};

use aws_lc_rs::{constant_time, digest};
use http::{HeaderMap, StatusCode, header};

use crate::{
    admin::problem::Problem,
    config::{keyfile::Fault, read_token},
};

/// What a listener asks of each request.
#[derive(Clone)]
pub(super) struct Guard(Asks);

#[derive(Clone)]
enum Asks {
    /// Nothing more: who came in was known.
    Nothing,
    /// The impossible: who came in is nobody's business to serve.
    Impossible,
    /// A bearer token with this SHA-256, which has one length whatever the token's is.
    Token(Arc<[u8]>),
}

impl Guard {
    /// Asks for nothing.
    pub(super) const fn open() -> Self {
        Self(Asks::Nothing)
    }

    /// Refuses everything.
    pub(super) const fn closed() -> Self {
        Self(Asks::Impossible)
    }

    /// Asks for the token in a file.
    ///
    /// # Errors
    /// The file cannot be used.
    pub(super) fn token(file: &Path) -> Result<Self, Fault> {
        let token = read_token(file)?;
        Ok(Self(Asks::Token(sha256(&token).into())))
    }

    /// Whether a request with these fields may go on.
    ///
    /// # Errors
    /// 401 or 403.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        match &self.0 {
            Asks::Nothing => Ok(()),
            Asks::Impossible => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "only root, the daemon's user and members of `admin.group` may use this socket",
            )),
            Asks::Token(wanted) => {
                let shown = bearer(headers).map(sha256);
                match shown {
                    Some(shown) if constant_time::verify_slices_are_equal(&shown, wanted).is_ok() => Ok(()),
                    _ => Err(Problem::new(
                        StatusCode::UNAUTHORIZED,
                        "send `Authorization: Bearer` with the token of `admin.token_file`",
                    )),
                }
            }
        }
    }
}

/// The one bearer token of a request (RFC 6750, 2.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let (field, None) = (fields.next()?.as_bytes(), fields.next()) else {
        return None;
    };
    let (scheme, token) = field.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii())
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, bytes).as_ref().to_vec()
}
