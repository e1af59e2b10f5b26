//! Options of the output on stderr.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    /// Each step is shown.
    pub verbose: bool,
    /// Only errors are shown.
    pub quiet: bool,
    pub format: Format,
    /// distlock runs in a recognised CI system, so a long wait is shown in its log.
    pub ci: bool,
}

/// Format of the lines on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}
