//! Table of options. Command line, `DISTLOCK_` variables, keys of the configuration file, help, man page and completions
//! are built from it.

use Group::{Connection, Identity, Lock, Output, Tls};

/// One option. Its flag, variable, key and help follow from this definition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opt {
    /// Long flag without dashes.
    pub id: &'static str,
    /// Short flag.
    pub short: Option<char>,
    /// Placeholder of the value in the help; None for a switch.
    pub value: Option<&'static str>,
    /// Summary: one imperative line without a full stop.
    pub help: &'static str,
    /// Further sentences for `--help` and the man page.
    pub details: &'static str,
    /// Default, as the help shows it.
    pub default: Option<&'static str>,
    /// Accepted values, if they can be listed.
    pub choices: &'static [&'static str],
    pub group: Group,
    pub set_by: SetBy,
    /// Whether the value is a path. In a configuration file, it is relative to the file's directory.
    pub path: bool,
    /// Whether the short help omits it.
    pub rare: bool,
}

/// Section of the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// Lock and command.
    Lock,
    Connection,
    Tls,
    /// Credentials, and Consul's namespace, partition and datacenter.
    Identity,
    /// What distlock prints.
    Output,
}

/// Sources that can set an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetBy {
    /// Command line only, because the option changes the meaning of one lock.
    Flag,
    /// Command line and variable.
    Variable,
    /// Command line, variable and configuration file.
    Any,
}

impl Group {
    /// Returns the heading in the help.
    #[must_use]
    pub(crate) fn heading(self) -> &'static str {
        match self {
            Self::Lock => "Lock and command",
            Self::Connection => "Connection",
            Self::Tls => "TLS",
            Self::Identity => "Identity",
            Self::Output => "Output",
        }
    }

    /// Returns whether `run` is the only subcommand with these options.
    #[must_use]
    pub(crate) fn is_for_run_only(self) -> bool {
        self == Self::Lock
    }
}

impl Opt {
    const fn switch(group: Group, id: &'static str, help: &'static str) -> Self {
        Self {
            id,
            short: None,
            value: None,
            help,
            details: "",
            default: None,
            choices: &[],
            group,
            set_by: SetBy::Any,
            path: false,
            rare: matches!(group, Tls | Identity),
        }
    }

    const fn valued(group: Group, id: &'static str, value: &'static str, help: &'static str) -> Self {
        Self { value: Some(value), ..Self::switch(group, id, help) }
    }

    const fn file(group: Group, id: &'static str, help: &'static str) -> Self {
        Self { path: true, ..Self::valued(group, id, "FILE", help) }
    }

    const fn value_name(self, value: &'static str) -> Self {
        Self { value: Some(value), ..self }
    }

    const fn short(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }

    const fn default(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    const fn choices(self, choices: &'static [&'static str]) -> Self {
        Self { choices, ..self }
    }

    const fn rare(self) -> Self {
        Self { rare: true, ..self }
    }

    const fn details(self, details: &'static str) -> Self {
        Self { details, ..self }
    }

    const fn set_by(self, set_by: SetBy) -> Self {
        Self { set_by, ..self }
    }

    /// Returns whether its values begin with a digit, so that a negative number is a wrong value and not an option.
    #[must_use]
    pub(crate) fn is_number(&self) -> bool {
        matches!(self.value, Some("DUR" | "N" | "CODE"))
    }

    /// Returns the name of its variable.
    #[must_use]
    pub(crate) fn variable(&self) -> Option<String> {
        (self.set_by != SetBy::Flag).then(|| variable(self.id))
    }

    /// Returns its key in the configuration file.
    #[must_use]
    pub(crate) fn key(&self) -> Option<String> {
        (self.set_by == SetBy::Any).then(|| self.id.replace('-', "_"))
    }
}

/// Returns the name of the variable for an option of this name, whether or not it can be set by one.
#[must_use]
pub(crate) fn variable(id: &str) -> String {
    format!("DISTLOCK_{}", id.replace('-', "_").to_uppercase())
}

/// Returns the option of this name.
#[must_use]
pub(crate) fn find(id: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|option| option.id == id)
}

/// Returns the option with this key, whether or not it can be set in the configuration file.
#[must_use]
pub(crate) fn find_by_key(key: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|option| option.id.replace('-', "_") == key)
}

/// Options of later versions, with their short flags. Their names are not mistaken for those of other options.
pub(crate) const RESERVED: &[(&str, Option<char>)] = &[
    ("shared", Some('s')),
    ("slots", None),
    ("max-hold", None),
    ("min-hold", None),
    ("metrics-dir", None),
    ("json", None),
    ("watch", None),
    ("yes", None),
];

/// Returns the reserved option that this word of a command line names. The word has no value attached.
#[must_use]
pub(crate) fn reserved(word: &str) -> Option<&'static str> {
    let is_named = |(id, short): &&(&str, Option<char>)| {
        word.strip_prefix("--") == Some(*id) || short.is_some_and(|short| word == format!("-{short}"))
    };
    RESERVED.iter().find(is_named).map(|(id, _)| *id)
}

/// Returns the message about a reserved option.
#[must_use]
pub(crate) fn not_available(id: &str) -> String {
    format!("`--{id}` is not available in this version of distlock")
}

/// All options, in the order of the help.
pub(crate) const OPTIONS: &[Opt] = &[
    Opt::valued(Lock, "ttl", "DUR", "Set the lease time of the lock").short('t').default("15s").details(
        "The lease is renewed while the command runs. If it cannot be renewed, the command is killed before the lease \
         expires. A longer TTL survives longer outages, but the lock takes longer to expire after a crash. \
         Consul accepts 10s to 24h.",
    ),
    Opt::valued(Lock, "wait", "DUR", "Wait at most this long for the lock").short('w').default("forever").details(
        "A duration, or `forever`. Connecting is included. If the lock is not acquired in time, the exit code is 75, or \
         69 if no server could be reached or none could grant the lock. 0 means one attempt, for which the servers have \
         --connect-timeout to answer.",
    ),
    Opt::switch(Lock, "try", "Do not wait for the lock").short('n').details(
        "Same as --wait 0. If no server answers, distlock exits after --connect-timeout.",
    ),
    Opt::valued(Lock, "busy-exit", "CODE", "Exit with this code if the lock is busy").short('E').default("75").details(
        "0 also suppresses the message.",
    ),
    Opt::valued(Lock, "message", "TEXT", "Show this text to waiters").short('m').default("the CI job").details(
        "In a known CI (GitHub Actions, GitLab, Jenkins, Buildkite, CircleCI, Azure Pipelines, TeamCity), the default is \
         the name of the job. The job's URL is shown in any case.",
    ),
    Opt::switch(Lock, "shell", "Run COMMAND, a single word, with /bin/sh -c").short('c').set_by(SetBy::Flag),
    Opt::valued(Lock, "signal", "NAME", "Set the signal that asks the command to exit").default("TERM").rare().details(
        "This soft signal is sent if the lock is lost. Processes that outlive the command get it too.",
    ),
    Opt::valued(Lock, "grace", "DUR", "Set the time from the soft signal to KILL")
        .default("TTL/3, max 5s")
        .rare()
        .details(
            "It is part of the lease time: KILL is sent before another client can acquire the lock, and the soft signal \
             this much earlier.",
        ),
    Opt::valued(Lock, "on-lost", "ACTION", "Choose what to do if the lock is lost")
        .default("kill")
        .choices(&["kill", "restart", "relock"])
        .set_by(SetBy::Flag)
        .details(
            "kill: the command and its descendants are killed before another client can hold the lock; exit 76. \
             restart: the same, then the lock is acquired again, within --wait, and the command run again. If the lock \
             was held for less than a TTL, a pause comes first: 100ms, doubled each time, up to the TTL. \
             relock: the command is frozen until the lock is confirmed or acquired again. It continues if no other client can have \
             held the lock in between; otherwise it is killed, exit 76.",
        ),
    Opt::valued(Lock, "restarts", "N", "Limit the number of restarts by --on-lost restart")
        .default("unbounded")
        .rare()
        .set_by(SetBy::Flag),
    Opt::valued(Lock, "leftover", "ACTION", "Choose what to do with processes that outlive COMMAND")
        .default("kill")
        .choices(&["kill", "wait", "leave"])
        .rare()
        .set_by(SetBy::Flag)
        .details(
            "kill: they get the soft signal, and KILL after the grace, before the lock is released. wait: the lock is held \
             until they have exited. leave: they continue without the lock, while other clients can hold it; a warning names them.",
        ),
    Opt::switch(Lock, "no-lock", "Run COMMAND without a lock, with a warning")
        .rare()
        .set_by(SetBy::Flag)
        .details("For testing a script without a server."),
    Opt::file(Lock, "report", "Write the outcome as JSON to FILE or to descriptor N")
        .value_name("FILE|fd:N")
        .rare()
        .set_by(SetBy::Flag)
        .details(REPORT_DETAILS),
    Opt::valued(Connection, "backend", "BACKEND", "Choose the backend")
        .short('b')
        .choices(&["etcd", "consul", "local"])
        .details(
            "etcd, consul, or local for a lock on this host. Without it, the one backend that has an address is used: ETCDCTL_ENDPOINTS, ETCDCTL_DISCOVERY_SRV, \
             CONSUL_HTTP_ADDR, a backend's table with endpoints in the configuration file, a file: or unix: endpoint. \
             There is no other default.",
        ),
    Opt::valued(Connection, "endpoints", "URL[,URL]", "Connect to the servers at these addresses").short('e').details(
        "http://HOST:PORT, https://HOST:PORT, HOST:PORT (https if any TLS setting is given, otherwise http), \
         unix:///SOCKET (Consul), file:///DIR (local). If one endpoint fails, the next one is tried. For addresses from \
         ETCDCTL_ENDPOINTS and CONSUL_HTTP_ADDR, the variables of etcdctl and consul have their usual meaning. \
         Default on Consul: its agent at 127.0.0.1:8500; on local: /run/lock/distlock; on etcd: none.",
    ),
    Opt::valued(Connection, "connect-timeout", "DUR", "Give up if no server answers within this time")
        .default("10s")
        .rare(),
    Opt::file(Connection, "config", "Read settings from this file").set_by(SetBy::Variable).details(
        "Without it, /etc/distlock/config.toml is read if it exists. A file named here must exist.",
    ),
    Opt::file(Tls, "cacert", "Trust only the CA certificates in this PEM file").details(
        "The default is to trust the system's CA certificates.",
    ),
    Opt::file(Tls, "cert", "Authenticate with the client certificate in this PEM file"),
    Opt::file(Tls, "key", "Read the private key of the client certificate from this file"),
    Opt::valued(Tls, "tls-server-name", "NAME", "Expect this name in the server's certificate"),
    Opt::switch(Tls, "insecure-skip-tls-verify", "Accept any server certificate"),
    Opt::valued(Identity, "user", "NAME", "Log in as this user").details(
        "A user of etcd, or of HTTP basic authentication in front of Consul. The password comes from --password-file, from \
         the backend's own variable, or from a prompt on the terminal.",
    ),
    Opt::file(Identity, "password-file", "Read the user's password from this file"),
    Opt::file(Identity, "token-file", "Read Consul's ACL token from this file"),
    Opt::valued(Identity, "namespace", "NAME", "Use this namespace (Consul Enterprise)"),
    Opt::valued(Identity, "partition", "NAME", "Use this admin partition (Consul Enterprise)"),
    Opt::valued(Identity, "datacenter", "NAME", "Use this datacenter (Consul)"),
    Opt::valued(Output, "log-format", "FORMAT", "Write events to stderr in this format")
        .default("text")
        .choices(&["text", "json"])
        .rare(),
    Opt::switch(Output, "verbose", "Print each step to stderr").short('v'),
    Opt::switch(Output, "quiet", "Print errors only; not for a busy lock or a signal").short('q'),
];

const REPORT_DETAILS: &str = "\
An old FILE is removed at the start, and the new one appears complete when distlock exits, with any exit code; if it cannot be \
created, nothing runs. If FILE is a symbolic link, the file behind it is created or emptied at the start, stays empty during \
the run, and is filled at the end. A device, a pipe, /dev/stdout, /dev/stderr and /dev/fd/N are written to. Any other path to \
a file or pipe that distlock inherited as a descriptor is refused. Descriptor N, 3 or more, is not passed on to COMMAND. If the \
command line cannot be parsed (exit 64), no report is written and an old one stays. If the report cannot be written at the \
end, an error says so and the exit code does not change. Fields: schema, outcome (exited, signaled, busy, lost, broken, max-hold, \
unreachable, denied, not-started, usage, interrupted, fault; max-hold is for a later version), exit, command_exit, \
signal, name, backend, token, waited, held, renewals, losses, restarts, started_at, ended_at, rusage (user, system, \
max_rss). Times are in seconds, max_rss in bytes; unknown values are null.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_imperative_without_a_full_stop() {
        for option in OPTIONS {
            let (first, _) = option.help.split_once(' ').expect("a verb and its object");
            assert!(first.starts_with(char::is_uppercase), "--{}: {}", option.id, option.help);
            assert!(!first.ends_with('s'), "--{}: `{first}` is not an imperative", option.id);
            assert!(!option.help.ends_with('.'), "--{}: ends with a full stop", option.id);
            assert!(!option.help.contains('\n') && option.help.len() <= 64, "--{}: too long", option.id);
            assert!(
                option.details.is_empty() || option.details.ends_with('.'),
                "--{}: details must be sentences",
                option.id
            );
        }
    }

    #[test]
    fn flags_are_unique() {
        let mut shorts: Vec<_> = OPTIONS.iter().filter_map(|option| option.short).chain(['h', 'V']).collect();
        let mut longs: Vec<_> = OPTIONS.iter().map(|option| option.id).chain(["help", "version"]).collect();
        let count = (shorts.len(), longs.len());
        shorts.sort_unstable();
        shorts.dedup();
        longs.sort_unstable();
        longs.dedup();
        assert_eq!((shorts.len(), longs.len()), count);
    }

    #[test]
    fn reserved_options_are_not_defined() {
        for (id, short) in RESERVED {
            assert!(find(id).is_none(), "--{id}");
            assert!(short.is_none() || OPTIONS.iter().all(|option| option.short != *short), "--{id}");
        }
    }

    #[test]
    fn options_that_change_one_lock_are_flags_only() {
        let flags: Vec<_> = OPTIONS.iter().filter(|o| o.variable().is_none()).map(|o| o.id).collect();
        assert_eq!(flags, ["shell", "on-lost", "restarts", "leftover", "no-lock", "report"]);
        let keyless: Vec<_> = OPTIONS.iter().filter(|o| o.key().is_none()).map(|o| o.id).collect();
        assert_eq!(keyless, ["shell", "on-lost", "restarts", "leftover", "no-lock", "report", "config"]);
    }

    #[test]
    fn variables_of_the_command_set_no_option() {
        let given = ["FENCING_TOKEN", "HANDLE", "HELD_NAME", "HELD_BACKEND", "HELD_KEY"];
        for option in OPTIONS {
            let variable = option.variable().unwrap_or_default();
            assert!(given.iter().all(|name| variable != format!("DISTLOCK_{name}")), "{variable}");
        }
    }

    #[test]
    fn switches_have_no_choices_and_paths_have_values() {
        for option in OPTIONS {
            assert!(option.value.is_some() || (option.choices.is_empty() && !option.path), "--{}", option.id);
        }
    }
}
