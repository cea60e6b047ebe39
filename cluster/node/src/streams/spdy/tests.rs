use flate2::{Compress, Compression, FlushCompress};

use super::headers::DICTIONARY;
use super::*;

/// A client's headers, compressed as clients do.
struct Client {
    deflate: Compress,
    primed: bool,
}

impl Client {
    fn new() -> Self {
        Self {
            deflate: Compress::new(Compression::best(), true),
            primed: false,
        }
    }

    fn open(&mut self, stream: u32, headers: &[(&str, &str)]) -> Bytes {
        if !self.primed {
            self.deflate.set_dictionary(DICTIONARY).unwrap();
            self.primed = true;
        }
        let mut plain = u32::try_from(headers.len()).unwrap().to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
            plain.extend_from_slice(text.as_bytes());
        }
        let mut block = Vec::with_capacity(plain.len() + 256);
        self.deflate
            .compress_vec(&plain, &mut block, FlushCompress::Sync)
            .unwrap();
        let mut body = stream.to_be_bytes().to_vec();
        body.extend_from_slice(&[0; 6]);
        body.extend_from_slice(&block);
        control(SYN_STREAM, 0, &body)
    }
}

async fn frame(io: &mut tokio::io::DuplexStream) -> (Result<u16, u32>, u8, Vec<u8>) {
    read(io).await.expect("a frame")
}

/// The next frame that is no reply to an opened stream.
async fn answer(io: &mut tokio::io::DuplexStream) -> (u32, u8, String) {
    loop {
        if let (Err(stream), flags, body) = frame(io).await {
            return (stream, flags, String::from_utf8(body).unwrap());
        }
    }
}

#[test]
fn headers_are_read_with_the_dictionary_and_across_blocks() {
    let (mut client, mut headers) = (Client::new(), Headers::new());
    for number in 0..300 {
        let id = format!("id-{number}");
        let open = client.open(1, &[("Streamtype", "data"), ("Port", "8080"), ("Requestid", &id)]);
        let read = headers.read(&open[18..]).unwrap();
        assert_eq!(read.get("requestid"), Some(&id));
        assert_eq!(read.get("port").map(String::as_str), Some("8080"));
    }
    let long = "x".repeat(20_000);
    let open = client.open(3, &[("Name", &long)]);
    assert_eq!(headers.read(&open[18..]).unwrap().get("name"), Some(&long));
    assert!(Headers::new().read(b"not zlib").is_none());
}

#[tokio::test]
async fn a_port_is_forwarded_and_one_that_nobody_serves_is_told_on_the_error_stream() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
        .to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        stream.write_all(text.to_uppercase().as_bytes()).await.unwrap();
    });
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let served = tokio::spawn(ports(near, None));
    let mut client = Client::new();
    for (stream, kind, port, id) in [
        (1, "error", &port, "0"),
        (3, "data", &port, "0"),
        (5, "error", &closed, "1"),
        (7, "data", &closed, "1"),
    ] {
        let headers = [("streamtype", kind), ("port", port.as_str()), ("requestid", id)];
        far.write_all(&client.open(stream, &headers)).await.unwrap();
    }
    far.write_all(&data(3, 0, b"hel")).await.unwrap();
    far.write_all(&data(3, FIN, b"lo")).await.unwrap();
    let mut said = HashMap::new();
    let mut ended = Vec::new();
    while ended.len() < 4 {
        let (stream, flags, text) = answer(&mut far).await;
        said.entry(stream).or_insert_with(String::new).push_str(&text);
        if flags & FIN != 0 {
            ended.push(stream);
        }
    }
    assert_eq!(said.get(&3).map(String::as_str), Some("HELLO"));
    assert!(said.get(&5).unwrap().contains("connection refused"), "{said:?}");
    far.write_all(&control(PING, 0, &7_u32.to_be_bytes())).await.unwrap();
    assert_eq!(frame(&mut far).await, (Ok(PING), 0, 7_u32.to_be_bytes().to_vec()));
    far.write_all(&control(GOAWAY, 0, &[0; 8])).await.unwrap();
    served.await.unwrap();
}
