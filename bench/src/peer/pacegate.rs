//! pacegate's configuration: one upstream with a queue that holds every caller of every table.

use crate::peer::{Contender, Place};

/// The whole `proxy.toml`.
pub(super) fn config(contender: &Contender, place: Place) -> String {
    let Place {
        listen,
        admin,
        origin,
    } = place;
    let threads = contender.threads;
    let limits = contender
        .pace
        .map(|pace| format!("limits = [{}]\n", pace.toml()))
        .unwrap_or_default();
    format!(
        r#"listen = "{listen}"
admin = "{admin}"
threads = {threads}

[client]
max_connections = 30000

[upstream.bench]
url = "http://{origin}"
{limits}max_in_flight = 1024

[upstream.bench.queue]
max_requests = 30000
max_bytes = "64MiB"
max_wait = "1d"
when_full = "wait"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pace::Pace;
    use crate::peer::Program;

    #[test]
    fn the_limit_stands_in_the_upstream_table() {
        let addr = |port| ([127, 0, 0, 1], port).into();
        let place = Place {
            listen: addr(1),
            admin: addr(2),
            origin: addr(3),
        };
        let contender = Contender::new("pacegate", Program::Pacegate);
        assert!(!config(&contender, place).contains("limits"));
        let text = config(&contender.paced(Pace::even(10)), place);
        let expected = "url = \"http://127.0.0.1:3\"\nlimits = [{ rate = \"10/s\", burst = 1 }]\nmax_in_flight = 1024\n";
        assert!(text.contains(expected), "{text}");
    }
}
