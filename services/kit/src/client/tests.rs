//! Answers of all forms, in any pieces, and what becomes of connections.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::*;

/// Answers the requests of each connection, one after the other, in pieces of a byte or whole, then closes it.
async fn server(answers: &'static [&'static [&'static str]], in_pieces: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for connection in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            for answer in *connection {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    assert!(stream.read_buf(&mut request).await.unwrap() > 0, "no request");
                }
                let size = if in_pieces { 1 } else { answer.len().max(1) };
                for piece in answer.as_bytes().chunks(size) {
                    stream.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        }
    });
    address
}

fn client(address: SocketAddr) -> Client {
    Client::new(&format!("http://{address}/base/"), 4, Duration::from_secs(5)).unwrap()
}

async fn get(client: &Client) -> Result<(u16, String, Option<String>), CallError> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let request = client.request("GET", "/x").empty();
    client.call(request, |answer| (answer.status, text(answer.body), answer.header("x-MORE").map(text))).await
}

#[tokio::test]
async fn answers_of_every_form_are_read_in_whatever_pieces_they_come() {
    const ANSWERS: &[&str] = &[
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-More:  yes \r\n\r\nhello",
        "HTTP/1.1 402 No\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: x\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 204 Nothing\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nto the end",
    ];
    for in_pieces in [false, true] {
        let client = client(server(&[ANSWERS], in_pieces).await);
        let said = |status, body: &str| (status, body.to_owned(), None);
        assert_eq!(get(&client).await.unwrap(), (200, "hello".to_owned(), Some("yes".to_owned())));
        assert_eq!(get(&client).await.unwrap(), said(402, "hello"));
        assert_eq!(get(&client).await.unwrap(), said(200, ""));
        assert_eq!(get(&client).await.unwrap(), said(204, ""));
        assert_eq!(get(&client).await.unwrap(), said(200, "to the end"));
    }
}

#[tokio::test]
async fn a_connection_is_kept_until_either_side_lets_go_of_it() {
    const KEPT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na";
    const CLOSED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nb";
    const MORE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ncc";
    // The server closes the second connection behind an answer that does not say so.
    let client = client(server(&[&[KEPT, CLOSED], &[KEPT], &[MORE], &[KEPT]], false).await);
    let mut bodies = String::new();
    for _ in 0..5 {
        bodies += &get(&client).await.unwrap().1;
        while client.idle.lock().unwrap().last().is_some_and(|kept| kept.stream.is_silent()) && bodies == "aba" {
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
        &["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n"],
        &["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"],
        &[""],
    ];
    let address = server(BROKEN, false).await;
    let client = client(address);
    for _ in 0..3 {
        assert!(matches!(get(&client).await, Err(CallError::Malformed(_))));
    }
    for _ in 0..2 {
        assert!(matches!(get(&client).await, Err(CallError::Broken(_))));
    }
    tokio::task::yield_now().await;
    assert!(matches!(get(&client).await, Err(CallError::Connect(_) | CallError::Broken(_))), "nobody listens");
    let split = client.request("GET", "/x").header("Key", "a\r\nb: c").empty();
    assert!(matches!(client.call(split, |_| ()).await, Err(CallError::Request)));
    let spaced = client.request("GET", "/x y").empty();
    assert!(matches!(client.call(spaced, |_| ()).await, Err(CallError::Request)));
}

#[test]
fn an_address_names_a_server() {
    let named = |base: &str| Client::new(base, 1, CONNECT).map(|c| (c.host, c.port, c.authority, c.prefix));
    let named = |base: &str| named(base).ok();
    let is = |host: &str, port, authority: &str, prefix: &str| {
        Some((host.to_owned(), port, authority.to_owned(), prefix.to_owned()))
    };
    assert_eq!(named("http://pay.example"), is("pay.example", 80, "pay.example", ""));
    assert_eq!(named("http://[::1]:81/a/"), is("::1", 81, "[::1]:81", "/a"));
    assert_eq!(named("http://[::1]"), is("::1", 80, "[::1]", ""));
    assert_eq!(named("https://pay.example:444"), is("pay.example", 444, "pay.example:444", ""));
    for bad in ["", "pay.example", "ftp://x", "http://", "http://u:p@x", "http://x:y", "http://x y", "http://x/\n"] {
        assert_eq!(named(bad), None, "{bad}");
    }
}
