//! What becomes of connections, and how a missing answer is told.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// Answers the requests of each connection, one after the other, then closes it.
async fn server(answers: &'static [&'static [&'static str]]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for connection in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in *connection {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    assert!(stream.read_buf(&mut request).await.unwrap() > 0, "no request");
                }
                assert!(request.starts_with(b"GET /base/x HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&request));
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    address
}

fn client(address: SocketAddr) -> Client {
    Client::new(&format!("http://{address}/base/"), 4, Duration::from_secs(5)).unwrap()
}

async fn get(client: &Client) -> Result<String, CallError> {
    let request = client.request(Method::GET, "/x").body(Bytes::new()).unwrap();
    client.call(request).await.map(|answer| String::from_utf8(answer.into_body().to_vec()).unwrap())
}

#[tokio::test]
async fn a_connection_is_kept_until_either_side_lets_go_of_it() {
    const KEPT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na";
    const CLOSED: &str = "HTTP/1.1 402 No\r\nContent-Length: 1\r\nConnection: close\r\n\r\nb";
    const CHUNKS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nc\r\n0\r\n\r\n";
    // The server closes the second connection behind an answer that does not say so.
    let client = client(server(&[&[KEPT, CLOSED], &[KEPT], &[CHUNKS, KEPT]]).await);
    let mut bodies = String::new();
    for _ in 0..5 {
        bodies += &get(&client).await.unwrap();
        let closes = || client.idle.lock().unwrap().last().is_some_and(|kept| !kept.connection.is_closed());
        while bodies == "aba" && closes() {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(bodies, "abaca");
}

#[tokio::test]
async fn what_is_no_answer_is_told_from_no_connection() {
    const BROKEN: &[&[&str]] = &[
        &["nonsense\r\n\r\n"],
        &["HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"],
        &[""],
        &["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"],
        &["HTTP/1.1 200 OK\r\nContent-Length: 4194305\r\n\r\n"],
    ];
    let address = server(BROKEN).await;
    let client = client(address);
    for _ in 0..3 {
        assert!(matches!(get(&client).await, Err(CallError::Http(_))));
    }
    for _ in 0..2 {
        assert!(matches!(get(&client).await, Err(CallError::Body(_))));
    }
    let nobody = Client::new("http://127.0.0.1:1", 4, Duration::from_secs(5)).unwrap();
    assert!(matches!(get(&nobody).await, Err(CallError::Connect(_))));
    assert!(client.request(Method::GET, "/x").header("Key", "a\r\nb: c").body(()).is_err());
    assert!(client.request(Method::GET, "/x y").body(()).is_err());
}

#[test]
fn an_address_names_a_server() {
    let named = |base: &str| {
        let client = Client::new(base, 1, CONNECT).ok()?;
        Some((client.host, client.port, client.authority.to_str().unwrap().to_owned(), client.prefix))
    };
    let is = |host: &str, port, authority: &str, prefix: &str| {
        Some((host.to_owned(), port, authority.to_owned(), prefix.to_owned()))
    };
    assert_eq!(named("http://pay.example"), is("pay.example", 80, "pay.example", ""));
    assert_eq!(named("http://[::1]:81/a/"), is("::1", 81, "[::1]:81", "/a"));
    assert_eq!(named("http://[::1]"), is("::1", 80, "[::1]", ""));
    assert_eq!(named("https://pay.example:444"), is("pay.example", 444, "pay.example:444", ""));
    let bad = ["", "pay.example", "ftp://x", "http://", "http://u:p@x", "http://x:y", "http://x y", "http://x/\n"];
    for bad in bad.into_iter().chain(["http://x/?q"]) {
        assert_eq!(named(bad), None, "{bad}");
    }
}
