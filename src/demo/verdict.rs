//! What the demo found out: the two bursts side by side, and whether pacegate
//! kept its promise.

use std::time::Duration;

use super::{LIMIT, PERIOD};

/// How one burst went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Run {
    /// Requests sent.
    pub(super) sent: u32,
    /// Those answered 200.
    pub(super) answered: u32,
    /// Answers 429, counted at the API.
    pub(super) refused: u32,
    /// Those that got neither: another status, or no answer.
    pub(super) lost: u32,
    /// Those that reached the API after one of a later batch.
    pub(super) overtaken: u32,
    /// From the first request to the last answer.
    pub(super) took: Duration,
}

impl Run {
    /// Whether each request was answered, and the API refused none.
    pub(super) fn is_perfect(&self) -> bool {
        self.answered == self.sent && self.refused == 0 && self.lost == 0
    }
}

/// The least time in which the API answers `requests`: a first batch at once,
/// then one per period.
fn ideal(requests: u32) -> Duration {
    PERIOD * requests.div_ceil(LIMIT).saturating_sub(1)
}

/// The comparison, as a table.
pub(super) fn table(straight: &Run, paced: &Run) -> String {
    let row = |what: &str, straight: String, paced: String| {
        format!("  {what:<30}{straight:>10}{paced:>20}\n")
    };
    let count =
        |what, of: fn(&Run) -> u32| row(what, of(straight).to_string(), of(paced).to_string());
    [
        row("", "straight".into(), "through pacegate".into()),
        count("sent", |run| run.sent),
        count("answered 200", |run| run.answered),
        count("refused by the API (429)", |run| run.refused),
        count("lost", |run| run.lost),
        row("order kept", order(straight), order(paced)),
        row("time", seconds(straight.took), seconds(paced.took)),
        row(
            "least time the limit allows",
            "-".into(),
            seconds(ideal(paced.sent)),
        ),
    ]
    .concat()
}

/// One sentence on how pacegate did.
pub(super) fn sentence(paced: &Run) -> String {
    let Run {
        sent,
        answered,
        refused,
        lost,
        ..
    } = paced;
    if paced.is_perfect() {
        let over = seconds(paced.took.saturating_sub(ideal(*sent)));
        return format!(
            "All {sent} answered, none refused, {over} over the least time the limit allows."
        );
    }
    format!(
        "Of {sent}, {answered} were answered, {refused} refused and {lost} lost: that is a bug."
    )
}

fn order(run: &Run) -> String {
    match run.overtaken {
        0 => "yes".into(),
        overtaken => format!("{overtaken} late"),
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRAIGHT: Run = Run {
        sent: 100,
        answered: 10,
        refused: 90,
        lost: 0,
        overtaken: 0,
        took: Duration::from_millis(12),
    };
    const PACED: Run = Run {
        sent: 100,
        answered: 100,
        refused: 0,
        lost: 0,
        overtaken: 0,
        took: Duration::from_millis(9030),
    };

    #[test]
    fn the_ideal_is_one_batch_at_once_and_one_per_period_after_it() {
        let seconds = [0, 1, 10, 11, 100, 101].map(|requests| ideal(requests).as_secs());
        assert_eq!(seconds, [0, 0, 0, 1, 9, 10]);
    }

    #[test]
    fn the_table_shows_both_bursts_side_by_side() {
        let expected = "
                                  straight    through pacegate
  sent                                 100                 100
  answered 200                          10                 100
  refused by the API (429)              90                   0
  lost                                   0                   0
  order kept                           yes                 yes
  time                              0.01 s              9.03 s
  least time the limit allows            -              9.00 s
";
        assert_eq!(format!("\n{}", table(&STRAIGHT, &PACED)), expected);
    }

    #[test]
    fn the_sentence_praises_only_what_is_perfect() {
        assert!(PACED.is_perfect());
        let text = sentence(&PACED);
        assert_eq!(
            text,
            "All 100 answered, none refused, 0.03 s over the least time the limit allows."
        );
        let flawed = Run {
            answered: 97,
            refused: 2,
            lost: 3,
            overtaken: 4,
            ..PACED
        };
        assert!(!flawed.is_perfect());
        let text = sentence(&flawed);
        assert!(
            text.contains("97 were answered, 2 refused and 3 lost"),
            "{text}"
        );
        assert!(table(&STRAIGHT, &flawed).contains("4 late"));
    }

    #[test]
    fn a_refusal_that_was_made_good_is_still_a_flaw() {
        assert!(
            !Run {
                refused: 1,
                ..PACED
            }
            .is_perfect()
        );
    }
}
