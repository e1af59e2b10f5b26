//! The CI job that distlock runs in, as whoever waits for its lock would like to see it.

use super::layers::Environment;

/// A CI job's name and address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Job {
    /// What people call it.
    pub name: String,
    /// Where its log can be read.
    pub url: Option<String>,
}

/// How a CI system is told, and what its jobs are called; `$NAME` stands for a variable.
struct System {
    /// A variable that is set under this system.
    sign: &'static str,
    name: &'static str,
    url: &'static str,
}

const SYSTEMS: &[System] = &[
    System {
        sign: "GITHUB_ACTIONS",
        name: "$GITHUB_REPOSITORY $GITHUB_WORKFLOW #$GITHUB_RUN_NUMBER $GITHUB_JOB",
        url: "$GITHUB_SERVER_URL/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID",
    },
    System { sign: "GITLAB_CI", name: "$CI_PROJECT_PATH $CI_JOB_NAME #$CI_JOB_ID", url: "$CI_JOB_URL" },
    System { sign: "JENKINS_URL", name: "$JOB_NAME #$BUILD_NUMBER", url: "$BUILD_URL" },
    System {
        sign: "BUILDKITE",
        name: "$BUILDKITE_PIPELINE_SLUG #$BUILDKITE_BUILD_NUMBER $BUILDKITE_LABEL",
        url: "$BUILDKITE_BUILD_URL#$BUILDKITE_JOB_ID",
    },
    System {
        sign: "CIRCLECI",
        name: "$CIRCLE_PROJECT_REPONAME $CIRCLE_JOB #$CIRCLE_BUILD_NUM",
        url: "$CIRCLE_BUILD_URL",
    },
    System {
        sign: "TF_BUILD",
        name: "$BUILD_DEFINITIONNAME #$BUILD_BUILDNUMBER $SYSTEM_JOBDISPLAYNAME",
        url: "$SYSTEM_COLLECTIONURI$SYSTEM_TEAMPROJECT/_build/results?buildId=$BUILD_BUILDID",
    },
    System {
        sign: "TEAMCITY_VERSION",
        name: "$TEAMCITY_PROJECT_NAME $TEAMCITY_BUILDCONF_NAME #$BUILD_NUMBER",
        url: "$BUILD_URL",
    },
];

/// Whether this is the environment of a CI job, so that a long wait is told in its log.
#[must_use]
pub(super) fn recognised(environment: Environment) -> bool {
    system(environment).is_some()
}

/// The CI system whose sign is set. Some set it to say that they are not meant.
fn system(environment: Environment) -> Option<&'static System> {
    let is_set = |system: &&System| {
        value(environment, system.sign).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    };
    SYSTEMS.iter().find(is_set)
}

/// The job that this environment belongs to, if it has a name.
#[must_use]
pub(super) fn job(environment: Environment) -> Option<Job> {
    let system = system(environment)?;
    // A word of the name whose variable is missing is left out; an address with a gap would lead nowhere.
    let words: Vec<_> = system.name.split(' ').filter_map(|word| fill(environment, word)).collect();
    let job = Job { name: words.join(" "), url: fill(environment, system.url) };
    (!job.name.is_empty()).then_some(job)
}

/// The template with its variables filled in; None when one of them is missing.
fn fill(environment: Environment, template: &str) -> Option<String> {
    let mut parts = template.split('$');
    let mut text = parts.next()?.to_owned();
    for part in parts {
        let end = part.find(|c: char| c != '_' && !c.is_ascii_uppercase()).unwrap_or(part.len());
        text.push_str(&value(environment, &part[..end])?);
        text.push_str(&part[end..]);
    }
    Some(text)
}

fn value(environment: Environment, name: &str) -> Option<String> {
    environment(name)?.into_string().ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_ci(variables: &[(&str, &str)]) -> bool {
        recognised(&|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
    }

    fn job_of(variables: &[(&str, &str)]) -> Option<Job> {
        job(&|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn jobs_are_named() {
        let github = job_of(&[
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_REPOSITORY", "o/r"),
            ("GITHUB_WORKFLOW", "nightly"),
            ("GITHUB_RUN_NUMBER", "7"),
            ("GITHUB_JOB", "deploy"),
            ("GITHUB_SERVER_URL", "https://github.example"),
            ("GITHUB_RUN_ID", "99"),
        ]);
        let url = Some("https://github.example/o/r/actions/runs/99".to_owned());
        assert_eq!(github, Some(Job { name: "o/r nightly #7 deploy".to_owned(), url }));
        let jenkins = job_of(&[("JENKINS_URL", "x"), ("JOB_NAME", "backup"), ("BUILD_NUMBER", "3")]);
        assert_eq!(jenkins, Some(Job { name: "backup #3".to_owned(), url: None }));
    }

    #[test]
    fn outside_a_ci_there_is_no_job() {
        assert_eq!(job_of(&[]), None);
        assert_eq!(job_of(&[("GITLAB_CI", "")]), None);
        assert_eq!(job_of(&[("GITLAB_CI", "true")]), None);
    }

    #[test]
    fn a_ci_is_one_though_its_job_has_no_name() {
        assert!(
            is_ci(&[("GITLAB_CI", "true")]) && is_ci(&[("JENKINS_URL", "http://ci")]) && is_ci(&[("TF_BUILD", "True")])
        );
        for sign in ["", "false", "False", "0"] {
            assert!(!is_ci(&[("GITHUB_ACTIONS", sign), ("GITHUB_JOB", "deploy")]), "{sign}");
            assert_eq!(job_of(&[("GITHUB_ACTIONS", sign), ("GITHUB_JOB", "deploy")]), None, "{sign}");
        }
    }
}
