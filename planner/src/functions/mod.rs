//! The function library: every scalar, aggregate and window function that a query may call, by name.
//!
//! Built once per process from DataFusion's default sets and a few functions of ours. The SQL binder looks names up here, and the
//! engine does the same when it compiles an [`crate::expr::Expr::Call`] or an aggregate call, so that both
//! mean the same function by the same name.
//!
//! What always holds: names and aliases are lower case; the table never changes after it is built. A program that
//! embeds the engine may add functions of its own before that ([`add_scalar`]).

mod rint;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, OnceLock};

use datafusion_expr::planner::ExprPlanner;
use datafusion_expr::{AggregateUDF, HigherOrderUDF, ScalarUDF, Volatility, WindowUDF};

/// All functions, by name and alias.
pub struct Functions {
    pub scalar: BTreeMap<String, Arc<ScalarUDF>>,
    pub higher_order: BTreeMap<String, Arc<HigherOrderUDF>>,
    pub aggregate: BTreeMap<String, Arc<AggregateUDF>>,
    pub window: BTreeMap<String, Arc<WindowUDF>>,
    /// What turns operators and special syntax (EXTRACT, array literals, field access) into calls.
    pub expr_planners: Vec<Arc<dyn ExprPlanner>>,
}

/// The function library of this process.
pub fn functions() -> &'static Functions {
    static FUNCTIONS: LazyLock<Functions> = LazyLock::new(Functions::build);
    &FUNCTIONS
}

impl Functions {
    /// The scalar function of a name or alias.
    pub fn scalar(&self, name: &str) -> Option<&Arc<ScalarUDF>> {
        self.scalar.get(name)
    }

    /// The aggregate function of a name or alias.
    pub fn aggregate(&self, name: &str) -> Option<&Arc<AggregateUDF>> {
        self.aggregate.get(name)
    }

    /// The window function of a name or alias.
    pub fn window(&self, name: &str) -> Option<&Arc<WindowUDF>> {
        self.window.get(name)
    }

    /// Whether two calls with the same arguments may give different answers, as `random()` does.
    pub fn is_volatile(&self, scalar: &str) -> bool {
        self.scalar(scalar).is_some_and(|f| f.signature().volatility == Volatility::Volatile)
    }

    fn build() -> Self {
        let mut scalar = BTreeMap::new();
        let all = datafusion_functions::all_default_functions()
            .into_iter()
            .chain(datafusion_functions_nested::all_default_nested_functions())
            .chain(ours());
        for f in all {
            for name in std::iter::once(f.name()).chain(f.aliases().iter().map(String::as_str)) {
                scalar.insert(name.to_lowercase(), f.clone());
            }
        }
        let mut higher_order = BTreeMap::new();
        for f in datafusion_functions_nested::all_default_higher_order_functions() {
            for name in std::iter::once(f.name()).chain(f.aliases().iter().map(String::as_str)) {
                higher_order.insert(name.to_lowercase(), f.clone());
            }
        }
        let mut aggregate = BTreeMap::new();
        for f in datafusion_functions_aggregate::all_default_aggregate_functions() {
            for name in std::iter::once(f.name()).chain(f.aliases().iter().map(String::as_str)) {
                aggregate.insert(name.to_lowercase(), f.clone());
            }
        }
        let mut window = BTreeMap::new();
        for f in datafusion_functions_window::all_default_window_functions() {
            for name in std::iter::once(f.name()).chain(f.aliases().iter().map(String::as_str)) {
                window.insert(name.to_lowercase(), f.clone());
            }
        }
        let expr_planners: Vec<Arc<dyn ExprPlanner>> = vec![
            Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
            Arc::new(datafusion_functions_nested::planner::NestedFunctionPlanner),
            Arc::new(datafusion_functions_nested::planner::FieldAccessPlanner),
            Arc::new(datafusion_functions::datetime::planner::DatetimeFunctionPlanner),
            Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
            Arc::new(datafusion_functions_aggregate::planner::AggregateFunctionPlanner),
            Arc::new(datafusion_functions_window::planner::WindowFunctionPlanner),
        ];
        Functions { scalar, higher_order, aggregate, window, expr_planners }
    }
}

static ADDED: OnceLock<Vec<Arc<ScalarUDF>>> = OnceLock::new();

/// Adds scalar functions of the program that embeds the engine. To be called once, before the first query, and in
/// all processes of a cluster. Says whether it was the first time; later ones change nothing.
pub fn add_scalar(functions: Vec<Arc<ScalarUDF>>) -> bool {
    ADDED.set(functions).is_ok()
}

/// The scalar functions that DataFusion does not have.
pub fn ours() -> Vec<Arc<ScalarUDF>> {
    let mut ours = vec![Arc::new(ScalarUDF::new_from_impl(rint::Rint::new()))];
    ours.extend(ADDED.get().into_iter().flatten().cloned());
    ours
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases_are_found() {
        for name in ["substr", "date_part", "make_array", "coalesce", "character_length", "regexp_like"] {
            assert!(functions().scalar(name).is_some(), "{name}");
        }
        for name in ["sum", "count", "avg", "stddev_samp", "first_value", "approx_distinct", "mean"] {
            assert!(functions().aggregate(name).is_some(), "{name}");
        }
        for name in ["rank", "row_number", "lag", "nth_value"] {
            assert!(functions().window(name).is_some(), "{name}");
        }
    }

    #[test]
    fn volatility_is_known() {
        assert!(functions().is_volatile("random"));
        assert!(!functions().is_volatile("substr"));
    }
}
