//! The value of `--report`.

use std::ffi::OsStr;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    File(PathBuf),
    /// An inherited descriptor, 3 or greater.
    Descriptor(RawFd),
}

impl Target {
    /// Parses `FILE` or `fd:N`. An error continues a message that starts with the name of the option.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, String> {
        match text.as_bytes().strip_prefix(b"fd:") {
            None if text.is_empty() => Err("is empty; give a FILE, or fd:N".to_owned()),
            None => Ok(Self::File(text.into())),
            Some(number) => {
                let number = str::from_utf8(number).ok().and_then(|number| number.parse().ok());
                number.filter(|number| *number >= 3).map(Self::Descriptor).ok_or_else(|| {
                    format!("`{}` is not a descriptor; give 3 or greater, as in fd:3", text.to_string_lossy())
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_is_a_file_or_a_descriptor_from_3() {
        let parse = |text: &str| Target::parse(OsStr::new(text));
        assert_eq!(parse("a/b.json"), Ok(Target::File("a/b.json".into())));
        assert_eq!(parse("./fd:3"), Ok(Target::File("./fd:3".into())));
        assert_eq!(parse("fd:3"), Ok(Target::Descriptor(3)));
        for text in ["", "fd:", "fd:2", "fd:-1", "fd:x", "fd:3 ", "fd:99999999999"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
