//! Requests that outlive the call that sent them.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use distlock_core::outcome::{Outcome, Trouble};

type Request<T> = Pin<Box<dyn Future<Output = T>>>;

/// A request that creates something on the server. Dropping it half-way would leave unknown what it did, so that what it
/// created could not be taken back: here it stays until its answer was seen, whoever asks for that.
pub(crate) struct Pending<T>(RefCell<Option<Request<T>>>);

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T> Pending<T> {
    /// Sends a request, in place of one whose answer nobody will ask for any more.
    pub(crate) fn begin(&self, request: impl Future<Output = T> + 'static) {
        self.0.replace(Some(Box::pin(request)));
    }

    /// The answer, once. None where no request is unanswered. Whoever drops this in the middle may call it again.
    pub(crate) async fn answer(&self) -> Option<T> {
        poll_fn(|context| {
            let mut slot = self.0.borrow_mut();
            let Some(request) = &mut *slot else { return Poll::Ready(None) };
            let answer = request.as_mut().poll(context);
            if answer.is_ready() {
                *slot = None;
            }
            answer.map(Some)
        })
        .await
    }

    /// Whether an answer is still to come.
    pub(crate) fn is_under_way(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Stops to wait for an answer: it had its time.
    pub(crate) fn abandon(&self) {
        self.0.replace(None);
    }
}

/// So many run in a race. What comes after that takes the place of the oldest.
const RUNNERS: usize = 4;

/// Requests for one and the same thing, each sent since those before it were late. The first good answer is as good as any.
pub(crate) struct Race<T>(RefCell<Vec<Request<Outcome<T>>>>);

impl<T> Default for Race<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T> Race<T> {
    /// Sends one more.
    pub(crate) fn join(&self, request: impl Future<Output = Outcome<T>> + 'static) {
        let mut runners = self.0.borrow_mut();
        if runners.len() == RUNNERS {
            drop(runners.remove(0));
        }
        runners.push(Box::pin(request));
    }

    /// The first answer that says something of the lock. The last request's trouble is told as well, and those before it run
    /// on. Whoever drops this in the middle may call it again.
    pub(crate) async fn first(&self) -> Outcome<T> {
        poll_fn(|context| {
            let mut runners = self.0.borrow_mut();
            let mut next = 0;
            while let Some(runner) = runners.get_mut(next) {
                let Poll::Ready(answer) = runner.as_mut().poll(context) else {
                    next += 1;
                    continue;
                };
                drop(runners.remove(next));
                if next == runners.len() || matches!(answer, Ok(_) | Err(Trouble::Lost(_) | Trouble::Broken(_))) {
                    return Poll::Ready(answer);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Nobody waits for any of them any more.
    pub(crate) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(future).poll(&mut context) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn an_answer_survives_the_call_that_was_dropped() {
        let (send, receive) = tokio::sync::oneshot::channel();
        let pending = Pending::default();
        pending.begin(receive);
        assert_eq!(now(pending.answer()), None);
        send.send(7).expect("the request");
        assert_eq!(now(pending.answer()), Some(Some(Ok(7))));
        assert_eq!(now(pending.answer()), Some(None), "an answer is told once");
    }

    #[test]
    fn nobody_waits_for_what_was_abandoned() {
        let pending = Pending::default();
        pending.begin(std::future::pending::<()>());
        pending.abandon();
        assert_eq!(now(pending.answer()), Some(None));
    }

    fn silence() -> Trouble {
        Trouble::no_answer("no answer")
    }

    #[test]
    fn the_first_good_answer_wins_whoever_sent_it() {
        let (send, receive) = tokio::sync::oneshot::channel();
        let race = Race::default();
        race.join(async { receive.await.map_err(|_| silence()) });
        assert_eq!(now(race.first()), None);
        race.join(std::future::pending());
        assert_eq!(now(race.first()), None);
        send.send(7).expect("the request");
        assert_eq!(now(race.first()), Some(Ok(7)));
    }

    #[test]
    fn the_last_one_s_trouble_is_told_and_the_others_run_on() {
        let race = Race::default();
        let (send, receive) = tokio::sync::oneshot::channel();
        race.join(async { receive.await.map_err(|_| silence()) });
        race.join(async { Err(silence()) });
        assert_eq!(now(race.first()), Some(Err(silence())));
        race.join(std::future::pending());
        assert_eq!(now(race.first()), None);
        send.send(7).expect("the request");
        assert_eq!(now(race.first()), Some(Ok(7)));
    }

    #[test]
    fn an_old_trouble_says_nothing_and_a_loss_ends_the_race() {
        let race: Race<u8> = Race::default();
        race.join(async { Err(silence()) });
        race.join(std::future::pending());
        assert_eq!(now(race.first()), None);
        race.join(async { Err(Trouble::Lost("gone".to_owned())) });
        race.join(std::future::pending());
        assert_eq!(now(race.first()), Some(Err(Trouble::Lost("gone".to_owned()))));
    }
}
