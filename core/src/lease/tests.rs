use proptest::prelude::*;

use super::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A moment so long after the boot.
const fn at(since_boot: u64) -> Instant {
    Instant::from_boot(ms(since_boot))
}

const fn terms(cover: u64, grace: u64) -> Terms {
    Terms { cover: ms(cover), grace: ms(grace) }
}

/// The defaults: 15 s, a third of it as grace.
const DEFAULT: Terms = terms(15_000, 5_000);

/// Terms from a second to ten minutes which leave room to renew, down to the very border.
fn sound_terms() -> impl Strategy<Value = Terms> {
    (2_000_u64..600_000, 0_u64..=10_000).prop_filter_map("no room", |(cover, share)| {
        let most = terms(cover, 0).renewal_window().checked_sub(MIN_RENEWAL_WINDOW)?;
        let grace = most * u32::try_from(share).ok()? / 10_000;
        Some(Terms { cover: ms(cover), grace })
    })
}

/// What can happen to a lease, with the moments that the answer brings along.
#[derive(Clone, Copy, Debug)]
enum Event {
    Confirmed(Instant),
    Failed(Instant),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let moment = (0_u64..2_000_000).prop_map(at);
    let event = (any::<bool>(), moment).prop_map(|(ok, t)| if ok { Event::Confirmed(t) } else { Event::Failed(t) });
    proptest::collection::vec(event, 0..40)
}

#[test]
fn the_default_deadlines() {
    let s = at(100_000);
    let deadlines = DEFAULT.deadlines(s);
    assert_eq!(deadlines.soft, s + ms(9_250));
    assert_eq!(deadlines.kill, s + ms(14_250));
    assert_eq!(deadlines.hard, s + ms(14_750));
}

#[test]
fn the_default_rhythm() {
    // Half of the room, which is less than a third of the cover; then three tries in the other half.
    assert_eq!(DEFAULT.interval(), ms(4_625));
    assert_eq!(DEFAULT.request_limit(), ms(4_625) / 3);
    // With less grace it is a third of the cover, and no try is longer than the most.
    assert_eq!(terms(15_000, 0).interval(), ms(5_000));
    assert_eq!(terms(60_000, 5_000).request_limit(), MAX_REQUEST_TIME);
}

#[test]
fn terms_are_accepted_down_to_the_least_room() {
    // 10 s: 9.9 s less 0.1 s, 0.5 s and 8.3 s are the one second that is the least.
    let border = terms(10_000, 8_300);
    assert_eq!(border.renewal_window(), MIN_RENEWAL_WINDOW);
    assert_eq!(border.check(), Ok(()));
    let beyond = Terms { grace: border.grace + Duration::from_nanos(1), ..border };
    assert!(beyond.check().is_err());
}

#[test]
fn a_refusal_shows_the_arithmetic() {
    let refusal = terms(5_000, 4_000).check().unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "a lease of 5s minus 1 % clock rate error, 100ms timer allowance, 500ms kill budget and 4s grace leaves a renewal \
         window of 350ms; the minimum is 1s"
    );
}

#[test]
fn the_least_cover_is_exact_where_it_is_a_whole_second() {
    // 1.6 s and the grace are 99 s, which is 99 % of 100 s.
    let grace = ms(97_400);
    assert_eq!(Terms::min_cover(grace), Duration::from_secs(100));
    assert_eq!(Terms::min_cover(grace + Duration::from_nanos(1)), Duration::from_secs(101));
}

#[test]
fn terms_without_any_room_end_at_once() {
    let s = at(1_000);
    for cover in [0, 50, 101, 400, 602] {
        let deadlines = terms(cover, 5_000).deadlines(s);
        assert_eq!(deadlines.soft, s);
        assert!(deadlines.soft <= deadlines.kill && deadlines.kill <= deadlines.hard);
        assert!(deadlines.hard <= s + ms(cover));
    }
}

#[test]
fn absurd_times_do_not_overflow() {
    let terms = Terms { cover: Duration::MAX, grace: Duration::MAX };
    assert!(terms.check().is_err());
    assert!(terms.deadlines(at(1)).hard <= Instant::from_boot(Duration::MAX));
    assert!(Terms::min_cover(Duration::MAX) >= Duration::from_secs(u64::MAX / 100));
}

#[test]
fn a_late_confirmation_counts_with_its_own_s() {
    let mut lease = Lease::new(DEFAULT, at(0));
    assert!(lease.renewal_confirmed(at(8_000)));
    assert!(!lease.renewal_confirmed(at(4_000)), "older than what is known");
    assert!(!lease.renewal_confirmed(at(8_000)), "the same again");
    assert_eq!(lease.deadlines(), DEFAULT.deadlines(at(8_000)));
    assert_eq!(lease.due(), at(8_000) + DEFAULT.interval());
}

#[test]
fn the_first_retry_is_immediate_and_the_next_ones_pause() {
    let mut lease = Lease::new(DEFAULT, at(0));
    let now = at(5_000);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        lease.renewal_failed(now);
        pauses.push(now.until(lease.due()));
    }
    assert_eq!(pauses, [0, 50, 100, 200, 400, 800, 800, 800].map(ms));
    assert_eq!(lease.failures(), 8);

    let _ = lease.renewal_confirmed(now);
    assert_eq!(lease.failures(), 0);
    lease.renewal_failed(now);
    assert_eq!(lease.due(), now);
}

#[test]
fn no_pause_is_longer_than_a_try() {
    let mut lease = Lease::new(terms(10_000, 8_300), at(0));
    for _ in 0..8 {
        lease.renewal_failed(at(500));
    }
    assert_eq!(lease.due(), at(500) + lease.terms().request_limit());
}

#[test]
fn a_try_is_cut_at_the_soft_deadline_and_free_after_it() {
    let lease = Lease::new(DEFAULT, at(0));
    let soft = lease.deadlines().soft;
    assert_eq!(lease.request_limit(at(0)), DEFAULT.request_limit());
    assert_eq!(lease.request_limit(soft - DEFAULT.request_limit()), DEFAULT.request_limit());
    assert_eq!(lease.request_limit(soft - ms(1)), ms(1));
    assert_eq!(lease.request_limit(soft), DEFAULT.request_limit());
    assert_eq!(lease.request_limit(soft + ms(1)), DEFAULT.request_limit());
}

#[test]
fn a_lease_is_fresh_for_half_of_its_room() {
    let lease = Lease::new(DEFAULT, at(0));
    assert!(lease.may_start(at(0)));
    assert!(lease.may_start(at(4_625)));
    assert!(!lease.may_start(at(4_626)));
    assert!(!lease.may_start(at(20_000)));
}

proptest! {
    #[test]
    fn the_least_cover_is_accepted_and_a_second_less_is_not(grace in 0_u64..u64::from(u32::MAX) * 1_000_000) {
        let grace = Duration::from_nanos(grace);
        let cover = Terms::min_cover(grace);
        let accepted = Terms { cover, grace }.check().is_ok();
        prop_assert!(accepted);
        let refused = Terms { cover: cover.checked_sub(ms(1_000)).unwrap(), grace }.check().is_err();
        prop_assert!(refused);
    }

    #[test]
    fn deadlines_are_in_order_and_end_before_the_cover_does(
        cover in 0_u64..100_000, grace in 0_u64..100_000, s in 0_u64..1_000_000,
    ) {
        let (terms, s) = (terms(cover, grace), at(s));
        let Deadlines { soft, kill, hard } = terms.deadlines(s);
        prop_assert!(s <= soft && soft <= kill && kill <= hard);
        // A clock that is slower by CLOCK_RATE_ERROR still has TIMER_ALLOWANCE left; no cover, nothing to be late for.
        prop_assert!(s.until(hard) * 100 + TIMER_ALLOWANCE * 100 <= ms(cover) * (100 - CLOCK_RATE_ERROR_PERCENT) || hard == s);
        if terms.check().is_ok() {
            prop_assert_eq!(soft.until(kill), terms.grace);
            prop_assert_eq!(kill.until(hard), KILL_BUDGET);
        }
    }

    #[test]
    fn three_tries_fit_before_the_soft_deadline(terms in sound_terms()) {
        prop_assert!(terms.interval() + terms.request_limit() * 3 <= terms.renewal_window());
        prop_assert!(Lease::new(terms, at(0)).due() <= terms.deadlines(at(0)).soft);
    }

    /// Rule 1: only a confirmed `s` moves a deadline, and never beyond what the latest one gives.
    #[test]
    fn deadlines_follow_from_the_latest_confirmed_s_alone(terms in sound_terms(), events in events()) {
        let mut lease = Lease::new(terms, at(0));
        let mut latest = at(0);
        for event in events {
            let before = lease.deadlines();
            match event {
                Event::Confirmed(s) => {
                    latest = latest.max(s);
                    let moved = lease.renewal_confirmed(s);
                    prop_assert_eq!(moved, lease.deadlines() != before);
                    prop_assert!(lease.due() <= lease.deadlines().soft);
                }
                Event::Failed(now) => {
                    lease.renewal_failed(now);
                    prop_assert_eq!(lease.deadlines(), before);
                    prop_assert!(now <= lease.due() && lease.due() <= now + terms.request_limit());
                }
            }
            prop_assert_eq!(lease.deadlines(), terms.deadlines(latest));
        }
    }

    #[test]
    fn a_try_begun_before_the_soft_deadline_ends_by_it(terms in sound_terms(), events in events(), now in 0_u64..2_000_000) {
        let mut lease = Lease::new(terms, at(0));
        for event in events {
            match event {
                Event::Confirmed(s) => drop(lease.renewal_confirmed(s)),
                Event::Failed(t) => lease.renewal_failed(t),
            }
        }
        let (now, soft) = (at(now), lease.deadlines().soft);
        prop_assert!(!lease.request_limit(now).is_zero());
        prop_assert!(now >= soft || now + lease.request_limit(now) <= soft);
    }

    /// A server that fails every request at once is asked a bounded number of times until the soft deadline.
    #[test]
    fn instant_failures_make_no_storm(terms in sound_terms()) {
        let mut lease = Lease::new(terms, at(0));
        let soft = lease.deadlines().soft;
        let mut tries = 0_u32;
        while lease.due() < soft {
            let now = lease.due();
            lease.renewal_failed(now);
            tries += 1;
        }
        let left = terms.renewal_window().checked_sub(terms.interval()).unwrap();
        prop_assert!(tries >= 3);
        prop_assert!(ms(150) * (tries.saturating_sub(6)) <= left, "{tries} tries in {left:?}");
    }
}
