use proptest::prelude::*;

use super::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Instant this many milliseconds after the boot.
const fn at(since_boot: u64) -> Instant {
    Instant::from_boot(ms(since_boot))
}

/// Terms in milliseconds.
const fn terms(cover: u64, grace: u64) -> Terms {
    Terms { cover: ms(cover), grace: ms(grace) }
}

/// Defaults of the command line.
const DEFAULT: Terms = terms(15_000, 5_000);

/// Accepted terms with a cover from two seconds to ten minutes, up to the longest possible grace.
fn accepted_terms() -> impl Strategy<Value = Terms> {
    (2_000_u64..600_000, 0_u64..=10_000).prop_filter_map("window too short", |(cover, share)| {
        let longest_grace = terms(cover, 0).renewal_window().checked_sub(MIN_RENEWAL_WINDOW)?;
        let grace = longest_grace * u32::try_from(share).ok()? / 10_000;
        Some(Terms { cover: ms(cover), grace })
    })
}

/// Outcome of a renewal: confirmed, with its `sent_at`, or failed at an instant.
#[derive(Clone, Copy, Debug)]
enum Event {
    Confirmed(Instant),
    Failed(Instant),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let instant = (0_u64..2_000_000).prop_map(at);
    let event = (any::<bool>(), instant)
        .prop_map(|(confirmed, instant)| if confirmed { Event::Confirmed(instant) } else { Event::Failed(instant) });
    proptest::collection::vec(event, 0..40)
}

#[test]
fn default_deadlines() {
    let sent_at = at(100_000);
    let deadlines = DEFAULT.deadlines(sent_at);
    assert_eq!(deadlines.soft, sent_at + ms(9_250));
    assert_eq!(deadlines.kill, sent_at + ms(14_250));
    assert_eq!(deadlines.hard, sent_at + ms(14_750));
}

#[test]
fn default_renewal_schedule() {
    // Half of the renewal window, which is less than a third of the cover; then three attempts in the other half.
    assert_eq!(DEFAULT.interval(), ms(4_625));
    assert_eq!(DEFAULT.request_limit(), ms(4_625) / 3);
    // With less grace it is a third of the cover.
    assert_eq!(terms(15_000, 0).interval(), ms(5_000));
    assert_eq!(terms(60_000, 5_000).request_limit(), MAX_REQUEST_TIME);
}

#[test]
fn terms_are_accepted_down_to_the_minimum_window() {
    // 9.9 s - 0.1 s - 0.5 s - 8.3 s = 1 s.
    let shortest = terms(10_000, 8_300);
    assert_eq!(shortest.renewal_window(), MIN_RENEWAL_WINDOW);
    assert_eq!(shortest.check(), Ok(()));
    let too_short = Terms { grace: shortest.grace + Duration::from_nanos(1), ..shortest };
    assert!(too_short.check().is_err());
}

#[test]
fn refusal_shows_the_arithmetic() {
    let refusal = terms(5_000, 4_000).check().unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "a lease of 5s minus 1 % clock rate error, 100ms timer allowance, 500ms kill budget and 4s grace leaves a renewal \
         window of 350ms; the minimum is 1s"
    );
}

#[test]
fn min_cover_is_exact_for_whole_seconds() {
    // 1.6 s and the grace add up to 99 s, which is 99 % of 100 s.
    let grace = ms(97_400);
    assert_eq!(Terms::min_cover(grace), Duration::from_secs(100));
    assert_eq!(Terms::min_cover(grace + Duration::from_nanos(1)), Duration::from_secs(101));
}

#[test]
fn terms_without_a_window_end_immediately() {
    let sent_at = at(1_000);
    for cover in [0, 50, 101, 400, 602] {
        let deadlines = terms(cover, 5_000).deadlines(sent_at);
        assert_eq!(deadlines.soft, sent_at);
        assert!(deadlines.soft <= deadlines.kill && deadlines.kill <= deadlines.hard);
        assert!(deadlines.hard <= sent_at + ms(cover));
    }
}

#[test]
fn huge_durations_do_not_overflow() {
    let terms = Terms { cover: Duration::MAX, grace: Duration::MAX };
    assert!(terms.check().is_err());
    assert!(terms.deadlines(at(1)).hard <= Instant::from_boot(Duration::MAX));
    assert!(Terms::min_cover(Duration::MAX) >= Duration::from_secs(u64::MAX / 100));
}

#[test]
fn late_confirmation_counts_from_its_own_sent_at() {
    let mut lease = Lease::new(DEFAULT, at(0));
    assert!(lease.renewal_confirmed(at(8_000)));
    assert!(!lease.renewal_confirmed(at(4_000)), "older than the last confirmed");
    assert!(!lease.renewal_confirmed(at(8_000)), "confirmed twice");
    assert_eq!(lease.deadlines(), DEFAULT.deadlines(at(8_000)));
    assert_eq!(lease.due(), at(8_000) + DEFAULT.interval());
}

#[test]
fn first_retry_is_immediate_and_later_ones_pause() {
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
fn pauses_are_limited_by_the_request_limit() {
    let mut lease = Lease::new(terms(10_000, 8_300), at(0));
    for _ in 0..8 {
        lease.renewal_failed(at(500));
    }
    assert_eq!(lease.due(), at(500) + lease.terms().request_limit());
}

#[test]
fn request_limit_ends_at_the_soft_deadline() {
    let lease = Lease::new(DEFAULT, at(0));
    let soft = lease.deadlines().soft;
    assert_eq!(lease.request_limit(at(0)), DEFAULT.request_limit());
    assert_eq!(lease.request_limit(soft - DEFAULT.request_limit()), DEFAULT.request_limit());
    assert_eq!(lease.request_limit(soft - ms(1)), ms(1));
    assert_eq!(lease.request_limit(soft), DEFAULT.request_limit());
    assert_eq!(lease.request_limit(soft + ms(1)), DEFAULT.request_limit());
}

#[test]
fn command_may_start_in_the_first_half_of_the_window() {
    let lease = Lease::new(DEFAULT, at(0));
    assert!(lease.may_start(at(0)));
    assert!(lease.may_start(at(4_625)));
    assert!(!lease.may_start(at(4_626)));
    assert!(!lease.may_start(at(20_000)));
}

proptest! {
    #[test]
    fn min_cover_is_accepted_and_a_second_less_is_not(grace in 0_u64..u64::from(u32::MAX) * 1_000_000) {
        let grace = Duration::from_nanos(grace);
        let cover = Terms::min_cover(grace);
        let accepted = Terms { cover, grace }.check().is_ok();
        prop_assert!(accepted);
        let refused = Terms { cover: cover.checked_sub(ms(1_000)).unwrap(), grace }.check().is_err();
        prop_assert!(refused);
    }

    #[test]
    fn deadlines_are_in_order_and_within_the_cover(
        cover in 0_u64..100_000, grace in 0_u64..100_000, sent_at in 0_u64..1_000_000,
    ) {
        let (terms, sent_at) = (terms(cover, grace), at(sent_at));
        let Deadlines { soft, kill, hard } = terms.deadlines(sent_at);
        prop_assert!(sent_at <= soft && soft <= kill && kill <= hard);
        // On a clock that is slower by CLOCK_RATE_ERROR_PERCENT the allowance is left. A cover shorter than it leaves nothing.
        let lifetime = sent_at.until(hard);
        let limit = ms(cover) * (100 - CLOCK_RATE_ERROR_PERCENT);
        prop_assert!(lifetime * 100 + TIMER_ALLOWANCE * 100 <= limit || lifetime.is_zero());
        if terms.check().is_ok() {
            prop_assert_eq!(soft.until(kill), terms.grace);
            prop_assert_eq!(kill.until(hard), KILL_BUDGET);
        }
    }

    #[test]
    fn three_attempts_fit_before_the_soft_deadline(terms in accepted_terms()) {
        prop_assert!(terms.interval() + terms.request_limit() * 3 <= terms.renewal_window());
        prop_assert!(Lease::new(terms, at(0)).due() <= terms.deadlines(at(0)).soft);
    }

    /// Rule 1: only a confirmed renewal moves a deadline, never beyond what the latest `sent_at` gives.
    #[test]
    fn deadlines_follow_from_the_latest_confirmed_sent_at(terms in accepted_terms(), events in events()) {
        let mut lease = Lease::new(terms, at(0));
        let mut latest = at(0);
        for event in events {
            let before = lease.deadlines();
            match event {
                Event::Confirmed(sent_at) => {
                    latest = latest.max(sent_at);
                    let moved = lease.renewal_confirmed(sent_at);
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
    fn attempts_end_by_the_soft_deadline(terms in accepted_terms(), events in events(), now in 0_u64..2_000_000) {
        let mut lease = Lease::new(terms, at(0));
        for event in events {
            match event {
                Event::Confirmed(sent_at) => drop(lease.renewal_confirmed(sent_at)),
                Event::Failed(failed_at) => lease.renewal_failed(failed_at),
            }
        }
        let (now, soft) = (at(now), lease.deadlines().soft);
        prop_assert!(!lease.request_limit(now).is_zero());
        prop_assert!(now >= soft || now + lease.request_limit(now) <= soft);
    }

    #[test]
    fn instant_failures_cause_no_storm_of_requests(terms in accepted_terms()) {
        let mut lease = Lease::new(terms, at(0));
        let soft = lease.deadlines().soft;
        let mut attempts = 0_u32;
        while lease.due() < soft {
            let now = lease.due();
            lease.renewal_failed(now);
            attempts += 1;
        }
        let time_left = terms.renewal_window().checked_sub(terms.interval()).unwrap();
        prop_assert!(attempts >= 3);
        prop_assert!(ms(150) * (attempts.saturating_sub(6)) <= time_left, "{attempts} attempts in {time_left:?}");
    }
}
