//! pacegate's configuration: one upstream with a queue that holds every caller of every table.

use crate::peer::{Contender, Place};

/// pacegate's own default, and enough for every table.
const MAX_IN_FLIGHT: u32 = 1024;

/// The whole `proxy.toml`.
pub(super) fn config(contender: &Contender, place: Place) -> String {
    let Place {
        listen,
        admin,
        origin,
    } = place;
    let threads = contender.threads;
    let paces: Vec<String> = [contender.pace, contender.beside]
        .into_iter()
        .flatten()
        .map(|pace| pace.toml())
        .collect();
    let limits = if paces.is_empty() {
        String::new()
    } else {
        format!("limits = [{}]\n", paces.join(", "))
    };
    let max_in_flight = contender.max_in_flight.unwrap_or(MAX_IN_FLIGHT);
    format!(
        r#"listen = "{listen}"
admin = "{admin}"
threads = {threads}

[state]
missing = "fresh"

[client]
max_connections = 30000

[upstream.bench]
url = "http://{origin}"
{limits}max_in_flight = {max_in_flight}

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
        let several = contender
            .paced(Pace::window(10, 1))
            .beside(Pace::window(20, 3))
            .in_flight(2);
        let text = config(&several, place);
        let expected = "limits = [\"10/s\", \"20/3s\"]\nmax_in_flight = 2\n";
        assert!(text.contains(expected), "{text}");
    }
}
