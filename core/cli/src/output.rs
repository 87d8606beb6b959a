//! What people see: standard output, tables, sizes, and names that can't harm a terminal.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::value::RawValue;
use unicode_width::UnicodeWidthStr;

use crate::failure::Failure;

/// Prints `text` as it is, with a line's end.
///
/// # Errors
/// If standard output can't be written. A reader that has had enough (`bbh shared | head`) is no error: the
/// process ends quietly.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::failed(format!("standard output can't be written: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// Prints the items of an answer as one JSON list.
///
/// # Errors
/// As [`print()`].
pub fn print_json_list<'a>(items: impl IntoIterator<Item = &'a RawValue>) -> Result<(), Failure> {
    let items: Vec<_> = items.into_iter().map(RawValue::get).collect();
    print(&format!("[{}]", items.join(",")))
}

/// Text from elsewhere (names of files and devices, tags) made fit for a terminal: what could move the cursor,
/// change colours or turn the writing around is replaced.
pub fn plain(text: &str) -> String {
    let harmful = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if harmful(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Bytes for people: `512 B`, `20.0 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be shown as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Bytes per second for people: `1.9 MiB/s`.
pub fn rate(bytes_per_second: u64) -> String {
    format!("{}/s", size(bytes_per_second))
}

/// A duration for people: `340 ms`, `12.3 s`.
pub fn duration(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

/// A count with its noun: `1 file`, `3 files`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// An aligned table. Columns whose heading ends with a space are aligned to the right.
pub fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = headings.map(|heading| heading.trim_end().width());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let line = |cells: [&str; N]| {
        let mut line = String::new();
        for (column, cell) in cells.into_iter().enumerate() {
            let padding = " ".repeat(widths[column].saturating_sub(cell.width()));
            if headings[column].ends_with(' ') {
                line.extend([&padding, cell]);
            } else {
                line.extend([cell, &padding]);
            }
            line.push_str("  ");
        }
        line.truncate(line.trim_end().len());
        line
    };
    let mut lines = vec![line(headings.map(str::trim_end))];
    lines.extend(rows.iter().map(|row| line(row.each_ref().map(String::as_str))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_naturally() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (20 << 20, "20.0 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn names_from_others_cannot_command_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{202e}d\u{9b}e"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d\u{fffd}e");
        assert_eq!(plain("Bräuroß 🐎.mp3"), "Bräuroß 🐎.mp3");
    }

    #[test]
    fn columns_line_up_whatever_the_script() {
        let rows = [["ä".to_owned(), "1".to_owned()], ["馬馬馬".to_owned(), "20".to_owned()]];
        assert_eq!(table(["NAME", "HOPS "], &rows), "NAME    HOPS\nä          1\n馬馬馬    20");
    }
}
