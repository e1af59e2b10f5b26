//! Rules for lock names that all backends share. Each backend adds its own.

use crate::error::Failure;

/// Refuses a name that distlock accepts on no backend: an empty one, one that begins with a dash or ends with a slash, and
/// one with characters that are invisible in messages.
///
/// # Errors
///
/// A usage failure with a hint.
pub fn check(name: &str) -> Result<(), Failure> {
    let refuse =
        |why: &str, hint: &str| Err(Failure::usage(format!("lock name {why}: `{}`", name.escape_debug())).hint(hint));
    if name.is_empty() {
        return Err(Failure::usage("lock name is empty").hint("is a variable unset? distlock NAME -- COMMAND"));
    }
    if name.starts_with('-') {
        return refuse("begins with a dash", "options precede NAME; choose a name that begins with another character");
    }
    if name.ends_with('/') {
        // `etcdctl lock /x/` creates the key /x//ID: trimming the slash would make two locks of one name.
        let bare = name.trim_end_matches('/');
        return match bare {
            "" => refuse("ends with a slash", "add a name after the slash"),
            _ => refuse("ends with a slash", &format!("remove it: `{}`", bare.escape_debug())),
        };
    }
    if name.chars().any(is_unprintable) {
        return refuse("contains an unprintable character", "remove it: it would be invisible in messages");
    }
    Ok(())
}

/// Returns whether this is a control character, or one that is invisible or changes how others look: with it, a name could
/// look like another one. The standard library escapes these; quotes and backslashes are escaped too, but printable.
fn is_unprintable(c: char) -> bool {
    // A combining character is printable after another one.
    let printed = String::from_iter(['a', c]).escape_debug().skip(1).eq([c]);
    !printed && !matches!(c, '"' | '\'' | '\\')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn printable_names_are_accepted() {
        for name in
            ["a", "/a b", "/Straße", "/e\u{301}te\u{301}", "/日本/作業", "/🚀", "/it's \"so\" \\ here", ".", "a//b"]
        {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn other_names_are_refused_with_a_hint() {
        for name in ["", "-x", "/", "//", "/x/", "a\nb", "a\0"] {
            let failure = check(name).expect_err(name);
            assert_eq!(failure.kind, Kind::Usage);
            assert!(failure.hint.is_some(), "{name:?}");
        }
        for c in ["\u{ad}", "\u{200d}", "\u{2066}", "\u{feff}", "\u{e0041}", "\u{7f}", "\u{85}"] {
            assert!(check(&format!("/a{c}b")).is_err(), "{}", c.escape_unicode());
        }
    }
}
