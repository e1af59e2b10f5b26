//! The table of options. The command line, the `DISTLOCK_` variables, the configuration file's keys, the help, the man
//! page and the completions are all made from it.

/// One option: its flag, and how its variable, its key and its help follow from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opt {
    /// The long flag without its dashes.
    pub id: &'static str,
    /// The short flag.
    pub short: Option<char>,
    /// What stands for the value in the help; None for a switch.
    pub value: Option<&'static str>,
    /// What it does: one imperative line without a full stop.
    pub help: &'static str,
    /// What else `--help` and the man page say of it, in full sentences.
    pub details: &'static str,
    /// What holds when nobody sets it, as the help says it.
    pub default: Option<&'static str>,
    /// The values it takes, where they can be listed.
    pub choices: &'static [&'static str],
    /// Where it stands in the help.
    pub group: Group,
    /// Where it can be set.
    pub reach: Reach,
    /// Whether the value is a path: one in a configuration file is relative to that file.
    pub path: bool,
    /// Whether few users need it, so that the short help leaves it out.
    pub rare: bool,
}

/// The sections of the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// The lock and the command.
    Lock,
    /// The way to the servers.
    Connection,
    /// TLS.
    Tls,
    /// Who we are to the servers.
    Identity,
    /// What distlock prints.
    Output,
}

/// Where an option can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// On the command line only: it changes what one lock means.
    Flag,
    /// On the command line or by its variable.
    Variable,
    /// On the command line, by its variable, or in the configuration file.
    Everywhere,
}

impl Group {
    /// The heading in the help.
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

    /// Whether its options mean something to `run` alone.
    #[must_use]
    pub(crate) fn of_run_alone(self) -> bool {
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
            reach: Reach::Everywhere,
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

    const fn stands_for(self, value: &'static str) -> Self {
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

    const fn reach(self, reach: Reach) -> Self {
        Self { reach, ..self }
    }

    /// Whether its values begin with a digit, so that a negative one is a mistake about the value.
    #[must_use]
    pub(crate) fn is_number(&self) -> bool {
        matches!(self.value, Some("DUR" | "N" | "CODE"))
    }

    /// The name of the variable that sets it.
    #[must_use]
    pub(crate) fn variable(&self) -> Option<String> {
        (self.reach != Reach::Flag).then(|| variable(self.id))
    }

    /// The key that sets it in the configuration file.
    #[must_use]
    pub(crate) fn key(&self) -> Option<String> {
        (self.reach == Reach::Everywhere).then(|| self.id.replace('-', "_"))
    }
}

/// The name of the variable that would set the option of this name.
#[must_use]
pub(crate) fn variable(id: &str) -> String {
    format!("DISTLOCK_{}", id.replace('-', "_").to_uppercase())
}

/// The option of this name.
#[must_use]
pub(crate) fn find(id: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|option| option.id == id)
}

/// The option that this configuration key would set, if it may be set there.
#[must_use]
pub(crate) fn find_by_key(key: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|option| option.id.replace('-', "_") == key)
}

/// Options of later versions, with their short flags: refused by name, so that nobody takes them for something else.
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

/// The reserved option that this word of a command line, without its value, is.
#[must_use]
pub(crate) fn reserved(word: &str) -> Option<&'static str> {
    let is = |(id, short): &&(&str, Option<char>)| {
        word.strip_prefix("--") == Some(*id) || short.is_some_and(|short| word == format!("-{short}"))
    };
    RESERVED.iter().find(is).map(|(id, _)| *id)
}

/// What is said of a reserved option.
#[must_use]
pub(crate) fn not_available(id: &str) -> String {
    format!("`--{id}` is not available in this version of distlock")
}

use Group::{Connection, Identity, Lock, Output, Tls};

/// All options, in the order of the help.
pub(crate) const OPTIONS: &[Opt] = &[
    Opt::valued(Lock, "ttl", "DUR", "Lease the lock for this long at a time").short('t').default("15s").details(
        "The lease is renewed while the command runs; when it cannot be, the command is ended before the lease is. \
         A longer one rides out longer outages and takes longer to free itself after a crash. Consul takes 10s to 24h.",
    ),
    Opt::valued(Lock, "wait", "DUR", "Wait at most this long for the lock").short('w').default("forever").details(
        "A duration, or `forever`. The time to connect is included. When it runs out, the exit code is 75, or 69 if no server \
         ever let it into the queue. With 0 the lock is tried once, and servers that do not answer have --connect-timeout for it.",
    ),
    Opt::switch(Lock, "try", "Do not wait for the lock").short('n').details(
        "The same as --wait 0. Where no server answers, that is known after --connect-timeout.",
    ),
    Opt::valued(Lock, "busy-exit", "CODE", "Exit with this code if the lock is busy").short('E').default("75").details(
        "0 also keeps quiet about it.",
    ),
    Opt::valued(Lock, "message", "TEXT", "Show this text to whoever waits").short('m').default("the CI job").details(
        "In a CI that is recognised (GitHub Actions, GitLab, Jenkins, Buildkite, CircleCI, Azure Pipelines, TeamCity), the \
         job's name stands in for it, and its address is shown too.",
    ),
    Opt::switch(Lock, "shell", "Run COMMAND, a single word, with /bin/sh -c").short('c').reach(Reach::Flag),
    Opt::valued(Lock, "signal", "NAME", "End the command with this signal").default("TERM").rare().details(
        "It is sent when the lock is lost, and to whatever the command leaves behind.",
    ),
    Opt::valued(Lock, "grace", "DUR", "Send KILL this much later").default("TTL/3, max 5s").rare().details(
        "It is taken from the lease: the signal comes this much earlier than KILL, which comes before the lock could be another's.",
    ),
    Opt::valued(Lock, "on-lost", "ACTION", "Choose what follows a lost lock")
        .default("kill")
        .choices(&["kill", "restart", "relock"])
        .reach(Reach::Flag)
        .details(
            "kill: the command and all it started are dead before another can hold the lock; exit 76. restart: then the \
             lock is acquired again, within --wait, and the command run anew, after a pause where the lock was held for less than \
             a TTL: 100ms, doubled each time up to the TTL. relock: the command is frozen while the lock \
             is re-established; it goes on if nobody else can have held the lock in between, else it is killed, exit 76.",
        ),
    Opt::valued(Lock, "restarts", "N", "Bound the runs that --on-lost restart adds")
        .default("unbounded")
        .rare()
        .reach(Reach::Flag),
    Opt::valued(Lock, "leftover", "ACTION", "Choose what follows when processes outlive COMMAND")
        .default("kill")
        .choices(&["kill", "wait", "leave"])
        .rare()
        .reach(Reach::Flag)
        .details(
            "kill: they get the soft signal, the grace and KILL before the lock is released. wait: the lock is held until \
             they have ended. leave: they run on without the lock, which gives up the promise; a warning names them.",
        ),
    Opt::switch(Lock, "no-lock", "Run COMMAND without a lock, with a warning").rare().reach(Reach::Flag).details(
        "For trying out a script where there is no server.",
    ),
    Opt::file(Lock, "report", "Write the outcome as JSON to FILE or to descriptor N")
        .stands_for("FILE|fd:N")
        .rare()
        .reach(Reach::Flag)
        .details(
            "FILE is removed at the start and put in place at every ending, 64 included; where that cannot be, nothing runs. \
             Behind a link it is the file that is replaced; a device or a pipe is written to, and so are /dev/stdout and \
             the like. Descriptor N, 3 or more, is not passed on to COMMAND. A report that cannot be written in the end \
             is told of and changes no exit code. Fields: schema, outcome (exited, signaled, busy, lost, broken, max-hold, unreachable, denied, \
             not-started, usage, interrupted, fault; max-hold is for a later version), exit, command_exit, signal, name, backend, token, waited, held, \
             renewals, losses, restarts, started_at, ended_at, rusage (user, system, max_rss). Times are in seconds, \
             max_rss in bytes; what is unknown is null.",
        ),
    Opt::valued(Connection, "backend", "BACKEND", "Choose where the lock lives")
        .short('b')
        .choices(&["etcd", "consul", "local"])
        .details(
            "Without it, the one backend that has an address is taken: ETCDCTL_ENDPOINTS, CONSUL_HTTP_ADDR, a table with \
             endpoints in the configuration file, a file: or unix: endpoint. There is no other default.",
        ),
    Opt::valued(Connection, "endpoints", "URL[,URL]", "Reach the servers at these addresses").short('e').details(
        "http://HOST:PORT, https://HOST:PORT, HOST:PORT (https if any TLS setting is given, else http), \
         unix:///SOCKET (Consul), file:///DIR (local). Several are tried in turn. In ETCDCTL_ENDPOINTS and CONSUL_HTTP_ADDR \
         the variables of etcdctl and consul mean what they mean there. \
         Default on Consul: its agent at 127.0.0.1:8500; on local: /run/lock/distlock; on etcd: none.",
    ),
    Opt::valued(Connection, "connect-timeout", "DUR", "Limit the wait for a first answer").default("10s").rare(),
    Opt::file(Connection, "config", "Read settings from this file").reach(Reach::Variable).details(
        "Without it, /etc/distlock/config.toml is read where it exists; a file that is named has to exist.",
    ),
    Opt::file(Tls, "cacert", "Trust the authorities in this PEM file instead of the system's"),
    Opt::file(Tls, "cert", "Show the server the certificate in this PEM file"),
    Opt::file(Tls, "key", "Prove the certificate with the key in this PEM file"),
    Opt::valued(Tls, "tls-server-name", "NAME", "Expect this name in the server's certificate"),
    Opt::switch(Tls, "insecure-skip-tls-verify", "Trust whatever certificate the server shows"),
    Opt::valued(Identity, "user", "NAME", "Log in as this user").details(
        "etcd's user, or the user of HTTP basic authentication in front of Consul. \
         The password comes from --password-file, from the backend's own variable, or from a prompt on the terminal.",
    ),
    Opt::file(Identity, "password-file", "Read the user's password from this file"),
    Opt::file(Identity, "token-file", "Read Consul's ACL token from this file"),
    Opt::valued(Identity, "namespace", "NAME", "Use this namespace (Consul Enterprise)"),
    Opt::valued(Identity, "partition", "NAME", "Use this admin partition (Consul Enterprise)"),
    Opt::valued(Identity, "datacenter", "NAME", "Use this datacenter (Consul)"),
    Opt::valued(Output, "log-format", "FORMAT", "Write events to stderr in this form").default("text").choices(&["text", "json"]).rare(),
    Opt::switch(Output, "verbose", "Tell each step on stderr").short('v'),
    Opt::switch(Output, "quiet", "Tell errors only, not of a busy lock or a signal").short('q'),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lines_are_imperative_without_a_full_stop() {
        for option in OPTIONS {
            let first = option.help.split(' ').next().unwrap();
            assert!(first.starts_with(char::is_uppercase), "--{}: {}", option.id, option.help);
            assert!(!first.ends_with('s'), "--{}: `{first}` is not an imperative", option.id);
            assert!(!option.help.ends_with('.'), "--{}: ends with a full stop", option.id);
            assert!(!option.help.contains('\n') && option.help.len() <= 64, "--{}: too long", option.id);
            assert!(
                option.details.is_empty() || option.details.ends_with('.'),
                "--{}: details are sentences",
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
    fn what_is_reserved_is_no_option_yet() {
        for (id, short) in RESERVED {
            assert!(find(id).is_none(), "--{id}");
            assert!(short.is_none() || OPTIONS.iter().all(|option| option.short != *short), "--{id}");
        }
    }

    #[test]
    fn only_what_changes_one_lock_is_a_flag_alone() {
        let flags: Vec<_> = OPTIONS.iter().filter(|o| o.variable().is_none()).map(|o| o.id).collect();
        assert_eq!(flags, ["shell", "on-lost", "restarts", "leftover", "no-lock", "report"]);
        let keyless: Vec<_> = OPTIONS.iter().filter(|o| o.key().is_none()).map(|o| o.id).collect();
        assert_eq!(keyless, ["shell", "on-lost", "restarts", "leftover", "no-lock", "report", "config"]);
    }

    #[test]
    fn no_option_takes_a_variable_that_the_command_is_given() {
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
