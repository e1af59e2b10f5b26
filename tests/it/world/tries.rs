//! Repeated attempts, for bounds that busy processors may miss, and tests that the machine cannot run.

use std::time::Duration;

use super::permits::RetryPermit;

/// Repeats `attempt` until it succeeds; panics with all failures after `tries` attempts. Retries do not run beside
/// tests that take all processors.
///
/// This is for assertions that busy processors may break now and then, such as a bound of a second, and not for safety.
#[track_caller]
pub fn once_in<T>(tries: usize, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let mut failures = Vec::new();
    while failures.len() < tries {
        let _permit = (!failures.is_empty()).then(RetryPermit::wait);
        match attempt() {
            Ok(success) => return success,
            Err(failure) => failures.push(failure),
        }
    }
    panic!("no success in {tries} attempts: {failures:#?}");
}

/// Returns an error that names `what` if it took longer than `bound`; for [`once_in`].
pub fn within(what: &str, took: Duration, bound: Duration) -> Result<(), String> {
    if took <= bound { Ok(()) } else { Err(format!("{what} took {took:?}, more than {bound:?}")) }
}

/// Reports that a test is skipped because the machine lacks `what`; panics if `DISTLOCK_TEST_STRICT` is 1. The test
/// must return then.
#[track_caller]
pub fn lacks(what: &str) {
    assert!(std::env::var("DISTLOCK_TEST_STRICT").as_deref() != Ok("1"), "this machine lacks {what}");
    eprintln!("skipped: this machine lacks {what}");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{once_in, within};

    #[test]
    fn one_success_is_enough() {
        let mut times = [3, 1, 4].map(Duration::from_secs).into_iter();
        once_in(3, || within("the attempt", times.next().expect("a third time"), Duration::from_secs(2)));
        assert_eq!(times.next(), Some(Duration::from_secs(4)));
    }

    #[test]
    #[should_panic(expected = "no success in 2 attempts")]
    fn no_success_panics() {
        once_in(2, || within("the attempt", Duration::from_secs(3), Duration::from_secs(2)));
    }
}
