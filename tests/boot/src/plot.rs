//! A plain SVG plot of a bench table: two bars a row, on a logarithmic scale.

use crate::bench::Row;
use std::fmt::Write;

const NAME_WIDTH: f64 = 400.0;
const SCALE_WIDTH: f64 = 420.0;
const ROW_HEIGHT: f64 = 26.0;
const TOP: f64 = 56.0;
/// Powers of ten on the scale.
const DECADES: u32 = 5;

/// The plot of the rows that both sides have, as installed.
pub fn svg(title: &str, rows: &[Row]) -> String {
    let rows: Vec<(&str, u64, u64)> = rows
        .iter()
        .filter_map(|row| match row.figures[0] {
            [Some(xen), Some(euxen)] => Some((row.name.as_str(), xen, euxen)),
            _ => None,
        })
        .collect();
    let width = NAME_WIDTH + SCALE_WIDTH + 80.0;
    let height = TOP + ROW_HEIGHT * rows.len() as f64 + 16.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"22\" font-size=\"16\">{}: instructions, as installed</text>\n\
         <rect x=\"{NAME_WIDTH}\" y=\"10\" width=\"12\" height=\"12\" fill=\"{XEN}\"/><text x=\"{}\" y=\"21\">Xen 4.17</text>\n\
         <rect x=\"{}\" y=\"10\" width=\"12\" height=\"12\" fill=\"{EUXEN}\"/><text x=\"{}\" y=\"21\">Euxen</text>\n",
        escaped(title),
        NAME_WIDTH + 18.0,
        NAME_WIDTH + 100.0,
        NAME_WIDTH + 118.0
    );
    for decade in 0..=DECADES {
        let x = place(10u64.pow(decade));
        let _ = writeln!(
            text,
            "<line x1=\"{x}\" y1=\"{TOP}\" x2=\"{x}\" y2=\"{}\" stroke=\"#ccc\"/><text x=\"{x}\" y=\"{}\" fill=\"#666\" text-anchor=\"middle\">{}</text>",
            height - 12.0,
            TOP - 6.0,
            10u64.pow(decade)
        );
    }
    for (number, (name, xen, euxen)) in rows.iter().enumerate() {
        let y = TOP + 4.0 + ROW_HEIGHT * number as f64;
        let _ = writeln!(text, "<text x=\"12\" y=\"{}\">{}</text>", y + 14.0, escaped(name));
        text += &bar(y, *xen, XEN);
        text += &bar(y + 10.0, *euxen, EUXEN);
    }
    text + "</svg>\n"
}

const XEN: &str = "#9aa5b1";
const EUXEN: &str = "#2563a8";

fn place(value: u64) -> f64 {
    let decades = (value.max(1) as f64).log10().min(f64::from(DECADES));
    NAME_WIDTH + SCALE_WIDTH * decades / f64::from(DECADES)
}

fn bar(y: f64, value: u64, colour: &str) -> String {
    let end = place(value);
    format!(
        "<rect x=\"{NAME_WIDTH}\" y=\"{y}\" width=\"{:.1}\" height=\"8\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{}\" font-size=\"9\">{value}</text>\n",
        (end - NAME_WIDTH).max(1.0),
        end + 4.0,
        y + 8.0
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rows_of_both_sides_are_drawn() {
        let row = |name: &str, euxen| Row { name: name.into(), figures: [[Some(10), euxen], [None, None]] };
        let text = svg("PV <1>", &[row("one & two", Some(5)), row("three", None)]);
        assert!(text.contains("one &amp; two") && text.contains("PV &lt;1&gt;") && !text.contains("three"));
    }
}
