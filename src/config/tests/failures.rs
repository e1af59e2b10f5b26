//! The output of failures outside of a resolved configuration.

use super::*;
use crate::report::target::Target;

fn request(line: &str) -> Request {
    let words = ["distlock"].into_iter().chain(line.split_whitespace()).map(OsString::from);
    cli::parse(words).unwrap_or_else(|failure| panic!("`{line}`: {failure:?}"))
}

fn output(line: &str, variables: &[(&str, &str)]) -> FailureOutput {
    let world = World::with(variables);
    let variables = |name: &str| world.variables.get(name).map(OsString::from);
    failure_output(&request(line), &Environment { variables: &variables, default_file: world.dir.path().join("none") })
}

#[test]
fn failure_of_run_is_reported_as_the_flags_say() {
    let output = output("--log-format json --report r.json -b consul --ttl soon /x ls", &[]);
    assert_eq!((output.format, output.report), (Format::Json, Some(Target::File("r.json".into()))));
    assert_eq!((output.name.as_deref(), output.backend), (Some("/x"), Some(BackendName::Consul)));
}

#[test]
fn format_of_failures_is_that_of_the_command_line() {
    for line in ["/x ls", "run /x ls", "doctor", "man", "completions bash", "-h"] {
        assert_eq!(output(line, &[]).format, Format::Text, "{line}");
        assert_eq!(output(&format!("--log-format json {line}"), &[]).format, Format::Json, "{line}");
        assert_eq!(output(line, &[("DISTLOCK_LOG_FORMAT", "json")]).format, Format::Json, "{line}");
    }
    let output = output("--log-format text man", &[("DISTLOCK_LOG_FORMAT", "json")]);
    assert_eq!((output.format, output.report, output.name), (Format::Text, None, None));
}

#[test]
fn wrong_values_count_as_not_given() {
    let output = output("--report fd:1 /x ls", &[("DISTLOCK_LOG_FORMAT", "xml"), ("DISTLOCK_BACKEND", "etdc")]);
    assert_eq!((output.format, output.report, output.backend), (Format::Text, None, None));
}

#[test]
fn format_without_a_command_line_comes_from_the_variable() {
    for (value, format) in [("json", Format::Json), ("text", Format::Text), ("xml", Format::Text), ("", Format::Text)] {
        let variables = |name: &str| (name == "DISTLOCK_LOG_FORMAT").then(|| value.into());
        let environment = Environment { variables: &variables, default_file: "none".into() };
        assert_eq!(default_format(&environment), format, "{value}");
    }
}
