//! Bars with whiskers, as SVG.

use std::fmt::Write as _;

use crate::statistics::Summary;

const WIDTH: f64 = 720.0;
const LABELS: f64 = 190.0;
const VALUES: f64 = 80.0;
const ROW: f64 = 30.0;
const TOP: f64 = 34.0;

/// One bar.
pub(crate) struct Bar<'a> {
    pub(crate) label: &'a str,
    pub(crate) summary: Summary,
    /// Those measured against, in another colour.
    pub(crate) is_reference: bool,
}

/// A chart of horizontal bars from 0; the whiskers are the quartiles. Colours suit light and dark
/// pages.
pub(crate) fn bars(title: &str, unit: &str, bars: &[Bar<'_>]) -> String {
    let height = TOP + ROW * bars.len() as f64 + 8.0;
    let most = bars.iter().map(|bar| bar.summary.high).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LABELS - VALUES) / most;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\" fill=\"#888\">\n\
         <text x=\"0\" y=\"18\" font-weight=\"bold\">{}</text>\n",
        escape(title)
    );
    for (index, bar) in bars.iter().enumerate() {
        let top = TOP + ROW * index as f64;
        let middle = top + ROW / 2.0;
        let Summary { median, low, high } = bar.summary;
        let [median_x, low_x, high_x] = [median, low, high].map(|value| LABELS + value * scale);
        let colour = if bar.is_reference { "#9aa7b5" } else { "#3b82c4" };
        // Writing to a string cannot fail.
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{LABELS}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\n\
             <path d=\"M{low_x:.1} {middle:.1}H{high_x:.1}\" stroke=\"#d2691e\" stroke-width=\"2\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\">{} {unit}</text>",
            LABELS - 8.0,
            middle + 4.0,
            escape(bar.label),
            top + 4.0,
            median_x - LABELS,
            ROW - 8.0,
            high_x.max(median_x) + 6.0,
            middle + 4.0,
            number(median),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Three digits.
pub(crate) fn number(value: f64) -> String {
    let digits = match value.abs() {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fits() {
        let summary = Summary { median: 4.0, low: 3.0, high: 5.0 };
        let bar = |label| Bar { label, summary, is_reference: false };
        let svg = bars("a < b", "µs", &[bar("one"), bar("two & three")]);
        assert!(svg.contains("a &lt; b") && svg.contains("two &amp; three"));
        // 4 of 5 parts of what the labels leave.
        assert!(svg.contains("width=\"360.0\""), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 2);
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!([0.981, 12.34, 5123.4].map(number), ["0.98", "12.3", "5123"]);
    }
}
