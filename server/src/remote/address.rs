//! `grpc://host:port` and `grpc+tls://host:port`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use url::Url;

use crate::error::{Result, ServerError};

/// Where servers listen unless told otherwise.
pub const DEFAULT_PORT: u16 = 31337;

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    pub tls: bool,
    /// A name or an address, IPv6 in brackets.
    pub host: String,
    pub port: u16,
}

impl ServerAddress {
    /// As HTTP clients want it.
    pub(crate) fn http(&self) -> String {
        format!("{}://{}:{}", if self.tls { "https" } else { "http" }, self.host, self.port)
    }

    /// Whether the other side is this machine.
    pub fn is_loopback(&self) -> bool {
        let ip = self.host.trim_matches(['[', ']']).parse::<IpAddr>();
        ip.map_or(self.host == "localhost", |ip| ip.to_canonical().is_loopback())
    }
}

impl FromStr for ServerAddress {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<ServerAddress> {
        let wrong =
            |url: &str, problem: &str| ServerError::Url { url: url.to_owned(), problem: problem.to_owned() };
        let url = Url::parse(text).map_err(|e| wrong(text, &e.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            // Not shown: there is a password in it.
            return Err(wrong(url.scheme(), "names and passwords do not belong there, use --token-file"));
        }
        let tls = match url.scheme() {
            "grpc" | "grpc+tcp" => false,
            "grpc+tls" => true,
            other => return Err(wrong(text, &format!("'{other}' is not known"))),
        };
        let Some(host) = url.host_str().filter(|h| !h.is_empty()) else {
            return Err(wrong(text, "the host is missing"));
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong(text, "something follows the port"));
        }
        Ok(ServerAddress { tls, host: host.to_owned(), port: url.port().unwrap_or(DEFAULT_PORT) })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", if self.tls { "grpc+tls" } else { "grpc" }, self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let parse = |text: &str| text.parse::<ServerAddress>().unwrap();
        assert_eq!(parse("grpc://localhost:1").to_string(), "grpc://localhost:1");
        assert_eq!(parse("grpc+tls://db.example/").to_string(), "grpc+tls://db.example:31337");
        assert_eq!(parse("grpc+tcp://[::1]:5").http(), "http://[::1]:5");
        assert!(parse("grpc://[::1]").is_loopback() && parse("grpc://127.0.0.2").is_loopback());
        assert!(!parse("grpc://10.0.0.1").is_loopback() && parse("grpc://localhost").is_loopback());
    }

    #[test]
    fn what_is_no_address_is_told() {
        for text in
            ["", "localhost:1", "http://a:1", "grpc://", "grpc://a:b", "grpc://a:1/db", "grpc://a?x=1"]
        {
            let message = text.parse::<ServerAddress>().unwrap_err().to_string();
            assert!(message.contains("grpc://HOST:PORT"), "{text}: {message}");
        }
        let message = "grpc://me:sesame@host:1".parse::<ServerAddress>().unwrap_err().to_string();
        assert!(!message.contains("sesame"), "{message}");
    }
}
