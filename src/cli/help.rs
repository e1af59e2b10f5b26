//! Texts of the help. `--help` and the man page share them.

use super::options::{Group, OPTIONS, Opt};

/// First line of the help.
pub(crate) const ABOUT: &str = "Run a command while holding a distributed lock, and never without it";

/// First paragraphs of `--help`.
pub(crate) const LONG_ABOUT: &str = "\
Run a command while holding a distributed lock, and never without it.

distlock acquires the lock NAME on etcd, on Consul or on this host, runs COMMAND, and releases the lock when COMMAND and \
all its descendants have exited. If the lock is lost while COMMAND runs (no server can be reached, the lease was revoked), \
COMMAND is killed before another client can hold the lock.

Options precede NAME; everything from COMMAND on belongs to COMMAND. A NAME without a slash needs the `--`.";

/// Synopsis.
pub(crate) const USAGE: &str = "distlock [OPTIONS] NAME [--] COMMAND [ARG]...
       distlock run [OPTIONS] NAME [--] COMMAND [ARG]...
       distlock doctor [OPTIONS] [NAME] | completions SHELL | man";

/// Last lines of the short help.
const SHORT_END: &str = "\
Example: distlock -b etcd -e https://etcd1:2379 /jobs/backup backup.sh
More options, variables, files, exit codes: distlock --help
";

/// Maximum width of the long help, in columns.
pub(crate) const WIDTH: usize = 100;
/// Maximum width of terms with their meaning on the same line, in columns.
const MAX_TERM_WIDTH: usize = 30;

/// Section of the help: terms and their meanings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section {
    pub title: &'static str,
    /// Paragraph above the list; may be empty.
    pub intro: &'static str,
    /// Terms and meanings.
    pub entries: &'static [(&'static str, &'static str)],
}

/// Sections after the options.
pub(crate) const SECTIONS: &[Section] = &[
    Section {
        title: "Environment of the command",
        intro: "",
        entries: &[
            (
                "DISTLOCK_FENCING_TOKEN",
                "fencing token: a decimal integer that grows with every acquisition of this lock",
            ),
            ("DISTLOCK_HANDLE", "handle of the held lock; contains no secret"),
            ("DISTLOCK_HELD_NAME", "name of the lock"),
            ("DISTLOCK_HELD_BACKEND", "etcd, consul or local"),
            ("DISTLOCK_HELD_KEY", "key or file of the lock"),
            ("ETCD_LOCK_KEY, ETCD_LOCK_REV", "as set by etcdctl lock (on etcd)"),
            ("CONSUL_LOCK_HELD", "true, as set by consul lock (on Consul)"),
        ],
    },
    Section {
        title: "Signals",
        intro: "INT, TERM, HUP, QUIT, USR1, USR2, WINCH and CONT reach the command once: keyboard signals directly, others \
                forwarded by distlock. distlock holds the lock until the command has exited, however long that takes. A \
                second INT or TERM, at least one second after the first, kills the command. If the command died of INT, \
                TERM, HUP or QUIT, distlock dies of the same signal. Under systemd, set KillMode=mixed; otherwise the \
                command gets TERM twice.",
        entries: &[],
    },
    Section {
        title: "Environment",
        intro: "Precedence: flag, DISTLOCK_ variable, the chosen backend's own variables, configuration file, default. An \
                empty variable counts as unset. The values of switches are 1, 0, true and false.",
        entries: &[
            ("DISTLOCK_...", "options marked [env: ...] above"),
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
                "options marked [key: ...] above; the tables [etcd], [consul] and [local] hold settings for one backend, [consul] also lock_delay and health_checks",
            ),
            ("/run/lock/distlock", "lock files of the local backend"),
        ],
    },
    Section {
        title: "Exit codes",
        intro: "The command's own exit code (128+N if signal N killed it), or one of these, each with a line `distlock: error: ...` (none after Ctrl-C; with -q none for 75 and 128+N):",
        entries: &[
            ("64", "usage or configuration error"),
            ("69", "no server could be reached or trusted, or none could grant a lock"),
            ("70", "internal error"),
            ("75", "busy: not acquired within --wait (-E changes the code)"),
            ("76", "the lock was lost, and the command killed"),
            ("77", "the backend denied access"),
            ("126", "COMMAND cannot be executed"),
            ("127", "COMMAND was not found"),
            ("128+N", "signal N ended distlock while waiting"),
        ],
    },
    Section {
        title: "Examples",
        intro: "",
        entries: &[
            ("distlock -b etcd -e http://127.0.0.1:2379 /jobs/backup backup.sh", "run backup.sh on one host at a time"),
            (
                "distlock -b consul --try -E 0 /jobs/report -- report --daily",
                "skip silently if another host is running it",
            ),
            ("distlock -b local -w 30s build -- make -j4", "lock on this host only, and wait at most 30 seconds"),
            ("distlock doctor -b consul /jobs/dump", "find out why a lock cannot be acquired"),
            (
                "distlock -b consul -c /jobs/dump 'pg_dump app | gzip > app.sql.gz'",
                "run a shell pipeline under the lock",
            ),
        ],
    },
];

/// Returns the summary of an option, with its default or its choices.
#[must_use]
pub(crate) fn line(option: &Opt) -> String {
    let choices = (!option.choices.is_empty()).then(|| option.choices.join(", "));
    match (option.default, choices) {
        (Some(default), _) => format!("{} [default: {default}]", option.help),
        (None, Some(choices)) => format!("{}: {choices}", option.help),
        (None, None) => option.help.to_owned(),
    }
}

/// Returns the short help: the most common options, on a screen of 24 lines including the prompt below it.
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

/// Returns the option as it is typed.
fn term(option: &Opt) -> String {
    let short = option.short.map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
    let value = option.value.map(|value| format!(" {value}")).unwrap_or_default();
    format!("{short}--{}{value}", option.id)
}

/// Returns the complete help of an option.
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

/// Returns the sections for `--help`.
#[must_use]
pub(crate) fn long_end() -> String {
    SECTIONS.iter().map(text_of).collect::<Vec<_>>().join("\n\n")
}

fn text_of(section: &Section) -> String {
    let mut lines = vec![format!("{}:", section.title)];
    if !section.intro.is_empty() {
        lines.extend(wrap(section.intro, "  "));
    }
    // The meaning follows a short term on the same line, a long one on the next.
    let widest = section.entries.iter().map(|(term, _)| term.len()).max().unwrap_or_default();
    for (term, meaning) in section.entries {
        if widest <= MAX_TERM_WIDTH {
            let indent = " ".repeat(widest + 4);
            let mut lines_of_entry = wrap(meaning, &indent);
            lines_of_entry[0].replace_range(..indent.len(), &format!("  {term:widest$}  "));
            lines.extend(lines_of_entry);
        } else {
            lines.push(format!("  {term}"));
            lines.extend(wrap(meaning, "          "));
        }
    }
    lines.join("\n")
}

/// Breaks the text into one or more lines of at most [`WIDTH`] columns, `indent` included.
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
