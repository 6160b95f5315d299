//! The file as a tree of keys and values with their places in the text.
//!
//! Errors know only where they are; the tree says what stands there: the path
//! for the message, and whether it may be shown. It also remembers what was
//! taken out because it could not be read, so that no second problem is
//! reported that is only a consequence of the first.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// The parsed text.
#[derive(Debug)]
pub(in crate::config) struct Tree<'t> {
    /// Everything that was parsed.
    root: DeTable<'t>,
    /// Paths of what could not be read.
    lost: Vec<String>,
    /// Whether the syntax was wrong somewhere, so that anything may be missing.
    broken: bool,
}

/// One step down the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) enum Step {
    Key(String),
    Index(usize),
}

/// What stands at a place.
#[derive(Debug)]
pub(in crate::config) struct Spot<'t> {
    /// The way to it.
    pub(super) steps: Vec<Step>,
    /// Whether the place is the key, and not the value.
    pub(in crate::config) is_key: bool,
    /// The value.
    pub(super) value: &'t DeValue<'t>,
    /// Bytes of the key or of the value; the smallest spot wins.
    length: usize,
}

impl Spot<'_> {
    /// The key, or the key of the value.
    pub(super) fn name(&self) -> &str {
        let key = self.steps.iter().rev().find_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        });
        key.unwrap_or_default()
    }

    /// Whether the value may not be shown.
    pub(super) fn is_secret(&self) -> bool {
        is_secret(&self.steps, self.value)
    }
}

impl<'t> Tree<'t> {
    pub(super) fn new(root: DeTable<'t>, broken: bool) -> Self {
        Self {
            root,
            lost: Vec::new(),
            broken,
        }
    }

    /// A copy to take unreadable values out of.
    pub(super) fn copy(&self) -> DeTable<'t> {
        self.root.clone()
    }

    /// What stands at `span`.
    pub(in crate::config) fn spot(&self, span: &Range<usize>) -> Option<Spot<'_>> {
        spot(&self.root, span)
    }

    /// The path of what stands at `span`, such as `upstream.github.limits[0]`.
    pub(in crate::config) fn path(&self, span: &Range<usize>) -> String {
        self.spot(span)
            .map(|spot| render(&spot.steps))
            .unwrap_or_default()
    }

    /// Notes that what stands at `span` could not be read, and that `meant` was
    /// probably the key.
    pub(in crate::config) fn lose(&mut self, span: &Range<usize>, meant: Option<&str>) {
        let Some(mut steps) = self.spot(span).map(|spot| spot.steps) else {
            return;
        };
        self.lost.push(render(&steps));
        if let Some(meant) = meant {
            steps.pop();
            steps.push(Step::Key(meant.to_owned()));
            self.lost.push(render(&steps));
        }
    }

    /// Whether `path`, or what holds it, was written but could not be read.
    pub(in crate::config) fn is_lost(&self, path: &str) -> bool {
        self.broken
            || self.lost.iter().any(|lost| {
                path.strip_prefix(lost.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            })
    }

    /// Where the values of header fields stand, which may be secrets.
    pub(in crate::config) fn secrets(&self) -> Vec<Range<usize>> {
        let mut spans = Vec::new();
        walk(&self.root, &mut Vec::new(), &mut |place| {
            if !place.is_key && is_secret(place.steps, place.value) {
                spans.push(place.span);
            }
        });
        spans
    }
}

/// Takes what stands at `span` out of `table`.
pub(super) fn remove(table: &mut DeTable<'_>, span: &Range<usize>) -> bool {
    let Some(steps) = spot(table, span).map(|spot| spot.steps) else {
        return false;
    };
    remove_from_table(table, &steps)
}

fn remove_from_table(table: &mut DeTable<'_>, steps: &[Step]) -> bool {
    match steps {
        [Step::Key(key)] => table.remove(key.as_str()).is_some(),
        [Step::Key(key), rest @ ..] => table
            .get_mut(key.as_str())
            .is_some_and(|value| remove_from_value(value.get_mut(), rest)),
        _ => false,
    }
}

fn remove_from_value(value: &mut DeValue<'_>, steps: &[Step]) -> bool {
    match (value, steps) {
        (DeValue::Table(table), steps) => remove_from_table(table, steps),
        (DeValue::Array(array), [Step::Index(index)]) => {
            let items = std::mem::replace(array, DeArray::new()).into_iter();
            let kept = items.enumerate().filter(|(at, _)| at != index);
            *array = kept.map(|(_, item)| item).collect();
            true
        }
        (DeValue::Array(array), [Step::Index(index), rest @ ..]) => array
            .get_mut(*index)
            .is_some_and(|value| remove_from_value(value.get_mut(), rest)),
        _ => false,
    }
}

/// The smallest key or value that encloses `span`. A `[table]` has the span of
/// its header, so the search goes into every table, enclosing or not.
fn spot<'a>(root: &'a DeTable<'a>, span: &Range<usize>) -> Option<Spot<'a>> {
    let mut best: Option<Spot<'a>> = None;
    walk(root, &mut Vec::new(), &mut |place: Place<'_, 'a>| {
        let encloses = place.span.start <= span.start && span.end <= place.span.end;
        let length = place.span.len();
        if encloses && best.as_ref().is_none_or(|best| length < best.length) {
            best = Some(Spot {
                steps: place.steps.to_vec(),
                is_key: place.is_key,
                value: place.value,
                length,
            });
        }
    });
    best
}

/// A key or a value met by [`walk`].
struct Place<'s, 'a> {
    steps: &'s [Step],
    span: Range<usize>,
    is_key: bool,
    value: &'a DeValue<'a>,
}

fn walk<'a>(table: &'a DeTable<'a>, steps: &mut Vec<Step>, visit: &mut impl FnMut(Place<'_, 'a>)) {
    for (key, value) in table {
        steps.push(Step::Key(key.get_ref().to_string()));
        visit(Place {
            steps,
            span: key.span(),
            is_key: true,
            value: value.get_ref(),
        });
        walk_value(value, steps, visit);
        steps.pop();
    }
}

fn walk_value<'a>(
    value: &'a Spanned<DeValue<'a>>,
    steps: &mut Vec<Step>,
    visit: &mut impl FnMut(Place<'_, 'a>),
) {
    visit(Place {
        steps,
        span: value.span(),
        is_key: false,
        value: value.get_ref(),
    });
    match value.get_ref() {
        DeValue::Table(table) => walk(table, steps, visit),
        DeValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                steps.push(Step::Index(index));
                walk_value(item, steps, visit);
                steps.pop();
            }
        }
        _ => {}
    }
}

/// Whether a value at `steps` is, or is part of, the value of a header field.
fn is_secret(steps: &[Step], value: &DeValue<'_>) -> bool {
    let below = if value.is_table() { 1 } else { 0 };
    steps
        .iter()
        .rev()
        .skip(below)
        .any(|step| matches!(step, Step::Key(key) if key.eq_ignore_ascii_case("headers")))
}

/// `upstream.github.limits[0]`; keys that need quotes get them.
fn render(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Index(index) => path.push_str(&format!("[{index}]")),
            Step::Key(key) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&render_key(key));
            }
        }
    }
    path
}

pub(super) fn render_key(key: &str) -> Cow<'_, str> {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !key.is_empty() && key.chars().all(bare) {
        Cow::Borrowed(key)
    } else {
        Cow::Owned(format!("\"{}\"", key.escape_debug()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
listen = 1
[upstream.a.queue]
max = [10, { deep = true }]
[upstream.\"b c\".headers]
x = { file = \"f\" }
";

    fn tree() -> Tree<'static> {
        Tree::new(DeTable::parse(TEXT).unwrap().into_inner(), false)
    }

    fn at(part: &str) -> Range<usize> {
        let start = TEXT.find(part).unwrap();
        start..start + part.len()
    }

    #[test]
    fn names_what_stands_at_a_place() {
        let tree = tree();
        assert_eq!(tree.path(&at("1")), "listen");
        assert_eq!(tree.path(&at("10")), "upstream.a.queue.max[0]");
        assert_eq!(tree.path(&at("true")), "upstream.a.queue.max[1].deep");
        assert_eq!(tree.path(&at("[upstream.a.queue]")), "upstream.a.queue");
        assert_eq!(tree.path(&at("\"f\"")), "upstream.\"b c\".headers.x.file");
    }

    #[test]
    fn takes_out_keys_and_elements() {
        let tree = tree();
        let mut copy = tree.copy();
        assert!(remove(&mut copy, &at("10")));
        assert!(remove(&mut copy, &at("listen")));
        let rest = Tree::new(copy, false);
        assert_eq!(rest.path(&at("10")), "upstream.a.queue.max");
        assert_eq!(rest.path(&at("true")), "upstream.a.queue.max[0].deep");
        assert_eq!(rest.path(&at("listen")), "");
    }

    #[test]
    fn a_lost_table_loses_what_it_holds() {
        let mut tree = tree();
        tree.lose(&at("[upstream.a.queue]"), Some("queues"));
        assert!(tree.is_lost("upstream.a.queue.max"));
        assert!(tree.is_lost("upstream.a.queue"));
        assert!(!tree.is_lost("upstream.a"));
        assert!(tree.is_lost("upstream.a.queues"));
        assert!(!tree.is_lost("upstream.a.queuex"));
    }

    #[test]
    fn knows_where_secrets_are() {
        let secrets = tree().secrets();
        let covered = |place: Range<usize>| {
            secrets
                .iter()
                .any(|s| s.start <= place.start && place.end <= s.end)
        };
        assert!(covered(at("\"f\"")));
        assert!(!covered(at("10")));
        assert!(!covered(at("[upstream.\"b c\".headers]")));
    }
}
