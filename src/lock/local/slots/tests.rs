use proptest::prelude::*;

use super::*;

fn record(message: &str) -> Record {
    Record { id: "c0ffee".into(), host: "h".into(), message: Some(message.into()), ..Record::default() }
}

fn entry(seq: u64, holder: Option<Record>) -> Entry {
    Entry { seq, token: 1_000 + seq, holder }
}

/// The file's content after these writes.
fn content(entries: &[Entry]) -> Vec<u8> {
    let file = tempfile::tempfile().unwrap();
    for entry in entries {
        write(&file, entry).unwrap();
    }
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn nothing_is_known_from_an_empty_or_foreign_file() {
    assert_eq!(newest(b""), Entry::default());
    assert_eq!(newest(b"4711\n"), Entry::default());
    assert_eq!(newest(&[0xff; 3 * SLOT]), Entry::default());
}

#[test]
fn the_newest_entry_is_read_whichever_slot_holds_it() {
    let mut entries = Vec::new();
    for seq in 1..6 {
        entries.push(entry(seq, (seq % 2 == 1).then(|| record("deploy"))));
        assert_eq!(newest(&content(&entries)), entries[entries.len() - 1]);
    }
}

/// The write of a third entry over the first stops after any number of bytes, in either direction, when the new line is
/// shorter, as long or longer than the one it replaces.
#[test]
fn a_torn_write_leaves_the_entry_before_it() {
    for message in ["", "as long as it was", "longer than it was, by a good deal: ü\n\0"] {
        let before = [entry(1, Some(record("as long as it was"))), entry(2, None)];
        let next = entry(3, Some(record(message)));
        let old = content(&before);
        let new = content(&[before[0].clone(), before[1].clone(), next.clone()]);
        let length = old.len().min(new.len());
        for torn_at in 0..=length {
            for torn in [[&new[..torn_at], &old[torn_at..]].concat(), [&old[..torn_at], &new[torn_at..]].concat()] {
                let read = newest(&torn);
                assert!(read == before[1] || read == next, "torn at {torn_at}: {read:?}");
            }
        }
        assert_eq!(newest(&new), next);
    }
}

#[test]
fn a_file_cut_short_at_any_byte_never_gives_a_wrong_entry() {
    let entries = [entry(1, Some(record("one"))), entry(2, Some(record("two")))];
    let bytes = content(&entries);
    for length in 0..bytes.len() {
        let read = newest(&bytes[..length]);
        assert!(read == Entry::default() || entries.contains(&read), "cut at {length}: {read:?}");
    }
}

#[test]
fn a_record_that_is_too_long_keeps_the_token_and_the_id() {
    let kept = newest(&content(&[entry(1, Some(record(&"x".repeat(SLOT))))]));
    assert_eq!(kept, entry(1, Some(Record { id: "c0ffee".into(), ..Record::default() })));
}

proptest! {
    #[test]
    fn what_is_written_is_read(seq: u64, token: u64, held: bool, message in "\\PC{0,200}|[\\x00-\\x7f]{0,50}") {
        let entry = Entry { seq, token, holder: held.then(|| record(&message)) };
        prop_assert_eq!(decode(encode(&entry).as_bytes()), Some(entry));
    }

    #[test]
    fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = newest(&[MARK.as_bytes(), b" ", &bytes].concat());
        prop_assert_eq!(newest(&bytes), Entry::default());
    }

    #[test]
    fn a_changed_byte_is_noticed(at in 0_usize..80, byte: u8) {
        let entry = entry(7, Some(record("deploy")));
        let mut line = encode(&entry).into_bytes();
        let changed = std::mem::replace(&mut line[at], byte) != byte;
        let read = decode(&line);
        // Only the checksum's own digits have two spellings.
        prop_assert!(read == Some(entry) || (changed && read.is_none()));
    }
}
