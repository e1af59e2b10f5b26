//! Content of a lock file: the last fencing token and the holder's record.
//!
//! The file is one line of text, `distlock1 <token> <record as JSON, or null if the lock is free>`, padded with spaces. A
//! write replaces the whole line in place and never makes it shorter, so a killed process leaves the old or the new line.
//! A power loss can leave the start of the new line and the end of the old one. The token is at the start, in the first
//! sector, so it is the old or the new one; a record that does not parse is ignored.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use distlock_core::record::Record;

/// Upper limit of a lock file's content in bytes: one page.
const MAX_LEN: usize = 4096;
/// First word of the line: the format and its version.
const FORMAT: &str = "distlock1";

/// State of a lock as stored in its file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// The last fencing token that was issued; zero before the first.
    pub token: u64,
    /// Record of the contender that got the token; None after a release. A crash leaves it behind, so it only describes
    /// a holder while the file is locked.
    pub holder: Option<Record>,
}

/// Returns the stored entry; the default one if the file is empty, None if the file is not a lock file of distlock.
pub(super) fn read(file: &File) -> io::Result<Option<Entry>> {
    let mut content = vec![0; MAX_LEN];
    let mut filled = 0;
    while filled < content.len() {
        match file.read_at(&mut content[filled..], filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(parse(&content[..filled]))
}

/// Replaces the stored entry and waits until it is on the disk, which costs nothing on the tmpfs below `/run`.
pub(super) fn write(file: &File, entry: &Entry) -> io::Result<()> {
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(MAX_LEN).min(MAX_LEN);
    file.write_all_at(format(entry, length).as_bytes(), 0)?;
    file.sync_data()
}

/// Returns the line for `entry`, at least `length` bytes long. A record that does not fit is reduced to its id, because the
/// token matters more.
fn format(entry: &Entry, length: usize) -> String {
    let full = format_line(entry.token, entry.holder.as_ref(), length);
    if full.len() <= MAX_LEN {
        return full;
    }
    let id = entry.holder.as_ref().map(|holder| Record { id: holder.id.clone(), ..Record::default() });
    format_line(entry.token, id.as_ref(), length)
}

fn format_line(token: u64, holder: Option<&Record>, length: usize) -> String {
    let line = format!("{FORMAT} {token} {}", holder.map_or_else(|| "null".to_owned(), Record::to_json));
    format!("{line:<width$}\n", width = length.saturating_sub(1).saturating_sub(line.len() - line.chars().count()))
}

/// Parses the first line; None if it is not a line of distlock.
fn parse(content: &[u8]) -> Option<Entry> {
    if content.is_empty() {
        return Some(Entry::default());
    }
    let line = content.split(|&byte| byte == b'\n').next()?;
    let rest = line.strip_prefix(FORMAT.as_bytes())?.strip_prefix(b" ")?;
    let token_end = rest.iter().position(|&byte| byte == b' ')?;
    let token = std::str::from_utf8(&rest[..token_end]).ok()?.parse().ok()?;
    // `Record::parse` accepts anything; a torn record must not pass as the record of an unknown holder.
    let json = rest[token_end..].trim_ascii();
    let holder = serde_json::from_slice::<Record>(json).is_ok().then(|| Record::parse(json));
    Some(Entry { token, holder })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The smallest unit that a disk writes as a whole, in bytes.
    const SECTOR: usize = 512;

    fn record(message: &str) -> Record {
        Record { id: "c0ffee".into(), host: "h".into(), message: Some(message.into()), ..Record::default() }
    }

    fn held(token: u64, message: &str) -> Entry {
        Entry { token, holder: Some(record(message)) }
    }

    #[test]
    fn foreign_files_have_no_entry() {
        assert_eq!(parse(b""), Some(Entry::default()));
        let foreign =
            [&b"4711\n"[..], b"\n", b" distlock1 7 null\n", b"distlock", b"distlock1 7", b"distlock1 x null\n"];
        for content in foreign.into_iter().chain([&[0xff; 9000][..], &[0; 4096]]) {
            assert_eq!(parse(content), None, "{content:?}");
        }
    }

    /// Older and newer versions on the same host must agree on the format.
    #[test]
    fn the_format_on_disk_is_stable() {
        assert_eq!(format(&Entry { token: 7, holder: None }, 0), "distlock1 7 null\n");
        assert_eq!(format(&Entry { token: 7, holder: None }, 20), "distlock1 7 null   \n");
        let line = b"distlock1 7 {\"id\":\"c0ffee\",\"host\":\"h\",\"message\":\"m\"}   \n";
        assert_eq!(parse(line), Some(held(7, "m")));
    }

    #[test]
    fn the_last_written_entry_is_read() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(read(&file).unwrap(), Some(Entry::default()));
        let mut length = 0;
        for entry in [
            held(7, "a long message: ü"),
            Entry { token: 7, holder: None },
            held(8, "m"),
            held(9, "a longer message: ü"),
        ] {
            write(&file, &entry).unwrap();
            assert_eq!(read(&file).unwrap(), Some(entry));
            let written = file.metadata().unwrap().len();
            assert!(written >= length, "a shorter line would be cut by a power loss");
            length = written;
        }
    }

    #[test]
    fn a_truncated_line_keeps_the_token() {
        let line = format(&held(1_700_000_000_000, "deploy"), 0);
        let token_end = line.match_indices(' ').nth(1).unwrap().0;
        for length in token_end + 1..line.len() - 1 {
            let read = parse(&line.as_bytes()[..length]);
            assert_eq!(read, Some(Entry { token: 1_700_000_000_000, holder: None }), "cut at {length}");
        }
    }

    /// A torn write leaves the first sectors of the new line before the last ones of the old line.
    #[test]
    fn a_torn_write_never_lowers_the_token() {
        let long = "a message that is much longer: ü\n\0".repeat(60);
        let records = [None, Some(record("m")), Some(record(&long))];
        let (old, new) = (1_699_999_999_999, 1_700_000_000_000);
        for (before, after) in records.iter().flat_map(|before| records.iter().map(move |after| (before, after))) {
            let old_line = format(&Entry { token: old, holder: before.clone() }, 0).into_bytes();
            let new_line = format(&Entry { token: new, holder: after.clone() }, old_line.len()).into_bytes();
            for torn_at in (0..=new_line.len()).step_by(SECTOR).chain([new_line.len()]) {
                let rest = old_line.get(torn_at..).unwrap_or_default();
                let read = parse(&[&new_line[..torn_at], rest].concat()).expect("a line of distlock");
                assert_eq!(read.token, if torn_at == 0 { old } else { new }, "torn at {torn_at}");
            }
        }
    }

    #[test]
    fn a_record_that_is_too_long_is_reduced_to_its_id() {
        let reduced = Entry { token: 7, holder: Some(Record { id: "c0ffee".into(), ..Record::default() }) };
        let line = format(&held(7, &"x".repeat(MAX_LEN)), MAX_LEN);
        assert!(line.len() <= MAX_LEN);
        assert_eq!(parse(line.as_bytes()), Some(reduced));
    }

    proptest! {
        #[test]
        fn a_written_entry_is_read_back(token: u64, held: bool, length in 0..MAX_LEN, message in "\\PC{0,200}|[\\x00-\\x7f]{0,50}") {
            let entry = Entry { token, holder: held.then(|| record(&message)) };
            prop_assert_eq!(parse(format(&entry, length).as_bytes()), Some(entry));
        }

        #[test]
        fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&[FORMAT.as_bytes(), b" ", &bytes].concat());
            prop_assert_eq!(parse(&bytes).is_some(), bytes.is_empty());
        }
    }
}
