//! Content of a lock file: the last fencing token and the holder's record.
//!
//! The file is one line of text, `distlock1 <token> <record as JSON, or null if the lock is free>`. A write replaces it in
//! place and fits in one page, so a killed process leaves the old or the new line. A power loss can leave a torn one, but
//! then no process holds the lock: the line counts as no entry, and the next token comes from the clock; or it still has
//! its token and the record of an earlier holder.

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

/// Returns the stored entry; the default one if the file has none.
pub(super) fn read(file: &File) -> io::Result<Entry> {
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
    Ok(parse(&content[..filled]).unwrap_or_default())
}

/// Replaces the stored entry and waits until it is on the disk, which costs nothing on the tmpfs below `/run`.
pub(super) fn write(file: &File, entry: &Entry) -> io::Result<()> {
    let line = format(entry);
    file.write_all_at(line.as_bytes(), 0)?;
    // Until here the rest of a longer line follows the new one; readers stop at the first line end.
    file.set_len(line.len() as u64)?;
    file.sync_data()
}

/// Returns the line for `entry`. A record that does not fit is reduced to its id, because the token matters more.
fn format(entry: &Entry) -> String {
    let full = format_line(entry.token, entry.holder.as_ref());
    if full.len() <= MAX_LEN {
        return full;
    }
    let id = entry.holder.as_ref().map(|holder| Record { id: holder.id.clone(), ..Record::default() });
    format_line(entry.token, id.as_ref())
}

fn format_line(token: u64, holder: Option<&Record>) -> String {
    format!("{FORMAT} {token} {}\n", holder.map_or_else(|| "null".to_owned(), Record::to_json))
}

/// Parses the first line; None unless it is complete.
fn parse(content: &[u8]) -> Option<Entry> {
    let end = content.iter().position(|&byte| byte == b'\n')?;
    let line = std::str::from_utf8(&content[..end]).ok()?;
    let (token, record) = line.strip_prefix(FORMAT)?.strip_prefix(' ')?.split_once(' ')?;
    let token = token.parse().ok()?;
    let holder = match record {
        "null" => None,
        json => {
            // `Record::parse` accepts anything; a torn record must not pass as the record of an unknown holder.
            serde_json::from_str::<Record>(json).ok()?;
            Some(Record::parse(json.as_bytes()))
        }
    };
    Some(Entry { token, holder })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(message: &str) -> Record {
        Record { id: "c0ffee".into(), host: "h".into(), message: Some(message.into()), ..Record::default() }
    }

    fn held(token: u64, message: &str) -> Entry {
        Entry { token, holder: Some(record(message)) }
    }

    #[test]
    fn empty_and_foreign_files_have_no_entry() {
        let old_format = b"distlock1 0123456789012345 7 1700000000000 {\"id\":\"c0ffee\"}\n";
        for content in [&b""[..], b"4711\n", b"distlock1 7 null", b"distlock1 7 {}x\n", &[0xff; 9000], old_format] {
            assert_eq!(parse(content), None, "{content:?}");
        }
    }

    #[test]
    fn the_last_written_entry_is_read() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(read(&file).unwrap(), Entry::default());
        for entry in
            [held(7, "a long message"), Entry { token: 7, holder: None }, held(8, "m"), held(9, "a longer one")]
        {
            write(&file, &entry).unwrap();
            assert_eq!(read(&file).unwrap(), entry);
            assert_eq!(file.metadata().unwrap().len(), format(&entry).len() as u64);
        }
    }

    #[test]
    fn a_truncated_line_is_no_entry() {
        let line = format(&held(1_700_000_000_000, "deploy"));
        for length in 0..line.len() {
            assert_eq!(parse(&line.as_bytes()[..length]), None, "cut at {length}");
        }
    }

    /// A torn write leaves the first bytes of the new line before the last ones of the old line, of any relative length.
    #[test]
    fn a_torn_write_never_lowers_the_token() {
        let (free, short, long) = (None, Some(record("m")), Some(record("a message that is much longer: ü\n\0")));
        for (before, after) in [(&free, &short), (&short, &free), (&short, &long), (&long, &short), (&long, &free)] {
            let old = Entry { token: 1_699_999_999_999, holder: before.clone() };
            let new = Entry { token: 1_700_000_000_000, holder: after.clone() };
            let (old_line, new_line) = (format(&old).into_bytes(), format(&new).into_bytes());
            for torn_at in 0..=new_line.len() {
                let rest = old_line.get(torn_at..).unwrap_or_default();
                let read = parse(&[&new_line[..torn_at], rest].concat());
                assert!(read.is_none_or(|entry| entry.token >= old.token), "torn at {torn_at}");
            }
            assert_eq!(parse(&[&new_line[..], old_line.get(new_line.len()..).unwrap_or_default()].concat()), Some(new));
        }
    }

    #[test]
    fn a_record_that_is_too_long_is_reduced_to_its_id() {
        let reduced = Entry { token: 7, holder: Some(Record { id: "c0ffee".into(), ..Record::default() }) };
        let line = format(&held(7, &"x".repeat(MAX_LEN)));
        assert!(line.len() <= MAX_LEN);
        assert_eq!(parse(line.as_bytes()), Some(reduced));
    }

    proptest! {
        #[test]
        fn a_written_entry_is_read_back(token: u64, held: bool, message in "\\PC{0,200}|[\\x00-\\x7f]{0,50}") {
            let entry = Entry { token, holder: held.then(|| record(&message)) };
            prop_assert_eq!(parse(format(&entry).as_bytes()), Some(entry));
        }

        #[test]
        fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&[FORMAT.as_bytes(), b" ", &bytes].concat());
            prop_assert_eq!(parse(&bytes), None);
        }
    }
}
