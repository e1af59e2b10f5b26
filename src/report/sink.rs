//! Writes the report to its target: at the very end of the run, and for a limited time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::stat::fstat;
use nix::unistd::{AccessFlags, access};

use distlock_core::duration::show;

use super::target::Target;
use crate::sys::process;

/// Limit on the time for which a pipe without a reader, or a disk, can block the end of distlock.
const MAX_WRITE: Duration = Duration::from_secs(5);

/// A prepared target.
#[derive(Debug)]
pub(super) enum Sink {
    /// A regular file, which is replaced as a whole.
    Replace(PathBuf),
    /// A device or FIFO, which is opened and written to.
    Open(PathBuf),
    /// A descriptor that only this process holds, or a duplicate of a standard one.
    Descriptor(OwnedFd),
}

impl Sink {
    /// Removes the report of an earlier run and checks that a new one can be created, or takes the descriptor from the
    /// command. Call it before [`process::Inherited::capture`].
    pub(super) fn open(target: &Target) -> Result<Self, String> {
        match target {
            Target::Descriptor(fd) => descriptor(*fd),
            Target::File(path) => match named_descriptor(path) {
                Some(fd) => descriptor(fd),
                None => file(path),
            },
        }
    }

    /// Returns the descriptor that only the supervisor may hold.
    #[must_use]
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        match self {
            Self::Descriptor(fd) => Some(fd.as_raw_fd()),
            Self::Replace(_) | Self::Open(_) => None,
        }
    }

    /// Writes the text, or gives up after [`MAX_WRITE`]. A thread writes, because the descriptor may block: `O_NONBLOCK`
    /// would affect every process that inherited it.
    pub(super) fn write(self, text: String) -> Result<(), String> {
        let (sender, receiver) = mpsc::channel();
        let write = move || {
            // The receiver is gone if the time was over.
            let _ = sender.send(self.write_blocking(text.as_bytes()));
        };
        let thread = thread::Builder::new().name("report".to_owned()).spawn(write);
        match thread.map(|_| receiver.recv_timeout(MAX_WRITE)) {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) | Err(error) => Err(error.to_string()),
            Ok(Err(_)) => Err(format!("timed out after {}", show(MAX_WRITE))),
        }
    }

    fn write_blocking(self, text: &[u8]) -> io::Result<()> {
        match self {
            Self::Descriptor(fd) => File::from(fd).write_all(text),
            // Append, so that a regular file that has replaced the device is not truncated.
            Self::Open(path) => OpenOptions::new().append(true).open(path)?.write_all(text),
            Self::Replace(path) => replace(&path, text),
        }
    }
}

/// Returns the descriptor that `path` names by its spelling. Opened as a file at the end of the run it would mean another
/// one, because the supervisor closes the inherited descriptors.
fn named_descriptor(path: &Path) -> Option<RawFd> {
    match path.to_str()? {
        "/dev/stdout" => Some(1),
        "/dev/stderr" => Some(2),
        path => {
            let number = path.strip_prefix("/dev/fd/").or(path.strip_prefix("/proc/self/fd/"))?;
            number.parse().ok().filter(|fd| *fd >= 0)
        }
    }
}

/// Takes a descriptor from the command, or duplicates a standard one, which the command needs too.
fn descriptor(fd: RawFd) -> Result<Sink, String> {
    let owned = if fd <= 2 { process::duplicate(fd) } else { process::take_inherited(fd) };
    owned.map(Sink::Descriptor).map_err(|error| format!("descriptor {fd} cannot be written to: {error}"))
}

fn file(path: &Path) -> Result<Sink, String> {
    let cannot = |what: &str, error: &io::Error| format!("cannot {what} {}: {error}", path.display());
    let is_link = path.is_symlink();
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound && is_link => {
            return Err(format!("{} is a symbolic link to a file that does not exist", path.display()));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            create_draft(path, &[]).and_then(fs::remove_file).map_err(|error| cannot("create", &error))?;
            return Ok(Sink::Replace(path.to_owned()));
        }
        Err(error) => return Err(cannot("access", &error)),
    };
    // The file that a link leads to is replaced, not the link.
    let target =
        if is_link { fs::canonicalize(path).map_err(|error| cannot("resolve", &error))? } else { path.to_owned() };
    let kind = metadata.file_type();
    if kind.is_dir() {
        return Err(format!("{} is a directory", path.display()));
    }
    if kind.is_socket() {
        return Err(format!("{} is a socket", path.display()));
    }
    if !kind.is_file() {
        access(&target, AccessFlags::W_OK).map_err(|error| cannot("write to", &error.into()))?;
        return Ok(Sink::Open(target));
    }
    if is_link && is_standard_stream(&metadata) {
        return Err(format!("{} leads to a standard stream; use /dev/stdout or /dev/stderr", path.display()));
    }
    let draft = create_draft(&target, &[]).map_err(|error| cannot("create", &error))?;
    // An old report must not be taken for this run's. Behind a link an empty file replaces it, because a run that is killed
    // must not leave a dangling link, which the next run would refuse.
    let replaced = if is_link {
        fs::rename(&draft, &target)
    } else {
        fs::remove_file(&target).and_then(|()| fs::remove_file(&draft))
    };
    replaced.inspect_err(|_| drop(fs::remove_file(&draft))).map_err(|error| cannot("replace", &error))?;
    Ok(Sink::Replace(target))
}

/// Returns whether stdout or stderr is this file.
fn is_standard_stream(file: &fs::Metadata) -> bool {
    let is_same = |stat: nix::sys::stat::FileStat| (stat.st_dev, stat.st_ino) == (file.dev(), file.ino());
    fstat(io::stdout()).is_ok_and(is_same) || fstat(io::stderr()).is_ok_and(is_same)
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let draft = create_draft(path, text)?;
    fs::rename(&draft, path).inspect_err(|_| drop(fs::remove_file(&draft)))
}

/// Writes `text` to a new file beside `path` and returns its path.
fn create_draft(path: &Path, text: &[u8]) -> io::Result<PathBuf> {
    let random = getrandom::u64().map_err(io::Error::other)?;
    let draft = path.with_file_name(format!(".distlock-report-{random:016x}"));
    let mut file = File::create_new(&draft)?;
    file.write_all(text).inspect_err(|_| drop(fs::remove_file(&draft)))?;
    Ok(draft)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn report_to(path: &Path) -> Result<(), String> {
        Sink::open(&Target::File(path.to_owned())).and_then(|sink| sink.write("new\n".to_owned()))
    }

    #[test]
    fn file_is_removed_at_start_and_complete_at_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("report.json");
        fs::write(&path, "old").expect("a file");
        let sink = Sink::open(&Target::File(path.clone())).expect("a valid target");
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0, "no file exists during the run");
        sink.write("new\n".to_owned()).expect("a report");
        assert_eq!(fs::read_to_string(&path).expect("a file"), "new\n");
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1, "no other file is left");
    }

    #[test]
    fn impossible_target_is_refused_at_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let plain = dir.path().join("plain");
        fs::write(&plain, "").expect("a file");
        let circular = dir.path().join("circular");
        symlink(&circular, &circular).expect("a link");
        // /proc/version is a regular file that cannot be removed, and no file can be created in /proc.
        let impossible = [dir.path().join("missing/r"), dir.path().into(), plain.join("r"), circular];
        for path in impossible.into_iter().chain(["/proc/version", "/proc/r"].map(Into::into)) {
            assert!(Sink::open(&Target::File(path.clone())).is_err(), "{}", path.display());
        }
    }

    #[test]
    fn file_behind_a_link_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        symlink("real", &link).expect("a link");
        assert!(report_to(&link).is_err_and(|error| error.contains("does not exist")));
        fs::write(&real, "old").expect("a file");
        let sink = Sink::open(&Target::File(link.clone())).expect("a valid target");
        assert_eq!(fs::read_to_string(&real).expect("a file"), "", "an old report is not left");
        sink.write("new\n".to_owned()).expect("a report");
        assert_eq!(fs::read_to_string(&real).expect("a file"), "new\n");
        assert!(link.is_symlink());
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 2, "no other file is left");
    }

    #[test]
    fn device_is_written_to() {
        let dir = tempfile::tempdir().expect("a directory");
        report_to(Path::new("/dev/null")).expect("a report");
        symlink("/dev/full", dir.path().join("full")).expect("a link");
        assert!(report_to(&dir.path().join("full")).is_err_and(|error| error.contains("space")));
    }

    #[test]
    fn descriptors_are_recognised_by_spelling() {
        for (path, fd) in [("/dev/stdout", 1), ("/dev/stderr", 2), ("/dev/fd/17", 17), ("/proc/self/fd/1", 1)] {
            assert_eq!(named_descriptor(Path::new(path)), Some(fd), "{path}");
        }
        for path in ["1", "fd/1", "/dev/fd/", "/dev/fd/x", "/dev/fd/-1", "/dev/null"] {
            assert_eq!(named_descriptor(Path::new(path)), None, "{path}");
        }
    }
}
