//! Sends requests that two recipients could understand differently, byte for byte, and holds what comes back, and what a
//! recording service behind (`serve --record`) has seen, against the table `requests.txt`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TABLE: &str = include_str!("../requests.txt");
/// Who has not answered or closed by then waits for more.
const QUIET: Duration = Duration::from_secs(4);

/// To whom, and what.
#[derive(clap::Args)]
pub struct Args {
    /// host:port of a service that records, or of a proxy before it
    address: String,
    /// The name of that service in requests; by default the host of the address
    #[arg(long)]
    host: Option<String>,
    /// Whose column of the table counts
    #[arg(long = "as", default_value = "native")]
    column: Column,
    /// Only the requests whose name contains this
    #[arg(long, default_value = "")]
    only: String,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Column {
    Native,
    Envoy,
}

#[derive(Debug)]
struct Case {
    name: &'static str,
    native: Expect,
    envoy: Expect,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expect {
    Status(u16),
    Body,
    Accept(usize),
    Read(usize),
    Wait,
}

/// What happened.
#[derive(Debug, Default)]
struct Seen {
    statuses: Vec<u16>,
    closed: bool,
    /// What the service tells: one line per request.
    requests: Vec<String>,
}

/// Prints a line per request, and fails if one of them was not handled as the table says.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let host = args
        .host
        .clone()
        .or_else(|| args.address.rsplit_once(':').map(|(host, _)| host.to_owned()))
        .context("the address is not host:port")?;
    let cases: Vec<_> = table(&host)?
        .into_iter()
        .filter(|case| case.name.contains(&args.only))
        .collect();
    recorded(&args.address, &host).await?;
    let mut wrong = 0;
    for case in &cases {
        let expect = match args.column {
            Column::Native => &case.native,
            Column::Envoy => &case.envoy,
        };
        let mut seen = send(&args.address, &case.bytes, expect).await?;
        seen.requests = recorded(&args.address, &host)
            .await
            .with_context(|| format!("after '{}'", case.name))?;
        if matches(expect, &seen) {
            println!("ok      {}", case.name);
        } else {
            wrong += 1;
            println!("WRONG   {}: {expect:?} was expected, but {seen:?}", case.name);
        }
    }
    // What was held back and came late would be counted here.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let late = recorded(&args.address, &host).await?;
    ensure!(late.is_empty(), "requests came late: {late:?}");
    println!("{} requests, {wrong} wrong", cases.len());
    ensure!(
        wrong == 0,
        "{wrong} of {} requests were not handled as they must be",
        cases.len()
    );
    Ok(())
}

fn matches(expect: &Expect, seen: &Seen) -> bool {
    let whole = seen.requests.iter().filter(|line| line.ends_with(" whole")).count();
    match expect {
        Expect::Status(status) => seen.statuses == [*status] && seen.closed && seen.requests.is_empty(),
        Expect::Wait => seen.requests.is_empty() && (seen.statuses.is_empty() || seen.statuses == [400] && seen.closed),
        Expect::Read(count) => seen.statuses.len() == *count && seen.requests.len() <= *count,
        Expect::Body => seen.closed && whole == 0 && seen.statuses.iter().all(|status| *status >= 400),
        Expect::Accept(count) => {
            seen.statuses.len() == *count
                && seen.statuses.iter().all(|status| *status == 200)
                && whole == *count
                && seen.requests.len() == *count
                && !seen.requests.iter().any(|line| line.contains(" two "))
        }
    }
}

async fn send(address: &str, bytes: &[u8], expect: &Expect) -> anyhow::Result<Seen> {
    let mut stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("cannot connect to {address}"))?;
    let mut received = Vec::new();
    let mut seen = Seen {
        closed: stream.write_all(bytes).await.is_err(),
        ..Seen::default()
    };
    while !seen.closed {
        match tokio::time::timeout(QUIET, stream.read_buf(&mut received)).await {
            Ok(Ok(0) | Err(_)) => seen.closed = true,
            Ok(Ok(_)) => {
                seen.statuses = statuses(&received);
                // Envoy says so, then leaves the client a second in which to close first.
                seen.closed = !seen.statuses.is_empty() && said_to_close(&received);
                let whole = seen.statuses.len();
                if [Expect::Accept(whole), Expect::Read(whole)].contains(expect) {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    seen.statuses = statuses(&received);
    Ok(seen)
}

/// What the service has recorded since it was last asked.
async fn recorded(address: &str, host: &str) -> anyhow::Result<Vec<String>> {
    let mut stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("cannot connect to {address}"))?;
    let request = format!("GET /seen HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answer))
        .await
        .context("/seen is not answered")??;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("/seen: {answer:?}"))?;
    ensure!(head.starts_with("HTTP/1.1 200"), "/seen: {answer:?}");
    ensure!(body.ends_with("end\n"), "/seen is not recorded there: {body:?}");
    Ok(body.lines().filter(|line| *line != "end").map(str::to_owned).collect())
}

/// The statuses of the whole responses in a stream, without interim ones.
fn statuses(mut stream: &[u8]) -> Vec<u16> {
    let mut found = Vec::new();
    while let Some(end) = position(stream, b"\r\n\r\n") {
        let (head, rest) = stream.split_at(end + 4);
        let head = String::from_utf8_lossy(head).to_ascii_lowercase();
        let Some(status) = head.split(' ').nth(1).and_then(|status| status.parse().ok()) else {
            break;
        };
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        let length = if status < 200 || status == 204 {
            Some(0)
        } else if field("transfer-encoding:").is_some() {
            position(rest, b"0\r\n\r\n").map(|end| end + 5)
        } else {
            field("content-length:").map_or(Some(rest.len()), |length| length.trim().parse().ok())
        };
        let Some(after) = length.and_then(|length| rest.get(length..)) else {
            break;
        };
        if status >= 200 {
            found.push(status);
        }
        stream = after;
    }
    found
}

fn said_to_close(stream: &[u8]) -> bool {
    String::from_utf8_lossy(stream)
        .to_ascii_lowercase()
        .contains("\r\nconnection: close\r\n")
}

fn position(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn table(host: &str) -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for line in TABLE.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let fields: Vec<_> = line.splitn(5, " | ").collect();
        let [name, codec, native, envoy, bytes] = fields.as_slice() else {
            bail!("not a request: {line}");
        };
        let column = |text: &str| expect(if text == "=" { codec } else { text }).with_context(|| (*name).to_owned());
        let (native, envoy) = (column(native)?, column(envoy)?);
        let bytes = unescape(&bytes.replace("{host}", host)).with_context(|| (*name).to_owned())?;
        cases.push(Case {
            name,
            native,
            envoy,
            bytes,
        });
    }
    let names: BTreeMap<_, _> = cases.iter().map(|case| (case.name, ())).collect();
    ensure!(names.len() == cases.len(), "two requests have the same name");
    Ok(cases)
}

fn expect(text: &str) -> anyhow::Result<Expect> {
    Ok(match text {
        "body" => Expect::Body,
        "wait" => Expect::Wait,
        _ => match text.split_once(' ') {
            Some(("accept", count)) => Expect::Accept(count.parse()?),
            Some(("read", count)) => Expect::Read(count.parse()?),
            _ => Expect::Status(text.parse()?),
        },
    })
}

fn unescape(text: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        if next != '\\' {
            bytes.extend(next.to_string().bytes());
            continue;
        }
        bytes.push(match rest.next() {
            Some('r') => b'\r',
            Some('n') => b'\n',
            Some('t') => b'\t',
            Some('0') => 0,
            Some('\\') => b'\\',
            Some('x') => u8::from_str_radix(&rest.by_ref().take(2).collect::<String>(), 16)?,
            other => bail!("no escape: {other:?}"),
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_readable_and_names_the_server() {
        let cases = table("server").unwrap();
        assert!(cases.len() > 80, "{}", cases.len());
        let two = cases
            .iter()
            .find(|case| case.name == "two lengths that differ")
            .unwrap();
        assert_eq!(two.native, Expect::Status(400));
        assert!(two.bytes.starts_with(b"POST / HTTP/1.1\r\nHost: server\r\n"));
    }

    #[test]
    fn responses_are_counted_by_their_own_framing() {
        let stream = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\
            HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no";
        assert_eq!(statuses(stream), [200, 404]);
    }

    #[test]
    fn a_request_in_the_tail_of_another_is_not_accepted() {
        let seen = |statuses: &[u16], requests: &[&str]| Seen {
            statuses: statuses.to_vec(),
            closed: true,
            requests: requests.iter().map(|line| (*line).to_owned()).collect(),
        };
        assert!(matches(&Expect::Status(400), &seen(&[400], &[])));
        assert!(!matches(&Expect::Status(400), &seen(&[400], &["GET /b 0 whole"])));
        assert!(!matches(
            &Expect::Accept(1),
            &seen(&[200], &["GET / 0 whole", "GET /b 0 whole"])
        ));
        assert!(!matches(
            &Expect::Accept(1),
            &seen(&[200], &["GET / 0 two framings whole"])
        ));
        assert!(matches(&Expect::Body, &seen(&[], &["POST / 3 broken"])));
        assert!(!matches(&Expect::Body, &seen(&[400], &["POST / 3 whole"])));
    }
}
