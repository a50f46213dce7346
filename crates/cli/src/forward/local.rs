//! Which local port leads to which target, as people write it: as for `ssh -L`, and shorter.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use super::Target;

/// `[BIND:]PORT[:HOST:PORT]`, or `PORT:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where it leads; `None` is the only target that the other side exposes.
    pub target: Option<Target>,
}

impl FromStr for Local {
    type Err = String;

    fn from_str(text: &str) -> Result<Local, String> {
        let parts = parts(text);
        let port = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        let wrong = || format!("{text:?} is none of PORT, BIND:PORT, PORT:PORT, PORT:HOST:PORT and BIND:PORT:HOST:PORT");
        let here = IpAddr::from(Ipv4Addr::LOCALHOST);
        let (bind, listen, target) = match parts[..] {
            [listen] => (here, listen, None),
            // Of two numbers the first is the local port.
            [listen, target] if port(listen).is_some() => (here, listen, Some(target.to_owned())),
            [bind, listen] => (address(bind)?, listen, None),
            [listen, host, target] => (here, listen, Some(format!("{host}:{target}"))),
            [bind, listen, host, target] => (address(bind)?, listen, Some(format!("{host}:{target}"))),
            _ => return Err(wrong()),
        };
        let listen = SocketAddr::new(bind, port(listen).ok_or_else(wrong)?);
        Ok(Local { listen, target: target.map(|target| target.parse()).transpose()? })
    }
}

/// A name here would leave open which interfaces that is.
fn address(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match bare {
        "localhost" => Ok(Ipv4Addr::LOCALHOST.into()),
        _ => bare.parse().map_err(|_| format!("{text:?} is no IP address to listen at, such as 127.0.0.1, 0.0.0.0 or [::1]")),
    }
}

/// What stands between colons, but for those in brackets.
fn parts(text: &str) -> Vec<&str> {
    let mut inside = false;
    text.split(|c: char| {
        inside = (inside || c == '[') && c != ']';
        c == ':' && !inside
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FW-21: without an address that was written, only this machine itself reaches the port.
    #[test]
    fn the_forms_of_people() {
        for (text, listen, target) in [
            ("8080", "127.0.0.1:8080", None),
            ("0", "127.0.0.1:0", None),
            ("8080:80", "127.0.0.1:8080", Some("127.0.0.1:80")),
            ("localhost:8080", "127.0.0.1:8080", None),
            ("0.0.0.0:8080", "0.0.0.0:8080", None),
            ("[::1]:8080", "[::1]:8080", None),
            ("5432:db:5433", "127.0.0.1:5432", Some("db:5433")),
            ("5432:[::1]:5433", "127.0.0.1:5432", Some("[::1]:5433")),
            ("[::]:5432:[fe80::1]:5433", "[::]:5432", Some("[fe80::1]:5433")),
            ("192.0.2.1:1:db:2", "192.0.2.1:1", Some("db:2")),
        ] {
            let local: Local = text.parse().unwrap();
            assert_eq!(local.listen.to_string(), listen, "{text}");
            assert_eq!(local.target.map(|target| target.to_string()).as_deref(), target, "{text}");
        }
        for text in
            ["", "a", "a:80", "80:a", "80:a:0", "::1:80", "70000", "80:", ":80", "1:2:3:4:5", "80:[::1]", "*:80:a:1", "+80"]
        {
            assert!(text.parse::<Local>().is_err(), "{text}");
        }
    }
}
