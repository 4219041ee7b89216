//! The user that servers' URLs name. The client leaves that part of a URL aside, so the user is
//! handed over by itself.

use async_nats::{ConnectOptions, ServerAddr};

use super::OpenError;

/// A user, or a token alone.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Login {
    User(String, String),
    Token(String),
}

impl Login {
    /// The login of these URLs.
    ///
    /// # Errors
    /// When two URLs name different users: the client has one for all.
    pub(super) fn of(servers: &[ServerAddr]) -> Result<Option<Self>, OpenError> {
        let mut logins: Vec<Self> = Vec::new();
        for server in servers {
            let login = match (server.username(), server.password()) {
                (Some(user), Some(password)) => Self::User(decoded(user)?, decoded(password)?),
                (Some(token), None) => Self::Token(decoded(token)?),
                (None, _) => continue,
            };
            logins.push(login);
        }
        logins.dedup();
        match (logins.pop(), logins.is_empty()) {
            (login, true) => Ok(login),
            _ => Err(OpenError::Setting("the URLs of NATS name different users".to_owned())),
        }
    }

    pub(super) fn apply(self, options: ConnectOptions) -> ConnectOptions {
        match self {
            Self::User(user, password) => options.user_and_password(user, password),
            Self::Token(token) => options.token(token),
        }
    }
}

/// The text with each `%XX` as the byte that is meant.
fn decoded(text: &str) -> Result<String, OpenError> {
    let fault = || OpenError::Setting("a user in a URL of NATS is not well escaped".to_owned());
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
            return Err(fault());
        };
        decoded.push((high * 16 + low) as u8);
    }
    String::from_utf8(decoded).map_err(|_| fault())
}

#[cfg(test)]
mod tests {
    use super::Login;

    fn login(urls: &[&str]) -> Option<Option<Login>> {
        let servers: Vec<_> = urls.iter().map(|url| url.parse().expect("a URL")).collect();
        Login::of(&servers).ok()
    }

    #[test]
    fn user_of_a_url_is_unescaped() {
        let user = Login::User("a b".to_owned(), "p@:ss".to_owned());
        assert!(login(&["nats://a%20b:p%40%3Ass@h:1", "nats://h:2"]) == Some(Some(user)));
        assert!(login(&["nats://secret@h:1"]) == Some(Some(Login::Token("secret".to_owned()))));
        assert!(login(&["nats://h:1", "h:2"]) == Some(None));
    }

    #[test]
    fn two_users_are_refused() {
        assert!(login(&["nats://a:x@h:1", "nats://a:x@h:2"]).is_some());
        assert!(login(&["nats://a:x@h:1", "nats://b:x@h:2"]).is_none());
        assert!(login(&["nats://a%ZZ:x@h:1"]).is_none());
    }
}
