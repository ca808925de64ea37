//! The segment trie: finds the rule with the lowest number that matches a request.
//!
//! Each template is a chain of nodes from the root, and templates with a common beginning share its nodes. A look-up follows
//! all chains that match a request at the same time. So for any set of rules, the time is bounded by the number of segments of
//! the path times the number of positions that are active at once ([`RouteTrie::width`]).
//!
//! The nodes are stored one after the other in a string of bytes, each with its label. Only nodes at which chains divide or
//! end have more data. So the trie is about as large as the text of the templates.

mod build;
mod width;

use std::borrow::Cow;

use build::Builder;
use smallvec::SmallVec;

use super::template::{PathTemplate, Segment};
use super::{MAX_WIDTH, Method, Route};
use crate::domain::path::{
    EncodedCharacters, PathRules, RequestPath, fold_case, stem, without_extensions,
};

/// A set of methods, with one bit for each.
type Methods = u64;

/// The bit for all methods that no rule names.
const OTHER_METHODS: Methods = 1 << 63;

/// The maximum number of methods that the rules of a realm may name. Each method has a bit.
pub(super) const MAX_METHODS: usize = 32;

const ROOT: u32 = 0;

/// The path templates and methods of a realm's rules, as a trie.
pub struct RouteTrie {
    /// The nodes, each identified by the offset of its first byte.
    ///
    /// A node consists of its kind, with or without [`HAS_BRANCH`]; for literals and verbs of the length of the label in two
    /// bytes and the label, in lower case if the realm is lenient; and with [`HAS_BRANCH`] of the index of the branch in two
    /// bytes. A node without a branch is followed by its only child.
    nodes: Box<[u8]>,
    branches: Box<[Branch]>,
    /// The children of the branches, for each branch in the order of [`Segment`].
    children: Box<[u32]>,
    /// The rules, sorted by their templates and then by their numbers. Rules that end at the same node are adjacent.
    ends: Box<[End]>,
    /// The sets of methods of the rules, without duplicates.
    method_sets: Box<[Methods]>,
    /// The methods that rules name, sorted. The bit of a method is its index.
    methods: Box<[Method]>,
    has_verbs: bool,
    lenient: bool,
    /// Whether the segments of paths may have a `;`.
    has_semicolons: bool,
}

/// The bit in a node's first byte for a node with a branch.
const HAS_BRANCH: u8 = 1 << 7;

/// The data of a node with several children, or at which a rule ends.
#[derive(Clone, Copy, Default)]
struct Branch {
    /// The index of the first child.
    first_child: u32,
    child_count: u16,
    /// The index of the first rule that ends here.
    first_end: u16,
    end_count: u16,
    /// Whether one of the children is a parameter. It is the last child, or the child before a `**`.
    has_parameter: bool,
    /// Whether one of the children is a `**`. It is the last child.
    has_rest: bool,
}

/// A decoded node.
#[derive(Clone, Copy)]
struct Node<'t> {
    /// The kind of the segment that leads to this node.
    kind: Kind,
    label: &'t [u8],
    branch: Option<&'t Branch>,
    /// The only child of a node without a branch.
    next: u32,
}

/// The kinds of [`Segment`], in the same order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Literal,
    Verb,
    Parameter,
    Rest,
}

/// A rule that ends at a node.
struct End {
    /// The index of the rule's set of methods.
    method_set: u16,
    rule: u16,
}

/// The active positions after some segments of a path. Mostly there are one or two.
type Positions = SmallVec<[Position; 4]>;

/// The labels of the nodes to which a segment can lead.
type Labels<'s> = SmallVec<[(Kind, &'s str); 2]>;

/// A node to which the segments so far lead.
#[derive(Clone, Copy)]
struct Position {
    node: u32,
    /// Whether no literal or verb on the chain was matched by a segment with a `;`.
    exact: bool,
}

/// The rule that decides about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The number of the rule.
    pub(super) rule: usize,
    /// Whether its literals and verbs were compared only with segments without a `;`.
    pub(super) exact: bool,
}

impl RouteTrie {
    /// Builds the trie of these rules.
    pub fn new(routes: &[Route], rules: &PathRules) -> Self {
        let mut methods: Vec<_> = routes.iter().flat_map(|route| &route.methods).collect();
        methods.sort();
        methods.dedup();
        let methods: Box<[Method]> = methods.into_iter().take(MAX_METHODS).cloned().collect();

        let templates: Vec<_> = routes
            .iter()
            .map(|route| route.path.normalized(rules))
            .collect();
        let mut sorted: Vec<_> = templates
            .iter()
            .map(|template| template.segments().collect())
            .zip(0..)
            .collect();
        sorted.sort();

        let mut method_sets = Vec::new();
        let ends = sorted.iter().map(|(_, rule): &(Vec<_>, usize)| {
            let methods = set_of(&methods, &routes[*rule].methods);
            let known = method_sets.iter().position(|known| *known == methods);
            End {
                method_set: known.unwrap_or_else(|| {
                    method_sets.push(methods);
                    method_sets.len() - 1
                }) as u16,
                rule: *rule as u16,
            }
        });
        let ends = ends.collect();
        let mut builder = Builder::of(&sorted);
        builder.node(Segment::Literal(""), true);
        builder.branch(0..sorted.len(), 0);
        Self {
            nodes: builder.nodes.into(),
            branches: builder.branches.into(),
            children: builder.children.into(),
            ends,
            method_sets: method_sets.into(),
            methods,
            has_verbs: routes.iter().any(|route| route.path.has_verb()),
            lenient: rules.lenient,
            has_semicolons: rules.encoded_characters == EncodedCharacters::Keep,
        }
    }

    /// Finds the rule with the lowest number that matches.
    pub(super) fn find(&self, method: &str, path: &RequestPath<'_>) -> Option<Found> {
        let method = match bit(&self.methods, method) {
            0 => OTHER_METHODS,
            bit => bit,
        };
        let active = self.active_after(path);
        let found = active.iter().filter_map(|position| {
            let mut ends = self.ends_at(position.node).iter();
            let end = ends.find(|end| self.methods_of(end) & method != 0)?;
            Some(Found {
                rule: usize::from(end.rule),
                exact: position.exact,
            })
        });
        found.min_by_key(|found| found.rule)
    }

    /// Finds out whether rules with lower numbers match every request that this rule matches, and returns the first of them.
    ///
    /// It does not detect every such case, because that is as hard as the inclusion of regular languages. It never returns a
    /// rule if there is no such case.
    pub(super) fn covered_by(
        &self,
        rule: usize,
        route: &Route,
        template: &PathTemplate,
    ) -> Option<usize> {
        let mut active = self.start();
        let mut next = Positions::new();
        for segment in template.segments() {
            self.follow_template(&active, segment, &mut next);
            std::mem::swap(&mut active, &mut next);
            next.clear();
        }
        let wanted = set_of(&self.methods, &route.methods);
        let earlier = || {
            let ends = active.iter().flat_map(|at| self.ends_at(at.node));
            ends.filter(|end| usize::from(end.rule) < rule && self.methods_of(end) & wanted != 0)
        };
        let covered = earlier().fold(0, |covered, end| covered | self.methods_of(end));
        if covered & wanted != wanted {
            return None;
        }
        earlier().map(|end| usize::from(end.rule)).min()
    }

    fn active_after(&self, path: &RequestPath<'_>) -> Positions {
        let mut active = self.start();
        let mut next = Positions::new();
        for segment in path.segments() {
            next.clear();
            self.follow(&active, segment, &mut next);
            std::mem::swap(&mut active, &mut next);
            // Routes that were stored before this limit was checked may exceed it. Then no rule matches.
            if active.len() > MAX_WIDTH {
                return Positions::new();
            }
        }
        active
    }

    /// Returns the memory that the trie uses, in bytes.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        let nodes = self.nodes.len() + size_of_val(&*self.branches) + size_of_val(&*self.children);
        let sets = size_of_val(&*self.method_sets) + size_of_val(&*self.methods);
        nodes + size_of_val(&*self.ends) + sets
    }

    /// Returns the number of active positions after a path.
    #[cfg(test)]
    pub(super) fn active_count(&self, path: &RequestPath<'_>) -> usize {
        self.active_after(path).len()
    }

    fn start(&self) -> Positions {
        let mut active = Positions::new();
        let root = Position {
            node: ROOT,
            exact: true,
        };
        self.enter(root, &mut active);
        active
    }

    /// Adds the positions to which one more segment of a path leads.
    fn follow(&self, active: &[Position], segment: &str, next: &mut Positions) {
        let stem = if self.has_semicolons {
            stem(segment)
        } else {
            segment
        };
        let is_whole = stem.len() == segment.len();
        let literal = self.fold(stem);
        let whole;
        let mut labels = Labels::new();
        self.add_labels(Kind::Literal, &literal, &mut labels);
        if self.has_verbs {
            self.add_verb(&literal, &mut labels);
            if !is_whole {
                // A server that does not cut the segment at `;` reads another verb.
                whole = self.fold(segment);
                self.add_verb(&whole, &mut labels);
            }
        }
        for position in active {
            let node = self.node(position.node);
            if node.kind == Kind::Rest {
                self.enter(*position, next);
            }
            let exact = position.exact && is_whole;
            for (kind, label) in &labels {
                if let Some(node) = self.labelled(&node, *kind, label) {
                    self.enter(Position { node, exact }, next);
                }
            }
            if !segment.is_empty()
                && let Some(child) = self.parameter(&node)
            {
                let exact = position.exact;
                self.enter(Position { node: child, exact }, next);
            }
        }
    }

    /// Adds the positions to which one more segment of a template leads: all paths with such a segment reach them.
    fn follow_template(&self, active: &[Position], segment: Segment<'_>, next: &mut Positions) {
        let mut labels = Labels::new();
        match segment {
            Segment::Literal(text) => {
                self.add_labels(Kind::Literal, text, &mut labels);
                // In a lenient realm the literal matches with any extension, also with one that contains a colon.
                if !self.lenient {
                    self.add_verb(text, &mut labels);
                }
            }
            Segment::Verb(verb) => self.add_labels(Kind::Verb, verb, &mut labels),
            Segment::Parameter | Segment::Rest => {}
        }
        let is_one = !matches!(segment, Segment::Literal("") | Segment::Rest);
        for position in active {
            let node = self.node(position.node);
            if node.kind == Kind::Rest {
                self.enter(*position, next);
            }
            let labels = labels.iter();
            let labelled = labels.filter_map(|(kind, label)| self.labelled(&node, *kind, label));
            let parameter = is_one.then(|| self.parameter(&node));
            for node in labelled.chain(parameter.flatten()) {
                self.enter(Position { node, ..*position }, next);
            }
        }
    }

    /// Adds a position, and the position of a `**` child, which needs no segment.
    fn enter(&self, position: Position, active: &mut Positions) {
        let node = self.node(position.node);
        // Each node has one parent, so only a `**`, which remains active, can be in the list already. A verb
        // at the end of both readings of a segment with a `;` may be in the list twice.
        let known = match node.kind {
            Kind::Rest => active.iter_mut().find(|known| known.node == position.node),
            _ => None,
        };
        match known {
            Some(known) => known.exact |= position.exact,
            None => active.push(position),
        }
        if let Some(node) = self.rest(&node) {
            self.enter(Position { node, ..position }, active);
        }
    }

    fn fold<'s>(&self, segment: &'s str) -> Cow<'s, str> {
        if self.lenient {
            fold_case(segment)
        } else {
            Cow::Borrowed(segment)
        }
    }

    /// Adds the labels for a folded text: the text itself, and in a lenient realm the text without its extensions.
    fn add_labels<'s>(&self, kind: Kind, text: &'s str, labels: &mut Labels<'s>) {
        labels.push((kind, text));
        if self.lenient {
            labels.extend(without_extensions(text).map(|bare| (kind, bare)));
        }
    }

    fn add_verb<'s>(&self, segment: &'s str, labels: &mut Labels<'s>) {
        if let Some(verb) = verb_of(segment) {
            self.add_labels(Kind::Verb, verb, labels);
        }
    }

    /// Decodes the node at this offset.
    fn node(&self, at: u32) -> Node<'_> {
        let bytes = &self.nodes[at as usize..];
        let number = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        let kind = match bytes[0] & !HAS_BRANCH {
            0 => Kind::Literal,
            1 => Kind::Verb,
            2 => Kind::Parameter,
            _ => Kind::Rest,
        };
        let (label, end) = match kind {
            Kind::Literal | Kind::Verb => {
                let end = 3 + number(1);
                (&bytes[3..end], end)
            }
            Kind::Parameter | Kind::Rest => (&[][..], 1),
        };
        let has_branch = bytes[0] & HAS_BRANCH != 0;
        Node {
            kind,
            label,
            branch: has_branch.then(|| &self.branches[number(end)]),
            next: at + end as u32,
        }
    }

    fn children<'n>(&'n self, node: &'n Node<'_>) -> &'n [u32] {
        match node.branch {
            Some(branch) => {
                let start = branch.first_child as usize;
                &self.children[start..start + usize::from(branch.child_count)]
            }
            None => std::slice::from_ref(&node.next),
        }
    }

    fn ends_at(&self, node: u32) -> &[End] {
        self.node(node).branch.map_or(&[], |branch| {
            let start = usize::from(branch.first_end);
            &self.ends[start..start + usize::from(branch.end_count)]
        })
    }

    fn methods_of(&self, end: &End) -> Methods {
        self.method_sets[usize::from(end.method_set)]
    }

    fn labelled(&self, node: &Node<'_>, kind: Kind, label: &str) -> Option<u32> {
        let children = self.children(node);
        let wanted = (kind, label.as_bytes());
        let found = children.binary_search_by(|child| {
            let child = self.node(*child);
            (child.kind, child.label).cmp(&wanted)
        });
        found.ok().map(|index| children[index])
    }

    /// Returns the child for a parameter.
    fn parameter(&self, node: &Node<'_>) -> Option<u32> {
        let Some(branch) = node.branch else {
            return self.next_if(node, Kind::Parameter);
        };
        let after = usize::from(branch.has_rest);
        let mut last = self.children(node).iter().rev().skip(after);
        last.next().copied().filter(|_| branch.has_parameter)
    }

    /// Returns the child for a `**`.
    fn rest(&self, node: &Node<'_>) -> Option<u32> {
        let Some(branch) = node.branch else {
            return self.next_if(node, Kind::Rest);
        };
        let last = self.children(node).last();
        last.copied().filter(|_| branch.has_rest)
    }

    fn next_if(&self, node: &Node<'_>, kind: Kind) -> Option<u32> {
        (self.node(node.next).kind == kind).then_some(node.next)
    }
}

/// Returns the verb of a segment such as `jobs-7:cancel`.
fn verb_of(segment: &str) -> Option<&str> {
    let (name, verb) = segment.rsplit_once(':')?;
    (!name.is_empty()).then_some(verb)
}

/// Returns the bit of a method; 0 if no rule names the method.
fn bit(methods: &[Method], method: &str) -> Methods {
    let found = methods.binary_search_by(|own| own.as_str().cmp(method));
    found.map_or(0, |index| 1 << index)
}

/// Returns the set of methods of a rule.
fn set_of(methods: &[Method], of_rule: &[Method]) -> Methods {
    if of_rule.is_empty() {
        return Methods::MAX;
    }
    let bits = of_rule.iter().map(|method| bit(methods, method.as_str()));
    bits.fold(0, |all, bit| all | bit)
}
