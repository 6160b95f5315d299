//! Upgrades where the upstream's connections are HTTP/2: each takes one of HTTP/1.1.

use std::time::Duration;

use ::http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use super::rig::Rig;

const HANDSHAKE: Duration = Duration::from_millis(700);

/// It is opened after the turn was taken: what counts is when the request leaves.
#[tokio::test(start_paused = true)]
async fn an_upgrade_is_on_its_way_from_when_its_own_connection_is_there() {
    let (connections, mut accepted) = mpsc::channel(16);
    let settings =
        "limits = [\"1/s\"]\nguard = \"100ms\"\nconnection = { http2 = \"prior-knowledge\" }";
    let rig = Rig::before(settings, HANDSHAKE, connections);
    let start = rig.start;
    let mut caller = rig.connect();
    let head = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    caller.write_all(head).await.unwrap();
    let shared = accepted.recv().await.unwrap();
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        let mut connection = h2::server::handshake(shared).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        tell.send(start.elapsed()).unwrap();
        respond.send_response(Response::new(()), true).unwrap();
        while connection.accept().await.is_some() {}
    });
    let mut apart = accepted.recv().await.unwrap();
    let mut came = Vec::new();
    while !came.ends_with(b"\r\n\r\n") {
        assert!(apart.read_buf(&mut came).await.unwrap() > 0);
    }
    let left = start.elapsed();
    assert!(left >= HANDSHAKE * 2);
    assert_eq!(rig.send("/next").await.unwrap().0, 200);
    // The guard and the period.
    let apart = told.await.unwrap() - left;
    assert!(apart.as_millis().abs_diff(1102) <= 1, "{apart:?}");
}
