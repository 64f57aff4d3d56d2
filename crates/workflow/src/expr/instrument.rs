//! Rewrites a parsed expression so that it counts its own steps, and refuses what could not be bounded.
//!
//! An expression without recursion ends, but may take exponential time in its length: `(.,.) | (.,.) | …`. So wherever
//! one part runs once for every output of another, a call of [`TICK`] stands before it. Parts that give one output at
//! constant cost are left alone: the number of times they run is bounded by what is counted around them.
//! Recursion is refused in expressions (the stack would end the process) and counted in jaq's own definitions.

use std::collections::BTreeSet;

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Def, Pattern, Term};
use jaq_core::path::{Opt, Part, Path};

use super::natives::TICK;

/// Nested levels of an expression, those of its own functions included.
const NESTING_MAX: usize = 200;

type Name<'s> = (&'s str, usize);

/// Who wrote the term.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// jaq: recursion is known and counted.
    Library,
    /// The author of a workflow.
    Author,
}

/// A function that is in scope.
struct Local<'s> {
    name: Name<'s>,
    /// Whether its body is being read: calling it now would be recursion.
    open: bool,
    height: usize,
}

/// What a term uses, gathered while it is rewritten.
pub(super) struct Instrument<'s> {
    origin: Origin,
    locals: Vec<Local<'s>>,
    /// Functions called that the term itself does not define.
    pub(super) called: BTreeSet<Name<'s>>,
    /// Variables read, `$` included; those the term itself binds may be among them.
    pub(super) variables: BTreeSet<&'s str>,
    /// Whether a definition in it calls itself.
    pub(super) recursive: bool,
}

/// A rewritten term and its height.
type Rewritten<'s> = Result<(Term<&'s str>, usize), String>;

fn counted(term: Term<&str>) -> Term<&str> {
    Term::BinOp(Box::new(Term::Call(TICK, Vec::new())), BinaryOp::Pipe(None), Box::new(term))
}

/// Whether a term gives one output at constant cost.
fn is_simple(term: &Term<&str>) -> bool {
    match term {
        Term::Id | Term::Num(_) | Term::Var(_) => true,
        Term::Str(None, parts) => parts.iter().all(|part| !matches!(part, StrPart::Term(_))),
        Term::Path(head, path) => {
            let simple = |(part, opt): &(Part<Term<&str>>, Opt)| matches!((part, opt), (Part::Index(index), Opt::Essential) if is_simple(index));
            matches!(**head, Term::Id | Term::Var(_)) && path.0.iter().all(simple)
        }
        _ => false,
    }
}

fn is_simple_part(part: &Part<Term<&str>>) -> bool {
    match part {
        Part::Index(index) => is_simple(index),
        Part::Range(from, to) => [from, to].into_iter().flatten().all(is_simple),
    }
}

impl<'s> Instrument<'s> {
    pub(super) fn new(origin: Origin) -> Self {
        Self { origin, locals: Vec::new(), called: BTreeSet::new(), variables: BTreeSet::new(), recursive: false }
    }

    /// Rewrites a whole term; gives its height too.
    pub(super) fn term(&mut self, term: Term<&'s str>) -> Rewritten<'s> {
        self.walk(term, 0)
    }

    /// Rewrites a definition at the top of a library.
    pub(super) fn definition(&mut self, definition: Def<&'s str>) -> Result<Def<&'s str>, String> {
        self.define(definition, 0).map(|(definition, _)| definition)
    }

    fn boxed(&mut self, term: Term<&'s str>, depth: usize) -> Result<(Box<Term<&'s str>>, usize), String> {
        self.walk(term, depth).map(|(term, height)| (Box::new(term), height))
    }

    /// As [`Self::walk`], for a part that runs once for every output of another.
    fn repeated(&mut self, term: Term<&'s str>, depth: usize) -> Rewritten<'s> {
        let simple = is_simple(&term);
        let (term, height) = self.walk(term, depth)?;
        Ok((if simple { term } else { counted(term) }, height))
    }

    fn walk(&mut self, term: Term<&'s str>, depth: usize) -> Rewritten<'s> {
        let depth = depth + 1;
        if depth > NESTING_MAX {
            return Err(too_deep());
        }
        let (term, height) = match term {
            Term::Id | Term::Recurse | Term::Num(_) | Term::Break(_) | Term::Arr(None) => (term, 0),
            Term::Var(name) => {
                self.variables.insert(name);
                (term, 0)
            }
            Term::Str(format, parts) => self.text(format, parts, depth)?,
            Term::Arr(Some(items)) => {
                let (items, height) = self.boxed(*items, depth)?;
                (Term::Arr(Some(items)), height)
            }
            Term::Obj(members) => self.object(members, depth)?,
            Term::Neg(inner) => {
                let (inner, height) = self.boxed(*inner, depth)?;
                (Term::Neg(inner), height)
            }
            Term::BinOp(left, operator, right) => self.operation(*left, operator, *right, depth)?,
            Term::Label(name, inner) => {
                let (inner, height) = self.boxed(*inner, depth)?;
                (Term::Label(name, inner), height)
            }
            Term::Fold(name, source, pattern, arguments) => self.fold(name, *source, pattern, arguments, depth)?,
            Term::TryCatch(inner, handler) => {
                let (inner, height) = self.boxed(*inner, depth)?;
                let handler = handler.map(|handler| self.boxed(*handler, depth)).transpose()?;
                let highest = height.max(handler.as_ref().map_or(0, |(_, height)| *height));
                (Term::TryCatch(inner, handler.map(|(handler, _)| handler)), highest)
            }
            Term::IfThenElse(branches, otherwise) => self.condition(branches, otherwise, depth)?,
            Term::Def(definitions, inner) => self.definitions(definitions, *inner, depth)?,
            Term::Call(name, arguments) => self.call(name, arguments, depth)?,
            Term::Path(head, path) => self.path(*head, path, depth)?,
        };
        // Functions called count with the height of their bodies: it is the stack that is bounded here.
        if depth + height > NESTING_MAX {
            return Err(too_deep());
        }
        Ok((term, height + 1))
    }

    fn text(
        &mut self,
        format: Option<&'s str>,
        parts: Vec<StrPart<&'s str, Term<&'s str>>>,
        depth: usize,
    ) -> Rewritten<'s> {
        if let Some(format) = format {
            self.called.insert((format, 0));
        }
        let mut highest = 0;
        let mut rewritten = Vec::with_capacity(parts.len());
        for part in parts {
            rewritten.push(match part {
                StrPart::Term(term) => {
                    let (term, height) = self.repeated(term, depth)?;
                    highest = highest.max(height);
                    StrPart::Term(term)
                }
                plain => plain,
            });
        }
        // The parts are joined by additions, nested to the right.
        Ok((Term::Str(format, rewritten), highest + 1))
    }

    fn object(&mut self, members: Vec<(Term<&'s str>, Option<Term<&'s str>>)>, depth: usize) -> Rewritten<'s> {
        let mut highest = 0;
        let mut rewritten = Vec::with_capacity(members.len());
        for (key, value) in members {
            let (key, key_height) = self.walk(key, depth)?;
            let value = value.map(|value| self.repeated(value, depth)).transpose()?;
            highest = highest.max(key_height).max(value.as_ref().map_or(0, |(_, height)| *height));
            rewritten.push((key, value.map(|(value, _)| value)));
        }
        // The members are joined by additions, nested to the right.
        let members = rewritten.len();
        Ok((Term::Obj(rewritten), highest + members))
    }

    fn operation(
        &mut self,
        left: Term<&'s str>,
        operator: BinaryOp<&'s str>,
        right: Term<&'s str>,
        depth: usize,
    ) -> Rewritten<'s> {
        let (left, left_height) = match operator {
            // The left side of `//` is searched for an output that counts as true.
            BinaryOp::Alt if !is_simple(&left) => {
                let (left, height) = self.walk(left, depth)?;
                let ticks = Box::new(Term::Call(TICK, Vec::new()));
                (Term::BinOp(Box::new(left), BinaryOp::Pipe(None), ticks), height)
            }
            _ => self.walk(left, depth)?,
        };
        let operator = match operator {
            BinaryOp::Pipe(Some(pattern)) => BinaryOp::Pipe(Some(self.pattern(pattern, depth)?)),
            operator => operator,
        };
        let (right, right_height) = match operator {
            BinaryOp::Comma => self.walk(right, depth)?,
            _ => self.repeated(right, depth)?,
        };
        Ok((Term::BinOp(Box::new(left), operator, Box::new(right)), left_height.max(right_height)))
    }

    fn pattern(&mut self, pattern: Pattern<&'s str>, depth: usize) -> Result<Pattern<&'s str>, String> {
        if depth > NESTING_MAX {
            return Err(too_deep());
        }
        Ok(match pattern {
            Pattern::Var(name) => Pattern::Var(name),
            Pattern::Arr(items) => {
                let items = items.into_iter().map(|item| self.pattern(item, depth + 1));
                Pattern::Arr(items.collect::<Result<_, _>>()?)
            }
            Pattern::Obj(members) => {
                let mut rewritten = Vec::with_capacity(members.len());
                for (key, inner) in members {
                    let (key, _) = self.repeated(key, depth)?;
                    rewritten.push((key, self.pattern(inner, depth + 1)?));
                }
                Pattern::Obj(rewritten)
            }
        })
    }

    fn fold(
        &mut self,
        name: &'s str,
        source: Term<&'s str>,
        pattern: Pattern<&'s str>,
        arguments: Vec<Term<&'s str>>,
        depth: usize,
    ) -> Rewritten<'s> {
        let (source, mut highest) = self.boxed(source, depth)?;
        let pattern = self.pattern(pattern, depth)?;
        let mut rewritten = Vec::with_capacity(arguments.len());
        for (index, argument) in arguments.into_iter().enumerate() {
            let (argument, height) = self.walk(argument, depth)?;
            highest = highest.max(height);
            // All but the initial value run for every item, and a path may grow with every item.
            rewritten.push(if index == 0 { argument } else { counted(argument) });
        }
        Ok((Term::Fold(name, source, pattern, rewritten), highest))
    }

    fn condition(
        &mut self,
        branches: Vec<(Term<&'s str>, Term<&'s str>)>,
        otherwise: Option<Box<Term<&'s str>>>,
        depth: usize,
    ) -> Rewritten<'s> {
        let mut highest = 0;
        let mut rewritten = Vec::with_capacity(branches.len());
        for (index, (condition, branch)) in branches.into_iter().enumerate() {
            // Each `elif` is nested in the one before.
            let depth = depth + index;
            let (condition, condition_height) = self.repeated(condition, depth)?;
            let (branch, branch_height) = self.repeated(branch, depth)?;
            highest = highest.max(condition_height).max(branch_height);
            rewritten.push((condition, branch));
        }
        let depth = depth + rewritten.len();
        let otherwise = otherwise.map(|otherwise| self.repeated(*otherwise, depth)).transpose()?;
        let highest = highest.max(otherwise.as_ref().map_or(0, |(_, height)| *height));
        let otherwise = otherwise.map(|(otherwise, _)| Box::new(otherwise));
        Ok((Term::IfThenElse(rewritten, otherwise), highest))
    }

    fn definitions(&mut self, definitions: Vec<Def<&'s str>>, inner: Term<&'s str>, depth: usize) -> Rewritten<'s> {
        let outer = self.locals.len();
        let mut rewritten = Vec::with_capacity(definitions.len());
        for definition in definitions {
            let (definition, _) = self.define(definition, depth)?;
            rewritten.push(definition);
        }
        let (inner, height) = self.boxed(inner, depth)?;
        self.locals.truncate(outer);
        Ok((Term::Def(rewritten, inner), height))
    }

    /// Rewrites a definition and leaves its function in scope.
    fn define(&mut self, definition: Def<&'s str>, depth: usize) -> Result<(Def<&'s str>, usize), String> {
        let Def { name, args, body } = definition;
        let is_author = self.origin == Origin::Author;
        if let Some(parameter) = args.iter().find(|parameter| is_author && !parameter.starts_with('$')) {
            let hint = format!("`${parameter}` instead of `{parameter}`");
            return Err(format!("the parameters of the function `{name}` must be values: {hint}"));
        }
        let signature = (name, args.len());
        self.locals.push(Local { name: signature, open: true, height: 0 });
        let outer = std::mem::take(&mut self.called);
        let scope = self.locals.len();
        let (body, height) = self.walk(body, depth)?;
        self.locals.truncate(scope);
        let recursive = self.called.contains(&signature);
        self.called.extend(outer);
        if let Some(local) = self.locals.last_mut() {
            local.open = false;
            local.height = height;
        }
        self.recursive |= recursive;
        let body = if recursive { counted(body) } else { body };
        Ok((Def { name, args, body }, height))
    }

    fn call(&mut self, name: &'s str, arguments: Vec<Term<&'s str>>, depth: usize) -> Rewritten<'s> {
        let signature = (name, arguments.len());
        let mut highest = 0;
        match self.locals.iter().rev().find(|local| local.name == signature) {
            Some(local) if local.open && self.origin == Origin::Author => {
                return Err(format!("the function `{name}` calls itself; recursion is not allowed here"));
            }
            Some(local) if !local.open => highest = local.height,
            _ => {
                self.called.insert(signature);
            }
        }
        let mut rewritten = Vec::with_capacity(arguments.len());
        for (index, argument) in arguments.into_iter().enumerate() {
            // The values of later parameters are found once for every value of the earlier ones.
            let (argument, height) =
                if index == 0 { self.walk(argument, depth)? } else { self.repeated(argument, depth)? };
            highest = highest.max(height);
            rewritten.push(argument);
        }
        Ok((Term::Call(name, rewritten), highest))
    }

    /// Paths with computed indices are taken apart, so that every index counts for each value it is applied to.
    fn path(&mut self, head: Term<&'s str>, path: Path<Term<&'s str>>, depth: usize) -> Rewritten<'s> {
        let (mut head, mut highest) = self.walk(head, depth)?;
        let mut plain = Vec::new();
        for (part, opt) in path.0 {
            if is_simple_part(&part) {
                plain.push((self.part(part, depth, &mut highest)?, opt));
                continue;
            }
            if !plain.is_empty() {
                head = Term::Path(Box::new(head), Path(std::mem::take(&mut plain)));
            }
            let part = self.part(part, depth, &mut highest)?;
            let ticks = Box::new(Term::Call(TICK, Vec::new()));
            let counted_head = Box::new(Term::BinOp(Box::new(head), BinaryOp::Pipe(None), ticks));
            head = Term::Path(counted_head, Path(vec![(part, opt)]));
            highest += 1;
        }
        if !plain.is_empty() {
            head = Term::Path(Box::new(head), Path(plain));
        }
        Ok((head, highest))
    }

    fn part(
        &mut self,
        part: Part<Term<&'s str>>,
        depth: usize,
        highest: &mut usize,
    ) -> Result<Part<Term<&'s str>>, String> {
        let mut bound = |term: Term<&'s str>| {
            let (term, height) = self.repeated(term, depth)?;
            *highest = (*highest).max(height);
            Ok::<_, String>(term)
        };
        Ok(match part {
            Part::Index(index) => Part::Index(bound(index)?),
            Part::Range(from, to) => Part::Range(from.map(&mut bound).transpose()?, to.map(&mut bound).transpose()?),
        })
    }
}

pub(super) fn too_deep() -> String {
    format!("the expression is nested deeper than {NESTING_MAX} levels")
}
