//! What the demo writes: on a terminal one line that updates itself, in color;
//! elsewhere plain lines, one per second.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use super::client::Levels;
use super::verdict::Run;

/// Cells of a bar; the line with it stays below 80 columns.
const CELLS: u32 = 20;

/// Standard output.
#[derive(Debug)]
pub(super) struct Screen {
    out: io::Stdout,
    /// Whether a line can be written over.
    live: bool,
    color: bool,
}

/// One moment of a burst.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Frame {
    pub(super) sent: u32,
    pub(super) answered: u32,
    pub(super) levels: Levels,
    /// Requests that the API let pass in the last second.
    pub(super) rate: usize,
    /// From the start of the burst to this moment.
    pub(super) time: Duration,
    /// From the start of the burst to its latest answer.
    pub(super) wait: Duration,
}

/// The meaning of a color.
#[derive(Debug, Clone, Copy)]
enum Paint {
    Good,
    Busy,
    Bad,
    Faint,
    Strong,
}

impl Screen {
    pub(super) fn new() -> Self {
        let out = io::stdout();
        let live = out.is_terminal() && env::var_os("TERM").is_none_or(|kind| kind != "dumb");
        let color = live && env::var_os("NO_COLOR").is_none();
        Self { out, live, color }
    }

    /// The time from one frame to the next.
    pub(super) fn pace(&self) -> Duration {
        Duration::from_millis(if self.live { 100 } else { 1000 })
    }

    /// Writes whole lines.
    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// Writes a line that stands out, with an empty one before it.
    pub(super) fn head(&mut self, text: &str) -> io::Result<()> {
        let text = self.paint(Paint::Strong, text);
        self.say(&format!("\n{text}"))
    }

    /// Shows one moment of a burst.
    pub(super) fn frame(&mut self, frame: &Frame) -> io::Result<()> {
        let text = self.moment(frame);
        if !self.live {
            let time = frame.time.as_secs_f64();
            return self.say(&format!("  {time:>4.1} s  {text}"));
        }
        write!(self.out, "\r\x1b[K  {} {text}", self.progress(frame))?;
        self.out.flush()
    }

    /// Ends the line that [`Screen::frame`] updates.
    pub(super) fn end_frames(&mut self) -> io::Result<()> {
        if self.live { self.say("") } else { Ok(()) }
    }

    /// Shows how a burst without a queue ended.
    pub(super) fn ended(&mut self, run: &Run) -> io::Result<()> {
        let cells = [
            (Paint::Good, '█', run.answered),
            (Paint::Bad, '▒', run.sent),
        ];
        let bar = match self.live {
            true => format!("{}  ", self.bar(&cells, run.sent)),
            false => String::new(),
        };
        let answered = self.paint(Paint::Good, &format!("{} answered", run.answered));
        let refused = self.paint(Paint::Bad, &format!("{} refused", run.refused));
        let millis = run.took.as_millis();
        self.say(&format!("  {bar}{answered}  {refused}  after {millis} ms"))
    }

    fn moment(&self, frame: &Frame) -> String {
        let Levels { waiting, in_flight } = frame.levels;
        let answered = self.paint(Paint::Good, &format!("{:>3} answered", frame.answered));
        let in_flight = self.paint(Paint::Busy, &format!("{in_flight:>2} in flight"));
        let waiting = self.paint(Paint::Faint, &format!("{waiting:>2} queued"));
        let (rate, wait) = (frame.rate, frame.wait.as_secs_f64());
        format!("{answered}  {in_flight}  {waiting}  {rate:>2}/s  wait {wait:.1} s")
    }

    fn progress(&self, frame: &Frame) -> String {
        let in_flight = u32::try_from(frame.levels.in_flight).unwrap_or(u32::MAX);
        let under_way = frame.answered.saturating_add(in_flight);
        let cells = [
            (Paint::Good, '█', frame.answered),
            (Paint::Busy, '▓', under_way),
            (Paint::Faint, '░', frame.sent),
        ];
        self.bar(&cells, frame.sent)
    }

    /// A bar of `whole`: each part reaches from the one before it to its number.
    fn bar(&self, parts: &[(Paint, char, u32)], whole: u32) -> String {
        let mut bar = String::new();
        let mut filled = 0;
        for (paint, cell, upto) in parts {
            // Rounded up: the least part of anything is to be seen.
            let upto = (upto.min(&whole) * CELLS).div_ceil(whole.max(1));
            let cells = cell
                .to_string()
                .repeat(upto.saturating_sub(filled) as usize);
            bar.push_str(&self.paint(*paint, &cells));
            filled = upto.max(filled);
        }
        bar
    }

    fn paint(&self, paint: Paint, text: &str) -> String {
        let code = match paint {
            Paint::Good => "32",
            Paint::Busy => "33",
            Paint::Bad => "31",
            Paint::Faint => "2",
            Paint::Strong => "1",
        };
        match self.color && !text.is_empty() {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(color: bool) -> Screen {
        Screen {
            out: io::stdout(),
            live: true,
            color,
        }
    }

    fn frame(answered: u32, in_flight: u64) -> Frame {
        Frame {
            sent: 100,
            answered,
            levels: Levels {
                waiting: 99,
                in_flight,
            },
            rate: 10,
            time: Duration::from_secs(10),
            wait: Duration::from_secs(10),
        }
    }

    #[test]
    fn the_bar_is_always_full_and_shows_the_least_part() {
        for (answered, in_flight, bar) in [
            (0, 0, "░░░░░░░░░░░░░░░░░░░░"),
            (0, 1, "▓░░░░░░░░░░░░░░░░░░░"),
            (30, 10, "██████▓▓░░░░░░░░░░░░"),
            (100, 0, "████████████████████"),
            (90, 90, "██████████████████▓▓"),
        ] {
            assert_eq!(screen(false).progress(&frame(answered, in_flight)), bar);
        }
    }

    #[test]
    fn the_longest_line_fits_on_a_terminal_of_80_columns() {
        let (screen, frame) = (screen(false), frame(100, 10));
        let line = format!("  {} {}", screen.progress(&frame), screen.moment(&frame));
        assert!(line.chars().count() < 80, "{line}");
    }

    #[test]
    fn color_is_written_only_where_it_is_wanted() {
        assert_eq!(screen(false).paint(Paint::Good, "a"), "a");
        assert_eq!(screen(true).paint(Paint::Good, "a"), "\x1b[32ma\x1b[0m");
        assert_eq!(screen(true).paint(Paint::Good, ""), "");
    }
}
