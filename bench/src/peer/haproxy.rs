//! HAProxy's configuration: HTTP mode, one thread, connections to the server always reused. It cannot pace; with a pace it sends one request at a
//! time, so that all others wait in its queue.

use crate::peer::{Contender, Place, Wire};

/// The whole file.
pub(super) fn config(contender: &Contender, place: Place) -> String {
    let Place { listen, origin, .. } = place;
    let one_at_a_time = if contender.pace.is_some() {
        " maxconn 1"
    } else {
        ""
    };
    let (http2, tls) = match contender.wire {
        Wire::Plain => ("", ""),
        Wire::Http2 => (" proto h2", ""),
        Wire::Tls => ("", " ssl verify none"),
    };
    // By default it closes idle connections to the server every 5 s, and with TLS then spends most of its time on handshakes.
    // Without `no strict-limits` it demands two file descriptors per connection up front.
    format!(
        "global
    nbthread 1
    maxconn 19900
    no strict-limits
defaults
    mode http
    http-reuse always
    option abortonclose
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    timeout queue 600s
    timeout http-request 600s
    timeout http-keep-alive 600s
frontend bench
    bind {listen} backlog 4096{http2}
    maxconn 19900
    default_backend origin
backend origin
    server origin {origin}{one_at_a_time}{tls} pool-purge-delay 600s
"
    )
}
