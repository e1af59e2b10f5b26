//! The requests to the backend: which are under way, until when, and when the others are due. Pure.

use std::time::Duration;

use crate::backoff;
use crate::time::Instant;

/// The first pause after a failure, doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause between two tries.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// How many kinds of requests there are.
pub const COUNT: usize = 6;

/// The backend's methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// `Backend::enter`
    Enter,
    /// `Backend::wait`
    Wait,
    /// `Backend::renew`
    Renew,
    /// `Backend::watch`
    Watch,
    /// `Backend::alone`
    VerifyContinuity,
    /// `Backend::release`
    Release,
}

impl Request {
    /// All of them, as indexes of [`Calls`].
    pub const ALL: [Self; COUNT] =
        [Self::Enter, Self::Wait, Self::Renew, Self::Watch, Self::VerifyContinuity, Self::Release];
}

/// What a call needs now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Its time has come.
    Begin(Request),
    /// It got no answer in time.
    Overdue(Request),
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Idle,
    At(Instant),
    Under {
        limit: Option<Instant>,
    },
}

#[derive(Clone, Copy, Debug, Default)]
struct Call {
    state: State,
    failures: u32,
    until: Option<Instant>,
}

/// One call of each request at most.
#[derive(Debug, Default)]
pub struct Calls([Call; COUNT]);

impl Calls {
    fn get(&mut self, request: Request) -> &mut Call {
        &mut self.0[request as usize]
    }

    /// Whether it is neither due nor under way.
    #[must_use]
    pub fn idle(&self, request: Request) -> bool {
        matches!(self.0[request as usize].state, State::Idle)
    }

    /// Makes it due at `at`, unless it is under way.
    pub fn schedule(&mut self, request: Request, at: Instant) {
        let call = self.get(request);
        if !matches!(call.state, State::Under { .. }) {
            call.state = State::At(at);
        }
    }

    /// Makes it due at `at`, to be tried until `until`.
    pub fn schedule_until(&mut self, request: Request, at: Instant, until: Instant) {
        self.get(request).until = Some(until);
        self.schedule(request, at);
    }

    /// Until when it is tried.
    #[must_use]
    pub fn until(&self, request: Request) -> Option<Instant> {
        self.0[request as usize].until
    }

    /// Makes it due after a pause that grows with each failure; the first retry is immediate, since it goes elsewhere.
    pub fn retry(&mut self, request: Request, now: Instant) {
        let call = self.get(request);
        let pause = match call.failures {
            0 => Duration::ZERO,
            n => backoff::doubled(FIRST_PAUSE, n - 1, MAX_PAUSE),
        };
        call.failures = call.failures.saturating_add(1);
        call.state = State::At(now + pause);
    }

    /// It is under way from now on, until `limit` at most.
    pub fn begin(&mut self, request: Request, limit: Option<Instant>) {
        self.get(request).state = State::Under { limit };
    }

    /// It answered. None when it was not under way: an answer to an abandoned call.
    pub fn done(&mut self, request: Request) -> Option<()> {
        let call = self.get(request);
        matches!(call.state, State::Under { .. }).then(|| call.state = State::Idle)
    }

    /// It answered well: pauses begin small again.
    pub fn succeeded(&mut self, request: Request) {
        self.get(request).failures = 0;
    }

    /// It is not wanted any more. Whether it was under way.
    pub fn abandon(&mut self, request: Request) -> bool {
        let state = std::mem::take(&mut self.get(request).state);
        matches!(state, State::Under { .. })
    }

    /// The next call that needs something at `now`.
    #[must_use]
    pub fn next_due(&self, now: Instant) -> Option<Due> {
        Request::ALL.into_iter().find_map(|request| match self.0[request as usize].state {
            State::At(at) if now >= at => Some(Due::Begin(request)),
            State::Under { limit: Some(limit) } if now >= limit => Some(Due::Overdue(request)),
            _ => None,
        })
    }

    /// When [`Calls::next_due`] has something next.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        let moments = self.0.iter().filter_map(|call| match call.state {
            State::At(at) => Some(at),
            State::Under { limit } => limit,
            State::Idle => None,
        });
        moments.min()
    }
}
