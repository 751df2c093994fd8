//! `calibrate_linear` and `calibrate_polynomial`: from points that were measured beside a better instrument.

use super::{Example, Filter, FilterType, Given, Shape, Step, bad_length, map};
use crate::clock::BootTime;
use crate::options::OptionInfo;
use crate::reading::{Finite, Value};

const POINTS: OptionInfo = OptionInfo {
    name: "points",
    values: "list of 2 to 64 pairs `[MEASURED, TRUE]`",
    default: None,
    help: "What the sensor gave, and what it should have given.",
};

pub(super) static LINEAR: FilterType = FilterType {
    name: "calibrate_linear",
    summary: "Corrects along a line, or from point to point",
    notes: "`least_squares` lays one line as near to all points as possible; `exact` goes through each point, on straight \
            lines between neighbours, and beyond the outermost ones straight on.",
    options: &[
        POINTS,
        OptionInfo {
            name: "method",
            values: "`\"least_squares\"` or `\"exact\"`",
            default: Some("`\"least_squares\"`"),
            help: "How the points are used.",
        },
    ],
    bare: Some("points"),
    sample: "calibrate_linear = { points = [[0, 2], [10, 11], [30, 26]], method = \"exact\" }",
    example: Example { every: 1, values: &[0.0, 4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 28.0, 32.0] },
    parse: |given| {
        let points = points(given);
        let exact = given.word("method", &[("least_squares", false), ("exact", true)]).unwrap_or_default();
        let points = points?;
        let curve = if exact { Curve::Pieces } else { Curve::Line(least_squares(&points, 1)) };
        Calibrate::checked(given, points, curve)
    },
};

/// More would follow the noise of the points, and swing between them.
const MAX_DEGREE: u8 = 6;

pub(super) static POLYNOMIAL: FilterType = FilterType {
    name: "calibrate_polynomial",
    summary: "Corrects along a polynomial",
    notes: "The polynomial that lies nearest to all points (least squares). It needs more points than its degree; \
            beyond the outermost ones it soon runs away: put a `clamp` behind it.",
    options: &[
        POINTS,
        OptionInfo { name: "degree", values: "1 to 6", default: Some("2"), help: "The highest power of the value." },
    ],
    bare: Some("points"),
    sample: "calibrate_polynomial = { points = [[0, 0], [10, 14], [20, 24], [30, 30]], degree = 2 }",
    example: Example { every: 1, values: &[0.0, 4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 28.0, 32.0] },
    parse: |given| {
        let points = points(given);
        let degree = given.optional_in("degree", 1..=MAX_DEGREE).unwrap_or(2);
        let points = points?;
        if points.len() <= usize::from(degree) {
            let why = format!("has {} points: for degree {degree} it takes at least {}", points.len(), degree + 1);
            given.problem("points", why, None);
            return None;
        }
        let curve = Curve::Polynomial(least_squares(&points, usize::from(degree)));
        Calibrate::checked(given, points, curve)
    },
};

/// What was measured, and what it should have been.
type Point = (Finite, Finite);

#[derive(Clone, Debug)]
struct Calibrate {
    /// Sorted by what was measured.
    points: Vec<Point>,
    curve: Curve,
}

#[derive(Clone, Debug)]
enum Curve {
    /// Straight lines between the points.
    Pieces,
    /// The line nearest to the points.
    Line(Polynomial),
    Polynomial(Polynomial),
}

/// In powers of a variable that goes from -1 to 1 over the points: powers of large numbers would not be exact.
#[derive(Clone, Debug)]
struct Polynomial {
    middle: f64,
    half: f64,
    /// From the constant one up.
    coefficients: Vec<f64>,
}

/// The points, sorted by what was measured.
fn points(given: &Given<'_, '_>) -> Option<Vec<Point>> {
    let pairs = given.required::<Vec<Vec<f64>>>("points")?;
    if let Some(why) = bad_length(pairs.len()) {
        given.problem("points", why, None);
        return None;
    }
    let mut points = Vec::new();
    for pair in &pairs {
        let [measured, correct] = pair[..] else {
            let expected = "expected pairs such as [[0, 0.4], [100, 99.1]]: measured, then true";
            given.problem("points", format!("holds a list of {} numbers", pair.len()), Some(expected.to_owned()));
            return None;
        };
        points.push((Finite::new(measured)?, Finite::new(correct)?));
    }
    points.sort_by(|a, b| a.0.get().total_cmp(&b.0.get()));
    if points.len() < 2 {
        given.problem("points", "holds one point: for a line it takes two", None);
        return None;
    }
    if let Some(twice) = points.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        given.problem("points", format!("holds two points with {} as the measured value", twice[0].0), None);
        return None;
    }
    Some(points)
}

/// The polynomial of that degree that is nearest to the points, of which there are more: QR decomposition by the
/// modified Gram-Schmidt process, which stays exact where the normal equations do not.
fn least_squares(points: &[Point], degree: usize) -> Polynomial {
    let (first, last) = (points[0].0.get(), points[points.len() - 1].0.get());
    let (middle, half) = (first / 2.0 + last / 2.0, last / 2.0 - first / 2.0);
    let scaled: Vec<f64> = points.iter().map(|point| (point.0.get() - middle) / half).collect();
    let mut columns: Vec<Vec<f64>> = Vec::with_capacity(degree + 1);
    let mut column = vec![1.0; points.len()];
    for _ in 0..=degree {
        let next = column.iter().zip(&scaled).map(|(power, t)| power * t).collect();
        columns.push(std::mem::replace(&mut column, next));
    }
    let mut rest: Vec<f64> = points.iter().map(|point| point.1.get()).collect();
    let mut upper = vec![vec![0.0; degree + 1]; degree + 1];
    let mut right = vec![0.0; degree + 1];
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for index in 0..=degree {
        let norm = dot(&columns[index], &columns[index]).sqrt();
        upper[index][index] = norm;
        let unit: Vec<f64> = columns[index].iter().map(|value| value / norm).collect();
        for later in index + 1..=degree {
            let along = dot(&unit, &columns[later]);
            upper[index][later] = along;
            for (value, unit) in columns[later].iter_mut().zip(&unit) {
                *value -= along * unit;
            }
        }
        right[index] = dot(&unit, &rest);
        for (value, unit) in rest.iter_mut().zip(&unit) {
            *value -= right[index] * unit;
        }
    }
    let mut coefficients = vec![0.0; degree + 1];
    for index in (0..=degree).rev() {
        let known: f64 = (index + 1..=degree).map(|later| upper[index][later] * coefficients[later]).sum();
        coefficients[index] = (right[index] - known) / upper[index][index];
    }
    Polynomial { middle, half, coefficients }
}

impl Polynomial {
    fn at(&self, measured: f64) -> f64 {
        let t = (measured - self.middle) / self.half;
        self.coefficients.iter().rev().fold(0.0, |sum, coefficient| sum * t + coefficient)
    }
}

/// On the line through the two points on either side, or through the two outermost ones.
fn pieces(points: &[Point], measured: f64) -> f64 {
    let above = points.partition_point(|point| point.0.get() < measured).clamp(1, points.len() - 1);
    let ((x0, y0), (x1, y1)) = (points[above - 1], points[above]);
    let share = (measured - x0.get()) / (x1.get() - x0.get());
    y0.get() + share * (y1.get() - y0.get())
}

impl Calibrate {
    /// The filter, unless the points are so far apart that there is no computing with them.
    fn checked(given: &Given<'_, '_>, points: Vec<Point>, curve: Curve) -> Option<Box<dyn Filter>> {
        let filter = Self { points, curve };
        if filter.points.iter().any(|point| !filter.at(point.0.get()).is_finite()) {
            given.problem(
                "points",
                "holds numbers that are too large, or too near to each other, to compute with",
                None,
            );
            return None;
        }
        Some(Box::new(filter))
    }

    fn at(&self, measured: f64) -> f64 {
        match &self.curve {
            Curve::Pieces => pieces(&self.points, measured),
            Curve::Line(polynomial) | Curve::Polynomial(polynomial) => polynomial.at(measured),
        }
    }
}

impl Filter for Calibrate {
    fn shape(&self, input: Shape) -> Result<Shape, String> {
        input.numbers()
    }

    fn take(&mut self, value: Value, _: BootTime) -> Step {
        map(value, |number| self.at(number))
    }

    fn is_map(&self) -> bool {
        true
    }

    fn settings(&self) -> String {
        let points: Vec<String> = self.points.iter().map(|(x, y)| format!("[{x}, {y}]")).collect();
        let how = match &self.curve {
            Curve::Pieces => "method = \"exact\"".to_owned(),
            Curve::Line(_) => "method = \"least_squares\"".to_owned(),
            Curve::Polynomial(polynomial) => format!("degree = {}", polynomial.coefficients.len() - 1),
        };
        format!("{{ points = [{}], {how} }}", points.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn points(list: &[(f64, f64)]) -> Vec<Point> {
        list.iter().map(|(x, y)| (Finite::new(*x).expect("finite"), Finite::new(*y).expect("finite"))).collect()
    }

    #[test]
    fn a_line_as_in_the_textbook() {
        // By hand: the slope is 1.5 and the intercept 2/3.
        let line = least_squares(&points(&[(0.0, 1.0), (1.0, 1.5), (2.0, 4.0)]), 1);
        assert!((line.at(0.0) - 2.0 / 3.0).abs() < 1e-12 && (line.at(10.0) - (15.0 + 2.0 / 3.0)).abs() < 1e-12);
    }

    #[test]
    fn pieces_go_through_their_points_and_straight_on() {
        let points = points(&[(0.0, 2.0), (10.0, 11.0), (30.0, 26.0)]);
        let at = |measured| pieces(&points, measured);
        assert_eq!((at(0.0), at(10.0), at(30.0), at(5.0), at(20.0)), (2.0, 11.0, 26.0, 6.5, 18.5));
        assert_eq!((at(-10.0), at(50.0)), (-7.0, 41.0));
    }

    proptest! {
        #[test]
        fn a_polynomial_is_found_again(
            coefficients in prop::collection::vec(-5.0..5.0_f64, 2..=7),
            start in -1e4..1e4_f64,
            step in 0.1..100.0_f64,
        ) {
            let middle = start + 5.0 * step;
            let value = |x: f64| coefficients.iter().rev().fold(0.0, |sum, c| sum * ((x - middle) / (5.0 * step)) + c);
            let list: Vec<(f64, f64)> =
                (0..11).map(|n| start + f64::from(n) * step).map(|x| (x, value(x))).collect();
            let found = least_squares(&points(&list), coefficients.len() - 1);
            for (x, y) in list {
                prop_assert!((found.at(x) - y).abs() < 1e-8, "{x}: {} instead of {y}", found.at(x));
            }
        }
    }
}
