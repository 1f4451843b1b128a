//! `breakwater advise`: of the running daemon, or of a file and the history that it names.

use std::path::Path;

use super::{LifecycleError, ask, verbs};
use crate::{
    admin::metrics::since_epoch,
    advise,
    cli::{AdviseRequest, Format},
};

/// `breakwater advise`.
///
/// # Errors
/// No daemon answers, or it refuses; the history is there and cannot be read.
pub fn advise(request: &AdviseRequest, bpffs: &Path) -> Result<String, LifecycleError> {
    let (config, last, format) = match request {
        AdviseRequest::Ask(request) => return ask(request, bpffs),
        AdviseRequest::Read { config, last, format } => (config, *last, format),
    };
    let now = since_epoch(std::time::SystemTime::now()) as i64;
    let figures = advise::measure(config.history.as_ref(), last, now)?;
    let report = advise::report(config, figures);
    match format {
        Format::Json => verbs::json(&report),
        Format::Text => Ok(advise::render(&report)),
    }
}
