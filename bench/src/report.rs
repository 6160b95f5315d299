//! What the tool prints: Markdown tables whose cells are the median and (min-max) of their samples, with the ratio to a
//! baseline of the same run where one takes part, and under them the command that made them.

use std::collections::BTreeMap;
use std::fmt;

/// One table in the making. Rows and columns appear in the order of their first use.
#[derive(Debug)]
pub(crate) struct Table {
    title: String,
    /// Heading of the first column.
    key: &'static str,
    /// Heading of the second column, empty if rows have no case.
    case: &'static str,
    columns: Vec<String>,
    rows: Vec<Row>,
    notes: Vec<String>,
    ratio: Option<Ratio>,
}

#[derive(Debug)]
struct Row {
    peer: String,
    case: String,
    cells: BTreeMap<usize, Cell>,
}

#[derive(Debug)]
enum Cell {
    Samples(Vec<f64>),
    Text(String),
}

#[derive(Debug)]
struct Ratio {
    baseline: String,
    columns: Vec<String>,
}

impl Table {
    /// A table whose rows are peers, or peers in several cases (a rate, a number of callers).
    pub(crate) fn new(title: impl Into<String>, case: &'static str) -> Self {
        Self {
            title: title.into(),
            key: "peer",
            case,
            columns: Vec::new(),
            rows: Vec::new(),
            notes: Vec::new(),
            ratio: None,
        }
    }

    /// The same with rows of something else than peers.
    pub(crate) fn keyed(self, key: &'static str) -> Self {
        Self { key, ..self }
    }

    /// Adds one round's figure to a cell, unless it holds a text.
    pub(crate) fn sample(&mut self, peer: &str, case: &str, column: &str, value: f64) {
        if let Cell::Samples(samples) = self.cell(peer, case, column) {
            samples.push(value);
        }
    }

    /// Sets a cell that has no figure, whatever other rounds said.
    pub(crate) fn text(&mut self, peer: &str, case: &str, column: &str, text: impl Into<String>) {
        *self.cell(peer, case, column) = Cell::Text(text.into());
    }

    /// Adds a line under the table, once.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Lets the cells of `columns` carry their ratio to the same cell of `baseline`.
    pub(crate) fn ratios(&mut self, baseline: &str, columns: &[&str]) {
        let columns = columns.iter().map(ToString::to_string).collect();
        self.ratio = Some(Ratio {
            baseline: baseline.to_owned(),
            columns,
        });
    }

    /// The median of a cell's samples so far, in a table whose rows have no case.
    pub(crate) fn median(&self, peer: &str, column: &str) -> Option<f64> {
        let column = self.columns.iter().position(|known| known == column)?;
        self.median_of(peer, "", column)
    }

    fn cell(&mut self, peer: &str, case: &str, column: &str) -> &mut Cell {
        let index = self
            .columns
            .iter()
            .position(|known| known == column)
            .unwrap_or_else(|| {
                self.columns.push(column.to_owned());
                self.columns.len() - 1
            });
        let row = self
            .rows
            .iter()
            .position(|row| row.peer == peer && row.case == case)
            .unwrap_or_else(|| {
                self.rows.push(Row {
                    peer: peer.to_owned(),
                    case: case.to_owned(),
                    cells: BTreeMap::new(),
                });
                self.rows.len() - 1
            });
        self.rows[row]
            .cells
            .entry(index)
            .or_insert_with(|| Cell::Samples(Vec::new()))
    }

    fn median_of(&self, peer: &str, case: &str, column: usize) -> Option<f64> {
        let row = self
            .rows
            .iter()
            .find(|row| row.peer == peer && row.case == case)?;
        match row.cells.get(&column)? {
            Cell::Samples(samples) => Summary::of(samples).map(|summary| summary.median),
            Cell::Text(_) => None,
        }
    }

    fn ratio_text(&self, row: &Row, column: usize) -> Option<String> {
        let ratio = self
            .ratio
            .as_ref()
            .filter(|ratio| ratio.columns.contains(&self.columns[column]))?;
        let base = self
            .median_of(&ratio.baseline, &row.case, column)
            .filter(|base| *base > 0.0)?;
        let own = self.median_of(&row.peer, &row.case, column)?;
        (row.peer != ratio.baseline).then(|| format!(", **{:.2}x**", own / base))
    }

    fn rendered(&self, row: &Row, column: usize) -> String {
        match row.cells.get(&column) {
            Some(Cell::Text(text)) => text.clone(),
            Some(Cell::Samples(samples)) => match Summary::of(samples) {
                Some(summary) => format!(
                    "{summary}{}",
                    self.ratio_text(row, column).unwrap_or_default()
                ),
                None => "-".to_owned(),
            },
            None => "-".to_owned(),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: &[&str] = if self.case.is_empty() {
            &[self.key]
        } else {
            &[self.key, self.case]
        };
        let headings = keys
            .iter()
            .copied()
            .chain(self.columns.iter().map(String::as_str))
            .collect::<Vec<_>>();
        writeln!(f, "**{}**\n", self.title)?;
        writeln!(f, "| {} |", headings.join(" | "))?;
        writeln!(f, "|{}", " --- |".repeat(headings.len()))?;
        for row in &self.rows {
            let case = (!self.case.is_empty()).then(|| row.case.clone());
            let cells = (0..self.columns.len()).map(|column| self.rendered(row, column));
            let line = [row.peer.clone()]
                .into_iter()
                .chain(case)
                .chain(cells)
                .collect::<Vec<_>>();
            writeln!(f, "| {} |", line.join(" | "))?;
        }
        writeln!(f)?;
        let baseline = self
            .ratio
            .as_ref()
            .filter(|ratio| self.rows.iter().any(|row| row.peer == ratio.baseline));
        if let Some(ratio) = baseline {
            writeln!(f, "- **bold**: ratio of the medians to {}", ratio.baseline)?;
        }
        self.notes
            .iter()
            .try_for_each(|note| writeln!(f, "- {note}"))
    }
}

/// Median and extremes of some samples.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Summary {
    median: f64,
    min: f64,
    max: f64,
    count: usize,
}

impl Summary {
    fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Some(Self {
            median,
            min,
            max,
            count: sorted.len(),
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", number(self.median))?;
        if self.count > 1 {
            write!(f, " ({}-{})", number(self.min), number(self.max))?;
        }
        Ok(())
    }
}

/// What ends the place of a table in a document.
pub(crate) const END: &str = "<!-- end -->";

/// `document` with `text` at the place called `name`: between a line `<!-- bench NAME -->` and the next [`END`]. None without it.
pub(crate) fn replaced(document: &str, name: &str, text: &str) -> Option<String> {
    let (before, rest) = document.split_once(&format!("<!-- bench {name} -->\n"))?;
    let (_old, after) = rest.split_once(END)?;
    let text = text.trim();
    Some(format!(
        "{before}<!-- bench {name} -->\n\n{text}\n\n{END}{after}"
    ))
}

/// A figure with three to five significant digits.
pub(crate) fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 1000.0 || size == size.trunc() => 0,
        size if size >= 100.0 => 1,
        size if size >= 10.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// The value below which the share `quantile` (0 to 1) of the sorted values lies; 0 if there are none.
pub(crate) fn percentile(sorted: &[u64], quantile: f64) -> u64 {
    let rank = (sorted.len() as f64 * quantile).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_the_median_and_the_extremes() {
        assert_eq!(
            Summary::of(&[3.0, 1.0, 2.5]).unwrap().to_string(),
            "2.500 (1-3)"
        );
        assert_eq!(Summary::of(&[4.0, 2.0]).unwrap().median, 3.0);
        assert_eq!(Summary::of(&[12345.6]).unwrap().to_string(), "12346");
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn a_table_replaces_what_stands_at_its_place_and_nothing_else() {
        let document = "a\n<!-- bench x -->\nold\n<!-- end -->\n<!-- bench y -->\n<!-- end -->\nb";
        let x = "a\n<!-- bench x -->\n\nnew\n\n<!-- end -->\n<!-- bench y -->\n<!-- end -->\nb";
        assert_eq!(replaced(document, "x", "new\n\n").as_deref(), Some(x));
        assert_eq!(replaced(x, "x", "new").as_deref(), Some(x));
        assert_eq!(replaced(document, "z", "new"), None);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let sorted: Vec<u64> = (1..=1000).collect();
        assert_eq!(percentile(&sorted, 0.5), 500);
        assert_eq!(percentile(&sorted, 0.999), 999);
        assert_eq!(percentile(&sorted, 1.0), 1000);
        assert_eq!(percentile(&[7], 0.5), 7);
        assert_eq!(percentile(&[], 0.5), 0);
    }

    #[test]
    fn ratios_compare_medians_of_the_same_case() {
        let mut table = Table::new("Speed", "at");
        for (peer, case, value) in [
            ("nginx", "1", 10.0),
            ("nginx", "2", 40.0),
            ("other", "1", 15.0),
            ("other", "2", 20.0),
        ] {
            table.sample(peer, case, "rps", value);
        }
        table.text("other", "2", "order", "kept");
        table.ratios("nginx", &["rps"]);
        let text = table.to_string();
        assert!(text.contains("| nginx | 1 | 10 | - |\n"), "{text}");
        assert!(
            text.contains("| other | 1 | 15, **1.50x** | - |\n"),
            "{text}"
        );
        assert!(
            text.contains("| other | 2 | 20, **0.50x** | kept |\n"),
            "{text}"
        );
    }
}
