//! Durations as users write them.

use std::time::Duration;

use jiff::SignedDuration;

/// The longest duration that is accepted: a hundred years, so that no sum or product of a few of them overflows.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Reads `15s`, `2m30s`, `500ms`, `1.5h`; a bare number is seconds.
///
/// # Errors
///
/// Why it is not a duration, to follow the name of the setting.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration such as 15s, 2m30s or 500ms");
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(wrong());
    }
    let bare = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let spelled = if bare { format!("{text}s") } else { text.to_owned() };
    let signed: SignedDuration = spelled.parse().map_err(|_| wrong())?;
    let duration = Duration::try_from(signed).map_err(|_| wrong())?;
    if duration > LONGEST {
        return Err(format!("`{text}` is longer than a hundred years"));
    }
    Ok(duration)
}

/// A duration as users write it, in whole milliseconds, for messages.
#[must_use]
pub fn show(duration: Duration) -> String {
    let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    format!("{:#}", SignedDuration::from_millis(millis)).replace(' ', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, millis) in [
            ("15s", 15_000),
            ("2m30s", 150_000),
            ("2m 30s", 150_000),
            ("500ms", 500),
            ("1h", 3_600_000),
            ("24h", 86_400_000),
            ("0", 0),
            ("10", 10_000),
            ("1.5", 1_500),
            ("1.5s", 1_500),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for text in
            ["", " ", "s", "-5s", "+5s", "5s ago", "5x", "15 s s", "PT5S", "1.2.3", "forever", "0x10", "5s5s", "١٥"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_overflows_is_refused() {
        for text in ["99999999999999999999", "9223372036854775807", "900000h", "876001h", "18446744073709551616s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_shown_as_they_are_written() {
        for text in ["15s", "2m30s", "500ms", "1h", "1m500ms"] {
            assert_eq!(show(parse(text).unwrap()), text);
        }
    }
}
