//! Durations as users write and read them.

use std::time::Duration;

use jiff::SignedDuration;

/// Longest duration that [`parse`] accepts, a hundred years: no sum or product of a few such durations overflows.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Parses a duration such as `15s`, `2m30s`, `500ms` or `1.5h`. A bare number is in seconds.
///
/// # Errors
///
/// Says why `text` is not a duration, to be shown after the name of the setting.
pub fn parse(text: &str) -> Result<Duration, String> {
    let invalid = || format!("`{text}` is not a duration such as 15s, 2m30s or 500ms");
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(invalid());
    }
    let bare = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let with_unit = if bare { format!("{text}s") } else { text.to_owned() };
    let signed: SignedDuration = with_unit.parse().map_err(|_| invalid())?;
    let duration = Duration::try_from(signed).map_err(|_| invalid())?;
    if duration > LONGEST {
        return Err(format!("`{text}` is longer than a hundred years"));
    }
    Ok(duration)
}

/// Returns `duration` as [`parse`] reads it, exact to the millisecond, like `2m30s` or `1.5s`.
#[must_use]
pub fn show(duration: Duration) -> String {
    if duration < Duration::from_secs(1) && !duration.is_zero() {
        return format!("{}ms", duration.as_millis());
    }
    let seconds = duration.as_secs();
    let mut text = String::new();
    for (value, unit) in [(seconds / 3600, 'h'), (seconds / 60 % 60, 'm')] {
        if value > 0 {
            text += &format!("{value}{unit}");
        }
    }
    let (seconds, millis) = (seconds % 60, duration.subsec_millis());
    if millis > 0 {
        text += &format!("{seconds}.{millis:03}");
        text.truncate(text.trim_end_matches('0').len());
        text.push('s');
    } else if seconds > 0 || text.is_empty() {
        text += &format!("{seconds}s");
    }
    text
}

/// Returns a measured `duration` in its two largest units, rounded down, like `4d3h`, `3m12s` or `1.5s`.
#[must_use]
pub fn show_rounded(duration: Duration) -> String {
    const DAY: u64 = 24 * 60 * 60;
    let seconds = duration.as_secs();
    let rounded = match seconds {
        0 => duration,
        1..60 => Duration::from_millis(seconds * 1000 + u64::from(duration.subsec_millis()) / 100 * 100),
        60..3600 => Duration::from_secs(seconds),
        3600..DAY => Duration::from_secs(seconds / 60 * 60),
        _ => {
            let hours = seconds % DAY / 3600;
            return if hours == 0 { format!("{}d", seconds / DAY) } else { format!("{}d{hours}h", seconds / DAY) };
        }
    };
    show(rounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_durations_are_parsed() {
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
    fn other_texts_are_refused() {
        for text in
            ["", " ", "s", "-5s", "+5s", "5s ago", "5x", "15 s s", "PT5S", "1.2.3", "forever", "0x10", "5s5s", "١٥"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn too_long_durations_are_refused() {
        for text in ["99999999999999999999", "9223372036854775807", "900000h", "876001h", "18446744073709551616s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_shown_as_users_write_them() {
        for text in ["0s", "15s", "2m30s", "500ms", "1.5s", "1.005s", "1h", "96h", "1m0.5s", "1h2m3.25s"] {
            assert_eq!(show(parse(text).unwrap()), text);
        }
    }

    #[test]
    fn measured_durations_have_at_most_two_units() {
        for (millis, shown) in [
            (0, "0s"),
            (120, "120ms"),
            (1_000, "1s"),
            (1_590, "1.5s"),
            (59_999, "59.9s"),
            (60_900, "1m"),
            (192_000, "3m12s"),
            (3_599_000, "59m59s"),
            (3_600_000, "1h"),
            (7_530_000, "2h5m"),
            (86_400_000, "1d"),
            (356_400_000, "4d3h"),
        ] {
            assert_eq!(show_rounded(Duration::from_millis(millis)), shown);
        }
    }
}
