//! WITH inside of WITH: an inner name may hide an outer one.
//!
//! `datafusion-sql` refuses a name that is in use outside. So an inner WITH query whose name hides another
//! gets a name of its own, and what refers to it follows.

use std::ops::ControlFlow;

use sqlparser::ast::{Ident, ObjectName, Query, TableAlias, TableFactor, VisitMut, VisitorMut};

/// Renames the WITH queries that hide others.
pub(super) fn rename_hiding(statement: &mut impl VisitMut) {
    let _: ControlFlow<()> = statement.visit(&mut Renamer::default());
}

#[derive(Default)]
struct Renamer {
    /// The queries that the walk is inside of, innermost last.
    scopes: Vec<Scope>,
    renamed: usize,
}

/// One query's WITH clause.
struct Scope {
    /// Names as written, in lower case, and as they are now.
    names: Vec<(String, Option<String>)>,
    recursive: bool,
    /// The walk meets the WITH queries first, in order: so many are behind it.
    visited: usize,
}

impl Scope {
    /// The names that can be referred to from where the walk is.
    fn visible(&self) -> &[(String, Option<String>)] {
        let own = self.recursive && self.visited < self.names.len();
        &self.names[..self.visited + usize::from(own)]
    }
}

impl Renamer {
    fn find(&self, name: &str) -> Option<&(String, Option<String>)> {
        self.scopes.iter().rev().find_map(|s| s.visible().iter().rev().find(|(n, _)| n == name))
    }
}

fn normal(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

impl VisitorMut for Renamer {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let mut scope = Scope { names: vec![], recursive: false, visited: 0 };
        if let Some(with) = &mut query.with {
            scope.recursive = with.recursive;
            for cte in &mut with.cte_tables {
                let name = normal(&cte.alias.name);
                let mut new = None;
                if self.find(&name).is_some() {
                    self.renamed += 1;
                    let inner = format!("{name}__{}", self.renamed);
                    cte.alias.name = Ident::with_quote('"', &inner);
                    new = Some(inner);
                }
                scope.names.push((name, new));
            }
        }
        self.scopes.push(scope);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.scopes.pop();
        if let Some(outer) = self.scopes.last_mut()
            && outer.visited < outer.names.len()
        {
            outer.visited += 1;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, alias, args: None, .. } = factor
            && let [part] = name.0.as_slice()
            && let Some(ident) = part.as_ident().cloned()
            && let Some((_, Some(new))) = self.find(&normal(&ident))
        {
            *name = ObjectName::from(vec![Ident::with_quote('"', new)]);
            if alias.is_none() {
                *alias = Some(TableAlias { explicit: true, name: ident, columns: vec![], at: None });
            }
        }
        ControlFlow::Continue(())
    }
}
