//! What is shown while the lock is waited for: one live line on a terminal, a plain line now and then in a CI. Pure: the
//! moments come from outside.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::output::{Format, Output};
use distlock_core::outcome::Queue;
use distlock_core::record::Record;
use distlock_core::time::Instant;

/// A live line is drawn no more often than this.
const REDRAW: Duration = Duration::from_secs(1);
/// A log is told this often that the wait goes on.
const REPEAT: Duration = Duration::from_secs(60);

/// How much is shown without being asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// One line, redrawn in place.
    Live,
    /// Lines in a log.
    Log,
    /// Nothing.
    Silent,
}

impl Mode {
    /// What suits this output; `terminal`: one that a live line can be drawn on.
    #[must_use]
    pub(super) fn of(output: Output, terminal: bool) -> Self {
        match output {
            Output { quiet: true, .. } => Self::Silent,
            Output { ci: true, .. } => Self::Log,
            Output { format: Format::Text, .. } if terminal => Self::Live,
            _ => Self::Silent,
        }
    }
}

/// What is to be shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shown {
    /// For people.
    pub text: String,
    /// For machines.
    pub fields: Value,
}

/// The wait, as far as it is shown.
#[derive(Debug)]
pub(super) struct Waiting {
    mode: Mode,
    queue: Option<Queue>,
    begun: Option<Instant>,
    /// When this holder was seen to follow another.
    followed: Option<Timestamp>,
    due: Option<Instant>,
    last: Option<Instant>,
}

impl Waiting {
    /// Nobody waits yet.
    #[must_use]
    pub(super) fn new(mode: Mode) -> Self {
        Self { mode, queue: None, begun: None, followed: None, due: None, last: None }
    }

    /// How it is shown.
    #[must_use]
    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// Somebody else is first.
    pub(super) fn learn(&mut self, queue: Queue, now: Instant, wall: Timestamp) {
        let change = self.queue.as_ref().is_none_or(|known| holder(known) != holder(&queue));
        if change {
            self.followed = self.queue.is_some().then_some(wall);
        }
        // Between two holders there may be nobody for a moment, which is no news.
        let news = change && (self.queue.is_none() || queue.holder.is_some() || queue.lock_delay);
        self.begun = self.begun.or(Some(now));
        self.queue = Some(queue);
        match self.mode {
            Mode::Live => self.due = Some(self.last.map_or(now, |last| now.max(last + REDRAW))),
            Mode::Log if news => self.due = Some(now),
            Mode::Log | Mode::Silent => {}
        }
    }

    /// The wait is over.
    pub(super) fn end(&mut self) {
        *self = Self::new(self.mode);
    }

    /// When [`Waiting::show`] has something next.
    #[must_use]
    pub(super) fn wake(&self) -> Option<Instant> {
        self.due
    }

    /// What is to be shown now.
    pub(super) fn show(&mut self, now: Instant, wall: Timestamp) -> Option<Shown> {
        let queue = self.queue.as_ref().filter(|_| self.due.is_some_and(|due| now >= due))?;
        let fields = fields(queue);
        let mut text = sentence(queue, self.followed, wall);
        let pause = if self.mode == Mode::Live { REDRAW } else { REPEAT };
        if self.mode == Mode::Log && self.last.is_some() {
            let waited = self.begun.map_or(Duration::ZERO, |begun| now.since(begun));
            text += &format!(" (after {})", human(waited));
        }
        (self.last, self.due) = (Some(now), Some(now + pause));
        Some(Shown { text, fields })
    }
}

/// What machines are told of the queue; what is unknown is null.
#[must_use]
pub(super) fn fields(queue: &Queue) -> Value {
    json!({ "holder": queue.holder.as_ref().map(known), "ahead": queue.ahead, "lock_delay": queue.lock_delay })
}

/// What a record tells. One that another tool wrote has little of it.
fn known(holder: &Record) -> Value {
    let Record { id, tool, host, user, pid, command, message, url, since, acquired, stop: _ } = holder;
    let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "id": said(id),
        "tool": said(tool),
        "host": said(host),
        "user": said(user),
        "pid": pid,
        "command": said(command),
        "message": message,
        "url": url,
        "since": since,
        "acquired": acquired,
    })
}

/// Who holds the lock, told apart from others as well as the record allows.
fn holder(queue: &Queue) -> Option<(&str, Option<&String>, Option<u32>)> {
    queue.holder.as_ref().map(|holder| (holder.id.as_str(), holder.since.as_ref(), holder.pid))
}

/// The place in the queue, who holds the lock, for how long, and why: the most important first, since the end may not fit.
/// `followed` is when the holder was seen to follow another.
fn sentence(queue: &Queue, followed: Option<Timestamp>, wall: Timestamp) -> String {
    let place = queue.ahead.map(|ahead| if queue.lock_delay { ahead + 1 } else { ahead.max(1) });
    let place = place.map_or(String::new(), |place| format!(" at place {place}"));
    let rest = match &queue.holder {
        _ if queue.lock_delay => ": a lock-delay has to pass".to_owned(),
        Some(holder) => format!(": held by {}{}{}", holder.who(), age(holder, followed, wall), why(holder)),
        None => String::new(),
    };
    format!("waiting{place}{rest}")
}

/// For how long the lock has been held. A record may tell only when its author began to wait, which may be long before.
fn age(holder: &Record, followed: Option<Timestamp>, wall: Timestamp) -> String {
    let moment = |text: &Option<String>| text.as_ref().and_then(|text| text.parse::<Timestamp>().ok());
    let began = || moment(&holder.since).into_iter().chain(followed).max();
    let Some(since) = moment(&holder.acquired).or_else(began) else { return String::new() };
    // Another host's clock may be ahead.
    let age = Duration::try_from(wall.duration_since(since)).unwrap_or(Duration::ZERO);
    format!(" for {}", human(age))
}

fn why(holder: &Record) -> String {
    let parts: Vec<_> = holder.message.iter().chain(&holder.url).map(String::as_str).collect();
    if parts.is_empty() { String::new() } else { format!(": {}", parts.join(" ")) }
}

/// A duration in its two greatest units.
fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
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
    fn a_line_tells_the_place_who_for_how_long_and_why() {
        let line = sentence(&held_by("ann", wall(0)), None, wall(192));
        assert_eq!(line, "waiting at place 1: held by ann@web1 pid 12 (backup.sh) for 3m 12s: nightly https://ci/7");
        // One who waited as well does not hold it for longer than it was seen to.
        assert!(sentence(&held_by("ann", wall(0)), Some(wall(190)), wall(192)).contains(" for 2s: "));
        let mut told = held_by("ann", wall(0));
        told.holder.as_mut().expect("a holder").acquired = Some(wall(182).to_string());
        assert!(sentence(&told, Some(wall(190)), wall(192)).contains(" for 10s: "), "the record knows best");
        // Clocks differ.
        assert!(sentence(&held_by("ann", wall(500)), None, wall(192)).contains(" for 0s: "));
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        assert_eq!(sentence(&Queue::default(), None, wall(0)), "waiting");
        let foreign = Queue { holder: Some(Record::default()), ..Queue::default() };
        assert_eq!(sentence(&foreign, None, wall(0)), "waiting: held by an unknown holder");
        let delay = Queue { ahead: Some(1), holder: None, lock_delay: true };
        assert_eq!(sentence(&delay, None, wall(0)), "waiting at place 2: a lock-delay has to pass");
    }

    #[test]
    fn machines_are_told_of_the_holder_field_by_field() {
        let told = fields(&held_by("ann", wall(0)));
        assert_eq!((&told["holder"]["user"], &told["holder"]["pid"]), (&json!("ann"), &json!(12)));
        let foreign = fields(&Queue { holder: Some(Record::default()), ..Queue::default() });
        assert_eq!(foreign["holder"].as_object().map(|holder| holder.values().all(Value::is_null)), Some(true));
        assert_eq!(foreign["holder"].as_object().map(serde_json::Map::len), Some(10));
        assert_eq!(fields(&Queue::default())["holder"], Value::Null);
    }

    #[test]
    fn durations_have_two_units_at_most() {
        for (seconds, shown) in
            [(0, "0s"), (59, "59s"), (60, "1m 0s"), (3599, "59m 59s"), (7_500, "2h 5m"), (356_400, "4d 3h")]
        {
            assert_eq!(human(Duration::from_secs(seconds)), shown);
        }
    }

    #[test]
    fn a_live_line_is_redrawn_once_a_second_and_never_more_often() {
        let mut waiting = Waiting::new(Mode::Live);
        assert_eq!((waiting.wake(), waiting.show(at(0), wall(0))), (None, None));
        waiting.learn(held_by("ann", wall(0)), at(0), wall(0));
        assert!(waiting.show(at(0), wall(0)).is_some());
        waiting.learn(held_by("bob", wall(0)), at(0), wall(0));
        assert_eq!((waiting.wake(), waiting.show(at(0), wall(0))), (Some(at(1)), None));
        assert!(waiting.show(at(1), wall(1)).is_some_and(|shown| shown.text.contains("bob")));
        assert_eq!(waiting.wake(), Some(at(2)));
        waiting.end();
        assert_eq!(waiting.wake(), None);
    }

    #[test]
    fn a_log_is_told_of_the_start_of_new_holders_and_every_minute() {
        let mut waiting = Waiting::new(Mode::Log);
        waiting.learn(held_by("ann", wall(0)), at(0), wall(0));
        assert!(waiting.show(at(0), wall(0)).is_some_and(|shown| !shown.text.contains("after")));
        // A place that moved is worth no line.
        waiting.learn(Queue { ahead: Some(2), ..held_by("ann", wall(0)) }, at(5), wall(5));
        assert_eq!((waiting.wake(), waiting.show(at(59), wall(59))), (Some(at(60)), None));
        assert!(waiting.show(at(60), wall(60)).is_some_and(|shown| shown.text.ends_with("(after 1m 0s)")));
        waiting.learn(Queue { holder: None, ..held_by("ann", wall(0)) }, at(69), wall(69));
        assert_eq!(waiting.show(at(69), wall(69)), None);
        waiting.learn(held_by("bob", wall(0)), at(70), wall(70));
        assert!(waiting.show(at(70), wall(70)).is_some_and(|shown| shown.text.contains("bob@web1")));
        assert_eq!(waiting.wake(), Some(at(130)));
    }

    #[test]
    fn a_silent_wait_wakes_nobody() {
        let mut waiting = Waiting::new(Mode::Silent);
        waiting.learn(held_by("ann", wall(0)), at(0), wall(0));
        assert_eq!((waiting.wake(), waiting.show(at(0), wall(0))), (None, None));
    }

    #[test]
    fn what_is_shown_depends_on_who_reads() {
        let output = Output { verbose: false, quiet: false, format: Format::Text, ci: false };
        assert_eq!(Mode::of(output, true), Mode::Live);
        assert_eq!(Mode::of(output, false), Mode::Silent);
        for terminal in [true, false] {
            assert_eq!(Mode::of(Output { quiet: true, ci: true, ..output }, terminal), Mode::Silent);
            assert_eq!(Mode::of(Output { ci: true, ..output }, terminal), Mode::Log);
            assert_eq!(Mode::of(Output { format: Format::Json, ..output }, terminal), Mode::Silent);
        }
    }
}
