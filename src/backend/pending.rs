//! A request that outlives the call that sent it.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

type Request<T> = Pin<Box<dyn Future<Output = T>>>;

/// A request that creates something on the server. Dropping it half-way would leave unknown what it did, so that what it
/// created could not be taken back: here it stays until its answer was seen, whoever asks for that.
pub struct Pending<T>(RefCell<Option<Request<T>>>);

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T> Pending<T> {
    /// Sends a request, in place of one whose answer nobody will ask for any more.
    pub fn begin(&self, request: impl Future<Output = T> + 'static) {
        self.0.replace(Some(Box::pin(request)));
    }

    /// The answer, once. None where no request is unanswered. Whoever drops this in the middle may call it again.
    pub async fn answer(&self) -> Option<T> {
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

    /// Stops to wait for an answer: it had its time.
    pub fn abandon(&self) {
        self.0.replace(None);
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
}
