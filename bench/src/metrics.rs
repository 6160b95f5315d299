//! What pacegate says of itself at `/metrics`, over one connection that stays open.

use std::net::SocketAddr;

use crate::Result;
use crate::load::Caller;

/// Requests that were given a place or a turn so far.
pub(crate) const ADMITTED: &str = "pacegate_requests_admitted_total";
/// Requests that wait.
pub(crate) const WAITING: &str = "pacegate_queue_requests";

/// A reader of one pacegate's metrics.
#[derive(Debug)]
pub(crate) struct Metrics(Caller);

impl Metrics {
    /// Those of the admin listener at `admin`; does not connect yet.
    pub(crate) fn new(admin: SocketAddr) -> Self {
        Self(Caller::new(admin))
    }

    /// The sum of the metric `name` over its labels.
    pub(crate) async fn read(&mut self, name: &str) -> Result<f64> {
        let (status, body) = self.0.fetch("/metrics").await?;
        let text = std::str::from_utf8(&body)?;
        metric(text, name)
            .ok_or_else(|| format!("no `{name}` at /metrics (status {status})").into())
    }
}

/// The sum of a metric over its labels, none if it is not there.
fn metric(text: &str, name: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let rest = line
            .strip_prefix(name)
            .filter(|rest| rest.starts_with(['{', ' ']))?;
        // A label's value may hold spaces, what follows the labels may be a timestamp.
        let values = rest.rsplit_once('}').map_or(rest, |(_, values)| values);
        values.split_whitespace().next()?.parse::<f64>().ok()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let text = "# TYPE a counter\na_total{of=\"x y\"} 3\na_total{of=\"z\"} 4 17\na_total_more 9\nb 1\n";
        assert_eq!(metric(text, "a_total"), Some(7.0));
        assert_eq!(metric(text, "b"), Some(1.0));
        assert_eq!(metric(text, "c"), None);
    }
}
