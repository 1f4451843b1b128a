//! What the program tells about itself: logs and metrics. Never secrets, never tokens.

pub mod access;
pub mod logging;
pub mod traces;
