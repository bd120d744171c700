//! Line charts as SVG, complete in themselves.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 30.0;
/// Lines of the grid, at most.
const LINES: f64 = 5.0;
/// Told apart by most eyes, also by those that see few colours (Okabe and Ito, 2008).
const COLOURS: [&str; 8] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#a8a800"];

/// A line.
pub struct Series {
    /// In the legend.
    pub name: String,
    /// Seconds and values.
    pub points: Vec<(f64, f64)>,
}

/// A chart over time.
pub struct Chart {
    /// Above it.
    pub title: String,
    /// What the values are, as `ms`.
    pub unit: &'static str,
    /// Lines; those beyond the colours share them.
    pub series: Vec<Series>,
}

impl Chart {
    /// The chart; nothing where it has no points.
    pub fn render(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        if points().next().is_none() {
            return String::new();
        }
        let end = points().map(|(x, _)| *x).fold(1.0, f64::max);
        let (step, top) = scale(points().map(|(_, y)| *y).fold(0.0, f64::max));
        let at_x = |x: f64| LEFT + x / end * (WIDTH - LEFT - RIGHT);
        let at_y = |y: f64| HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             font-family=\"sans-serif\" font-size=\"11\" fill=\"#333\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
             <text x=\"{LEFT}\" y=\"16\" font-size=\"13\" font-weight=\"bold\">{}, {}</text>\n",
            escape(&self.title),
            self.unit
        );
        let mut y = 0.0;
        while y <= top * 1.000_1 {
            let (at, label) = (at_y(y), number(y));
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0
            );
            y += step;
        }
        let (step, _) = scale(end);
        let mut x = 0.0;
        while x <= end {
            let (at, below) = (at_x(x), HEIGHT - BOTTOM + 16.0);
            let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{below:.1}\" text-anchor=\"middle\">{} s</text>", number(x));
            x += step;
        }
        for (place, series) in self.series.iter().enumerate() {
            let colour = COLOURS[place % COLOURS.len()];
            let line: Vec<String> =
                series.points.iter().map(|&(x, y)| format!("{:.1},{:.1}", at_x(x), at_y(y))).collect();
            let row = TOP + 8.0 + 15.0 * place as f64;
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\
                 <rect x=\"{:.1}\" y=\"{:.1}\" width=\"10\" height=\"3\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{row:.1}\">{}</text>",
                line.join(" "),
                WIDTH - RIGHT + 12.0,
                row - 5.0,
                WIDTH - RIGHT + 28.0,
                escape(&series.name)
            );
        }
        svg + "</svg>\n"
    }
}

/// Step and end of an axis up to a value: 1, 2 or 5 times a power of ten.
fn scale(most: f64) -> (f64, f64) {
    let most = if most > 0.0 { most } else { 1.0 };
    let power = 10_f64.powf((most / LINES).log10().floor());
    let fits = |factor: &&f64| power * **factor * LINES >= most * 0.999_9;
    let step = power * [1.0, 2.0, 5.0, 10.0].iter().find(fits).unwrap_or(&10.0);
    (step, (most / step * 0.999_9).ceil() * step)
}

fn number(value: f64) -> String {
    if value >= 1e6 {
        format!("{}M", trimmed(value / 1e6))
    } else if value >= 1e4 {
        format!("{}k", trimmed(value / 1e3))
    } else {
        trimmed(value)
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Text that may stand in HTML and XML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers_not_below_the_highest_value() {
        for (most, expected) in
            [(0.0, (0.2, 1.0)), (5.0, (1.0, 5.0)), (994.0, (200.0, 1_000.0)), (5_100.0, (2_000.0, 6_000.0))]
        {
            let (step, top) = scale(most);
            assert!((step - expected.0).abs() < 1e-9 && (top - expected.1).abs() < 1e-9, "{most}: {step} {top}");
        }
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.25, 100.0, 12_500.0, 3e6].map(number), ["0.25", "100", "12.5k", "3M"]);
    }

    #[test]
    fn a_line_goes_through_its_points_and_names_are_escaped() {
        let series = vec![Series { name: "a<b".into(), points: vec![(0.0, 0.0), (10.0, 5.0)] }];
        let svg = Chart { title: "T".into(), unit: "ms", series }.render();
        assert!(svg.contains("points=\"64.0,230.0 570.0,30.0\""), "{svg}");
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"));
        assert_eq!(Chart { title: "T".into(), unit: "ms", series: Vec::new() }.render(), "");
    }
}
