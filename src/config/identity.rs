//! Credentials, and Consul's namespace, partition and datacenter. Secrets come from files, the backends' own variables or
//! a prompt, never from the command line: every user of the host can read it.

use distlock_core::error::Failure;

use super::sources::Sources;
use super::value::Value;
use crate::lock::BackendName;
use crate::lock::transport::endpoint::{Identity, Secret};

/// Returns the identity for the chosen backend. A user without a password is still to be prompted for it.
pub(super) fn resolve(sources: &Sources, name: BackendName) -> Result<Identity, Failure> {
    Ok(Identity {
        token: token(sources, name)?,
        namespace: sources.text("namespace")?,
        partition: sources.text("partition")?,
        datacenter: sources.text("datacenter")?,
        ..login(sources, name)?
    })
}

/// User and password from the backend's own variables.
#[derive(Default)]
struct BackendLogin {
    user: Option<String>,
    password: Option<Secret>,
    /// Whether one variable holds both, so that the password is for this user only.
    is_combined: bool,
}

/// Returns the user and the password, each with its own precedence.
fn login(sources: &Sources, name: BackendName) -> Result<Identity, Failure> {
    let own = backend_login(sources, name)?;
    let user = match (sources.get("user"), &own.user) {
        (Some(value), own) if !value.is_from_file() || own.is_none() => user_name(&value)?,
        (_, Some(own)) => own.clone(),
        (_, None) => return without_user(sources),
    };
    let is_for_another_user = own.is_combined && own.user.as_ref() != Some(&user);
    let password = match (sources.get("password-file"), own.password.filter(|_| !is_for_another_user)) {
        (Some(file), own) if !file.is_from_file() || own.is_none() => Some(secret_file(&file)?),
        (_, own) => own,
    };
    Ok(Identity { user: Some(user), password, ..Identity::default() })
}

/// Returns an identity without credentials. Refuses a password file: it would be ignored.
fn without_user(sources: &Sources) -> Result<Identity, Failure> {
    match sources.get("password-file") {
        None => Ok(Identity::default()),
        Some(file) => Err(file
            .refuse("the user of this password is not set")
            .hint("set it with --user, or remove the password file")),
    }
}

fn user_name(value: &Value) -> Result<String, Failure> {
    let user = value.text()?;
    if user.contains(':') {
        // The text after the colon is probably a password, so the message does not repeat it.
        return Err(value.refuse("a user name contains no colon").hint("name the user only, and use --password-file"));
    }
    Ok(user.to_owned())
}

fn backend_login(sources: &Sources, name: BackendName) -> Result<BackendLogin, Failure> {
    let (login, password) = match name {
        BackendName::Etcd => (sources.variable("ETCDCTL_USER"), sources.variable("ETCDCTL_PASSWORD")),
        BackendName::Consul => (sources.variable("CONSUL_HTTP_AUTH"), None),
        BackendName::Local => (None, None),
    };
    let login = login.map(|value| value.text().map(ToOwned::to_owned)).transpose()?;
    let password = password.map(|value| value.text().map(secret)).transpose()?;
    let Some(login) = login else { return Ok(BackendLogin { password, ..BackendLogin::default() }) };
    Ok(match (login.split_once(':'), password) {
        // As in etcdctl: with ETCDCTL_PASSWORD, all of ETCDCTL_USER is the name.
        (_, Some(password)) => BackendLogin { user: Some(login), password: Some(password), is_combined: false },
        (Some((user, password)), None) => {
            BackendLogin { user: Some(user.to_owned()), password: Some(secret(password)), is_combined: true }
        }
        // HTTP basic authentication allows an empty password; for etcd there is a prompt.
        (None, None) => BackendLogin {
            user: Some(login),
            password: (name == BackendName::Consul).then(|| secret("")),
            is_combined: true,
        },
    })
}

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

fn token(sources: &Sources, name: BackendName) -> Result<Option<Secret>, Failure> {
    if name != BackendName::Consul {
        return Ok(None);
    }
    // As in Consul's tools: CONSUL_HTTP_TOKEN_FILE beats CONSUL_HTTP_TOKEN.
    match (sources.get("token-file"), sources.variable("CONSUL_HTTP_TOKEN")) {
        (Some(file), own) if !file.is_from_file() || own.is_none() => secret_file(&file).map(Some),
        (_, Some(own)) => own.text().map(secret).map(Some),
        (_, None) => Ok(None),
    }
}

/// Returns the content of a file without the final line break.
fn secret_file(value: &Value) -> Result<Secret, Failure> {
    let path = value.path();
    let text = std::fs::read_to_string(&path)
        .map_err(|error| value.refuse(format!("cannot read {}", path.display())).because(error))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(value.refuse(format!("{} is empty", path.display()))),
        text => Ok(secret(text)),
    }
}
