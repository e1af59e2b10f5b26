//! The CI job that runs distlock, for display to waiters.

use super::environment::Variables;

/// CI job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Job {
    pub name: String,
    /// URL of the log.
    pub url: Option<String>,
}

/// CI system, and templates for its jobs, in which `$NAME` is replaced by the variable.
struct System {
    /// Variable that identifies the system.
    marker: &'static str,
    name: &'static str,
    url: &'static str,
}

const SYSTEMS: &[System] = &[
    System {
        marker: "GITHUB_ACTIONS",
        name: "$GITHUB_REPOSITORY $GITHUB_WORKFLOW #$GITHUB_RUN_NUMBER $GITHUB_JOB",
        url: "$GITHUB_SERVER_URL/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID",
    },
    System { marker: "GITLAB_CI", name: "$CI_PROJECT_PATH $CI_JOB_NAME #$CI_JOB_ID", url: "$CI_JOB_URL" },
    System { marker: "JENKINS_URL", name: "$JOB_NAME #$BUILD_NUMBER", url: "$BUILD_URL" },
    System {
        marker: "BUILDKITE",
        name: "$BUILDKITE_PIPELINE_SLUG #$BUILDKITE_BUILD_NUMBER $BUILDKITE_LABEL",
        url: "$BUILDKITE_BUILD_URL#$BUILDKITE_JOB_ID",
    },
    System {
        marker: "CIRCLECI",
        name: "$CIRCLE_PROJECT_REPONAME $CIRCLE_JOB #$CIRCLE_BUILD_NUM",
        url: "$CIRCLE_BUILD_URL",
    },
    System {
        marker: "TF_BUILD",
        name: "$BUILD_DEFINITIONNAME #$BUILD_BUILDNUMBER $SYSTEM_JOBDISPLAYNAME",
        url: "$SYSTEM_COLLECTIONURI$SYSTEM_TEAMPROJECT/_build/results?buildId=$BUILD_BUILDID",
    },
    System {
        marker: "TEAMCITY_VERSION",
        name: "$TEAMCITY_PROJECT_NAME $TEAMCITY_BUILDCONF_NAME #$BUILD_NUMBER",
        url: "$BUILD_URL",
    },
];

/// Returns whether these are the variables of a CI job. Long waits are then reported in its log.
#[must_use]
pub(super) fn is_ci(variables: Variables) -> bool {
    system(variables).is_some()
}

/// Returns the CI system whose marker is set. Some tools set a marker to 0 or false to disable it.
fn system(variables: Variables) -> Option<&'static System> {
    let is_set = |system: &&System| {
        value(variables, system.marker).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    };
    SYSTEMS.iter().find(is_set)
}

/// Returns the CI job, if it has a name.
#[must_use]
pub(super) fn job(variables: Variables) -> Option<Job> {
    let system = system(variables)?;
    // A name is useful without one of its words, a URL is not.
    let words: Vec<_> = system.name.split(' ').filter_map(|word| fill(variables, word)).collect();
    let job = Job { name: words.join(" "), url: fill(variables, system.url) };
    (!job.name.is_empty()).then_some(job)
}

/// Returns the template with its variables filled in; None if one of them is missing.
fn fill(variables: Variables, template: &str) -> Option<String> {
    let mut parts = template.split('$');
    let mut text = parts.next()?.to_owned();
    for part in parts {
        let end = part.find(|c: char| c != '_' && !c.is_ascii_uppercase()).unwrap_or(part.len());
        text.push_str(&value(variables, &part[..end])?);
        text.push_str(&part[end..]);
    }
    Some(text)
}

fn value(variables: Variables, name: &str) -> Option<String> {
    variables(name)?.into_string().ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_ci(variables: &[(&str, &str)]) -> bool {
        super::is_ci(&|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
    }

    fn job_of(variables: &[(&str, &str)]) -> Option<Job> {
        job(&|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn job_has_name_and_url() {
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
    fn there_is_no_job_outside_ci() {
        assert_eq!(job_of(&[]), None);
        assert_eq!(job_of(&[("GITLAB_CI", "")]), None);
        assert_eq!(job_of(&[("GITLAB_CI", "true")]), None);
    }

    #[test]
    fn ci_is_detected_without_a_job_name() {
        assert!(
            is_ci(&[("GITLAB_CI", "true")]) && is_ci(&[("JENKINS_URL", "http://ci")]) && is_ci(&[("TF_BUILD", "True")])
        );
        for marker in ["", "false", "False", "0"] {
            assert!(!is_ci(&[("GITHUB_ACTIONS", marker), ("GITHUB_JOB", "deploy")]), "{marker}");
            assert_eq!(job_of(&[("GITHUB_ACTIONS", marker), ("GITHUB_JOB", "deploy")]), None, "{marker}");
        }
    }
}
