//! What is printed, and in which form.

/// What distlock prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    /// Each step is told.
    pub verbose: bool,
    /// Nothing but errors.
    pub quiet: bool,
    /// The form of events on stderr.
    pub format: Format,
    /// In a CI that is recognised, so a long wait is told in the job's log.
    pub ci: bool,
}

/// The form of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}
