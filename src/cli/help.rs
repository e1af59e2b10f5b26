//! The words of the help. `--help` and the man page share them.

use super::options::{Group, OPTIONS, Opt};

/// The first line of the help.
pub(crate) const ABOUT: &str = "Run a command while holding a distributed lock, and never while not";

/// The first paragraphs of `--help`.
pub(crate) const LONG_ABOUT: &str = "\
Run a command while holding a distributed lock, and never while not.

distlock waits for the lock NAME on etcd, on Consul or on this host, runs COMMAND, and gives the lock up when COMMAND \
and all that it started have ended. When the lock is lost while COMMAND runs (the servers cannot be reached, the lease \
was revoked), COMMAND is ended before another can hold the lock.

Options stand before NAME; everything from COMMAND on is COMMAND's. A NAME without a slash needs the `--`.";

/// The synopsis.
pub(crate) const USAGE: &str = "distlock [OPTIONS] NAME [--] COMMAND [ARG]...
       distlock run [OPTIONS] NAME [--] COMMAND [ARG]...
       distlock doctor [OPTIONS] [NAME] | completions SHELL | man";

/// The end of the short help.
const SHORT_END: &str = "\
Example: distlock -b etcd -e https://etcd1:2379 /jobs/backup backup.sh
The other options, variables, files, exit codes: distlock --help
";

/// The lines of the long help are no longer than this.
pub(crate) const WIDTH: usize = 100;
/// Terms that are longer than this do not leave their meaning room on the same line.
const WIDEST_TERM: usize = 30;

/// A part of the help that lists terms and what they mean.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section {
    /// Its heading.
    pub title: &'static str,
    /// A paragraph above the list; may be empty.
    pub intro: &'static str,
    /// The terms.
    pub entries: &'static [(&'static str, &'static str)],
}

/// What `--help` and the man page say after the options.
pub(crate) const SECTIONS: &[Section] = &[
    Section {
        title: "Environment of the command",
        intro: "",
        entries: &[
            ("DISTLOCK_FENCING_TOKEN", "a decimal integer that grows with every acquisition of this lock"),
            ("DISTLOCK_HANDLE", "names this hold of the lock; holds no secret"),
            ("DISTLOCK_HELD_NAME", "the lock's name"),
            ("DISTLOCK_HELD_BACKEND", "etcd, consul or local"),
            ("DISTLOCK_HELD_KEY", "the key or file that stands for the lock"),
            ("ETCD_LOCK_KEY, ETCD_LOCK_REV", "as etcdctl lock sets them (on etcd)"),
            ("CONSUL_LOCK_HELD", "true, as consul lock sets it (on Consul)"),
        ],
    },
    Section {
        title: "Signals",
        intro: "INT, TERM, HUP, QUIT, USR1, USR2, WINCH and CONT reach the command once: those from the keyboard by \
                themselves, others by distlock, which goes on holding the lock until the command has ended, however long \
                that takes. A further INT or TERM, at least a second after the first, kills. Where the command died of \
                INT, TERM, HUP or QUIT, distlock dies of it too. Under systemd set KillMode=mixed, or the command gets \
                TERM twice.",
        entries: &[],
    },
    Section {
        title: "Environment",
        intro: "Settings are looked for in this order: flag, DISTLOCK_ variable, the chosen backend's own variables, \
                configuration file, default. An empty variable counts as unset; switches are 1, 0, true or false.",
        entries: &[
            ("DISTLOCK_...", "the options marked [env: ...] above"),
            (
                "ETCDCTL_...",
                "ENDPOINTS, CACERT, CERT, KEY, USER, PASSWORD, DIAL_TIMEOUT, INSECURE_SKIP_TLS_VERIFY, INSECURE_TRANSPORT, DISCOVERY_SRV",
            ),
            (
                "CONSUL_...",
                "HTTP_ADDR, HTTP_TOKEN, HTTP_TOKEN_FILE, HTTP_AUTH, HTTP_SSL, HTTP_SSL_VERIFY, CACERT, CAPATH, CLIENT_CERT, CLIENT_KEY, TLS_SERVER_NAME, NAMESPACE, PARTITION",
            ),
        ],
    },
    Section {
        title: "Files",
        intro: "",
        entries: &[
            (
                "/etc/distlock/config.toml",
                "the options marked [key: ...] above; the tables [etcd], [consul] and [local] hold what is for one backend, [consul] also lock_delay and health_checks",
            ),
            ("/run/lock/distlock", "the lock files of the local backend"),
        ],
    },
    Section {
        title: "Exit codes",
        intro: "The command's own, 128+N when signal N killed it, or one of these, each with a line `distlock: error: ...` (Ctrl-C without; -q does without it for 75 and 128+N):",
        entries: &[
            ("64", "usage, or a configuration that is refused"),
            ("69", "no server could be reached or trusted, or none could grant a lock"),
            ("70", "a fault in distlock"),
            ("75", "busy: the lock was not had within --wait (-E changes it)"),
            ("76", "the lock was lost and the command killed"),
            ("77", "the backend denied access"),
            ("126", "COMMAND cannot be executed"),
            ("127", "COMMAND was not found"),
            ("128+N", "signal N ended distlock while it waited"),
        ],
    },
    Section {
        title: "Examples",
        intro: "",
        entries: &[
            (
                "distlock -b etcd -e http://127.0.0.1:2379 /jobs/backup backup.sh",
                "run backup.sh while no other host does",
            ),
            (
                "distlock -b consul --try -E 0 /jobs/report -- report --daily",
                "skip it quietly when another host is at it",
            ),
            ("distlock -b local -w 30s build -- make -j4", "on this host only, waiting at most 30 seconds"),
            ("distlock doctor -b consul /jobs/dump", "what is wrong, when a lock cannot be had"),
            ("distlock -b consul -c /jobs/dump 'pg_dump app | gzip > app.sql.gz'", "a shell's pipeline under the lock"),
        ],
    },
];

/// The one line of an option in the short help.
#[must_use]
pub(crate) fn line(option: &Opt) -> String {
    let choices = (!option.choices.is_empty()).then(|| option.choices.join(", "));
    match (option.default, choices) {
        (Some(default), _) => format!("{} [default: {default}]", option.help),
        (None, Some(choices)) => format!("{}: {choices}", option.help),
        (None, None) => option.help.to_owned(),
    }
}

/// The short help: what most need, on one screen of 24 lines with the prompt below it.
#[must_use]
pub(crate) fn short() -> String {
    let mut parts = vec![ABOUT.to_owned(), format!("Usage: {USAGE}")];
    for group in [Group::Lock, Group::Connection, Group::Output] {
        let options = || OPTIONS.iter().filter(move |option| option.group == group && !option.rare);
        let widest = options().map(|option| term(option).len()).max().unwrap_or_default();
        let lines = options().map(|option| format!("  {:<widest$}  {}", term(option), line(option)));
        parts.push(lines.collect::<Vec<_>>().join("\n"));
    }
    parts.push(SHORT_END.to_owned());
    parts.join("\n\n")
}

/// An option as it is typed.
fn term(option: &Opt) -> String {
    let short = option.short.map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
    let value = option.value.map(|value| format!(" {value}")).unwrap_or_default();
    format!("{short}--{}{value}", option.id)
}

/// All that `--help` says of an option.
#[must_use]
pub(crate) fn paragraphs(option: &Opt) -> String {
    let mut text = format!("{}.", option.help);
    if !option.details.is_empty() {
        text = format!("{text} {}", option.details);
    }
    let notes = [
        option.default.map(|default| format!("[default: {default}]")),
        option.variable().map(|variable| format!("[env: {variable}]")),
        option.key().map(|key| format!("[key: {key}]")),
    ];
    let notes: Vec<_> = notes.into_iter().flatten().collect();
    if notes.is_empty() { text } else { format!("{text}\n{}", notes.join(" ")) }
}

/// The sections as `--help` shows them.
#[must_use]
pub(crate) fn long_end() -> String {
    SECTIONS.iter().map(plain).collect::<Vec<_>>().join("\n\n")
}

fn plain(section: &Section) -> String {
    let mut lines = vec![format!("{}:", section.title)];
    if !section.intro.is_empty() {
        lines.extend(wrap(section.intro, "  "));
    }
    // Short terms stand beside their meaning, long ones above it.
    let widest = section.entries.iter().map(|(term, _)| term.len()).max().unwrap_or_default();
    for (term, meaning) in section.entries {
        if widest <= WIDEST_TERM {
            let indent = " ".repeat(widest + 4);
            let mut beside = wrap(meaning, &indent);
            beside[0].replace_range(..indent.len(), &format!("  {term:widest$}  "));
            lines.extend(beside);
        } else {
            lines.push(format!("  {term}"));
            lines.extend(wrap(meaning, "          "));
        }
    }
    lines.join("\n")
}

/// The text in lines of at most [`WIDTH`] columns, each after `indent`; at least one.
fn wrap(text: &str, indent: &str) -> Vec<String> {
    let mut lines = vec![indent.to_owned()];
    for word in text.split_whitespace() {
        let mut line = lines.pop().unwrap_or_default();
        if line.len() + 1 + word.len() > WIDTH && line.len() > indent.len() {
            lines.push(std::mem::replace(&mut line, indent.to_owned()));
        }
        if line.len() > indent.len() {
            line.push(' ');
        }
        lines.push(line + word);
    }
    lines
}
