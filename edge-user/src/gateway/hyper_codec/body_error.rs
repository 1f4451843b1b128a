//! Why a body on its way through hyper ended before its end.

/// An error of a body; the reason lies in the connection's state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// hyper's.
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
    /// Above its limit.
    #[error("body too large")]
    TooLarge,
    /// It could not be coded.
    #[error("cannot compress")]
    Coding(#[from] std::io::Error),
    /// Not over in time.
    #[error("took too long")]
    Late,
    /// Nothing moved.
    #[error("body stalled")]
    Stalled,
    /// A trailer that no client may send.
    #[error("trailer")]
    Trailer,
    /// An HTTP/2 stream was cancelled before its end.
    #[error("stream cancelled")]
    Cancelled(#[source] h2::Error),
}

impl BodyError {
    /// The stream of this body was cancelled.
    pub(super) fn cancelled() -> Self {
        Self::Cancelled(h2::Reason::CANCEL.into())
    }
}
