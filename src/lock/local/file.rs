//! The lock file: from a lock's name to an open descriptor that can be trusted as far as a shared directory can.

use std::fmt::Write;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, lstat, umask};
use nix::unistd::{geteuid, mkdir};

use super::slots;
use distlock_core::error::{Failure, Kind};
use distlock_core::record::Record;

/// The directory of every lock on this host: one for cron, login shells, services and all users alike.
const STANDARD: &str = "/run/lock/distlock";
/// Ends the name of every lock file.
const SUFFIX: &str = ".lock";
/// The longest file name that Linux takes, in bytes.
const NAME_MAX: usize = 255;
/// How often a file may vanish or appear while it is being opened.
const OPEN_TRIES: usize = 10;
/// How the directory is opened: without needing a right to list it, and not through a link.
pub(super) const DIRECTORY_FLAGS: OFlag =
    OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// How a lock file is opened.
pub(super) const FILE_FLAGS: OFlag =
    OFlag::O_RDWR.union(OFlag::O_NOFOLLOW).union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);
/// The way out when a directory cannot be used.
const ELSEWHERE: &str = "name another directory with `--endpoints file:///DIR`, the same for all who share the lock";

/// A directory of lock files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directory(pub PathBuf);

/// An open lock file. It stands for one contender in every process that inherits it: a flock belongs to the open file
/// description, and stays until it is unlocked or the last of them has closed it.
#[derive(Debug)]
pub struct LockFile {
    file: File,
    path: PathBuf,
}

impl Directory {
    /// The directory that is used unless the user names another one.
    #[must_use]
    pub(crate) fn standard() -> Self {
        Self(PathBuf::from(STANDARD))
    }

    /// Opens the lock file of `name`, creating it and the directory (but not its parents) as needed.
    ///
    /// What it creates gets its mode whatever the umask says, which is set aside for that moment. Since it belongs to
    /// the whole process, no other thread should be creating files meanwhile.
    pub(crate) fn open(&self, name: &str) -> Result<LockFile, Failure> {
        let file_name = file_name(name)?;
        let directory = self.absolute()?;
        let opened = open_directory(&directory)?;
        let stat = fstat(&opened).map_err(|e| failed("examine", &directory, e))?;
        check_directory(&stat, &directory)?;
        let path = directory.join(&file_name);
        // Whoever may create files there may lock: in the standard directory everybody. Any other mode would let the
        // first user's umask decide, and a private directory should not hold files that strangers can fill.
        let mode = Mode::from_bits_truncate(stat.st_mode & 0o666);
        let file = open_file(opened.as_fd(), &file_name, mode).map_err(|e| failed("open", &path, e))?;
        let stat = fstat(&file).map_err(|e| failed("examine", &path, e))?;
        check_file(&stat, &path)?;
        Ok(LockFile { file: File::from(file), path })
    }

    /// Its path from the root, without a slash at its end, which would follow a link.
    pub(super) fn absolute(&self) -> Result<PathBuf, Failure> {
        std::path::absolute(&self.0)
            .map(|path| path.components().collect())
            .map_err(|e| Failure::usage("the directory for locks has no usable path").because(e).hint(ELSEWHERE))
    }
}

impl LockFile {
    /// The file's absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file says: the record of the one who took the lock last, unless it was released, and the last fencing
    /// token (zero before the first). A crash leaves the record behind: somebody holds the lock only while it is locked.
    pub fn read(&self) -> Result<(Option<Record>, u64), Failure> {
        let entry = slots::read(&self.file).map_err(|e| failed("read", &self.path, errno(&e)))?;
        Ok((entry.holder, entry.token))
    }

    /// The same open file, under another descriptor.
    pub(super) fn duplicate(&self) -> Result<File, Failure> {
        self.file.try_clone().map_err(|e| failed("open", &self.path, errno(&e)))
    }
}

impl AsFd for LockFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether `path` still leads to the open `file`. If it does not, those who come later lock another file.
pub(super) fn in_place(file: &File, path: &Path) -> nix::Result<bool> {
    let open = fstat(file)?;
    match lstat(path) {
        Ok(there) => Ok((there.st_dev, there.st_ino) == (open.st_dev, open.st_ino)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(false),
        Err(e) => Err(e),
    }
}

/// A failed system call as the user is told it, with the way out.
pub(super) fn failed(doing: &str, path: &Path, errno: Errno) -> Failure {
    let path = path.display();
    let message = format!("cannot {doing} {path}");
    match errno {
        Errno::EACCES | Errno::EPERM => Failure::new(Kind::Denied, message).because(errno).hint(format!(
            "let its owner allow it (`chmod a+rw` for a file that another tool created, mode 1777 for a directory), or {ELSEWHERE}"
        )),
        Errno::ELOOP => Failure::usage(format!("{path} is a symbolic link, and links are not followed here"))
            .hint(format!("remove it, or {ELSEWHERE}")),
        Errno::EISDIR | Errno::ENXIO => not_regular(&path),
        Errno::ENOTDIR => Failure::usage(format!("{path} is not a directory, or only a link to one"))
            .hint("give `--endpoints file:///DIR` the directory's real path"),
        Errno::EROFS => Failure::usage(message).because(errno).hint(ELSEWHERE),
        Errno::ENOSPC | Errno::EDQUOT => {
            Failure::fault(message).because(errno).hint(format!("make room there, or {ELSEWHERE}"))
        }
        Errno::ENOLCK | Errno::EOPNOTSUPP => Failure::usage(message)
            .because(errno)
            .hint(format!("the file system there does not support flock(2); {ELSEWHERE}")),
        _ => Failure::fault(message).because(errno),
    }
}

/// The system's error number behind an I/O error.
pub(super) fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// The file name of a lock: one leading slash dropped; other slashes, `%` and control characters percent-encoded, so
/// that no two locks share a file (but `x` and `/x`, which are one).
pub(super) fn file_name(name: &str) -> Result<String, Failure> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    if matches!(bare, "" | "." | "..") {
        return Err(Failure::usage(format!("`{name}` cannot be the name of a lock file")).hint("choose another name"));
    }
    let mut file = String::with_capacity(bare.len() + SUFFIX.len());
    for c in bare.chars() {
        if c == '/' || c == '%' || c.is_control() {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a string cannot fail.
                let _ = write!(file, "%{byte:02X}");
            }
        } else {
            file.push(c);
        }
    }
    file.push_str(SUFFIX);
    if file.len() > NAME_MAX {
        return Err(Failure::usage("the name is too long for a lock file")
            .because(format!("{} bytes with slashes encoded, and {NAME_MAX} is the most", file.len()))
            .hint("choose a shorter name"));
    }
    Ok(file)
}

/// Opens the directory, after creating it where it does not exist.
fn open_directory(path: &Path) -> Result<OwnedFd, Failure> {
    match open(path, DIRECTORY_FLAGS, Mode::empty()) {
        Err(Errno::ENOENT) => {}
        outcome => return outcome.map_err(|e| failed("open", path, e)),
    }
    match without_umask(|| mkdir(path, Mode::from_bits_truncate(0o1777))) {
        Ok(()) | Err(Errno::EEXIST) => open(path, DIRECTORY_FLAGS, Mode::empty()).map_err(|e| failed("open", path, e)),
        Err(e @ (Errno::ENOENT | Errno::EACCES)) => Err(no_directory(path, e)),
        Err(e) => Err(failed("create", path, e)),
    }
}

/// Neither is the directory there nor can it be created.
pub(super) fn no_directory(path: &Path, errno: Errno) -> Failure {
    let kind = if errno == Errno::EACCES { Kind::Denied } else { Kind::Usage };
    Failure::new(kind, format!("there is no directory {}, and it cannot be created", path.display()))
        .because(errno)
        .hint(format!("create it as root with `install -d -m 1777 {}`, or {ELSEWHERE}", path.display()))
}

/// Refuses a directory in which a stranger could remove the files of others.
pub(super) fn check_directory(stat: &FileStat, path: &Path) -> Result<(), Failure> {
    let mode = Mode::from_bits_truncate(stat.st_mode);
    let sticky = mode.contains(Mode::S_ISVTX);
    if mode.contains(Mode::S_IWOTH) && !sticky {
        return Err(Failure::usage(format!("everybody can remove the locks in {}", path.display()))
            .hint(format!("`chmod +t {}`, or {ELSEWHERE}", path.display())));
    }
    // The sticky bit says that it is meant to be shared: whichever user came first after a boot created it.
    let ours = stat.st_uid == 0 || stat.st_uid == geteuid().as_raw();
    if !ours && !sticky {
        return Err(Failure::usage(format!("{} belongs to another user (uid {})", path.display(), stat.st_uid))
            .hint(format!("let its owner share it (`chmod +t {}`), or {ELSEWHERE}", path.display())));
    }
    Ok(())
}

/// Opens the file, or creates it with exactly `mode`.
///
/// Without `O_CREAT` first: in a sticky directory that all can write to, `fs.protected_regular` refuses it on a file of
/// another user, even to root.
fn open_file(directory: BorrowedFd, name: &str, mode: Mode) -> nix::Result<OwnedFd> {
    for _ in 0..OPEN_TRIES {
        match openat(directory, name, FILE_FLAGS, Mode::empty()) {
            Err(Errno::ENOENT) => {}
            outcome => return outcome,
        }
        match without_umask(|| openat(directory, name, FILE_FLAGS | OFlag::O_CREAT | OFlag::O_EXCL, mode)) {
            Err(Errno::EEXIST) => {}
            outcome => return outcome,
        }
    }
    Err(Errno::EBUSY)
}

/// Refuses what only looks like a lock file: writing to it would change something else.
pub(super) fn check_file(stat: &FileStat, path: &Path) -> Result<(), Failure> {
    if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) != SFlag::S_IFREG {
        return Err(not_regular(&path.display()));
    }
    if stat.st_nlink > 1 {
        return Err(Failure::usage(format!("{} has other names (hard links)", path.display()))
            .hint(format!("remove it, or {ELSEWHERE}")));
    }
    Ok(())
}

fn not_regular(path: &dyn std::fmt::Display) -> Failure {
    Failure::usage(format!("{path} is not a regular file")).hint(format!("remove it, or {ELSEWHERE}"))
}

/// Creates something with exactly the mode that is asked for, from the first moment on: another user may be opening it.
fn without_umask<T>(create: impl FnOnce() -> T) -> T {
    // Two at once would give each other's umask back.
    static UMASK: Mutex<()> = Mutex::new(());
    let _alone = UMASK.lock().unwrap_or_else(PoisonError::into_inner);
    let before = umask(Mode::empty());
    let created = create();
    umask(before);
    created
}

#[cfg(test)]
mod tests;
