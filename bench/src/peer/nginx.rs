//! nginx's configuration: one worker, connections to both sides kept, no access log; with a pace `limit_req` delays evenly.
//!
//! `master_process off` makes it one process: the same work, no orphan when it is killed, and memory that is the worker's own.

use std::path::Path;

use crate::peer::{Contender, Place, Wire};

/// As many waiting callers as the open-file limit usually allows.
const CONNECTIONS: u32 = 19_900;
const WAITING: u32 = 20_000;

/// The whole file; what nginx writes goes below `dir`.
pub(super) fn config(contender: &Contender, place: Place, dir: &Path) -> String {
    let dir = dir.display();
    let Place { listen, origin, .. } = place;
    let (zone, limit) = contender.pace.map_or_else(Default::default, |pace| {
        // nginx counts in thousandths of whole requests per second.
        let rate = pace.per_second().round().max(1.0);
        let zone = format!("limit_req_zone $server_port zone=bench:1m rate={rate}r/s;");
        (zone, format!("limit_req zone=bench burst={WAITING};"))
    });
    let (http2, scheme) = match contender.wire {
        Wire::Plain => ("", "http"),
        Wire::Http2 => (" http2", "http"),
        Wire::Tls => ("", "https"),
    };
    format!(
        "daemon off;
master_process off;
worker_processes 1;
worker_rlimit_nofile {WAITING};
pid {dir}/pid;
error_log {dir}/log warn;
events {{ worker_connections {CONNECTIONS}; }}
http {{
    access_log off;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    {zone}
    upstream bench {{
        server {origin};
        keepalive 1024;
        keepalive_requests 1000000000;
        keepalive_timeout 600s;
    }}
    server {{
        listen {listen}{http2} backlog=4096;
        location / {{
            {limit}
            proxy_pass {scheme}://bench;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_read_timeout 600s;
        }}
    }}
}}
"
    )
}
