//! What passes between a job's keeper and the server.

use std::time::Duration;

use super::server::Contender;
use super::{Event, MILLI, SECOND, World};
use distlock_core::keeper;
use distlock_core::keeper::requests::Request;
use distlock_core::messages::FromKeeper;
use distlock_core::outcome::{Granted, Outcome, Position, Queue, Trouble};
use distlock_core::time::Instant;

fn is_lost(answer: &keeper::Event) -> bool {
    matches!(
        answer,
        keeper::Event::Entered(Err(Trouble::Lost(_)))
            | keeper::Event::WaitReturned(Err(Trouble::Lost(_)))
            | keeper::Event::Renewed(Err(Trouble::Lost(_)))
            | keeper::Event::WatchFailed(Trouble::Lost(_))
    )
}

fn place(token: Option<u64>, head: bool) -> Outcome<Position> {
    match token {
        None => Err(Trouble::Lost("the lease expired".into())),
        Some(token) if head => Ok(Position::Held { token, key: "/x/1".into() }),
        Some(_) => Ok(Position::Queued(Queue { ahead: Some(1), ..Queue::default() })),
    }
}

fn uncertain() -> Trouble {
    Trouble::inconclusive("no leader")
}

impl World {
    /// The contender is left to itself, and there is a new one.
    pub(super) fn forsake(&mut self, n: usize) {
        let who = self.jobs[n].who;
        self.after(MILLI, SECOND, Event::Revoke(who));
        let new = self.new_contender();
        let job = &mut self.jobs[n];
        (job.who, job.sent, job.granted) = (new, None, None);
        (job.held, job.lost, job.revoking) = (false, false, false);
        self.post(n, FromKeeper::Lease(new.to_string()));
    }

    pub(super) fn call(&mut self, n: usize, request: Request) {
        if request == Request::Enter && self.jobs[n].lost {
            self.forsake(n);
        }
        let local = self.jobs[n].local(self.now);
        let job = &mut self.jobs[n];
        job.call += 1;
        job.calls[request as usize] = job.call;
        if request == Request::Enter {
            job.sent.get_or_insert(local);
        }
        let (call, who) = (job.call, job.who);
        match request {
            // They are told when there is something to tell.
            Request::Wait | Request::Watch => {}
            _ => {
                if request == Request::Renew {
                    // The moment before it was sent is what its answer will bring.
                    self.renewals.insert((n, call), local);
                }
                if let Some(passage) = self.passage(n) {
                    self.after(passage, passage + 1, Event::Arrive { job: n, call, request, who });
                }
            }
        }
    }

    pub(super) fn arrive(&mut self, n: usize, call: u64, request: Request, who: Contender) {
        let down = self.now < self.server.down_until;
        let there = self.server.has(who);
        let answer = match request {
            Request::Enter if down => keeper::Event::Entered(Err(uncertain())),
            Request::Enter => {
                let job = &self.jobs[n];
                // A lease that was had and is gone is not granted again: its id is another's business now.
                if job.who != who || (job.granted.is_some() && !there) {
                    keeper::Event::Entered(Err(Trouble::Lost("the lease expired".into())))
                } else {
                    self.server.enter(who, self.now, &mut self.random);
                    keeper::Event::Entered(self.entered(n, who))
                }
            }
            Request::Renew if down => keeper::Event::Renewed(Err(uncertain())),
            Request::Renew => {
                let s = self.renewals.get(&(n, call)).copied().unwrap_or(Instant::from_boot(Duration::ZERO));
                let renewed = self.server.renew(who, self.now, &mut self.random);
                keeper::Event::Renewed(if renewed { Ok(s) } else { Err(Trouble::Lost("the lease expired".into())) })
            }
            Request::VerifyContinuity if down => keeper::Event::ContinuityVerified(Err(uncertain())),
            Request::VerifyContinuity => {
                let before = self.jobs[n].proved;
                keeper::Event::ContinuityVerified(Ok(
                    before.is_some_and(|before| self.server.nobody_between(before, who))
                ))
            }
            Request::Release if down => keeper::Event::Released(Err(uncertain())),
            Request::Release => {
                let found = self.server.end(who);
                let job = &mut self.jobs[n];
                let again = std::mem::replace(&mut job.revoking, true);
                let lost = job.held && !found && !again;
                keeper::Event::Released(if lost { Err(Trouble::Lost("the lease was gone".into())) } else { Ok(()) })
            }
            Request::Wait | Request::Watch => return,
        };
        if let Some(passage) = self.passage(n) {
            self.after(passage, passage + 1, Event::Answer { job: n, call, answer });
        }
    }

    fn entered(&self, n: usize, who: Contender) -> Outcome<(Granted, Position)> {
        let job = &self.jobs[n];
        let granted = job.granted.unwrap_or(Granted {
            sent_at: job.sent.unwrap_or(Instant::from_boot(Duration::ZERO)),
            cover: Some(Duration::from_micros(job.ttl)),
        });
        let place = place(self.server.token(who), self.server.head() == Some(who))?;
        Ok((granted, place))
    }

    pub(super) fn answer(&mut self, n: usize, call: u64, answer: keeper::Event) {
        let job = &mut self.jobs[n];
        let Some(request) = answer.answered_request() else { return };
        if job.calls[request as usize] != call {
            return;
        }
        job.calls[request as usize] = 0;
        job.lost |= is_lost(&answer);
        match &answer {
            keeper::Event::Entered(Ok((granted, place))) => {
                job.granted = Some(*granted);
                job.held |= matches!(place, Position::Held { .. });
            }
            keeper::Event::WaitReturned(Ok(Position::Held { .. })) => job.held = true,
            keeper::Event::ContinuityVerified(Ok(true)) => job.proved = Some(job.who),
            _ => {}
        }
        self.keeper(n, answer);
    }

    /// Whoever waits for news of the server gets it, some time after it can pass.
    pub(super) fn tell_news(&mut self) {
        if self.now < self.server.down_until {
            return;
        }
        for n in 0..self.jobs.len() {
            let job = &self.jobs[n];
            let there = self.server.has(job.who);
            for request in [Request::Wait, Request::Watch] {
                let call = self.jobs[n].calls[request as usize];
                let told = !there || (request == Request::Wait && self.server.head() == Some(self.jobs[n].who));
                if call != 0 && told && self.told.insert((n, call)) {
                    let at = self.now.max(self.cut[n]) + self.random.between(MILLI, SECOND);
                    self.at(at, Event::News { job: n, call, request });
                }
            }
        }
    }

    /// What is read then.
    pub(super) fn news(&mut self, n: usize, call: u64, request: Request) {
        if self.now < self.cut[n] || self.now < self.server.down_until {
            let at = self.cut[n].max(self.server.down_until) + MILLI;
            return self.at(at, Event::News { job: n, call, request });
        }
        let job = &self.jobs[n];
        let (token, head) = (self.server.token(job.who), self.server.head() == Some(job.who));
        let answer = match (request, place(token, head)) {
            (Request::Wait, place) => keeper::Event::WaitReturned(place),
            (_, Err(lost)) => keeper::Event::WatchFailed(lost),
            (_, Ok(_)) => return,
        };
        self.answer(n, call, answer);
    }
}
