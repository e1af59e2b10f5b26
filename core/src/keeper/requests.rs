//! Schedule of the requests to the backend: which are in flight, until when, and when the others are due.

use std::time::Duration;

use super::events::Request;
use crate::backoff;
use crate::time::Instant;

/// First pause after a failure; doubles with each further failure.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// What a request needs now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Begin(Request),
    TimedOut(Request),
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Idle,
    DueAt(Instant),
    InFlight {
        limit: Option<Instant>,
    },
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    state: State,
    failures: u32,
    retry_until: Option<Instant>,
}

/// State of each kind of request.
#[derive(Debug, Default)]
pub(super) struct Requests([Entry; Request::COUNT]);

impl Requests {
    fn entry(&mut self, request: Request) -> &mut Entry {
        &mut self.0[request as usize]
    }

    /// Returns whether the request is neither due nor in flight.
    pub(super) fn idle(&self, request: Request) -> bool {
        matches!(self.0[request as usize].state, State::Idle)
    }

    /// Makes the request due at `at`, unless it is in flight.
    pub(super) fn schedule(&mut self, request: Request, at: Instant) {
        let entry = self.entry(request);
        if !matches!(entry.state, State::InFlight { .. }) {
            entry.state = State::DueAt(at);
        }
    }

    /// Makes the request due at `at`, with retries until `retry_until`.
    pub(super) fn schedule_until(&mut self, request: Request, at: Instant, retry_until: Instant) {
        self.entry(request).retry_until = Some(retry_until);
        self.schedule(request, at);
    }

    pub(super) fn retry_until(&self, request: Request) -> Option<Instant> {
        self.0[request as usize].retry_until
    }

    /// Makes the request due after a pause that grows with each failure. The first retry is immediate, because it goes
    /// to another endpoint if there is one.
    pub(super) fn retry(&mut self, request: Request, now: Instant) {
        let entry = self.entry(request);
        let pause = match entry.failures {
            0 => Duration::ZERO,
            n => backoff::doubled(FIRST_PAUSE, n - 1, MAX_PAUSE),
        };
        entry.failures = entry.failures.saturating_add(1);
        entry.state = State::DueAt(now + pause);
    }

    /// Marks the request as in flight; it times out at `limit`.
    pub(super) fn begin(&mut self, request: Request, limit: Option<Instant>) {
        self.entry(request).state = State::InFlight { limit };
    }

    /// Marks the request as answered; returns false if it was not in flight, that is, if it was abandoned.
    pub(super) fn answered(&mut self, request: Request) -> bool {
        let entry = self.entry(request);
        let in_flight = matches!(entry.state, State::InFlight { .. });
        if in_flight {
            entry.state = State::Idle;
        }
        in_flight
    }

    /// Resets the pauses of the request after a success.
    pub(super) fn succeeded(&mut self, request: Request) {
        self.entry(request).failures = 0;
    }

    /// Makes the request idle; returns whether it was in flight.
    pub(super) fn abandon(&mut self, request: Request) -> bool {
        let state = std::mem::take(&mut self.entry(request).state);
        matches!(state, State::InFlight { .. })
    }

    /// Returns the next request that is due or has timed out at `now`.
    pub(super) fn next_due(&self, now: Instant) -> Option<Due> {
        Request::ALL.into_iter().find_map(|request| match self.0[request as usize].state {
            State::DueAt(at) if now >= at => Some(Due::Begin(request)),
            State::InFlight { limit: Some(limit) } if now >= limit => Some(Due::TimedOut(request)),
            _ => None,
        })
    }

    /// Returns when [`Requests::next_due`] will return something next.
    pub(super) fn wake(&self) -> Option<Instant> {
        let times = self.0.iter().filter_map(|entry| match entry.state {
            State::DueAt(at) => Some(at),
            State::InFlight { limit } => limit,
            State::Idle => None,
        });
        times.min()
    }
}
