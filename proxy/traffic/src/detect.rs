//! What a connection's first bytes are.
//!
//! In: the bytes received so far. Out: [`Seen`], or that more are needed. Nothing is consumed: whoever speaks the protocol reads
//! the same bytes again.

use std::io;

use mizzen_proxy_config::TransportProtocol;
use rustls::server::{Accepted, Acceptor};

use crate::tls::Alpn;

/// The preface of HTTP/2 (RFC 9113, 3.4).
pub const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client hello is at most one handshake message; more than this is refused.
pub const HELLO_LIMIT: usize = 16 * 1024;

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Not enough bytes yet to say.
    More,
    /// A TLS record with a handshake.
    Tls,
    /// The beginning of an HTTP/1 request.
    Http1,
    /// The HTTP/2 preface.
    Http2,
    /// Something else.
    Other,
}

/// Looks at the first bytes. TLS is only looked for when `tls`, HTTP when `http`.
pub fn look(bytes: &[u8], tls: bool, http: bool) -> Seen {
    let Some(first) = bytes.first() else { return Seen::More };
    if *first == 0x16 && tls {
        // Record type 22, version 3.x: binary protocols that begin with 0x16 are told apart by the second byte.
        return match bytes.get(1) {
            None => Seen::More,
            Some(3) => Seen::Tls,
            Some(_) => Seen::Other,
        };
    }
    if !http {
        return Seen::Other;
    }
    let preface = H2_PREFACE.iter().zip(bytes).take_while(|(a, b)| a == b).count();
    if preface == bytes.len() || preface == H2_PREFACE.len() {
        // `PRI` alone could still be an HTTP/1 method.
        return if preface == H2_PREFACE.len() {
            Seen::Http2
        } else {
            Seen::More
        };
    }
    http1(bytes)
}

/// An HTTP/1 request begins with a method (a token of at most 32 characters here), a space and a target.
fn http1(bytes: &[u8]) -> Seen {
    const LONGEST_METHOD: usize = 32;
    // One empty line may precede the request.
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    for (index, byte) in bytes.iter().enumerate() {
        match byte {
            b' ' if index > 0 => {
                return match bytes.get(index + 1) {
                    None => Seen::More,
                    Some(b'/' | b'*' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'[') => Seen::Http1,
                    Some(_) => Seen::Other,
                };
            }
            b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' if index < LONGEST_METHOD => {}
            _ => return Seen::Other,
        }
    }
    Seen::More
}

/// What a filter chain is chosen by, from the first bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// TLS or not.
    pub transport: TransportProtocol,
    /// Server name of the client hello, lower-case.
    pub server_name: Option<String>,
    /// Protocols offered by the client hello, or the one found in plain text (`http/1.1`, `h2c`).
    pub protocols: Vec<Vec<u8>>,
    /// HTTP found in plain text.
    pub seen: Seen,
}

impl Facts {
    /// Nothing is known: no bytes came in time, or nobody looked.
    pub fn unknown() -> Self {
        Self {
            transport: TransportProtocol::Raw,
            server_name: None,
            protocols: Vec::new(),
            seen: Seen::Other,
        }
    }

    /// Facts of plain text.
    pub fn plain(seen: Seen) -> Self {
        let protocol = match seen {
            Seen::Http1 => Some(b"http/1.1".to_vec()),
            Seen::Http2 => Some(b"h2c".to_vec()),
            _ => None,
        };
        Self {
            protocols: protocol.into_iter().collect(),
            seen,
            ..Self::unknown()
        }
    }

    /// Facts of a client hello.
    pub fn hello(accepted: &Accepted) -> Self {
        let hello = accepted.client_hello();
        Self {
            transport: TransportProtocol::Tls,
            server_name: hello.server_name().map(str::to_ascii_lowercase),
            protocols: hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect(),
            seen: Seen::Tls,
        }
    }
}

/// Reads a client hello from bytes that arrive in pieces.
#[derive(Default)]
pub struct HelloReader {
    acceptor: Acceptor,
    fed: usize,
}

impl std::fmt::Debug for HelloReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HelloReader")
            .field("fed", &self.fed)
            .finish_non_exhaustive()
    }
}

impl HelloReader {
    /// Takes the bytes received so far (those of earlier calls included); `None`: more are needed. Everything that was
    /// given is inside the result and must not be read again by the TLS session.
    pub fn read(&mut self, bytes: &[u8]) -> io::Result<Option<Accepted>> {
        while let Some(mut rest) = bytes.get(self.fed..).filter(|rest| !rest.is_empty()) {
            let count = self.acceptor.read_tls(&mut rest)?;
            self.fed += count;
            if count == 0 {
                break;
            }
            if let Some(accepted) = self.accept()? {
                // The rest of what was received, if any, follows the hello inside the session.
                return Ok(Some(accepted));
            }
        }
        if bytes.len() > HELLO_LIMIT {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "client hello over the size limit",
            ));
        }
        Ok(None)
    }

    /// How many of the given bytes went into the session.
    pub fn fed(&self) -> usize {
        self.fed
    }

    fn accept(&mut self) -> io::Result<Option<Accepted>> {
        self.acceptor
            .accept()
            .map_err(|(error, _alert)| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// The protocol to answer with: the first of ours that the client offers; none in common is no error.
pub fn negotiate<'a>(ours: impl IntoIterator<Item = &'a str>, offered: &[Vec<u8>]) -> Alpn {
    ours.into_iter()
        .find(|name| offered.iter().any(|offer| offer == name.as_bytes()))
        .map_or(Alpn::None, |name| Alpn::parse(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Ca;
    use crate::tls::ClientKind;

    // C5
    #[test]
    fn first_bytes_tell_the_protocol() {
        for (bytes, expected) in [
            (&b""[..], Seen::More),
            (b"GET / HTTP/1.1\r\n", Seen::Http1),
            (b"GE", Seen::More),
            (b"\r\nPOST /a", Seen::Http1),
            (b"GET \x00", Seen::Other),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00", Seen::Http2),
            (b"PRI * HT", Seen::More),
            (b"PRINT / HTTP/1.1", Seen::Http1),
            (b"\x16\x03\x01", Seen::Tls),
            (b"\x16\x01", Seen::Other),
            (b"SSH-2.0-OpenSSH\r\n", Seen::Other),
            (b"*1\r\n$4\r\nPING\r\n", Seen::Other),
            (b"THISISAMETHODLONGERTHANANYMETHODTHEREIS ", Seen::Other),
        ] {
            assert_eq!(look(bytes, true, true), expected, "{}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(look(b"\x16\x03\x01", false, true), Seen::Other);
        assert_eq!(look(b"GET / HTTP/1.1", true, false), Seen::Other);
    }

    #[test]
    fn client_hello_in_pieces_tells_name_and_protocols() {
        let svid = Ca::new("r").svid("spiffe://td/ns/a/sa/b");
        let config = svid.client_config(ClientKind { alpn: Alpn::MeshHttp1 }).unwrap();
        let name = "outbound_.80_.v1_.Web.shop.svc.cluster.local".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(config, name).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        let mut reader = HelloReader::default();
        for end in 1..hello.len() {
            assert!(reader.read(&hello[..end]).unwrap().is_none(), "{end}");
        }
        let accepted = reader.read(&hello).unwrap().unwrap();
        let facts = Facts::hello(&accepted);
        assert_eq!(
            facts.server_name.as_deref(),
            Some("outbound_.80_.v1_.web.shop.svc.cluster.local")
        );
        assert_eq!(facts.protocols, [b"istio-http/1.1"]);
        assert_eq!(
            negotiate(["istio", "istio-http/1.1"], &facts.protocols),
            Alpn::MeshHttp1
        );
        assert_eq!(negotiate(["h2"], &facts.protocols), Alpn::None);
    }
}
