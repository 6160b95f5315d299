//! pacegate's configuration: one upstream with a queue that holds every caller of every table, or several that are all alike.

use std::path::Path;

use crate::peer::{Contender, Place, Shape};

/// pacegate's own default, and enough for every table.
const MAX_IN_FLIGHT: u32 = 1024;
/// A limit for each key that runs but never waits.
const PER_KEY: &str = r#"{ rate = "1000000/s", per = "header:x-key" }"#;

/// The whole `proxy.toml`; with `ca` the origin speaks TLS, and is verified.
pub(super) fn config(contender: &Contender, place: Place, ca: Option<&Path>) -> String {
    let Place { listen, admin, .. } = place;
    let threads = contender.threads;
    let mut text = format!(
        r#"listen = "{listen}"
admin = "{admin}"
threads = {threads}

[state]
missing = "fresh"

[client]
max_connections = 30000
"#
    );
    match contender.shape {
        Shape::One | Shape::Keyed => text += &upstream("bench", "", contender, place, ca),
        Shape::Lanes(lanes) => {
            for lane in 0..lanes {
                let prefix = format!("match = {{ prefix = \"/l{lane}\" }}\n");
                text += &upstream(&format!("l{lane}"), &prefix, contender, place, ca);
            }
        }
    }
    text
}

/// One upstream's tables; the lines of `own` stand in the first.
fn upstream(
    name: &str,
    own: &str,
    contender: &Contender,
    place: Place,
    ca: Option<&Path>,
) -> String {
    let origin = place.origin;
    let limits = limits(contender);
    let max_in_flight = contender.max_in_flight.unwrap_or(MAX_IN_FLIGHT);
    let (scheme, tls) = match ca {
        Some(ca) => {
            let tls = format!("\n[upstream.{name}.tls]\nca = \"{}\"\n", ca.display());
            ("https", tls)
        }
        None => ("http", String::new()),
    };
    format!(
        r#"
[upstream.{name}]
url = "{scheme}://{origin}"
{own}{limits}max_in_flight = {max_in_flight}

[upstream.{name}.queue]
max_requests = 30000
max_bytes = "64MiB"
max_wait = "1d"
when_full = "wait"

[upstream.{name}.keys]
max = 20000
{tls}"#
    )
}

fn limits(contender: &Contender) -> String {
    let paces = [contender.pace, contender.beside].into_iter().flatten();
    let mut limits: Vec<String> = paces.map(|pace| pace.toml()).collect();
    if contender.shape == Shape::Keyed {
        limits.push(PER_KEY.to_owned());
    }
    match limits.is_empty() {
        true => String::new(),
        false => format!("limits = [{}]\n", limits.join(", ")),
    }
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
        assert!(!config(&contender, place, None).contains("limits"));
        let text = config(&contender.paced(Pace::even(10)), place, None);
        let expected = "url = \"http://127.0.0.1:3\"\nlimits = [{ rate = \"10/s\", burst = 1 }]\nmax_in_flight = 1024\n";
        assert!(text.contains(expected), "{text}");
        let several = contender
            .paced(Pace::window(10, 1))
            .beside(Pace::window(20, 3))
            .in_flight(2);
        let text = config(&several, place, None);
        let expected = "limits = [\"10/s\", \"20/3s\"]\nmax_in_flight = 2\n";
        assert!(text.contains(expected), "{text}");
    }
    #[test]
    fn each_lane_has_its_paths_and_a_certificate_makes_it_https() {
        let addr = |port| ([127, 0, 0, 1], port).into();
        let place = Place {
            listen: addr(1),
            admin: addr(2),
            origin: addr(3),
        };
        let contender = Contender::new("pacegate", Program::Pacegate);
        let text = config(&contender.lanes(2), place, Some(Path::new("/ca.pem")));
        for expected in [
            "[upstream.l0]\nurl = \"https://127.0.0.1:3\"\nmatch = { prefix = \"/l0\" }\n",
            "[upstream.l1]\n",
            "[upstream.l1.tls]\nca = \"/ca.pem\"\n",
        ] {
            assert!(text.contains(expected), "{text}");
        }
        let text = config(&contender.keyed(), place, None);
        assert!(text.contains("per = \"header:x-key\""), "{text}");
    }
}
