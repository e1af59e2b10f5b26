//! Writes the report to its target: at the very end of the run, and for a limited time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;
use std::{fmt, thread};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::{AccessFlags, access};

use distlock_core::duration::show;
use distlock_core::error::Failure;

use super::target::Target;
use crate::sys::process;

/// Limit on the time for which a pipe without a reader, or a disk, can block the end of distlock.
const MAX_WRITE: Duration = Duration::from_secs(5);

/// A prepared target.
#[derive(Debug)]
pub(super) enum Sink {
    /// A regular file, which is replaced as a whole.
    Replace(PathBuf),
    /// A regular file behind a symbolic link, which is open and empty.
    Refill(File),
    /// A device or FIFO, which is opened for writing through this `O_PATH` descriptor: opening can block or have effects.
    Reopen(OwnedFd),
    /// A descriptor that only this process holds, or a duplicate of a standard one.
    Descriptor(OwnedFd),
}

impl Sink {
    /// Removes the report of an earlier run and checks that a new one can be created, or takes the descriptor from the
    /// command. Call it before [`process::Inherited::capture`].
    ///
    /// # Errors
    ///
    /// A usage failure with a hint.
    pub(super) fn open(target: &Target) -> Result<Self, Failure> {
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
            Self::Descriptor(fd) | Self::Reopen(fd) => Some(fd.as_raw_fd()),
            Self::Refill(file) => Some(file.as_raw_fd()),
            Self::Replace(_) => None,
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
            Self::Refill(mut file) => {
                // Another run with this target may have written its report.
                file.set_len(0)?;
                file.write_all(text)
            }
            Self::Reopen(fd) => {
                let mut options = OpenOptions::new();
                options.write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(in_proc(&fd))?.write_all(text)
            }
            Self::Replace(path) => replace(&path, text),
        }
    }
}

/// Returns the descriptor that `path` names by its spelling. Opened as a file at the end of the run it would mean another
/// one, because the supervisor closes the inherited descriptors.
fn named_descriptor(path: &Path) -> Option<RawFd> {
    match path.to_str()? {
        "/dev/stdin" => Some(0),
        "/dev/stdout" => Some(1),
        "/dev/stderr" => Some(2),
        path => {
            let number = path.strip_prefix("/dev/fd/").or(path.strip_prefix("/proc/self/fd/"))?;
            number.parse().ok().filter(|fd| *fd >= 0)
        }
    }
}

/// Takes a descriptor from the command, or duplicates a standard one, which the command needs too.
fn descriptor(fd: RawFd) -> Result<Sink, Failure> {
    let owned = match fd {
        0 => return Err(refuse("standard input is not for writing")),
        1 | 2 => process::duplicate(fd),
        _ => process::take_inherited(fd),
    };
    owned.map(Sink::Descriptor).map_err(|error| refuse(format!("descriptor {fd} cannot be written to: {error}")))
}

/// Existing file that a path leads to.
struct Found {
    /// `O_PATH` descriptor.
    fd: OwnedFd,
    stat: FileStat,
}

/// Only the kernel follows links here. A link that is read first can lead to another file afterwards, and the text of a link
/// in `/proc` is not a path.
fn file(path: &Path) -> Result<Sink, Failure> {
    let cannot = |what: &str, error: io::Error| refuse(format!("cannot {what} {}: {error}", path.display()));
    let refuse_kind = |kind| Err(refuse(format!("{} is a {kind}", path.display())));
    let mut found = find(path, OFlag::O_NOFOLLOW).map_err(|error| cannot("access", error))?;
    let is_link = found.as_ref().is_some_and(|found| kind(&found.stat) == SFlag::S_IFLNK);
    if is_link {
        found = find(path, OFlag::empty()).map_err(|error| cannot("access", error))?;
    }
    match found {
        Some(Found { stat, .. }) if kind(&stat) == SFlag::S_IFDIR => return refuse_kind("directory"),
        Some(Found { stat, .. }) if kind(&stat) == SFlag::S_IFSOCK => return refuse_kind("socket"),
        Some(Found { fd, stat }) if kind(&stat) != SFlag::S_IFREG => {
            // The reader of an inherited pipe may see its end and exit before the report is written.
            if kind(&stat) == SFlag::S_IFIFO {
                refuse_inherited(path, &stat)?;
            }
            access(&in_proc(&fd), AccessFlags::W_OK).map_err(|error| cannot("write to", error.into()))?;
            return Ok(Sink::Reopen(fd));
        }
        _ if is_link => {
            let file = open_behind_link(path).map_err(|error| cannot("open", error))?;
            let stat = fstat(&file).map_err(|error| cannot("access", error.into()))?;
            refuse_inherited(path, &stat)?;
            file.set_len(0).map_err(|error| cannot("empty", error))?;
            return Ok(Sink::Refill(file));
        }
        Some(Found { stat, .. }) => {
            refuse_inherited(path, &stat)?;
            // Before anything else can fail: an old report must not be taken for this run's.
            remove(path).map_err(|error| cannot("remove", error))?;
        }
        None => {}
    }
    create_draft(path, &[]).and_then(fs::remove_file).map_err(|error| cannot("create", error))?;
    Ok(Sink::Replace(path.to_owned()))
}

/// Returns the file that exists at `path`, without effects on it.
fn find(path: &Path, flags: OFlag) -> io::Result<Option<Found>> {
    match open(path, flags | OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(fd) => Ok(Some(Found { stat: fstat(&fd)?, fd })),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Opens a regular file through a symbolic link, and creates it if the link is dangling.
fn open_behind_link(path: &Path) -> io::Result<File> {
    // Nonblocking, in case that a FIFO has replaced the file.
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    Ok(File::from(open(path, flags, Mode::from_bits_truncate(0o666))?))
}

/// Refuses a file or pipe that this process inherited. A file would be removed or emptied while the command or its parent
/// uses it.
fn refuse_inherited(path: &Path, stat: &FileStat) -> Result<(), Failure> {
    let (name, alternative) = match process::inherited_descriptor_of(stat) {
        None => return Ok(()),
        Some(0) => return Err(refuse(format!("{} is standard input", path.display()))),
        Some(1) => ("standard output".to_owned(), "/dev/stdout".to_owned()),
        Some(2) => ("standard error".to_owned(), "/dev/stderr".to_owned()),
        Some(fd) => (format!("the file of descriptor {fd}"), format!("fd:{fd}")),
    };
    Err(refuse(format!("{} is {name}", path.display())).hint(format!("name it with --report {alternative}")))
}

/// Returns the path that opens the file of a descriptor again.
fn in_proc(fd: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

/// Removes the file. It may be gone: other runs can have the same target.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn refuse(why: impl fmt::Display) -> Failure {
    Failure::usage(format!("--report: {why}"))
        .hint("name a file in a writable directory, or a descriptor that is open for writing, as in fd:3")
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
    use std::io::Read;
    use std::os::unix::fs::{MetadataExt, symlink};

    use distlock_core::error::Kind;

    use super::*;

    fn open_file(path: &Path) -> Result<Sink, Failure> {
        Sink::open(&Target::File(path.to_owned()))
    }

    fn report_to(path: &Path) -> Result<(), String> {
        open_file(path).map_err(Failure::into_line)?.write("new\n".to_owned())
    }

    fn count_files(dir: &Path) -> usize {
        fs::read_dir(dir).expect("a directory").count()
    }

    #[test]
    fn file_is_removed_at_start_and_complete_at_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("report.json");
        fs::write(&path, "old").expect("a file");
        let sink = open_file(&path).expect("a valid target");
        assert_eq!(count_files(dir.path()), 0, "no file exists during the run");
        sink.write("new\n".to_owned()).expect("a report");
        assert_eq!(fs::read_to_string(&path).expect("a file"), "new\n");
        assert_eq!(count_files(dir.path()), 1, "no other file is left");
    }

    #[test]
    fn impossible_target_is_refused_at_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let plain = dir.path().join("plain");
        fs::write(&plain, "").expect("a file");
        let (circular, dangling) = (dir.path().join("circular"), dir.path().join("dangling"));
        symlink(&circular, &circular).expect("a link");
        symlink(dir.path().join("missing/r"), &dangling).expect("a link");
        // /proc/version is a regular file that cannot be removed, and no file can be created in /proc.
        let impossible = [dir.path().join("missing/r"), dir.path().into(), plain.join("r"), circular, dangling];
        for path in impossible.into_iter().chain(["/proc/version", "/proc/r", "/dev/stdin"].map(Into::into)) {
            let failure = open_file(&path).err().unwrap_or_else(|| panic!("{}", path.display()));
            assert!(failure.kind == Kind::Usage && failure.hint.is_some(), "{failure:?}");
        }
    }

    #[test]
    fn runs_with_one_target_do_not_fail() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("report.json");
        let results: Vec<_> = thread::scope(|scope| {
            let run = || (0..200).try_for_each(|_| report_to(&path));
            let threads = [scope.spawn(run), scope.spawn(run), scope.spawn(run)];
            threads.map(|thread| thread.join().expect("no panic")).into()
        });
        assert_eq!(results, [Ok(()), Ok(()), Ok(())]);
    }

    #[test]
    fn removing_an_absent_file_succeeds() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(remove(&dir.path().join("absent")).is_ok());
        assert!(remove(dir.path()).is_err());
    }

    #[test]
    fn file_behind_a_link_is_emptied_then_filled() {
        let dir = tempfile::tempdir().expect("a directory");
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        symlink("real", &link).expect("a link");
        let run = || {
            let sink = open_file(&link).expect("a valid target");
            assert_eq!(fs::read_to_string(&real).expect("a file"), "", "an old report is not left");
            // Another run with this target ends first.
            fs::write(&real, "a longer report\n").expect("a file");
            sink.write("new\n".to_owned()).expect("a report");
            assert_eq!(fs::read_to_string(&real).expect("a file"), "new\n");
            fs::metadata(&real).expect("a file").ino()
        };
        let created = run();
        assert_eq!(run(), created, "the file is not replaced");
        assert!(link.is_symlink());
        assert_eq!(count_files(dir.path()), 2, "no other file is left");
    }

    #[test]
    fn file_of_an_inherited_descriptor_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, "kept").expect("a file");
        // Without O_CLOEXEC, as if inherited.
        let inherited = open(&real, OFlag::O_RDWR, Mode::empty()).expect("a file");
        let fd = inherited.as_raw_fd();
        symlink(format!("/dev/fd/{fd}"), &link).expect("a link");
        for path in [real.clone(), link, format!("/dev//fd/{fd}").into(), format!("/dev/../dev/fd/{fd}").into()] {
            let failure = open_file(&path).err().unwrap_or_else(|| panic!("{}", path.display()));
            assert_eq!(failure.hint, Some(format!("name it with --report fd:{fd}")), "{failure:?}");
            assert_eq!(fs::read_to_string(&real).expect("a file"), "kept", "{}", path.display());
        }
    }

    #[test]
    fn device_is_written_to() {
        let dir = tempfile::tempdir().expect("a directory");
        report_to(Path::new("/dev/null")).expect("a report");
        symlink("/dev/full", dir.path().join("full")).expect("a link");
        assert!(report_to(&dir.path().join("full")).is_err_and(|error| error.contains("space")));
    }

    #[test]
    fn pipe_of_another_process_is_written_to() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        // The descriptors are close-on-exec, so they do not count as inherited.
        report_to(Path::new(&format!("/proc/{}/fd/{}", std::process::id(), writer.as_raw_fd()))).expect("a report");
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("a report");
        assert_eq!(text, "new\n");
    }

    #[test]
    fn descriptors_are_recognised_by_spelling() {
        for (path, fd) in
            [("/dev/stdin", 0), ("/dev/stdout", 1), ("/dev/stderr", 2), ("/dev/fd/17", 17), ("/proc/self/fd/1", 1)]
        {
            assert_eq!(named_descriptor(Path::new(path)), Some(fd), "{path}");
        }
        for path in ["1", "fd/1", "/dev/fd/", "/dev/fd/x", "/dev/fd/-1", "/dev/null"] {
            assert_eq!(named_descriptor(Path::new(path)), None, "{path}");
        }
    }
}
