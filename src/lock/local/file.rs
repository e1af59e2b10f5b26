//! Lock files: from a lock's name to an open descriptor, and flock(2) on it.
//!
//! Every user may be allowed to create files in the directory. So links are not followed, and a directory in which other
//! users could remove lock files is refused.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FlockArg, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, lstat, umask};
use nix::unistd::{geteuid, mkdir};

use distlock_core::error::{Failure, Kind};

use super::entry;

/// One directory for cron, login shells, services and all users.
const STANDARD: &str = "/run/lock/distlock";
const SUFFIX: &str = ".lock";
/// Longest file name on Linux, in bytes.
const NAME_MAX: usize = 255;
/// Attempts to open a file that is created or removed at the same time.
const OPEN_ATTEMPTS: usize = 10;
/// Flags for opening the directory: without the permission to list it, and not through a link.
pub(super) const DIRECTORY_FLAGS: OFlag =
    OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// Flags for opening a lock file.
pub(super) const FILE_FLAGS: OFlag =
    OFlag::O_RDWR.union(OFlag::O_NOFOLLOW).union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);
/// Hint for a directory that cannot be used.
const OTHER_DIRECTORY: &str = "use another directory for all users of the lock: `--endpoints file:///DIR`";

/// A directory of lock files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directory(pub PathBuf);

/// An open lock file. All processes that inherit it are one contender: a flock belongs to the open file description and
/// lasts until it is unlocked or the last of these processes has closed it.
#[derive(Debug)]
pub struct LockFile {
    file: File,
    path: PathBuf,
}

impl Directory {
    /// Returns the default directory.
    #[must_use]
    pub(crate) fn standard() -> Self {
        Self(PathBuf::from(STANDARD))
    }

    /// Opens the lock file of `name`; creates it and the directory, but not its parents, if they do not exist.
    ///
    /// Changes the umask of the process for a moment, so no other thread should create files at that time.
    pub(crate) fn open(&self, name: &str) -> Result<LockFile, Failure> {
        let file_name = lock_file_name(name)?;
        let directory = self.absolute()?;
        let opened = open_directory(&directory)?;
        let stat = fstat(&opened).map_err(|e| failed("examine", &directory, e))?;
        check_directory(&stat, &directory)?;
        let path = directory.join(&file_name);
        // Users who may create files in the directory may lock. With the umask the first user would decide that for all
        // others, and a private directory must not contain files that other users can fill.
        let mode = Mode::from_bits_truncate(stat.st_mode & 0o666);
        let file = open_file(opened.as_fd(), &file_name, mode).map_err(|e| failed("open", &path, e))?;
        let stat = fstat(&file).map_err(|e| failed("examine", &path, e))?;
        check_lock_file(&stat, &path)?;
        let file = File::from(file);
        check_content(&file, &path)?;
        Ok(LockFile { file, path })
    }

    /// Returns the absolute path. It has no trailing slash, because a slash would follow a link.
    pub(super) fn absolute(&self) -> Result<PathBuf, Failure> {
        std::path::absolute(&self.0).map(|path| path.components().collect()).map_err(|e| {
            Failure::usage("the path of the lock directory is not usable").because(e).hint(OTHER_DIRECTORY)
        })
    }
}

impl LockFile {
    /// Returns the file's absolute path.
    #[must_use]
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns another descriptor of the same open file.
    pub(super) fn duplicate(&self) -> Result<File, Failure> {
        self.file.try_clone().map_err(|e| failed("open", &self.path, errno(&e)))
    }
}

impl AsFd for LockFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Returns whether `path` still names the open `file`. If not, later contenders lock another file.
pub(super) fn is_same_file(file: &File, path: &Path) -> nix::Result<bool> {
    let open = fstat(file)?;
    match lstat(path) {
        Ok(named) => Ok((named.st_dev, named.st_ino) == (open.st_dev, open.st_ino)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Converts a failed system call.
pub(super) fn failed(action: &str, path: &Path, errno: Errno) -> Failure {
    let path = path.display();
    let message = format!("cannot {action} {path}");
    match errno {
        Errno::EACCES | Errno::EPERM => Failure::new(Kind::Denied, message).because(errno).hint(format!(
            "ask the owner for access (`chmod a+rw` for a file that another tool created, mode 1777 for a directory), or \
             {OTHER_DIRECTORY}"
        )),
        Errno::ELOOP => Failure::usage(format!("{path} is a symbolic link, and links are not followed"))
            .hint(format!("remove it, or {OTHER_DIRECTORY}")),
        Errno::EISDIR | Errno::ENXIO => not_regular(&path),
        Errno::ENOTDIR => Failure::usage(format!("{path} is not a directory, or only a link to one"))
            .hint("use the real path of the directory in `--endpoints file:///DIR`"),
        Errno::EROFS => Failure::usage(message).because(errno).hint(OTHER_DIRECTORY),
        Errno::ENOSPC | Errno::EDQUOT => {
            Failure::fault(message).because(errno).hint(format!("free space there, or {OTHER_DIRECTORY}"))
        }
        Errno::ENOLCK | Errno::EOPNOTSUPP => Failure::usage(message)
            .because(errno)
            .hint(format!("the file system does not support flock(2); {OTHER_DIRECTORY}")),
        _ => Failure::fault(message).because(errno),
    }
}

/// Returns the system's error number of an I/O error.
pub(super) fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Returns the file name of a lock: one leading slash is dropped, other slashes and `%` are percent-encoded. So no two
/// locks share a file, except `x` and `/x`, which are one lock.
pub(super) fn lock_file_name(name: &str) -> Result<String, Failure> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    if matches!(bare, "." | "..") {
        return Err(Failure::usage(format!("`{name}` cannot be the name of a lock file")).hint("choose another name"));
    }
    let mut file = String::with_capacity(bare.len() + SUFFIX.len());
    for c in bare.chars() {
        match c {
            '/' => file.push_str("%2F"),
            '%' => file.push_str("%25"),
            c => file.push(c),
        }
    }
    file.push_str(SUFFIX);
    if file.len() > NAME_MAX {
        return Err(Failure::usage("the name is too long for a lock file")
            .because(format!("{} bytes with encoded slashes; the limit is {NAME_MAX}", file.len()))
            .hint("choose a shorter name"));
    }
    Ok(file)
}

/// Opens the directory; creates it if it does not exist.
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

/// Returns the failure for a directory that neither exists nor can be created.
pub(super) fn no_directory(path: &Path, errno: Errno) -> Failure {
    let kind = if errno == Errno::EACCES { Kind::Denied } else { Kind::Usage };
    Failure::new(kind, format!("the directory {} does not exist and cannot be created", path.display()))
        .because(errno)
        .hint(format!("create it as root with `install -d -m 1777 {}`, or {OTHER_DIRECTORY}", path.display()))
}

/// Refuses a directory in which other users could remove lock files.
pub(super) fn check_directory(stat: &FileStat, path: &Path) -> Result<(), Failure> {
    let mode = Mode::from_bits_truncate(stat.st_mode);
    let sticky = mode.contains(Mode::S_ISVTX);
    if mode.contains(Mode::S_IWOTH) && !sticky {
        return Err(Failure::usage(format!("every user can remove the lock files in {}", path.display()))
            .hint(format!("`chmod +t {}`, or {OTHER_DIRECTORY}", path.display())));
    }
    // The sticky bit marks a shared directory, which the first user after a boot created.
    let own = stat.st_uid == 0 || stat.st_uid == geteuid().as_raw();
    if !own && !sticky {
        return Err(Failure::usage(format!("{} belongs to another user (uid {})", path.display(), stat.st_uid))
            .hint(format!("ask the owner to share it (`chmod +t {}`), or {OTHER_DIRECTORY}", path.display())));
    }
    Ok(())
}

/// Calls flock(2), again if a signal interrupts it.
///
/// `nix::fcntl::Flock` would unlock when it is dropped, but other processes of the job share the lock.
#[expect(deprecated, reason = "its successor unlocks on drop")]
pub(super) fn flock(file: &File, arg: FlockArg) -> nix::Result<()> {
    loop {
        match nix::fcntl::flock(file.as_raw_fd(), arg) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Opens the file; creates it with exactly `mode` if it does not exist.
///
/// Tries without `O_CREAT` first: in a sticky, world-writable directory `fs.protected_regular` refuses that flag on a file
/// of another user, even to root.
fn open_file(directory: BorrowedFd, name: &str, mode: Mode) -> nix::Result<OwnedFd> {
    for _ in 0..OPEN_ATTEMPTS {
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

/// Refuses a file that is not a lock file: writing to it would change other data.
pub(super) fn check_lock_file(stat: &FileStat, path: &Path) -> Result<(), Failure> {
    if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) != SFlag::S_IFREG {
        return Err(not_regular(&path.display()));
    }
    if stat.st_nlink > 1 {
        return Err(Failure::usage(format!("{} has other names (hard links)", path.display()))
            .hint(format!("remove it, or {OTHER_DIRECTORY}")));
    }
    Ok(())
}

/// Refuses a file that another program uses: an acquisition would overwrite its content.
pub(super) fn check_content(file: &File, path: &Path) -> Result<(), Failure> {
    match entry::read(file).map_err(|e| failed("read", path, errno(&e)))? {
        Some(_) => Ok(()),
        None => Err(has_other_content(path)),
    }
}

/// Returns the failure for a file whose content distlock has not written.
pub(super) fn has_other_content(path: &Path) -> Failure {
    Failure::usage(format!("{} is not a lock file of distlock: its content would be overwritten", path.display()))
        .hint(format!("use another name, or {OTHER_DIRECTORY}"))
}

fn not_regular(path: &dyn std::fmt::Display) -> Failure {
    Failure::usage(format!("{path} is not a regular file")).hint(format!("remove it, or {OTHER_DIRECTORY}"))
}

/// Calls `create` without a umask: the mode must be right from the start, because other users may open the file at once.
fn without_umask<T>(create: impl FnOnce() -> T) -> T {
    // Two concurrent calls would restore each other's umask.
    static UMASK: Mutex<()> = Mutex::new(());
    let _guard = UMASK.lock().unwrap_or_else(PoisonError::into_inner);
    let before = umask(Mode::empty());
    let created = create();
    umask(before);
    created
}

#[cfg(test)]
mod tests;
