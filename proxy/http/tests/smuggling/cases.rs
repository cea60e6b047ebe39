//! Requests that make two recipients disagree about where a message ends, whom it is for or what its fields are, as data: bytes in,
//! what must happen out. The table is that of the sample program, with which the scenarios send it through both data planes.

const TABLE: &str = include_str!("../../../../e2e/app/requests.txt");

/// One request (or several, pipelined) and what the codec does.
pub(crate) struct Case {
    /// Names the behaviour.
    pub(crate) name: &'static str,
    /// What the client sends.
    pub(crate) bytes: Vec<u8>,
    /// What must happen.
    pub(crate) expect: Expect,
}

/// What must happen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// The first request is answered with this status and the connection is closed.
    Refused(u16),
    /// The head is accepted, but the body is broken: the connection is closed and nothing after it is read as a request.
    BodyRefused,
    /// So many requests are read, and nothing is left over.
    Accepted(usize),
}

/// The table. Its own head says how it is read.
pub(crate) fn cases() -> Vec<Case> {
    TABLE
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            let fields: Vec<_> = line.splitn(5, " | ").collect();
            let [name, codec, _native, _envoy, bytes] = fields[..] else {
                panic!("not a case: {line}");
            };
            Case {
                name,
                bytes: unescape(&bytes.replace("{host}", "a")),
                expect: match codec.split_once(' ') {
                    Some(("accept" | "read", count)) => Expect::Accepted(count.parse().unwrap()),
                    _ if codec == "body" => Expect::BodyRefused,
                    _ => Expect::Refused(codec.parse().unwrap()),
                },
            }
        })
        .collect()
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next().unwrap() {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                b'0' => 0,
                b'\\' => b'\\',
                b'x' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => panic!("no escape: {other}"),
            },
            plain => plain,
        });
    }
    bytes
}
