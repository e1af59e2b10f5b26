//! The wait for the lock as the user sees it: a live line on a terminal, an occasional line in the log of a CI system.
//! Pure: times are passed in.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use distlock_core::duration::show_rounded;
use distlock_core::outcome::Queue;
use distlock_core::record::Record;
use distlock_core::time::Instant;

use super::output::{Format, Output};

/// Minimum interval between two redraws of a live line.
const REDRAW_INTERVAL: Duration = Duration::from_secs(1);
/// Interval between two lines in a log.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// How the wait is shown without `-v`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// One line, redrawn in place.
    Live,
    /// Lines in a log.
    Log,
    Silent,
}

impl Mode {
    /// Returns the mode for this output. `can_redraw` says whether stderr is a terminal on which a line can be redrawn.
    #[must_use]
    pub(super) fn of(output: Output, can_redraw: bool) -> Self {
        match output {
            Output { quiet: true, .. } => Self::Silent,
            Output { ci: true, .. } => Self::Log,
            Output { format: Format::Text, .. } if can_redraw => Self::Live,
            _ => Self::Silent,
        }
    }
}

/// A line about the wait.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WaitingLine {
    /// For people.
    pub text: String,
    /// For programs.
    pub fields: Value,
}

/// The current wait, if any.
#[derive(Debug)]
pub(super) struct Waiting {
    mode: Mode,
    queue: Option<Queue>,
    begun_at: Option<Instant>,
    /// When this holder was observed to replace another one.
    holder_changed_at: Option<Timestamp>,
    due_at: Option<Instant>,
    last_shown_at: Option<Instant>,
}

impl Waiting {
    #[must_use]
    pub(super) fn new(mode: Mode) -> Self {
        Self { mode, queue: None, begun_at: None, holder_changed_at: None, due_at: None, last_shown_at: None }
    }

    #[must_use]
    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// Records the new state of the queue.
    pub(super) fn update(&mut self, queue: Queue, now: Instant, wall: Timestamp) {
        let holder_changed = self.queue.as_ref().is_none_or(|old| holder_key(old) != holder_key(&queue));
        if holder_changed {
            self.holder_changed_at = self.queue.is_some().then_some(wall);
        }
        // Between two holders the lock may be free for a moment, which is not worth a line.
        let worth_a_line = holder_changed && (self.queue.is_none() || queue.holder.is_some() || queue.lock_delay);
        self.begun_at = self.begun_at.or(Some(now));
        self.queue = Some(queue);
        match self.mode {
            Mode::Live => self.due_at = Some(self.last_shown_at.map_or(now, |last| now.max(last + REDRAW_INTERVAL))),
            Mode::Log if worth_a_line => self.due_at = Some(now),
            Mode::Log | Mode::Silent => {}
        }
    }

    /// Ends the wait.
    pub(super) fn end(&mut self) {
        *self = Self::new(self.mode);
    }

    /// Returns when [`Waiting::next_line`] returns a line next.
    #[must_use]
    pub(super) fn wake(&self) -> Option<Instant> {
        self.due_at
    }

    /// Returns the line that is due now, if any.
    pub(super) fn next_line(&mut self, now: Instant, wall: Timestamp) -> Option<WaitingLine> {
        let queue = self.queue.as_ref().filter(|_| self.due_at.is_some_and(|due_at| now >= due_at))?;
        let fields = queue_fields(queue);
        let mut text = sentence(queue, self.holder_changed_at, wall);
        let interval = if self.mode == Mode::Live { REDRAW_INTERVAL } else { LOG_INTERVAL };
        if self.mode == Mode::Log && self.last_shown_at.is_some() {
            let waited = self.begun_at.map_or(Duration::ZERO, |begun_at| now.since(begun_at));
            text += &format!(" (after {})", show_rounded(waited));
        }
        (self.last_shown_at, self.due_at) = (Some(now), Some(now + interval));
        Some(WaitingLine { text, fields })
    }
}

/// Returns the queue as JSON fields; unknown ones are null.
#[must_use]
pub(super) fn queue_fields(queue: &Queue) -> Value {
    json!({ "holder": queue.holder.as_ref().map(record_fields), "ahead": queue.ahead, "lock_delay": queue.lock_delay })
}

/// Returns a record as JSON fields. The records of other tools leave most of them empty.
fn record_fields(holder: &Record) -> Value {
    let Record { id, tool, host, user, pid, command, message, url, since, acquired, stop: _ } = holder;
    let non_empty = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "id": non_empty(id),
        "tool": non_empty(tool),
        "host": non_empty(host),
        "user": non_empty(user),
        "pid": pid,
        "command": non_empty(command),
        "message": message,
        "url": url,
        "since": since,
        "acquired": acquired,
    })
}

/// Returns what distinguishes one holder from another, as far as the record allows.
fn holder_key(queue: &Queue) -> Option<(&str, Option<&String>, Option<u32>)> {
    queue.holder.as_ref().map(|holder| (holder.id.as_str(), holder.since.as_ref(), holder.pid))
}

/// Returns the position in the queue, the holder, since when it holds the lock, and why. The most important comes first,
/// because the end may be cut.
fn sentence(queue: &Queue, holder_changed_at: Option<Timestamp>, wall: Timestamp) -> String {
    let position = queue.ahead.map(|ahead| if queue.lock_delay { ahead + 1 } else { ahead.max(1) });
    let position = position.map_or(String::new(), |position| format!(" at position {position}"));
    let reason = match &queue.holder {
        _ if queue.lock_delay => ": the lock-delay must end first".to_owned(),
        Some(holder) => {
            format!(": held by {}{}{}", holder.summary(), age(holder, holder_changed_at, wall), purpose(holder))
        }
        None => String::new(),
    };
    format!("waiting{position}{reason}")
}

/// Returns for how long the lock has been held. Some records contain only when their author began to wait, which may be long
/// before it acquired the lock.
fn age(holder: &Record, holder_changed_at: Option<Timestamp>, wall: Timestamp) -> String {
    let parse = |text: &Option<String>| text.as_ref().and_then(|text| text.parse::<Timestamp>().ok());
    let waiting_since = || parse(&holder.since).into_iter().chain(holder_changed_at).max();
    let Some(since) = parse(&holder.acquired).or_else(waiting_since) else { return String::new() };
    // The clock of another host may be ahead.
    let age = Duration::try_from(wall.duration_since(since)).unwrap_or(Duration::ZERO);
    // Whole seconds: the clocks of two hosts differ.
    format!(" for {}", show_rounded(Duration::from_secs(age.as_secs())))
}

fn purpose(holder: &Record) -> String {
    let parts: Vec<_> = holder.message.iter().chain(&holder.url).map(String::as_str).collect();
    if parts.is_empty() { String::new() } else { format!(": {}", parts.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_boot(Duration::from_secs(1_000 + seconds))
    }

    fn wall(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).expect("a moment")
    }

    fn held_by(user: &str, since: Timestamp) -> Queue {
        let record = Record {
            id: user.to_owned(),
            user: user.to_owned(),
            host: "web1".to_owned(),
            pid: Some(12),
            command: "backup.sh".to_owned(),
            message: Some("nightly".to_owned()),
            url: Some("https://ci/7".to_owned()),
            since: Some(since.to_string()),
            ..Record::default()
        };
        Queue { ahead: Some(1), holder: Some(record), lock_delay: false }
    }

    #[test]
    fn line_shows_position_holder_age_and_purpose() {
        let line = sentence(&held_by("ann", wall(0)), None, wall(192));
        assert_eq!(line, "waiting at position 1: held by ann@web1 pid 12 (backup.sh) for 3m12s: nightly https://ci/7");
        // A holder that was a waiter before has held the lock since the change was observed.
        assert!(sentence(&held_by("ann", wall(0)), Some(wall(190)), wall(192)).contains(" for 2s: "));
        let mut acquired = held_by("ann", wall(0));
        acquired.holder.as_mut().expect("a holder").acquired = Some(wall(182).to_string());
        assert!(sentence(&acquired, Some(wall(190)), wall(192)).contains(" for 10s: "), "the record has precedence");
        // The holder's clock is ahead.
        assert!(sentence(&held_by("ann", wall(500)), None, wall(192)).contains(" for 0s: "));
    }

    #[test]
    fn unknown_facts_are_left_out() {
        assert_eq!(sentence(&Queue::default(), None, wall(0)), "waiting");
        let foreign = Queue { holder: Some(Record::default()), ..Queue::default() };
        assert_eq!(sentence(&foreign, None, wall(0)), "waiting: held by an unknown holder");
        let delay = Queue { ahead: Some(1), holder: None, lock_delay: true };
        assert_eq!(sentence(&delay, None, wall(0)), "waiting at position 2: the lock-delay must end first");
    }

    #[test]
    fn holder_has_one_json_field_per_fact() {
        let known = queue_fields(&held_by("ann", wall(0)));
        assert_eq!((&known["holder"]["user"], &known["holder"]["pid"]), (&json!("ann"), &json!(12)));
        let foreign = queue_fields(&Queue { holder: Some(Record::default()), ..Queue::default() });
        assert_eq!(foreign["holder"].as_object().map(|holder| holder.values().all(Value::is_null)), Some(true));
        assert_eq!(foreign["holder"].as_object().map(serde_json::Map::len), Some(10));
        assert_eq!(queue_fields(&Queue::default())["holder"], Value::Null);
    }

    #[test]
    fn live_line_is_redrawn_once_a_second() {
        let mut waiting = Waiting::new(Mode::Live);
        assert_eq!((waiting.wake(), waiting.next_line(at(0), wall(0))), (None, None));
        waiting.update(held_by("ann", wall(0)), at(0), wall(0));
        assert!(waiting.next_line(at(0), wall(0)).is_some());
        waiting.update(held_by("bob", wall(0)), at(0), wall(0));
        assert_eq!((waiting.wake(), waiting.next_line(at(0), wall(0))), (Some(at(1)), None));
        assert!(waiting.next_line(at(1), wall(1)).is_some_and(|line| line.text.contains("bob")));
        assert_eq!(waiting.wake(), Some(at(2)));
        waiting.end();
        assert_eq!(waiting.wake(), None);
    }

    #[test]
    fn log_shows_start_new_holders_and_every_minute() {
        let mut waiting = Waiting::new(Mode::Log);
        waiting.update(held_by("ann", wall(0)), at(0), wall(0));
        assert!(waiting.next_line(at(0), wall(0)).is_some_and(|line| !line.text.contains("after")));
        // A changed position is not worth a line.
        waiting.update(Queue { ahead: Some(2), ..held_by("ann", wall(0)) }, at(5), wall(5));
        assert_eq!((waiting.wake(), waiting.next_line(at(59), wall(59))), (Some(at(60)), None));
        assert!(waiting.next_line(at(60), wall(60)).is_some_and(|line| line.text.ends_with("(after 1m)")));
        waiting.update(Queue { holder: None, ..held_by("ann", wall(0)) }, at(69), wall(69));
        assert_eq!(waiting.next_line(at(69), wall(69)), None);
        waiting.update(held_by("bob", wall(0)), at(70), wall(70));
        assert!(waiting.next_line(at(70), wall(70)).is_some_and(|line| line.text.contains("bob@web1")));
        assert_eq!(waiting.wake(), Some(at(130)));
    }

    #[test]
    fn silent_wait_never_wakes() {
        let mut waiting = Waiting::new(Mode::Silent);
        waiting.update(held_by("ann", wall(0)), at(0), wall(0));
        assert_eq!((waiting.wake(), waiting.next_line(at(0), wall(0))), (None, None));
    }

    #[test]
    fn mode_depends_on_output_and_terminal() {
        let output = Output { verbose: false, quiet: false, format: Format::Text, ci: false };
        assert_eq!(Mode::of(output, true), Mode::Live);
        assert_eq!(Mode::of(output, false), Mode::Silent);
        for can_redraw in [true, false] {
            assert_eq!(Mode::of(Output { quiet: true, ci: true, ..output }, can_redraw), Mode::Silent);
            assert_eq!(Mode::of(Output { ci: true, ..output }, can_redraw), Mode::Log);
            assert_eq!(Mode::of(Output { format: Format::Json, ..output }, can_redraw), Mode::Silent);
        }
    }
}
