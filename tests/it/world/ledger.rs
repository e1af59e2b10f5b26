//! Checker of mutual exclusion: commands under a lock record when they run, and no two may overlap.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, thread};

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};

use super::{World, millis};

const FILE: &str = "LEDGER_FILE";
const HOLD: &str = "LEDGER_HOLD_MS";
const UNTIL: &str = "LEDGER_UNTIL";
const TOKEN: &str = "DISTLOCK_FENCING_TOKEN";

/// File in which the holders of one lock record every 10 ms that they run, with their token. The first entry has the
/// start time of the process, which is well before its first write.
pub struct Ledger {
    path: PathBuf,
}

/// The entries of one holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// `CLOCK_BOOTTIME` of the first entry, in nanoseconds.
    pub from: u64,
    /// `CLOCK_BOOTTIME` of the last entry, in nanoseconds.
    pub to: u64,
    /// Fencing token; none for peers of distlock.
    pub token: Option<u64>,
    pub pid: u32,
}

impl Ledger {
    /// Creates an empty ledger.
    pub fn new(world: &World) -> Self {
        Self { path: world.path().join("ledger") }
    }

    /// Returns a command that writes entries for `hold` and exits 0: this test binary with the test
    /// [`record_every_10_ms`]. `sh -c` gives it other properties:
    ///
    /// - `trap "" TERM INT HUP; exec "$@"` ignores signals,
    /// - `setsid -f "$@"` makes it a daemon,
    /// - `"$@"; exit 7` exits with another code.
    pub fn command(&self, hold: Duration) -> Vec<String> {
        self.command_with(&format!("{HOLD}={}", hold.as_millis()))
    }

    /// Returns the same command, but it exits when this file exists.
    pub fn command_until(&self, file: &Path) -> Vec<String> {
        self.command_with(&format!("{UNTIL}={}", file.display()))
    }

    fn command_with(&self, end: &str) -> Vec<String> {
        let this = env::current_exe().expect("the path of this binary");
        [
            "env",
            &format!("{FILE}={}", self.path.display()),
            end,
            &this.display().to_string(),
            "--ignored",
            "--exact",
            "world::ledger::record_every_10_ms",
        ]
        .map(str::to_owned)
        .into()
    }

    /// Returns the holders in the order of their first entries.
    pub fn holds(&self) -> Vec<Hold> {
        parse(&fs::read_to_string(&self.path).unwrap_or_default())
    }

    /// Panics unless there were this many holders, never two at once, and their tokens grew.
    #[track_caller]
    pub fn assert_exclusive(&self, holders: usize) {
        let holds = self.holds();
        assert_eq!(holds.len(), holders, "holders in the ledger: {holds:#?}");
        if let Some(violation) = violation(&holds) {
            panic!("{violation}");
        }
    }
}

/// Parses a ledger. A holder is identified by its token, since it may have several processes, or by its pid if it has
/// no token.
fn parse(ledger: &str) -> Vec<Hold> {
    let mut holds: HashMap<String, Hold> = HashMap::new();
    for line in ledger.lines() {
        let mut fields = line.split(' ');
        let mut field = || fields.next().unwrap_or_else(|| panic!("incomplete line in the ledger: {line:?}"));
        let (at, token, pid) = (field(), field(), field());
        let holder = if token == "-" { format!("pid {pid}") } else { token.to_owned() };
        let at = at.parse().expect("a time in the ledger");
        let pid = pid.parse().expect("a pid in the ledger");
        let hold = holds.entry(holder).or_insert(Hold { from: at, to: at, token: token.parse().ok(), pid });
        hold.from = hold.from.min(at);
        hold.to = hold.to.max(at);
    }
    let mut holds: Vec<_> = holds.into_values().collect();
    holds.sort_by_key(|hold| hold.from);
    holds
}

/// Returns the first violation among holders in the order of their first entries.
fn violation(holds: &[Hold]) -> Option<String> {
    for pair in holds.windows(2) {
        if pair[1].from <= pair[0].to {
            let overlap = Duration::from_nanos(pair[0].to - pair[1].from);
            return Some(format!("two holders at once, for {overlap:?}: {pair:#?}"));
        }
    }
    let tokens: Vec<_> = holds.iter().filter_map(|hold| hold.token).collect();
    let not_growing = tokens.windows(2).find(|pair| pair[1] <= pair[0])?;
    Some(format!("token {} follows {}", not_growing[1], not_growing[0]))
}

/// Not a test: [`Ledger::command`] runs it under a lock, in another process.
#[test]
#[ignore = "the command that other tests run under a lock"]
fn record_every_10_ms() {
    let Ok(path) = env::var(FILE) else { return };
    let token = env::var(TOKEN).unwrap_or_else(|_| "-".to_owned());
    let hold = env::var(HOLD).ok().map(|hold| hold.parse::<u64>().expect("milliseconds") * 1_000_000);
    let until = env::var(UNTIL).ok();
    let mut ledger = OpenOptions::new().create(true).append(true).open(path).expect("the ledger opens");
    let mut record = |at: u64| {
        // A single write, so that lines of two holders never mix.
        let line = format!("{at} {token} {}\n", std::process::id());
        ledger.write_all(line.as_bytes()).expect("the ledger takes a line");
    };
    record(started().min(now()));
    let end = hold.map_or(u64::MAX, |hold| now() + hold);
    loop {
        let now = now();
        record(now);
        if now >= end || until.as_ref().is_some_and(|file| Path::new(file).exists()) {
            return;
        }
        thread::sleep(millis(10).min(Duration::from_nanos(end - now)));
    }
}

/// Returns when this process was forked, in nanoseconds of `CLOCK_BOOTTIME`; exec does not change it. The time is
/// rounded up, so that it is never before the acquisition of the lock.
fn started() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("/proc is mounted");
    // The name is in parentheses and may contain any character; the state, after it, is the third field.
    let fields = &stat[stat.rfind(')').expect("a name in parentheses") + 2..];
    let ticks: u64 = fields.split(' ').nth(22 - 3).and_then(|ticks| ticks.parse().ok()).expect("the 22nd field");
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().expect("a limit of every Linux");
    (ticks + 1) * (1_000_000_000 / u64::try_from(per_second).expect("a number of ticks"))
}

/// Returns nanoseconds of `CLOCK_BOOTTIME`.
fn now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("a clock of every Linux");
    u64::try_from(Duration::from(now).as_nanos()).expect("584 years of uptime")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use distlock_core::time::Instant as Moment;

    use super::{Ledger, World, millis, parse, violation};
    use crate::world::{moment, poll_until, secs};

    #[test]
    fn holders_differ_by_token_then_pid() {
        let holds = parse("10 5 100\n20 5 101\n30 - 102\n40 - 102\n50 6 103\n");
        let seen: Vec<_> = holds.iter().map(|hold| (hold.from, hold.to, hold.token)).collect();
        assert_eq!(seen, [(10, 20, Some(5)), (30, 40, None), (50, 50, Some(6))]);
        assert_eq!(violation(&holds), None);
    }

    #[test]
    fn overlap_is_found() {
        let violation = violation(&parse("10 5 100\n20 - 102\n20 5 100\n30 - 102\n")).expect("a violation");
        assert!(violation.contains("two holders at once"), "{violation}");
    }

    #[test]
    fn overlap_of_a_single_time_is_found() {
        assert!(violation(&parse("10 - 1\n20 - 1\n20 - 2\n")).is_some());
    }

    #[test]
    fn token_that_does_not_grow_is_found() {
        let violation = violation(&parse("10 6 100\n20 - 102\n30 5 103\n")).expect("a violation");
        assert_eq!(violation, "token 5 follows 6");
    }

    #[test]
    fn command_records_its_token_and_its_hold() {
        let world = World::new();
        let ledger = Ledger::new(&world);
        for token in ["8", "9"] {
            let [program, args @ ..] = &ledger.command(millis(50))[..] else { unreachable!() };
            world.command(program).args(args).env(super::TOKEN, token).run().assert_code(0);
        }
        ledger.assert_exclusive(2);
        let first = &ledger.holds()[0];
        assert!(first.to - first.from >= 50_000_000, "{first:?}");
    }

    #[test]
    fn hold_begins_with_its_process_and_ends_with_a_file() {
        let world = World::new();
        let (ledger, file) = (Ledger::new(&world), world.path().join("file"));
        // The process of the shell becomes the recording command.
        let shell = ["-c", r#"read -r now idle </proc/uptime; echo "$now"; sleep 0.5; exec "$@""#, "sh"];
        let job = world.command("sh").args(shell).args(ledger.command_until(&file)).spawn();
        poll_until("the first entry", secs(30), || ledger.holds().len() == 1);
        std::fs::write(&file, "").expect("a file in the world");
        let shell_started_at = moment(job.wait().assert_code(0).stdout.lines().next().expect("a time"));
        let from = Moment::from_boot(Duration::from_nanos(ledger.holds()[0].from));
        assert!(from < shell_started_at + millis(400), "the hold began at {from:?}, the shell at {shell_started_at:?}");
    }
}
