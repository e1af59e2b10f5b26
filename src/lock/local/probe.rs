//! Checks of `distlock doctor` on this host.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FlockArg, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, fstat};
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, UnlinkatFlags, access, unlinkat};

use distlock_core::error::Failure;

use super::file::{
    DIRECTORY_FLAGS, Directory, FILE_FLAGS, check_content, check_directory, check_lock_file, failed, flock,
    lock_file_name, no_directory,
};
use crate::lock::probe::{Check, CheckResult, EndpointFinding, Findings, ProbeRequest, ServerInfo, Tls};

/// Free space that the directory must have: several lock files.
const NEEDED_BYTES: u64 = 64 * 1024;

/// Examines the directory, with a file that is removed at once, and the lock file without locking it.
pub(crate) fn probe(directory: &Directory, request: &ProbeRequest) -> Result<Findings, Failure> {
    let file_name = request.name.as_deref().map(lock_file_name).transpose()?;
    let path = directory.absolute()?;
    let found = open_existing(&path);
    let info = found.as_ref().map(|_| ServerInfo::default()).map_err(Clone::clone);
    let endpoint = EndpointFinding { url: format!("file://{}", path.display()), tls: Some(Tls::Off), info };
    let checks = match found {
        Err(_) => Vec::new(),
        Ok(None) => check_missing_directory(&path),
        Ok(Some((opened, stat))) => {
            let mut checks = vec![
                Check::new("directory", check_directory(&stat, &path).map(|()| CheckResult::Passed(describe(&stat)))),
                Check::new("space", check_space(&path)),
                Check::new("flock", check_flock(&opened, &path)),
            ];
            if let Some(name) = file_name {
                let creatable = matches!(checks.last().map(|check| &check.result), Some(CheckResult::Passed(_)));
                checks.push(Check::new("rights", check_access(&opened, &name, &path.join(&name), creatable)));
            }
            checks
        }
    };
    Ok(Findings { endpoints: vec![endpoint], checks })
}

/// Opens the directory; None if it does not exist.
fn open_existing(path: &Path) -> Result<Option<(OwnedFd, FileStat)>, Failure> {
    let opened = match open(path, DIRECTORY_FLAGS, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(None),
        result => result.map_err(|e| failed("open", path, e))?,
    };
    let stat = fstat(&opened).map_err(|e| failed("examine", path, e))?;
    Ok(Some((opened, stat)))
}

/// Checks whether the first lock can create the directory.
fn check_missing_directory(path: &Path) -> Vec<Check> {
    let parent = path.parent().unwrap_or(path);
    if let Err(e) = access(parent, AccessFlags::W_OK | AccessFlags::X_OK) {
        return vec![Check::new("directory", Err(no_directory(path, e)))];
    }
    let directory = CheckResult::Passed("does not exist yet; the first lock creates it".to_owned());
    let flock = CheckResult::Unknown("not checked: the directory does not exist yet".to_owned());
    vec![
        Check::new("directory", Ok(directory)),
        Check::new("space", check_space(parent)),
        Check::new("flock", Ok(flock)),
    ]
}

fn describe(stat: &FileStat) -> String {
    let shared = if stat.st_mode & Mode::S_IWOTH.bits() == 0 { "" } else { ", shared by all users" };
    format!("mode {:o}, owner uid {}{shared}", stat.st_mode & 0o7777, stat.st_uid)
}

fn check_space(path: &Path) -> Result<CheckResult, Failure> {
    let stat = statvfs(path).map_err(|e| failed("examine", path, e))?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    // Some file systems do not count files.
    let files_left = stat.files() == 0 || stat.files_available() > 0;
    if free < NEEDED_BYTES || !files_left {
        return Err(failed("create a file in", path, Errno::ENOSPC));
    }
    Ok(CheckResult::Passed(format!("{} MiB free", free / (1024 * 1024))))
}

/// Locks a temporary file twice: the second attempt must fail.
fn check_flock(directory: &OwnedFd, path: &Path) -> Result<CheckResult, Failure> {
    let name = format!(".doctor-{}", std::process::id());
    let file_path = path.join(&name);
    let new = FILE_FLAGS | OFlag::O_CREAT | OFlag::O_EXCL;
    let first = openat(directory, name.as_str(), new, Mode::S_IRUSR | Mode::S_IWUSR);
    let first = File::from(first.map_err(|e| failed("create", &file_path, e))?);
    let second = openat(directory, name.as_str(), FILE_FLAGS, Mode::empty());
    unlinkat(directory, name.as_str(), UnlinkatFlags::NoRemoveDir).map_err(|e| failed("remove", &file_path, e))?;
    let second = File::from(second.map_err(|e| failed("open", &file_path, e))?);
    flock(&first, FlockArg::LockExclusiveNonblock).map_err(|e| failed("lock", &file_path, e))?;
    match flock(&second, FlockArg::LockExclusiveNonblock) {
        Err(Errno::EWOULDBLOCK) => Ok(CheckResult::Passed("a locked file excludes other processes".to_owned())),
        Err(e) => Err(failed("lock", &file_path, e)),
        Ok(()) => {
            Err(Failure::usage(format!("the file system of {} lets two processes lock one file", path.display()))
                .hint("use a directory on a local disk or in memory: `--endpoints file:///DIR`"))
        }
    }
}

/// Opens the lock file as a contender would, if it exists. `creatable`: `check_flock` could create a file.
fn check_access(directory: &OwnedFd, name: &str, path: &Path, creatable: bool) -> Result<CheckResult, Failure> {
    let file = File::from(match openat(directory, name, FILE_FLAGS, Mode::empty()) {
        Err(Errno::ENOENT) if creatable => {
            return Ok(CheckResult::Passed(format!("{} can be created", path.display())));
        }
        Err(Errno::ENOENT) => return Ok(CheckResult::Unknown("not checked: no file can be created".to_owned())),
        result => result.map_err(|e| failed("open", path, e))?,
    });
    let stat = fstat(&file).map_err(|e| failed("examine", path, e))?;
    check_lock_file(&stat, path)?;
    check_content(&file, path)?;
    Ok(CheckResult::Passed(format!("can read and write {}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    fn results(directory: &Path, name: &str) -> Vec<(&'static str, CheckResult)> {
        let request = ProbeRequest { name: Some(name.to_owned()), ttl: Duration::ZERO, timeout: Duration::ZERO };
        let findings = probe(&Directory(directory.to_owned()), &request).expect("a usable name");
        findings.checks.into_iter().map(|check| (check.name, check.result)).collect()
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = directory.read_dir().expect("a directory");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_usable_directory_passes_and_is_not_changed() {
        let directory = tempfile::tempdir().expect("a directory");
        let checks = results(directory.path(), "/jobs/a");
        let names_of: Vec<_> = checks.iter().map(|(name, _)| *name).collect();
        assert_eq!(names_of, ["directory", "space", "flock", "rights"]);
        assert!(checks.iter().all(|(_, result)| matches!(result, CheckResult::Passed(_))), "{checks:?}");
        assert!(names(directory.path()).is_empty());
    }

    #[test]
    fn a_missing_directory_is_not_created() {
        let parent = tempfile::tempdir().expect("a directory");
        let checks = results(&parent.path().join("locks"), "a");
        assert!(matches!(checks[0].1, CheckResult::Passed(_)), "{checks:?}");
        assert!(checks.iter().any(|(name, result)| *name == "flock" && matches!(result, CheckResult::Unknown(_))));
        assert!(names(parent.path()).is_empty());
        let nowhere = results(&parent.path().join("no/locks"), "a");
        assert!(matches!(nowhere[0].1, CheckResult::Failed(_)), "{nowhere:?}");
    }

    #[test]
    fn an_unsafe_directory_and_a_foreign_file_fail() {
        let directory = tempfile::tempdir().expect("a directory");
        let mode = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(directory.path(), mode).expect("a mode");
        std::fs::create_dir(directory.path().join("a.lock")).expect("a directory");
        for (name, result) in results(directory.path(), "a") {
            let should_fail = matches!(name, "directory" | "rights");
            assert_eq!(matches!(result, CheckResult::Failed(_)), should_fail, "{name}: {result:?}");
        }
    }
}
