use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use proptest::prelude::*;
use tempfile::{TempDir, tempdir};

use super::*;

/// Returns a lock directory that does not exist yet, and the temporary directory that contains it.
fn new_directory() -> (TempDir, Directory) {
    let root = tempdir().unwrap();
    let path = root.path().join("locks");
    (root, Directory(path))
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn refusal(directory: &Directory) -> Failure {
    directory.open("x").unwrap_err()
}

#[test]
fn slashes_and_percent_signs_are_encoded() {
    for (name, file) in [
        ("backup", "backup.lock"),
        ("/backup", "backup.lock"),
        ("/jobs/a b.c", "jobs%2Fa b.c.lock"),
        ("//x", "%2Fx.lock"),
        ("/a/../b", "a%2F..%2Fb.lock"),
        ("100%", "100%25.lock"),
        ("a%2Fb", "a%252Fb.lock"),
        ("größe", "größe.lock"),
    ] {
        assert_eq!(lock_file_name(name).unwrap(), file);
    }
}

#[test]
fn names_that_no_file_can_have_are_refused() {
    for name in [".", "..", "/..", &"x".repeat(251), &"/".repeat(90)] {
        assert_eq!(lock_file_name(name).unwrap_err().kind, Kind::Usage, "{name}");
    }
    assert!(lock_file_name(&"x".repeat(250)).is_ok());
}

proptest! {
    #[test]
    fn two_names_never_share_a_file(a in "[a%2F/.x]{1,8}|\\PC{1,20}", b in "[a%2F/.x]{1,8}|\\PC{1,20}") {
        let bare = |name: &str| name.strip_prefix('/').unwrap_or(name).to_owned();
        if let (Ok(file_a), Ok(file_b)) = (lock_file_name(&a), lock_file_name(&b)) {
            prop_assert_eq!(file_a == file_b, bare(&a) == bare(&b));
            prop_assert!(!file_a.contains('/') && file_a.len() <= NAME_MAX);
        }
    }
}

#[test]
fn directory_and_file_are_created_for_all_users() {
    let (_root, directory) = new_directory();
    let file = directory.open("/jobs/a").unwrap();
    assert_eq!(mode(&directory.0), 0o1777);
    assert_eq!(file.path(), directory.0.join("jobs%2Fa.lock"));
    assert_eq!(mode(file.path()), 0o666);
}

#[test]
fn a_private_directory_gets_private_files() {
    let (_root, directory) = new_directory();
    fs::create_dir(&directory.0).unwrap();
    fs::set_permissions(&directory.0, Permissions::from_mode(0o750)).unwrap();
    assert_eq!(mode(directory.open("x").unwrap().path()), 0o640);
}

#[test]
fn an_existing_file_is_not_changed() {
    let (_root, directory) = new_directory();
    let path = directory.open("x").unwrap().path().to_owned();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, "distlock1 7 null\n").unwrap();
    directory.open("x").unwrap();
    assert_eq!((mode(&path), fs::read_to_string(&path).unwrap().as_str()), (0o600, "distlock1 7 null\n"));
}

#[test]
fn a_file_of_another_program_is_refused_and_kept() {
    let (_root, directory) = new_directory();
    let path = directory.open("Cargo").unwrap().path().to_owned();
    for content in ["version = 4\n", "4711\n", "\n"] {
        fs::write(&path, content).unwrap();
        let failure = directory.open("Cargo").unwrap_err();
        assert_eq!(failure.kind, Kind::Usage);
        assert!(failure.message.contains("not a lock file of distlock") && failure.hint.is_some(), "{failure:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
}

#[test]
fn parent_directories_are_not_created() {
    let root = tempdir().unwrap();
    let failure = refusal(&Directory(root.path().join("no/locks")));
    assert_eq!(failure.kind, Kind::Usage);
    assert!(failure.hint.unwrap().contains("--endpoints file:///DIR"));
    assert!(!root.path().join("no").exists());
}

#[test]
fn unsafe_directories_are_refused() {
    let (root, directory) = new_directory();
    fs::create_dir(&directory.0).unwrap();
    fs::set_permissions(&directory.0, Permissions::from_mode(0o777)).unwrap();
    assert!(refusal(&directory).hint.unwrap().contains("chmod +t"));
    fs::set_permissions(&directory.0, Permissions::from_mode(0o1777)).unwrap();

    let link = root.path().join("link");
    symlink(&directory.0, &link).unwrap();
    // A trailing slash would follow the link.
    for path in [link.clone(), link.join("")] {
        assert_eq!(refusal(&Directory(path)).kind, Kind::Usage);
    }
    let plain = root.path().join("plain");
    fs::write(&plain, "").unwrap();
    assert!(refusal(&Directory(plain)).message.contains("not a directory"));
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 0);
}

#[test]
fn links_and_special_files_are_refused() {
    let (root, directory) = new_directory();
    let path = directory.open("x").unwrap().path().to_owned();
    let valuable = root.path().join("valuable");
    fs::write(&valuable, "keep me").unwrap();

    let refused = |what: &str| {
        let failure = refusal(&directory);
        assert_eq!(failure.kind, Kind::Usage, "{failure:?}");
        assert!(failure.message.contains(what), "{failure:?}");
        fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
    };
    fs::remove_file(&path).unwrap();
    symlink(&valuable, &path).unwrap();
    refused("symbolic link");
    symlink(root.path().join("nothing"), &path).unwrap();
    refused("symbolic link");
    fs::hard_link(&valuable, &path).unwrap();
    refused("hard links");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    refused("not a regular file");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    refused("not a regular file");
    fs::create_dir(&path).unwrap();
    refused("not a regular file");

    assert_eq!(fs::read_to_string(&valuable).unwrap(), "keep me");
    assert!(!root.path().join("nothing").exists());
}

#[test]
fn a_directory_of_another_user_needs_the_sticky_bit() {
    let (_root, directory) = new_directory();
    directory.open("x").unwrap();
    let mut stat = lstat(&directory.0).unwrap();
    stat.st_uid = geteuid().as_raw() + 1;
    assert!(check_directory(&stat, &directory.0).is_ok());
    stat.st_mode &= !0o1002;
    assert!(check_directory(&stat, &directory.0).unwrap_err().message.contains("another user"));
}

#[test]
fn a_replaced_file_is_not_the_same_file() {
    let (_root, directory) = new_directory();
    let file = directory.open("x").unwrap();
    assert!(is_same_file(&file.file, &file.path).unwrap());
    fs::remove_file(file.path()).unwrap();
    assert!(!is_same_file(&file.file, &file.path).unwrap());
    directory.open("x").unwrap();
    assert!(!is_same_file(&file.file, &file.path).unwrap());
}

#[test]
fn errors_name_the_file_the_cause_and_a_hint() {
    let path = Path::new("/run/lock/distlock/x.lock");
    for (errno, kind) in [
        (Errno::EACCES, Kind::Denied),
        (Errno::EROFS, Kind::Usage),
        (Errno::ENOSPC, Kind::Fault),
        (Errno::ELOOP, Kind::Usage),
        (Errno::ENOLCK, Kind::Usage),
    ] {
        let failure = failed("open", path, errno);
        assert_eq!(failure.kind, kind);
        assert!(failure.message.contains("/run/lock/distlock/x.lock"));
        assert!(failure.hint.unwrap().contains("--endpoints file:///DIR"));
    }
}
