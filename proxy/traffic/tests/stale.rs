//! What is sent a second time when an HTTP/2 upstream fails a request, and what is not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "support/world.rs"]
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use world::*;

const PORT: u16 = 18080;

/// What the application does with its second request.
#[derive(Clone, Copy)]
enum Second {
    Reset,
    Disconnect,
}

/// Sends two requests through an inbound proxy to an HTTP/2 application; the status of the second, and how many the
/// application saw.
async fn two_requests(test: u8, second: Second) -> (u16, usize) {
    let (at, app) = (loopback(test, 2).to_string(), format!("{}:{PORT}", loopback(test, 102)));
    let world = World::new(&[
        service("store", &format!("10.96.{test}.2"), "grpc", PORT),
        pod("store-v1-a", "store", "v1", &at),
        slice("store", "grpc", PORT, &[("store-v1-a", &at)]),
        peer_authentication("PERMISSIVE"),
    ]);
    let listener = tokio::net::TcpListener::bind(&app).await.unwrap();
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let counted = counted.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    match (counted.fetch_add(1, Ordering::SeqCst), second) {
                        (1, Second::Reset) => respond.send_reset(h2::Reason::INTERNAL_ERROR),
                        (1, Second::Disconnect) => return,
                        _ => {
                            let _end = respond.send_response(http::Response::new(()), true).unwrap();
                        }
                    }
                }
            });
        }
    });
    let proxy = Proxy::inbound(&world, "store-v1-a", "store", &format!("{at}:{PORT}"), &app);
    let socket = tokio::net::TcpStream::connect(proxy.address).await.unwrap();
    let (sender, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let mut status = 0;
    for _ in 0..2 {
        let request = http::Request::get("http://store:18080/").body(()).unwrap();
        let mut sender = sender.clone().ready().await.unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        status = response.await.unwrap().status().as_u16();
    }
    (status, seen.load(Ordering::SeqCst))
}

// D2
#[tokio::test]
async fn request_whose_stream_was_reset_is_not_sent_again() {
    assert_eq!(two_requests(41, Second::Reset).await, (503, 2));
}

// D2
#[tokio::test]
async fn request_that_met_the_end_of_a_connection_is_sent_once_more() {
    assert_eq!(two_requests(42, Second::Disconnect).await, (200, 3));
}
