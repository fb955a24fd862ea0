//! How clients log in to the two servers: HAProxy passes greetings on as they are, so what a client's library can't speak with the new server it
//! can't through the proxy either. Named in the plan, before it is found at night.

use std::sync::Arc;

use crate::mysql::connect::{Purpose, Server, Session, TextRow};
use crate::mysql::error::Result;

/// What servers take for an account that says nothing else, before they could be told.
const OLD: &str = "mysql_native_password";
/// The same since 8.0.
const NEW: &str = "caching_sha2_password";

/// How one server is logged in to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Login {
    /// Its version.
    version: String,
    /// What it asks of a client whose account it does not know yet.
    plugin: String,
}

impl Login {
    /// Asks a server.
    ///
    /// # Errors
    /// If it can't be asked.
    pub(super) async fn of(server: &Arc<Server>) -> Result<Login> {
        let mut session = Session::open(server, Purpose::Read).await?;
        let version = session.version.text.clone();
        let query = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('default_authentication_plugin', 'authentication_policy')";
        let rows = session.rows(query, "asking how clients log in").await?;
        session.close().await;
        Ok(Login { version, plugin: plugin(&rows) })
    }

    /// What a plan says of the two: a line, and a warning if they differ.
    pub(super) fn compared(source: &Login, target: &Login) -> (String, Option<String>) {
        let line = format!(
            "clients log in to `{}` with `{}` now and to `{}` with `{}` then, unless their accounts say otherwise",
            source.version, source.plugin, target.version, target.plugin
        );
        let warning = (source.plugin != target.plugin).then(|| {
            format!(
                "clients' libraries have to know `{}` (without TLS it needs the server's RSA key too): try each application's in a rehearsal",
                target.plugin
            )
        });
        (line, warning)
    }
}

/// From what the server says of it; older ones have neither variable.
fn plugin(rows: &[TextRow]) -> String {
    let value = |name: &str| {
        rows.iter().find(|row| row.first().is_some_and(|cell| cell.as_deref() == Some(name))).and_then(|row| row.get(1)?.clone())
    };
    // `*` leaves the choice to the server, `*:plugin` names what it is then.
    let of_policy = |policy: String| {
        let first = policy.split(',').next().unwrap_or_default().trim().to_owned();
        let named = first.strip_prefix('*').map_or(first.as_str(), |rest| rest.trim_start_matches(':'));
        if named.is_empty() { NEW.to_owned() } else { named.to_owned() }
    };
    value("default_authentication_plugin").or_else(|| value("authentication_policy").map(of_policy)).unwrap_or_else(|| OLD.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_plugin_is_read_from_either_variable() {
        let row = |name: &str, value: &str| vec![Some(name.to_owned()), Some(value.to_owned())];
        assert_eq!(plugin(&[]), OLD);
        assert_eq!(plugin(&[row("default_authentication_plugin", "sha256_password")]), "sha256_password");
        for (policy, expected) in [("*,,", NEW), ("*:sha256_password,,", "sha256_password"), ("caching_sha2_password", NEW), ("", NEW)] {
            assert_eq!(plugin(&[row("authentication_policy", policy)]), expected, "{policy}");
        }
    }
}
