//! What `distlock doctor` looks at on this host.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FlockArg, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, fstat};
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, UnlinkatFlags, access, unlinkat};

use super::file::{
    DIRECTORY_FLAGS, Directory, FILE_FLAGS, check_directory, check_file, failed, file_name, no_directory,
};
use super::flock;
use crate::lock::probe::{Answer, Check, Endpoint, Findings, Inquiry, Tls, Verdict};
use distlock_core::error::Failure;

/// A lock file is not larger than this.
const NEEDED_BYTES: u64 = 64 * 1024;

/// Examines the directory, and with a file that is gone at once whether files in it can be locked. The lock file itself
/// is only looked at.
pub(crate) fn probe(directory: &Directory, inquiry: &Inquiry) -> Result<Findings, Failure> {
    let file_name = inquiry.name.as_deref().map(file_name).transpose()?;
    let path = directory.absolute()?;
    let found = look_up(&path);
    let answer = found.as_ref().map(|_| Answer::default()).map_err(Clone::clone);
    let endpoint = Endpoint { url: format!("file://{}", path.display()), tls: Some(Tls::Off), answer };
    let checks = match found {
        Err(_) => Vec::new(),
        Ok(None) => to_be_created(&path),
        Ok(Some((opened, stat))) => {
            let mut checks = vec![
                Check::new("directory", check_directory(&stat, &path).map(|()| Verdict::Good(describe(&stat)))),
                Check::new("space", space(&path)),
                Check::new("flock", try_flock(&opened, &path)),
            ];
            if let Some(name) = file_name {
                checks.push(Check::new("rights", try_file(&opened, &name, &path.join(&name))));
            }
            checks
        }
    };
    Ok(Findings { endpoints: vec![endpoint], checks })
}

/// The directory, if it is there.
fn look_up(path: &Path) -> Result<Option<(OwnedFd, FileStat)>, Failure> {
    let opened = match open(path, DIRECTORY_FLAGS, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(None),
        outcome => outcome.map_err(|e| failed("open", path, e))?,
    };
    let stat = fstat(&opened).map_err(|e| failed("examine", path, e))?;
    Ok(Some((opened, stat)))
}

/// What can be said of a directory that the first lock is going to create.
fn to_be_created(path: &Path) -> Vec<Check> {
    let parent = path.parent().unwrap_or(path);
    let may_create = access(parent, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|e| no_directory(path, e));
    let directory = may_create.map(|()| Verdict::Good("does not exist yet; the first lock creates it".to_owned()));
    let flock = Verdict::Unknown("not tried, as the directory does not exist yet".to_owned());
    let mut checks = vec![Check::new("directory", directory)];
    if matches!(checks[0].verdict, Verdict::Good(_)) {
        checks.extend([Check::new("space", space(parent)), Check::new("flock", Ok(flock))]);
    }
    checks
}

fn describe(stat: &FileStat) -> String {
    let shared = if stat.st_mode & Mode::S_IWOTH.bits() == 0 { "" } else { ", shared by all users" };
    format!("mode {:o}, owner uid {}{shared}", stat.st_mode & 0o7777, stat.st_uid)
}

fn space(path: &Path) -> Result<Verdict, Failure> {
    let stat = statvfs(path).map_err(|e| failed("examine", path, e))?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    // Some file systems do not count files.
    let files_left = stat.files() == 0 || stat.files_available() > 0;
    if free < NEEDED_BYTES || !files_left {
        return Err(failed("create a file in", path, Errno::ENOSPC));
    }
    Ok(Verdict::Good(format!("{} MiB free", free / (1024 * 1024))))
}

/// Locks a file of its own twice: the second time has to fail.
fn try_flock(directory: &OwnedFd, path: &Path) -> Result<Verdict, Failure> {
    let name = format!(".doctor-{}", std::process::id());
    let shown = path.join(&name);
    let new = FILE_FLAGS | OFlag::O_CREAT | OFlag::O_EXCL;
    let first = openat(directory, name.as_str(), new, Mode::S_IRUSR | Mode::S_IWUSR);
    let first = File::from(first.map_err(|e| failed("create", &shown, e))?);
    let second = openat(directory, name.as_str(), FILE_FLAGS, Mode::empty());
    unlinkat(directory, name.as_str(), UnlinkatFlags::NoRemoveDir).map_err(|e| failed("remove", &shown, e))?;
    let second = File::from(second.map_err(|e| failed("open", &shown, e))?);
    flock(&first, FlockArg::LockExclusiveNonblock).map_err(|e| failed("lock", &shown, e))?;
    match flock(&second, FlockArg::LockExclusiveNonblock) {
        Err(Errno::EWOULDBLOCK) => Ok(Verdict::Good("a file that is locked keeps others out".to_owned())),
        Err(e) => Err(failed("lock", &shown, e)),
        Ok(()) => Err(Failure::usage(format!("the file system of {} lets two lock one file", path.display()))
            .hint("name a directory on a local disk or in memory with `--endpoints file:///DIR`")),
    }
}

/// Opens the lock file as a lock would, if it is there. Where it is not, that files can be created is known already.
fn try_file(directory: &OwnedFd, name: &str, path: &Path) -> Result<Verdict, Failure> {
    let file = match openat(directory, name, FILE_FLAGS, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(Verdict::Good(format!("{} can be created", path.display()))),
        outcome => outcome.map_err(|e| failed("open", path, e))?,
    };
    let stat = fstat(&file).map_err(|e| failed("examine", path, e))?;
    check_file(&stat, path)?;
    Ok(Verdict::Good(format!("may read and write {}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    fn verdicts(directory: &Path, name: &str) -> Vec<(&'static str, Verdict)> {
        let inquiry = Inquiry { name: Some(name.to_owned()), ttl: Duration::ZERO, patience: Duration::ZERO };
        let findings = probe(&Directory(directory.to_owned()), &inquiry).expect("a usable name");
        findings.checks.into_iter().map(|check| (check.name, check.verdict)).collect()
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = directory.read_dir().expect("a directory");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_sound_directory_is_left_as_it_was() {
        let directory = tempfile::tempdir().expect("a directory");
        let checks = verdicts(directory.path(), "/jobs/a");
        let names_of: Vec<_> = checks.iter().map(|(name, _)| *name).collect();
        assert_eq!(names_of, ["directory", "space", "flock", "rights"]);
        assert!(checks.iter().all(|(_, verdict)| matches!(verdict, Verdict::Good(_))), "{checks:?}");
        assert!(names(directory.path()).is_empty());
    }

    #[test]
    fn a_directory_that_is_not_there_is_not_created() {
        let parent = tempfile::tempdir().expect("a directory");
        let checks = verdicts(&parent.path().join("locks"), "a");
        assert!(matches!(checks[0].1, Verdict::Good(_)), "{checks:?}");
        assert!(checks.iter().any(|(name, verdict)| *name == "flock" && matches!(verdict, Verdict::Unknown(_))));
        assert!(names(parent.path()).is_empty());
        let nowhere = verdicts(&parent.path().join("no/locks"), "a");
        assert!(matches!(nowhere[0].1, Verdict::Bad(_)), "{nowhere:?}");
    }

    #[test]
    fn what_would_refuse_a_lock_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let mode = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(directory.path(), mode).expect("a mode");
        std::fs::create_dir(directory.path().join("a.lock")).expect("a directory");
        for (name, verdict) in verdicts(directory.path(), "a") {
            assert_eq!(
                matches!(verdict, Verdict::Bad(_)),
                matches!(name, "directory" | "rights"),
                "{name}: {verdict:?}"
            );
        }
    }
}
