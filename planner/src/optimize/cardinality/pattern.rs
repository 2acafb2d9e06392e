//! How much a LIKE pattern keeps, from its shape: the longer its fixed parts, the less.
//!
//! The figures are those that words in natural text show: a given word is in one string of twenty, a
//! given beginning in one of fifty.

/// The share of strings that a LIKE pattern keeps, of `distinct` different ones.
pub fn like_selectivity(pattern: &str, escape: Option<char>, distinct: f64) -> f64 {
    let shape = Shape::of(pattern, escape);
    if shape.exact() {
        return 1.0 / distinct.max(1.0);
    }
    let mut kept: f64 = 1.0;
    for (i, length) in shape.parts.iter().enumerate() {
        let at_edge = (i == 0 && shape.fixed_start) || (i + 1 == shape.parts.len() && shape.fixed_end);
        kept *= match (length, at_edge) {
            (0, _) => 1.0,
            (1, true) => 0.1,
            (2, true) => 0.05,
            (3.., true) => 0.02,
            (1, false) => 0.5,
            (2, false) => 0.2,
            (3.., false) => 0.05,
        };
    }
    // Few different strings are names of categories, and share their parts ("PROMO PLATED TIN").
    let kept = if distinct < 1000.0 { kept.sqrt() } else { kept };
    kept.max(1.0 / distinct.max(1.0)).clamp(1e-4, 1.0)
}

/// A pattern's fixed parts between `%` signs.
struct Shape {
    /// Lengths of the parts, in characters; `_` counts as none.
    parts: Vec<usize>,
    fixed_start: bool,
    fixed_end: bool,
    wildcards: usize,
}

impl Shape {
    fn of(pattern: &str, escape: Option<char>) -> Self {
        let mut shape = Shape { parts: vec![0], fixed_start: true, fixed_end: true, wildcards: 0 };
        let mut chars = pattern.chars();
        let mut first = true;
        while let Some(c) = chars.next() {
            let part = shape.parts.last_mut().expect("invariant: there is always a part");
            if c == '%' {
                shape.fixed_start &= !first;
                shape.wildcards += 1;
                shape.parts.push(0);
            } else if c == '_' {
                shape.wildcards += 1;
            } else if c == escape.unwrap_or('\\') {
                *part += usize::from(chars.next().is_some());
            } else {
                *part += 1;
            }
            shape.fixed_end = c != '%';
            first = false;
        }
        shape.parts.retain(|length| *length > 0);
        shape
    }

    fn exact(&self) -> bool {
        self.wildcards == 0
    }
}

#[cfg(test)]
mod tests {
    use super::like_selectivity;

    #[test]
    fn longer_and_anchored_patterns_keep_less() {
        let kept = |pattern| like_selectivity(pattern, None, 1e6);
        assert_eq!(kept("%"), 1.0);
        assert_eq!(kept("%green%"), 0.05);
        assert_eq!(kept("forest%"), 0.02);
        assert_eq!(kept("%BRASS"), 0.02);
        assert!(kept("%special%requests%") < kept("%special%"));
        assert_eq!(kept("abc"), 1e-6);
        assert_eq!(like_selectivity("%BRASS", None, 5.0), 0.2);
        assert!(like_selectivity("%BRASS", None, 150.0) > 0.1);
        assert_eq!(like_selectivity(r"100\%", None, 100.0), 0.01);
    }
}
