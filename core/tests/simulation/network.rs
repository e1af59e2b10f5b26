//! Requests of a job's keeper to the server, and their replies.

use std::time::Duration;

use distlock_core::keeper::{self, Request};
use distlock_core::messages::FromKeeper;
use distlock_core::outcome::{Granted, Outcome, Position, Queue, Trouble};
use distlock_core::time::Instant;

use super::server::Contender;
use super::{Event, MILLI, Micros, SECOND, World};

fn is_lost(reply: &keeper::Event) -> bool {
    matches!(
        reply,
        keeper::Event::Entered(Err(Trouble::Lost(_)))
            | keeper::Event::WaitReturned(Err(Trouble::Lost(_)))
            | keeper::Event::Renewed(Err(Trouble::Lost(_)))
            | keeper::Event::WatchFailed(Trouble::Lost(_))
    )
}

fn expired() -> Trouble {
    Trouble::Lost("the lease expired".into())
}

fn no_leader() -> Trouble {
    Trouble::inconclusive("no leader")
}

impl World {
    /// Returns how long a message between a job and the server takes; None if it is lost.
    fn transit_time(&mut self, index: usize) -> Option<Micros> {
        match self.random.below(100) {
            _ if self.now < self.partitioned_until[index] => None,
            0..3 => None,
            3..8 => Some(self.random.between(MILLI, 4 * SECOND)),
            _ => Some(self.random.between(MILLI / 2, 40 * MILLI)),
        }
    }

    /// Leaves the contender, whose lease is revoked in the background, and creates a new one.
    pub(super) fn abandon_contender(&mut self, index: usize) {
        let abandoned = self.jobs[index].contender;
        self.schedule_after(MILLI, SECOND, Event::Revoke(abandoned));
        let contender = self.new_contender();
        let job = &mut self.jobs[index];
        (job.contender, job.sent_at, job.granted) = (contender, None, None);
        (job.held, job.lost, job.release_sent) = (false, false, false);
        self.send_to_supervisor(index, FromKeeper::Lease(contender.to_string()));
    }

    pub(super) fn send_request(&mut self, index: usize, request: Request) {
        if request == Request::Enter && self.jobs[index].lost {
            self.abandon_contender(index);
        }
        let sent_at = self.jobs[index].clock(self.now);
        let job = &mut self.jobs[index];
        job.last_call += 1;
        job.pending_calls[request as usize] = job.last_call;
        if request == Request::Enter {
            job.sent_at.get_or_insert(sent_at);
        }
        let (call, contender) = (job.last_call, job.contender);
        // `notify_waits_and_watches` answers these.
        if matches!(request, Request::Wait | Request::Watch) {
            return;
        }
        if request == Request::Renew {
            self.renewals.insert((index, call), sent_at);
        }
        if let Some(transit) = self.transit_time(index) {
            self.schedule_after(transit, transit + 1, Event::Request { job: index, call, request, contender });
        }
    }

    /// Applies a request at the server, and sends the reply.
    pub(super) fn serve(&mut self, index: usize, call: u64, request: Request, contender: Contender) {
        let no_leader = if self.now < self.server.down_until { Err(no_leader()) } else { Ok(()) };
        let reply = match request {
            Request::Enter => keeper::Event::Entered(no_leader.and_then(|()| self.serve_enter(index, contender))),
            Request::Renew => keeper::Event::Renewed(no_leader.and_then(|()| self.serve_renew(index, call, contender))),
            Request::VerifyContinuity => {
                let earlier = self.jobs[index].proven_under;
                let continuous = earlier.is_some_and(|earlier| self.server.follows_directly(earlier, contender));
                keeper::Event::ContinuityVerified(no_leader.map(|()| continuous))
            }
            Request::Release => keeper::Event::Released(no_leader.and_then(|()| self.serve_release(index, contender))),
            Request::Wait | Request::Watch => return,
        };
        if let Some(transit) = self.transit_time(index) {
            self.schedule_after(transit, transit + 1, Event::Reply { job: index, call, reply });
        }
    }

    fn serve_enter(&mut self, index: usize, contender: Contender) -> Outcome<(Granted, Position)> {
        let job = &self.jobs[index];
        // A lease that ended is not granted again.
        if job.contender != contender || (job.granted.is_some() && !self.server.has(contender)) {
            return Err(expired());
        }
        self.server.enter(contender, self.now, &mut self.random);
        let job = &self.jobs[index];
        let granted = job.granted.unwrap_or(Granted {
            sent_at: job.sent_at.unwrap_or(Instant::from_boot(Duration::ZERO)),
            cover: Some(Duration::from_micros(job.ttl)),
        });
        Ok((granted, self.position(contender)?))
    }

    fn serve_renew(&mut self, index: usize, call: u64, contender: Contender) -> Outcome<Instant> {
        let sent_at = self.renewals.get(&(index, call)).copied().unwrap_or(Instant::from_boot(Duration::ZERO));
        let renewed = self.server.renew(contender, self.now, &mut self.random);
        if renewed { Ok(sent_at) } else { Err(expired()) }
    }

    fn serve_release(&mut self, index: usize, contender: Contender) -> Outcome<()> {
        let found = self.server.end(contender);
        let job = &mut self.jobs[index];
        let repeated = std::mem::replace(&mut job.release_sent, true);
        if job.held && !found && !repeated { Err(Trouble::Lost("the lease did not exist".into())) } else { Ok(()) }
    }

    fn position(&self, contender: Contender) -> Outcome<Position> {
        match self.server.token(contender) {
            None => Err(expired()),
            Some(token) if self.server.holder() == Some(contender) => Ok(Position::Held { token, key: "/x/1".into() }),
            Some(_) => Ok(Position::Queued(Queue { ahead: Some(1), ..Queue::default() })),
        }
    }

    pub(super) fn receive_reply(&mut self, index: usize, call: u64, reply: keeper::Event) {
        let job = &mut self.jobs[index];
        let Some(request) = reply.answered_request() else { return };
        if job.pending_calls[request as usize] != call {
            return;
        }
        job.pending_calls[request as usize] = 0;
        job.lost |= is_lost(&reply);
        match &reply {
            keeper::Event::Entered(Ok((granted, position))) => {
                job.granted = Some(*granted);
                job.held |= matches!(position, Position::Held { .. });
            }
            keeper::Event::WaitReturned(Ok(Position::Held { .. })) => job.held = true,
            keeper::Event::ContinuityVerified(Ok(true)) => job.proven_under = Some(job.contender),
            _ => {}
        }
        self.keeper_event(index, reply);
    }

    /// Schedules the replies of waits and watches for which something has changed.
    pub(super) fn notify_waits_and_watches(&mut self) {
        if self.now < self.server.down_until {
            return;
        }
        for index in 0..self.jobs.len() {
            let contender = self.jobs[index].contender;
            let (exists, holds) = (self.server.has(contender), self.server.holder() == Some(contender));
            for request in [Request::Wait, Request::Watch] {
                let call = self.jobs[index].pending_calls[request as usize];
                let changed = !exists || (request == Request::Wait && holds);
                if call != 0 && changed && self.notified.insert((index, call)) {
                    let reachable_at = self.now.max(self.partitioned_until[index]);
                    let at = reachable_at + self.random.between(MILLI, SECOND);
                    self.schedule_at(at, Event::Change { job: index, call, request });
                }
            }
        }
    }

    /// Delivers what a wait or watch reads, or tries again later if the server cannot be reached.
    pub(super) fn receive_change(&mut self, index: usize, call: u64, request: Request) {
        let reachable_at = self.partitioned_until[index].max(self.server.down_until);
        if self.now < reachable_at {
            return self.schedule_at(reachable_at + MILLI, Event::Change { job: index, call, request });
        }
        let reply = match (request, self.position(self.jobs[index].contender)) {
            (Request::Wait, position) => keeper::Event::WaitReturned(position),
            (_, Err(lost)) => keeper::Event::WatchFailed(lost),
            (_, Ok(_)) => return,
        };
        self.receive_reply(index, call, reply);
    }
}
