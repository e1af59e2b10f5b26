//! Bounds that busy processors may miss, and machines that lack something.

use std::time::Duration;

use super::permits::RetryPermit;

/// Tries up to `tries` times, until one attempt succeeds; panics with all failures otherwise. Retries do not run beside
/// tests that take all processors.
///
/// This is for what busy processors may spoil now and then: a bound of a second, a precondition that was missed. What is
/// broken fails each time.
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
    panic!("not once in {tries} tries: {failures:#?}");
}

/// Returns an error if `what` took longer than `bound`; for [`once_in`].
pub fn within(what: &str, took: Duration, bound: Duration) -> Result<(), String> {
    if took <= bound { Ok(()) } else { Err(format!("{what} took {took:?}, and the bound is {bound:?}")) }
}

/// Reports that a test is skipped because the machine lacks something; panics if `DISTLOCK_TEST_STRICT` is 1.
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
        let mut took = [3, 1, 4].map(Duration::from_secs).into_iter();
        once_in(3, || within("it", took.next().expect("few"), Duration::from_secs(2)));
        assert_eq!(took.next(), Some(Duration::from_secs(4)));
    }

    #[test]
    #[should_panic(expected = "not once in 2 tries")]
    fn no_success_panics() {
        once_in(2, || within("it", Duration::from_secs(3), Duration::from_secs(2)));
    }
}
