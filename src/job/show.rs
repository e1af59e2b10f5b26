//! How the job reports to the user.

use distlock_core::messages::{FromKeeper, Notice};
use distlock_core::time::Instant;

/// Shows notices to the user. Implementations must not block.
pub(crate) trait Show {
    /// Shows one notice.
    fn notice(&mut self, notice: Notice);

    /// Records a message of the keeper for the report.
    fn record(&mut self, message: &FromKeeper, now: Instant);

    /// Returns when [`Show::refresh`] must be called next at the latest; None if nothing shown changes with time.
    fn wake(&self) -> Option<Instant>;

    /// Updates what changes with time.
    fn refresh(&mut self, now: Instant);

    /// Clears the terminal line before this process stops, because another job gets the terminal.
    fn pause(&mut self);
}
