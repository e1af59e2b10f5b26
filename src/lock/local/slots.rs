//! What a lock file holds: the fencing counter and the holder's record, safe against a crash between any two bytes.
//!
//! The file has two slots. A slot is one line of text: a mark, a checksum, how many writes there were before, the token
//! and the record as JSON (`null` when the lock is free). A write goes to the slot that does not hold the newest entry,
//! and reaches the disk before the next one starts, so at most one slot is ever torn, and never the newest whole one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use distlock_core::record::Record;

/// Size of a slot in bytes: one page.
const SLOT: usize = 4096;
/// The first word of a slot: the format and its version.
const MARK: &str = "distlock1";

/// One state of the lock as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// Counts the writes: the greater one is the newer.
    pub seq: u64,
    /// The fencing token that was given out last.
    pub token: u64,
    /// Who got it; None after an orderly release.
    pub holder: Option<Record>,
}

/// The newest whole entry; the default one in a file that has none.
pub(super) fn read(file: &File) -> io::Result<Entry> {
    let mut bytes = vec![0; 2 * SLOT];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(newest(&bytes[..filled]))
}

/// Stores `entry` in the slot that its number names, which is not the one of the entry before it.
///
/// The data is on the disk when this returns, for otherwise a power loss could tear two slots at once. It costs nothing
/// on the tmpfs below `/run`.
pub(super) fn write(file: &File, entry: &Entry) -> io::Result<()> {
    let offset = (entry.seq % 2) * SLOT as u64;
    file.write_all_at(encode(entry).as_bytes(), offset)?;
    file.sync_data()
}

/// The newest whole entry among the slots of a file's content.
fn newest(content: &[u8]) -> Entry {
    content.chunks(SLOT).filter_map(decode).max_by_key(|entry| entry.seq).unwrap_or_default()
}

/// The line that fills a slot. A record that is too long for it keeps its id only: the token matters more.
fn encode(entry: &Entry) -> String {
    let full = line(entry.seq, entry.token, entry.holder.as_ref());
    if full.len() <= SLOT {
        return full;
    }
    let id = entry.holder.as_ref().map(|holder| Record { id: holder.id.clone(), ..Record::default() });
    line(entry.seq, entry.token, id.as_ref())
}

fn line(seq: u64, token: u64, holder: Option<&Record>) -> String {
    let body = format!("{seq} {token} {}", holder.map_or_else(|| "null".to_owned(), Record::to_json));
    format!("{MARK} {:016x} {body}\n", checksum(body.as_bytes()))
}

/// Reads one slot; None unless it is whole. What follows the line is the rest of an older, longer one.
fn decode(slot: &[u8]) -> Option<Entry> {
    let end = slot.iter().position(|&byte| byte == b'\n')?;
    let line = std::str::from_utf8(&slot[..end]).ok()?;
    let (sum, body) = line.strip_prefix(MARK)?.strip_prefix(' ')?.split_once(' ')?;
    if u64::from_str_radix(sum, 16).ok()? != checksum(body.as_bytes()) {
        return None;
    }
    let mut fields = body.splitn(3, ' ');
    let seq = fields.next()?.parse().ok()?;
    let token = fields.next()?.parse().ok()?;
    let holder = fields.next().filter(|json| *json != "null").map(|json| Record::parse(json.as_bytes()));
    Some(Entry { seq, token, holder })
}

/// FNV-1a, 64 bits: it has to tell a torn line from a whole one, not to resist an attacker, who could write a whole one.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests;
