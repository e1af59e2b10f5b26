//! Where the report goes, and how it gets there: at the very end, and without waiting for ever.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::config::Target;
use crate::process;

/// A pipe that nobody reads, or a disk, may keep the end waiting for this long.
const LONGEST: Duration = Duration::from_secs(5);

/// A target that was made ready.
#[derive(Debug)]
pub enum Sink {
    /// A plain file, which appears complete or not at all.
    Replace(PathBuf),
    /// A device, a pipe, a link: it stays what it is, and is written to.
    Through(PathBuf),
    /// A descriptor that is ours now.
    Descriptor(OwnedFd),
}

impl Sink {
    /// Removes the file of an earlier run, or takes the descriptor away from the command. Call it before the inherited
    /// descriptors are counted.
    ///
    /// # Errors
    ///
    /// The descriptor is not open for writing.
    pub fn open(target: &Target) -> Result<Self, String> {
        match target {
            Target::Descriptor(fd) => process::claim(*fd)
                .map(Self::Descriptor)
                .map_err(|error| format!("descriptor {fd} cannot be written to: {error}")),
            Target::File(path) => Ok(match fs::symlink_metadata(path) {
                Ok(known) if !known.is_file() => Self::Through(path.clone()),
                _ => {
                    // What cannot be removed cannot be replaced either, which will be told.
                    let _ = fs::remove_file(path);
                    Self::Replace(path.clone())
                }
            }),
        }
    }

    /// The descriptor that no other process is to hold.
    #[must_use]
    pub fn descriptor(&self) -> Option<RawFd> {
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
    pub fn write(self, text: String) -> Result<(), String> {
        // A limit on the size of files is an error like a full disk, no reason to die.
        process::ignore(&[Signal::SIGXFSZ]);
        let (tell, told) = mpsc::channel();
        let write = move || {
            // Nobody listens any more once it took too long.
            let _ = tell.send(self.put(text.as_bytes()));
        };
        let thread = thread::Builder::new().name("report".to_owned()).spawn(write);
        match thread.map(|_| told.recv_timeout(LONGEST)) {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) | Err(error) => Err(error.to_string()),
            Ok(Err(_)) => Err(format!("it was not taken within {LONGEST:?}")),
        }
    }

    fn put(self, text: &[u8]) -> io::Result<()> {
        match self {
            Self::Descriptor(fd) => File::from(fd).write_all(text),
            // A log behind a link is not ours to cut.
            Self::Through(path) => OpenOptions::new().append(true).open(path)?.write_all(text),
            Self::Replace(path) => replace(&path, text),
        }
    }
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let draft = path.with_file_name(format!(".distlock-report-{:016x}", getrandom::u64().map_err(io::Error::other)?));
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
        assert!(!path.exists());
        sink.write("new\n".to_owned()).expect("a report");
        assert_eq!(fs::read_to_string(&path).expect("a file"), "new\n");
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1, "nothing else is left");
        assert!(report_to(&dir.path().join("missing/report.json")).is_err());
    }

    #[test]
    fn devices_and_links_stay_what_they_are() {
        let dir = tempfile::tempdir().expect("a directory");
        let (log, link) = (dir.path().join("log"), dir.path().join("link"));
        fs::write(&log, "old\n").expect("a file");
        symlink(&log, &link).expect("a link");
        report_to(&link).expect("a report");
        assert_eq!(fs::read_to_string(&log).expect("a file"), "old\nnew\n");
        assert!(link.is_symlink());
        symlink("/dev/full", dir.path().join("full")).expect("a link");
        assert!(report_to(&dir.path().join("full")).is_err_and(|why| why.contains("space")));
        assert!(report_to(dir.path()).is_err());
    }
}
