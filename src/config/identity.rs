//! Who we are to the servers. Secrets come from files, from the backends' own variables, or from a prompt: never from
//! the command line, which everybody on the host can read.

use super::layers::{Layers, Value};
use crate::lock::Name;
use crate::lock::transport::endpoint::{Identity, Secret};
use distlock_core::error::Failure;

/// The identity for the chosen backend. A user whose password no layer has is to be asked for it.
pub(super) fn resolve(layers: &Layers, name: Name) -> Result<Identity, Failure> {
    Ok(Identity {
        token: token(layers, name)?,
        namespace: layers.text("namespace")?,
        partition: layers.text("partition")?,
        datacenter: layers.text("datacenter")?,
        ..login(layers, name)?
    })
}

/// A user and a password as the backends' own variables have them.
#[derive(Default)]
struct OwnLogin {
    user: Option<String>,
    password: Option<Secret>,
    /// Whether one variable holds both: that password is no other user's.
    joined: bool,
}

/// The user and the password, each from the strongest layer that has one.
fn login(layers: &Layers, name: Name) -> Result<Identity, Failure> {
    let own = own_login(layers, name)?;
    let user = match (layers.get("user"), &own.user) {
        (Some(value), own) if !value.is_from_file() || own.is_none() => user_name(&value)?,
        (_, Some(own)) => own.clone(),
        (_, None) => return nobody(layers),
    };
    let of_another = own.joined && own.user.as_ref() != Some(&user);
    let password = match (layers.get("password-file"), own.password.filter(|_| !of_another)) {
        (Some(file), own) if !file.is_from_file() || own.is_none() => Some(secret_file(&file)?),
        (_, own) => own,
    };
    Ok(Identity { user: Some(user), password, ..Identity::default() })
}

/// No user is given. A password that is would be passed over, and with it the whole login.
fn nobody(layers: &Layers) -> Result<Identity, Failure> {
    match layers.get("password-file") {
        None => Ok(Identity::default()),
        Some(file) => Err(file.refuse("there is no user whose password it holds").hint("name the user with --user")),
    }
}

fn user_name(value: &Value) -> Result<String, Failure> {
    let user = value.text()?;
    if user.contains(':') {
        // What follows the colon is most likely a password: it is not repeated.
        return Err(value
            .refuse("a user name has no colon, and a password does not stand beside it")
            .hint("name a file that holds the password with --password-file"));
    }
    Ok(user.to_owned())
}

fn own_login(layers: &Layers, name: Name) -> Result<OwnLogin, Failure> {
    let (login, password) = match name {
        Name::Etcd => (layers.variable("ETCDCTL_USER"), layers.variable("ETCDCTL_PASSWORD")),
        Name::Consul => (layers.variable("CONSUL_HTTP_AUTH"), None),
        Name::Local => (None, None),
    };
    let login = login.map(|value| value.text().map(ToOwned::to_owned)).transpose()?;
    let password = password.map(|value| value.text().map(secret)).transpose()?;
    let Some(login) = login else { return Ok(OwnLogin { password, ..OwnLogin::default() }) };
    Ok(match (login.split_once(':'), password) {
        // As etcdctl has it: beside a password of its own, the whole of ETCDCTL_USER is the name.
        (_, Some(password)) => OwnLogin { user: Some(login), password: Some(password), joined: false },
        (Some((user, password)), None) => {
            OwnLogin { user: Some(user.to_owned()), password: Some(secret(password)), joined: true }
        }
        // HTTP's basic authentication knows an empty password; etcd asks for one.
        (None, None) => {
            OwnLogin { user: Some(login), password: (name == Name::Consul).then(|| secret("")), joined: true }
        }
    })
}

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

fn token(layers: &Layers, name: Name) -> Result<Option<Secret>, Failure> {
    if name != Name::Consul {
        return Ok(None);
    }
    // As Consul's tools have it: of their two variables, the file's is the stronger.
    match (layers.get("token-file"), layers.variable("CONSUL_HTTP_TOKEN")) {
        (Some(file), own) if !file.is_from_file() || own.is_none() => secret_file(&file).map(Some),
        (_, Some(own)) => own.text().map(secret).map(Some),
        (_, None) => Ok(None),
    }
}

/// The secret in a file, without the line's end.
fn secret_file(value: &Value) -> Result<Secret, Failure> {
    let path = value.path();
    let text = std::fs::read_to_string(&path)
        .map_err(|error| value.refuse(format!("cannot read {}", path.display())).because(error))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(value.refuse(format!("{} is empty", path.display()))),
        text => Ok(secret(text)),
    }
}
