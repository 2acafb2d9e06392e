//! The functions that SQL can call, by name and alias: DataFusion's library and ours.
//!
//! A plan names functions; the engine finds them here when it compiles an expression or opens an
//! aggregate. Planner and engine are built with the same library, so a name that is missing here means
//! that the plan came from another version.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use datafusion_expr::{AggregateUDF, ScalarUDF, WindowUDF};

use crate::error::{EngineError, Result};

static SCALAR: LazyLock<HashMap<String, Arc<ScalarUDF>>> = LazyLock::new(|| {
    let all = datafusion_functions::all_default_functions()
        .into_iter()
        .chain(datafusion_functions_nested::all_default_nested_functions())
        .chain(dovetail_planner::functions::ours());
    by_name(all, |f| (f.name().to_string(), f.aliases().to_vec()))
});

static AGGREGATE: LazyLock<HashMap<String, Arc<AggregateUDF>>> = LazyLock::new(|| {
    let all = datafusion_functions_aggregate::all_default_aggregate_functions();
    by_name(all, |f| (f.name().to_string(), f.aliases().to_vec()))
});

static WINDOW: LazyLock<HashMap<String, Arc<WindowUDF>>> = LazyLock::new(|| {
    let all = datafusion_functions_window::all_default_window_functions();
    by_name(all, |f| (f.name().to_string(), f.aliases().to_vec()))
});

/// The scalar function of that name or alias.
pub fn scalar(name: &str) -> Result<Arc<ScalarUDF>> {
    find(&SCALAR, "scalar", name)
}

/// The aggregate function of that name or alias.
pub fn aggregate(name: &str) -> Result<Arc<AggregateUDF>> {
    find(&AGGREGATE, "aggregate", name)
}

/// The window function of that name or alias; aggregate functions are not among them.
pub fn window(name: &str) -> Result<Arc<WindowUDF>> {
    find(&WINDOW, "window", name)
}

/// All scalar functions, each once.
pub fn all_scalar() -> Vec<Arc<ScalarUDF>> {
    once(&SCALAR, |f| f.name())
}

/// All aggregate functions, each once.
pub fn all_aggregate() -> Vec<Arc<AggregateUDF>> {
    once(&AGGREGATE, |f| f.name())
}

/// All window functions proper, each once.
pub fn all_window() -> Vec<Arc<WindowUDF>> {
    once(&WINDOW, |f| f.name())
}

fn by_name<F>(
    all: impl IntoIterator<Item = Arc<F>>,
    names: impl Fn(&F) -> (String, Vec<String>),
) -> HashMap<String, Arc<F>> {
    let mut map = HashMap::new();
    for f in all {
        let (name, aliases) = names(&f);
        for alias in aliases {
            // A function's own name wins over another function's alias.
            map.entry(alias).or_insert_with(|| f.clone());
        }
        map.insert(name, f);
    }
    map
}

fn find<F>(map: &HashMap<String, Arc<F>>, kind: &str, name: &str) -> Result<Arc<F>> {
    map.get(name).or_else(|| map.get(&name.to_lowercase())).cloned().ok_or_else(|| {
        EngineError::Unsupported(
            format!("the {kind} function {name}"),
            "Plan the query with the same version of Dovetail that runs it.".into(),
        )
    })
}

fn once<F>(map: &HashMap<String, Arc<F>>, name: impl Fn(&F) -> &str) -> Vec<Arc<F>> {
    let mut all: Vec<_> =
        map.iter().filter(|(key, f)| key.as_str() == name(f)).map(|(_, f)| f.clone()).collect();
    all.sort_by(|a, b| name(a).cmp(name(b)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases_are_found_in_any_case() {
        assert_eq!(scalar("substr").unwrap().name(), "substr");
        assert_eq!(scalar("SUBSTRING").unwrap().name(), "substr");
        assert_eq!(scalar("array_length").unwrap().name(), "array_length");
        assert_eq!(aggregate("sum").unwrap().name(), "sum");
        assert_eq!(aggregate("mean").unwrap().name(), "avg");
        assert_eq!(window("row_number").unwrap().name(), "row_number");
        let error = scalar("no_such_function").unwrap_err().to_string();
        assert!(error.contains("no_such_function"), "{error}");
    }

    #[test]
    fn listings_hold_each_function_once() {
        let names: Vec<_> = all_scalar().iter().map(|f| f.name().to_string()).collect();
        assert!(names.windows(2).all(|w| w[0] < w[1]));
        assert!(names.len() > 150, "{}", names.len());
        assert!(all_aggregate().len() > 20 && all_window().len() > 5);
    }
}
