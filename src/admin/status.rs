//! `/status`: what the lanes do at this instant, as JSON for people and scripts.
//!
//! The keys are documented in the README; times are in milliseconds.

use std::time::Duration;

use serde_json::{Value, json};

use crate::metrics::Snapshot;
use crate::pacing::Gauge;

/// The text of the status.
pub(super) fn render(
    lanes: &[Snapshot],
    connections: u64,
    uptime: Duration,
    draining: bool,
) -> String {
    let status = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "state": if draining { "draining" } else { "serving" },
        "uptime_ms": millis(uptime),
        "connections": connections,
        "upstreams": lanes.iter().map(lane).collect::<Vec<_>>(),
    });
    format!("{status:#}\n")
}

fn lane(lane: &Snapshot) -> Value {
    json!({
        "name": lane.upstream,
        "waiting": lane.waiting(),
        "in_flight": lane.in_flight(),
        "limits": lane.limits.iter().map(limit).collect::<Vec<_>>(),
        "keys": lane.keys,
        "guard_ms": millis(lane.guard),
        "floor_ms": millis(lane.floor),
        "cooldown": { "left_ms": millis(lane.cooldown), "probing": lane.probing },
        "outage_ms": lane.outage.map(millis),
    })
}

fn limit(limit: &Gauge) -> Value {
    json!({
        "limit": limit.label,
        "capacity": limit.capacity,
        "left": limit.left,
        "wait_ms": millis(limit.wait),
        "binding": limit.binding,
    })
}

/// Rounded up, so that what is not over is not 0.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
