use std::os::unix::ffi::OsStringExt;

use distlock_core::error::Kind;

use super::*;

fn parse_line(line: &[&str]) -> Result<Request, Failure> {
    parse(std::iter::once("distlock").chain(line.iter().copied()).map(OsString::from))
}

fn run(line: &[&str]) -> (Flags, NamedCommand) {
    match parse_line(line) {
        Ok(Request::Run(flags, words)) => (flags, words),
        other => panic!("{line:?} is not a run: {other:?}"),
    }
}

fn refusal(line: &[&str]) -> Failure {
    parse_line(line).map(|_| ()).expect_err("a refusal")
}

#[test]
fn run_has_a_name_and_a_command() {
    let cases: &[(&[&str], &str, &[&str])] = &[
        (&["/x", "ls", "-l"], "/x", &["ls", "-l"]),
        (&["/x", "--", "ls", "-l"], "/x", &["ls", "-l"]),
        (&["/x", "ls", "--help"], "/x", &["ls", "--help"]),
        (&["/x", "ls", "--", "-l"], "/x", &["ls", "--", "-l"]),
        (&["/x", "--", "--", "foo"], "/x", &["--", "foo"]),
        (&["/x", "--", "-foo"], "/x", &["-foo"]),
        (&["jobs/backup", "ls"], "jobs/backup", &["ls"]),
        (&["demo", "--", "echo", "hi"], "demo", &["echo", "hi"]),
        (&["statsu", "--", "backup"], "statsu", &["backup"]),
        (&["-t", "5s", "/x", "ls", "-t", "9s"], "/x", &["ls", "-t", "9s"]),
        (&["run", "/x", "ls", "-l"], "/x", &["ls", "-l"]),
        (&["run", "/x", "ls", "--help"], "/x", &["ls", "--help"]),
        (&["run", "demo", "echo", "hi"], "demo", &["echo", "hi"]),
        (&["run", "status", "--", "true"], "status", &["true"]),
        (&["run", "run", "--", "run"], "run", &["run"]),
        (&["run", "/x", "--", "--", "foo"], "/x", &["--", "foo"]),
        (&["run", "/x", "--", "-foo"], "/x", &["-foo"]),
        (&["run", "-t", "5s", "/x", "ls", "-t"], "/x", &["ls", "-t"]),
        (&["a b", "--", "c d"], "a b", &["c d"]),
    ];
    for (line, name, command) in cases {
        let (_, words) = run(line);
        assert_eq!(
            (words.name.as_str(), words.command),
            (*name, command.iter().map(OsString::from).collect()),
            "{line:?}"
        );
    }
}

#[test]
fn refusals_have_a_hint() {
    let cases: &[(&[&str], &str, &str)] = &[
        (&[], "no command", "distlock NAME -- COMMAND"),
        (&["run"], "no command", "distlock NAME -- COMMAND"),
        (&["/x"], "no command", "distlock /x -- COMMAND"),
        (&["/x", "--"], "no command", "distlock /x -- COMMAND"),
        (&["demo"], "needs `--`", "distlock demo -- COMMAND"),
        (&["demo", "--"], "no command", "distlock demo -- COMMAND"),
        (&["run", "demo"], "no command", "distlock demo -- COMMAND"),
        (&["demo", "echo", "hi there"], "needs `--`", "to lock it: distlock demo -- echo 'hi there'"),
        (&["statsu", "backup"], "needs `--`", "did you mean `status`? To lock it: distlock run statsu -- backup"),
        (&["help"], "needs `--`", "did you mean `--help`?"),
        (&["status", "x"], "not available in this version", "distlock run status -- COMMAND"),
        (&["status", "--", "true"], "not available in this version", "distlock run status -- COMMAND"),
        (&["-t", "5s", "status", "x"], "not available in this version", ""),
        (&["/x", "-l", "ls"], "`-l` is not allowed between NAME and COMMAND", "options precede NAME"),
        (&["/x", "-"], "`-` is not allowed between NAME and COMMAND", ""),
        (&["/x", "--help"], "`--help` is not allowed between", ""),
        (&["demo", "-n", "ls"], "`-n` is not allowed between", ""),
        (&["run", "/x", "-l", "ls"], "`-l` is not allowed between", "options precede NAME"),
        (&["-t", "5s", "man"], "`man` does not take --ttl", "remove --ttl; to lock `man`: distlock run man -- COMMAND"),
        (&["--try", "completions", "bash"], "`completions` does not take --try", ""),
        (&["--try", "doctor"], "`doctor` does not take --try", "distlock run doctor -- COMMAND"),
        (&["doctor", "-t", "5s"], "'-t'", "only `run` takes --ttl: remove it"),
        (&["doctor", "/x", "ls"], "'ls'", ""),
        (&["doctor", "/x/"], "ends with a slash", ""),
        (&["doctr", "/x"], "needs `--`", "did you mean `doctor`?"),
        (&["completions"], "<SHELL>", ""),
        (&["completions", "tcsh"], "'tcsh'", ""),
        (&["--tll", "5s", "/x", "ls"], "'--tll'", "'--ttl'"),
        (&["--slots", "2", "/x", "ls"], "`--slots` is not available in this version of distlock", ""),
        (&["--max-hold=5s", "/x", "ls"], "`--max-hold` is not available in this version", ""),
        (&["--shared", "/x", "ls"], "`--shared` is not available in this version", "see distlock --help"),
        (&["-ns", "/x", "ls"], "`--shared` is not available in this version", ""),
        (&["run", "--yes", "/x", "ls"], "`--yes` is not available in this version", ""),
        (&["--json", "/x", "ls"], "`--json` is not available here", "distlock doctor --json"),
        (&["doctor", "--watch"], "`--watch` is not available in this version", ""),
        // A word that resembles a reserved option is not taken for another one.
        (&["--share", "/x", "ls"], "'--share'", "see distlock --help"),
        (&["--metrics", "/x", "ls"], "'--metrics'", "see distlock --help"),
        (&["run", "-x", "true"], "'-x'", "see distlock --help"),
        (&["--ttl"], "'--ttl <DUR>'", ""),
        (&["-b", "etdc", "/x", "ls"], "[possible values: etcd, consul, local]", "'etcd'"),
        (&["", "--", "ls"], "name is empty", ""),
        (&["/x/", "ls"], "ends with a slash", "remove it: /x"),
        (&["/a b/", "ls"], "ends with a slash: `/a b/`", "remove it: '/a b'"),
        (&["/a\n/", "ls"], "ends with a slash: `/a\\n/`", "remove it: `/a\\n`"),
        (&["/", "ls"], "ends with a slash", "add a name after the slash"),
        (&["/x\n", "ls"], "unprintable character", "remove it"),
        (&["/x\u{202e}y", "ls"], "unprintable character: `/x\\u{202e}y`", ""),
        (&["/x\u{2028}y", "ls"], "unprintable character", ""),
        (&["/x\u{200b}y", "ls"], "unprintable character", ""),
        (&["/x", ""], "command is empty", "distlock /x -- COMMAND"),
        (&["-c", "/x", ""], "command is empty", ""),
        (&["run", "x", "--", "", "a"], "command is empty", ""),
        (&["run", "--", "-x", "ls"], "begins with a dash", ""),
    ];
    for (line, message, hint) in cases {
        let failure = refusal(line);
        assert_eq!(failure.kind, Kind::Usage);
        assert!(failure.message.contains(message), "{line:?}: {failure:?}");
        assert!(failure.hint.unwrap_or_default().contains(hint), "{line:?}: {}", failure.message);
    }
}

#[test]
fn only_names_must_be_utf_8() {
    let not_utf8 = || OsString::from_vec(vec![b'/', 0xff]);
    for line in [
        vec!["distlock".into(), not_utf8(), "ls".into()],
        vec!["distlock".into(), "run".into(), not_utf8(), "ls".into()],
    ] {
        assert!(parse(line).is_err());
    }
    match parse(["distlock".into(), "/x".into(), not_utf8()]) {
        Ok(Request::Run(_, words)) => assert_eq!(words.command, [not_utf8()]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn last_flag_wins() {
    let given = |line: &[&str], level, id| run(line).0.at(level, id).cloned();
    assert_eq!(given(&["-t", "1s", "--ttl=2s", "/x", "ls"], 0, "ttl"), Some("2s".into()));
    assert_eq!(given(&["-n", "-n", "/x", "ls"], 0, "try"), Some("true".into()));
    assert_eq!(given(&["-n", "-w", "5s", "/x", "ls"], 0, "try"), None);
    assert_eq!(given(&["-w", "5s", "-n", "/x", "ls"], 0, "wait"), None);
    assert_eq!(given(&["-v", "-q", "/x", "ls"], 0, "verbose"), None);
    // A negative number is a wrong value, not an option.
    assert_eq!(given(&["-t", "-5", "/x", "ls"], 0, "ttl"), Some("-5".into()));
    // Flags after the subcommand come last.
    assert_eq!(given(&["-t", "1s", "run", "-t", "2s", "/x", "ls"], 0, "ttl"), Some("2s".into()));
    assert_eq!(given(&["-t", "1s", "run", "-t", "2s", "/x", "ls"], 1, "ttl"), Some("1s".into()));
}

#[test]
fn doctor_takes_connection_options_on_both_sides() {
    let doctor = |line: &[&str]| match parse_line(line) {
        Ok(Request::Doctor { flags, name, json }) => (flags, name, json),
        other => panic!("{line:?}: {other:?}"),
    };
    let (flags, name, json) = doctor(&["-b", "etcd", "-v", "doctor", "-b", "consul", "-e", "h:1", "/x", "--json"]);
    assert_eq!((name.as_deref(), json), (Some("/x"), true));
    assert_eq!(flags.at(0, "backend"), Some(&"consul".into()));
    assert_eq!(flags.at(0, "endpoints"), Some(&"h:1".into()));
    assert_eq!(flags.at(1, "backend"), Some(&"etcd".into()));
    assert_eq!(flags.at(1, "verbose"), Some(&"true".into()));
    let (_, name, json) = doctor(&["doctor"]);
    assert_eq!((name, json), (None, false));
}

#[test]
fn help_and_version_are_not_failures() {
    for line in [
        &["--help"][..],
        &["run", "-h"],
        &["doctor", "-h"],
        &["-V"],
        &["--version"],
        &["run", "--help"],
        &["-t", "5s", "--help"],
    ] {
        assert!(matches!(parse_line(line), Ok(Request::Help(_))), "{line:?}");
    }
}

#[test]
fn short_help_fits_on_one_screen() {
    for line in [&["-h"][..], &["-t", "5s", "-h"], &["-hv"]] {
        assert!(matches!(parse_line(line), Ok(Request::ShortHelp(_))), "{line:?}");
    }
    let text = help::short();
    assert!(text.lines().count() < 24, "{text}");
    for line in text.lines() {
        assert!(line.len() <= 80, "{line}");
    }
}

#[test]
fn long_help_shows_all_variables_and_keys() {
    let text = command().render_long_help().to_string();
    for option in OPTIONS {
        assert!(text.contains(&format!("--{}", option.id)));
        assert!(option.variable().is_none_or(|variable| text.contains(&format!("[env: {variable}]"))), "{}", option.id);
        assert!(option.key().is_none_or(|key| text.contains(&format!("[key: {key}]"))), "{}", option.id);
    }
}

#[test]
fn definitions_are_consistent() {
    command().debug_assert();
}
