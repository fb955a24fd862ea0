//! `mysql://user@host:port/`: where a server is, and as whom to log in. Never a password.

use std::fmt;

/// The port of MySQL where none is given.
const DEFAULT_PORT: u16 = 3306;
/// Stands for a reference while an address is checked before its references are resolved.
pub(crate) const PLACEHOLDER: char = '\u{1}';

/// A server's address and the user to log in as.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The user.
    pub user: String,
    /// A host name, an IPv4 address, or an IPv6 address without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address { user, host, port } = self;
        if host.contains(':') { write!(f, "mysql://{user}@[{host}]:{port}/") } else { write!(f, "mysql://{user}@{host}:{port}/") }
    }
}

/// Why a text is no address. Does not repeat the text, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Another scheme or none.
    #[error("the url does not begin with `mysql://`")]
    Scheme,
    /// No `user@`.
    #[error("the url names no user")]
    NoUser,
    /// No host after the `@`.
    #[error("the url names no host")]
    NoHost,
    /// `user:secret@`.
    #[error("the url holds a password")]
    Password,
    /// The port is no number from 1 to 65535.
    #[error("the url's port is not a number from 1 to 65535")]
    Port,
    /// A database, parameters or a fragment after the host.
    #[error("the url goes on after the server's address")]
    Tail,
    /// Blanks or other characters that no url has.
    #[error("the url holds a character that can't stand there")]
    Character,
}

impl AddressError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            AddressError::Password => {
                "take it out of the url and give it by reference: `password: ${env:NAME}` or `password: ${file:PATH}`; treat the one written down as known to others"
            }
            AddressError::Tail => "what moves is said by `include` and `exclude`, TLS by `tls`; write `mysql://user@host:port/`",
            _ => "write `mysql://user@host:port/`; the port may be left out",
        }
    }
}

impl Address {
    /// From an address whose references are resolved.
    ///
    /// # Errors
    /// If it is none, or holds a password.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let rest = text.strip_prefix("mysql://").ok_or(AddressError::Scheme)?;
        let (authority, tail) = rest.find(['/', '?', '#']).map_or((rest, ""), |at| rest.split_at(at));
        // A `/` or `#` in a password must not hide it.
        if authority.contains(':') && !authority.contains('@') && tail.contains('@') {
            return Err(AddressError::Password);
        }
        let (user, place) = authority.rsplit_once('@').ok_or(AddressError::NoUser)?;
        if user.contains(':') {
            return Err(AddressError::Password);
        }
        if user.is_empty() {
            return Err(AddressError::NoUser);
        }
        let (host, port) = match place.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or(AddressError::Character)?)),
            None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
        };
        if host.is_empty() {
            return Err(AddressError::NoHost);
        }
        let unfit = |text: &str| {
            text.chars().any(|c| {
                c != PLACEHOLDER && (c.is_whitespace() || c.is_control() || matches!(c, '@' | '[' | ']' | '"' | '\'' | '<' | '>' | '`'))
            })
        };
        if unfit(user) || unfit(host) {
            return Err(AddressError::Character);
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(text) if text.contains(PLACEHOLDER) && text.chars().all(|c| c == PLACEHOLDER || c.is_ascii_digit()) => DEFAULT_PORT,
            Some(text) if text.chars().all(|c| c.is_ascii_digit()) => {
                text.parse().ok().filter(|&port| port > 0).ok_or(AddressError::Port)?
            }
            Some(_) => return Err(AddressError::Port),
        };
        if !matches!(tail, "" | "/") {
            return Err(AddressError::Tail);
        }
        Ok(Address { user: user.to_owned(), host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses() {
        for (text, user, host, port) in [
            ("mysql://me@db/", "me", "db", 3306),
            ("mysql://me@db.example.com:3307", "me", "db.example.com", 3307),
            ("mysql://me@127.0.0.1:1/", "me", "127.0.0.1", 1),
            ("mysql://me@[::1]:3307/", "me", "::1", 3307),
            ("mysql://me@[::1]/", "me", "::1", 3306),
            ("mysql://me@\u{1}:\u{1}/", "me", "\u{1}", 3306),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!((address.user.as_str(), address.host.as_str(), address.port), (user, host, port), "{text}");
            assert_eq!(Address::parse(&address.to_string()).unwrap(), address);
        }
    }

    #[test]
    fn refuses_the_rest() {
        for (text, error) in [
            ("", AddressError::Scheme),
            ("postgres://me@db/", AddressError::Scheme),
            ("mysql://db/", AddressError::NoUser),
            ("mysql://@db/", AddressError::NoUser),
            ("mysql://me@/", AddressError::NoHost),
            ("mysql://me:secret@db/", AddressError::Password),
            ("mysql://me:se/cret@db/", AddressError::Password),
            ("mysql://me:@db/", AddressError::Password),
            ("mysql://me@db:0/", AddressError::Port),
            ("mysql://me@db:70000/", AddressError::Port),
            ("mysql://me@db:x/", AddressError::Port),
            ("mysql://me@db/school", AddressError::Tail),
            ("mysql://me@db?tls=off", AddressError::Tail),
            ("mysql://me@d b/", AddressError::Character),
        ] {
            assert_eq!(Address::parse(text), Err(error), "{text}");
        }
    }
}
