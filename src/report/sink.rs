//! Where the report goes, and how it gets there: at the very end, and without waiting for ever.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::unistd::{AccessFlags, access};

use super::target::Target;
use crate::sys::process;
use distlock_core::duration;

/// A pipe that nobody reads, or a disk, may keep the end waiting for this long.
const LONGEST: Duration = Duration::from_secs(5);
/// The kernel follows no more links than this either.
const MOST_LINKS: usize = 40;

/// A target that was made ready.
#[derive(Debug)]
pub(super) enum Sink {
    /// A plain file, which appears complete or not at all.
    Replace(PathBuf),
    /// A device or a pipe: it stays what it is, and is written to.
    Through(PathBuf),
    /// A descriptor that is ours now, or our own copy of a standard one.
    Descriptor(OwnedFd),
}

impl Sink {
    /// Removes the file of an earlier run and makes sure that another can take its place, or takes the descriptor away
    /// from the command. Call it before the inherited descriptors are counted.
    ///
    /// # Errors
    ///
    /// Why a report could not be written there, or an old one would stay and be taken for this run's.
    pub(super) fn open(target: &Target) -> Result<Self, String> {
        match target {
            Target::Descriptor(fd) => descriptor(*fd),
            Target::File(path) => match follow(path)? {
                End::Descriptor(fd) => descriptor(fd),
                End::Path(path) => file(path),
            },
        }
    }

    /// The descriptor that no other process is to hold.
    #[must_use]
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        match self {
            Self::Descriptor(fd) => Some(fd.as_raw_fd()),
            Self::Replace(_) | Self::Through(_) => None,
        }
    }

    /// Writes the text, or gives it up after [`LONGEST`]: the thread that does it may block, this one does not. The
    /// descriptor is everybody's who inherited it, so it cannot be told not to block.
    ///
    /// # Errors
    ///
    /// Why there is no report.
    pub(super) fn write(self, text: String) -> Result<(), String> {
        let (tell, told) = mpsc::channel();
        let write = move || {
            // Nobody listens any more once it took too long.
            let _ = tell.send(self.put(text.as_bytes()));
        };
        let thread = thread::Builder::new().name("report".to_owned()).spawn(write);
        match thread.map(|_| told.recv_timeout(LONGEST)) {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) | Err(error) => Err(error.to_string()),
            Ok(Err(_)) => Err(format!("it was not taken within {}", duration::show(LONGEST))),
        }
    }

    fn put(self, text: &[u8]) -> io::Result<()> {
        match self {
            Self::Descriptor(fd) => File::from(fd).write_all(text),
            // What is a plain file by now is not ours to cut.
            Self::Through(path) => OpenOptions::new().append(true).open(path)?.write_all(text),
            Self::Replace(path) => replace(&path, text),
        }
    }
}

/// What a path leads to.
enum End {
    /// A descriptor of this process.
    Descriptor(RawFd),
    /// Anything else, or nothing yet.
    Path(PathBuf),
}

/// Follows links by hand: the file behind one is replaced, not the link, whether or not it exists by now. And
/// `/dev/stdout` is a link to a name that means another file once this process has another standard output.
fn follow(path: &Path) -> Result<End, String> {
    let own = fs::canonicalize("/proc/self/fd");
    let mut at = path.to_owned();
    for _ in 0..MOST_LINKS {
        let beside = at.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let among_own = own.as_ref().is_ok_and(|own| fs::canonicalize(beside).is_ok_and(|beside| beside == *own));
        let number = at.file_name().filter(|_| among_own).and_then(|name| name.to_str()?.parse().ok());
        if let Some(fd) = number {
            return Ok(End::Descriptor(fd));
        }
        match fs::read_link(&at) {
            Ok(target) => at = beside.join(target),
            Err(_) => return Ok(End::Path(at)),
        }
    }
    Err(format!("{}: too many links", path.display()))
}

/// The standard ones are the command's as well, so we write to a copy; others are taken away from it.
fn descriptor(fd: RawFd) -> Result<Sink, String> {
    let ours = if fd <= 2 { process::copy(fd) } else { process::claim(fd) };
    ours.map(Sink::Descriptor).map_err(|error| format!("descriptor {fd} cannot be written to: {error}"))
}

fn file(path: PathBuf) -> Result<Sink, String> {
    let cannot = |what: &str, error: &io::Error| format!("cannot {what} {}: {error}", path.display());
    match fs::symlink_metadata(&path).map(|known| known.file_type()) {
        Ok(kind) if kind.is_dir() => return Err(format!("{} is a directory", path.display())),
        Ok(kind) if kind.is_socket() => return Err(format!("{} is a socket", path.display())),
        Ok(kind) if !kind.is_file() => {
            access(&path, AccessFlags::W_OK).map_err(|error| cannot("write to", &error.into()))?;
            return Ok(Sink::Through(path));
        }
        Ok(_) => fs::remove_file(&path).map_err(|error| cannot("replace", &error))?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(cannot("reach", &error)),
    }
    // Better to learn of it now than when the job is done.
    let tried = draft(&path).and_then(|draft| File::create_new(&draft).and_then(|_| fs::remove_file(&draft)));
    tried.map_err(|error| cannot("create", &error))?;
    Ok(Sink::Replace(path))
}

/// A name beside `path` that nothing else has.
fn draft(path: &Path) -> io::Result<PathBuf> {
    Ok(path.with_file_name(format!(".distlock-report-{:016x}", getrandom::u64().map_err(io::Error::other)?)))
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let draft = draft(path)?;
    let written =
        File::create_new(&draft).and_then(|mut file| file.write_all(text)).and_then(|()| fs::rename(&draft, path));
    written.inspect_err(|_| drop(fs::remove_file(&draft)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn report_to(path: &Path) -> Result<(), String> {
        Sink::open(&Target::File(path.to_owned())).and_then(|sink| sink.write("new\n".to_owned()))
    }

    #[test]
    fn a_file_goes_at_the_start_and_comes_whole_at_the_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("report.json");
        fs::write(&path, "old").expect("a file");
        let sink = Sink::open(&Target::File(path.clone())).expect("a file can be reported to");
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0, "nothing is there while it runs");
        sink.write("new\n".to_owned()).expect("a report");
        assert_eq!(fs::read_to_string(&path).expect("a file"), "new\n");
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1, "nothing else is left");
    }

    #[test]
    fn where_none_can_appear_is_refused_at_the_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let plain = dir.path().join("plain");
        fs::write(&plain, "").expect("a file");
        let around = dir.path().join("around");
        symlink(&around, &around).expect("a link");
        // /proc/version is a plain file that nobody can remove, and /proc takes no new ones.
        let unfit = [dir.path().join("missing/r"), dir.path().into(), plain.join("r"), around];
        for path in unfit.into_iter().chain(["/proc/version", "/proc/r"].map(Into::into)) {
            assert!(Sink::open(&Target::File(path.clone())).is_err(), "{}", path.display());
        }
    }

    #[test]
    fn the_file_behind_a_link_is_replaced_and_the_link_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let link = dir.path().join("link");
        symlink("real", &link).expect("a link");
        // The first time there is no such file yet.
        for _ in 0..2 {
            report_to(&link).expect("a report");
            assert_eq!(fs::read_to_string(dir.path().join("real")).expect("a file"), "new\n");
            assert!(link.is_symlink());
        }
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 2);
    }

    #[test]
    fn devices_stay_what_they_are() {
        let dir = tempfile::tempdir().expect("a directory");
        report_to(Path::new("/dev/null")).expect("a report");
        symlink("/dev/full", dir.path().join("full")).expect("a link");
        assert!(report_to(&dir.path().join("full")).is_err_and(|why| why.contains("space")));
    }

    #[test]
    fn names_of_descriptors_are_the_descriptors() {
        for name in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/dev/../dev/stdout"] {
            assert!(matches!(follow(Path::new(name)), Ok(End::Descriptor(1))), "{name}");
        }
        assert!(matches!(follow(Path::new("/dev/fd/17")), Ok(End::Descriptor(17))));
        assert!(matches!(follow(Path::new("1")), Ok(End::Path(_))));
    }
}
