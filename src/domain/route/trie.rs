//! The segment trie: finds the rule with the lowest number that matches a request.
//!
//! Each template is a way from the root, and templates that begin alike share the beginning. A request is followed along every
//! way that matches at once, so that the time is bounded by its segments times the positions that can be alive together
//! ([`RouteTrie::width`]), whatever the rules are.
//!
//! The trie is flat: the children of a node stand side by side, sorted as [`Segment`] sorts, and all labels stand in one string.
//! So a segment costs some twenty bytes, and the whole stays within a small multiple of the rules' text.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use super::template::{PathTemplate, Segment};
use super::{Method, Route};
use crate::domain::path::{PathRules, RequestPath, stem, without_extension};

/// A set of methods, one bit each.
type Methods = u64;

/// All methods that no rule names.
const OTHER_METHODS: Methods = 1 << 63;

/// The most methods that the rules of a realm may name. Each has a bit.
pub(super) const MAX_METHODS: usize = 32;

const ROOT: u32 = 0;

/// The path templates and methods of a realm's rules, as a trie.
pub struct RouteTrie {
    nodes: Box<[Node]>,
    /// The texts of literals and verbs, each once; in lower case if the realm is lenient.
    labels: Box<str>,
    /// The rules, sorted by their templates and then by their numbers: those that end at one node stand side by side.
    ends: Box<[End]>,
    /// The methods that rules name, sorted. Each has the bit of its index.
    methods: Box<[Method]>,
    lenient: bool,
}

struct Node {
    /// What leads here.
    kind: Kind,
    label: u32,
    label_length: u16,
    children: u32,
    child_count: u16,
    ends: u16,
    end_count: u16,
}

/// The kinds of [`Segment`], in its order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Literal,
    Verb,
    Parameter,
    Rest,
}

/// A rule that ends at a node.
struct End {
    methods: Methods,
    rule: u32,
}

/// A node that the segments so far lead to.
#[derive(Clone, Copy)]
struct Position {
    node: u32,
    /// Whether no literal on the way was matched by a segment with a `;`.
    exact: bool,
}

/// The rule that counts for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its number.
    pub(super) rule: usize,
    /// Whether its literals are the path's own segments. If not, one was compared with what stands before a `;`.
    pub(super) exact: bool,
}

impl RouteTrie {
    /// The trie of these rules.
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

        let ends = sorted.iter().map(|(_, rule): &(Vec<_>, usize)| End {
            methods: set_of(&methods, &routes[*rule].methods),
            rule: *rule as u32,
        });
        let ends = ends.collect();
        let (nodes, labels) = build(&sorted);
        Self {
            nodes: nodes.into(),
            labels: labels.into(),
            ends,
            methods,
            lenient: rules.lenient,
        }
    }

    /// The rule with the lowest number that matches.
    pub(super) fn find(&self, method: &str, path: &RequestPath<'_>) -> Option<Found> {
        let method = match bit(&self.methods, method) {
            0 => OTHER_METHODS,
            bit => bit,
        };
        let alive = self.alive_after(path);
        let found = alive.iter().filter_map(|position| {
            let mut ends = self.ends_at(position.node).iter();
            let end = ends.find(|end| end.methods & method != 0)?;
            Some(Found {
                rule: end.rule as usize,
                exact: position.exact,
            })
        });
        found.min_by_key(|found| found.rule)
    }

    /// The first of the rules that leave nothing to this one, if they do: each request that it matches is matched by a rule with
    /// a lower number. Does not see every such case (that is as hard as the inclusion of regular languages), but names none
    /// falsely.
    pub(super) fn covered_by(
        &self,
        rule: usize,
        route: &Route,
        template: &PathTemplate,
    ) -> Option<usize> {
        let mut alive = self.start();
        let mut next = Vec::new();
        for segment in template.segments() {
            self.follow_template(&alive, segment, &mut next);
            std::mem::swap(&mut alive, &mut next);
            next.clear();
        }
        let wanted = set_of(&self.methods, &route.methods);
        let earlier = || {
            let ends = alive.iter().flat_map(|at| self.ends_at(at.node));
            ends.filter(|end| (end.rule as usize) < rule && end.methods & wanted != 0)
        };
        let covered = earlier().fold(0, |covered, end| covered | end.methods);
        if covered & wanted != wanted {
            return None;
        }
        earlier().map(|end| end.rule as usize).min()
    }

    fn alive_after(&self, path: &RequestPath<'_>) -> Vec<Position> {
        let mut alive = self.start();
        let mut next = Vec::with_capacity(alive.capacity());
        for segment in path.segments() {
            self.follow(&alive, segment, &mut next);
            std::mem::swap(&mut alive, &mut next);
            next.clear();
        }
        alive
    }

    /// How many positions are alive after a path.
    #[cfg(test)]
    pub(super) fn alive(&self, path: &RequestPath<'_>) -> usize {
        self.alive_after(path).len()
    }

    fn start(&self) -> Vec<Position> {
        let mut alive = Vec::with_capacity(8);
        let root = Position {
            node: ROOT,
            exact: true,
        };
        self.enter(root, &mut alive);
        alive
    }

    /// Where one more segment leads.
    fn follow(&self, alive: &[Position], segment: &str, next: &mut Vec<Position>) {
        let literal = self.fold(stem(segment));
        let verb = verb_of(&literal);
        let bare = |text| self.lenient.then(|| without_extension(text)).flatten();
        let labels = [
            (Kind::Literal, Some(&*literal)),
            (Kind::Literal, bare(&literal)),
            (Kind::Verb, verb),
            (Kind::Verb, verb.and_then(bare)),
        ];
        let is_whole = literal.len() == segment.len();
        for position in alive {
            let node = &self.nodes[position.node as usize];
            if node.kind == Kind::Rest {
                self.enter(*position, next);
            }
            for (kind, label) in labels {
                if let Some(child) = label.and_then(|label| self.labelled(node, kind, label)) {
                    let exact = position.exact && is_whole;
                    self.enter(Position { node: child, exact }, next);
                }
            }
            if !segment.is_empty()
                && let Some(child) = self.unlabelled(node, Kind::Parameter)
            {
                let exact = position.exact;
                self.enter(Position { node: child, exact }, next);
            }
        }
    }

    /// Where all paths lead that have one more segment of this kind.
    fn follow_template(&self, alive: &[Position], segment: Segment<'_>, next: &mut Vec<Position>) {
        for position in alive {
            let node = &self.nodes[position.node as usize];
            if node.kind == Kind::Rest {
                self.enter(*position, next);
            }
            let parameter = || self.unlabelled(node, Kind::Parameter);
            let children = match segment {
                Segment::Literal("") => [self.labelled(node, Kind::Literal, ""), None, None],
                Segment::Literal(text) => {
                    let verb = verb_of(text);
                    [
                        self.labelled(node, Kind::Literal, text),
                        verb.and_then(|verb| self.labelled(node, Kind::Verb, verb)),
                        parameter(),
                    ]
                }
                Segment::Verb(verb) => [self.labelled(node, Kind::Verb, verb), None, parameter()],
                Segment::Parameter => [None, None, parameter()],
                Segment::Rest => [None; 3],
            };
            for node in children.into_iter().flatten() {
                self.enter(Position { node, ..*position }, next);
            }
        }
    }

    /// Adds a position, and that of the `**` that may follow it with no segment.
    fn enter(&self, position: Position, alive: &mut Vec<Position>) {
        let node = &self.nodes[position.node as usize];
        // Each node has one parent, so only what stays alive by itself can be there already.
        let known = match node.kind {
            Kind::Rest => alive.iter_mut().find(|known| known.node == position.node),
            _ => None,
        };
        match known {
            Some(known) => known.exact |= position.exact,
            None => alive.push(position),
        }
        if let Some(node) = self.unlabelled(node, Kind::Rest) {
            self.enter(Position { node, ..position }, alive);
        }
    }

    fn fold<'s>(&self, segment: &'s str) -> Cow<'s, str> {
        if self.lenient && segment.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(segment.to_ascii_lowercase())
        } else {
            Cow::Borrowed(segment)
        }
    }

    fn label(&self, node: &Node) -> &str {
        let start = node.label as usize;
        &self.labels[start..start + usize::from(node.label_length)]
    }

    fn children(&self, node: &Node) -> &[Node] {
        let start = node.children as usize;
        &self.nodes[start..start + usize::from(node.child_count)]
    }

    fn ends_at(&self, node: u32) -> &[End] {
        let node = &self.nodes[node as usize];
        let start = usize::from(node.ends);
        &self.ends[start..start + usize::from(node.end_count)]
    }

    fn labelled(&self, node: &Node, kind: Kind, label: &str) -> Option<u32> {
        let children = self.children(node);
        let wanted = (kind, label);
        let found = children.binary_search_by(|child| (child.kind, self.label(child)).cmp(&wanted));
        found.ok().map(|index| node.children + index as u32)
    }

    /// The child of one of the two kinds that a node can have but once. They come last.
    fn unlabelled(&self, node: &Node, kind: Kind) -> Option<u32> {
        let children = self.children(node).iter().enumerate();
        let mut last = children.rev().take(2);
        last.find(|(_, child)| child.kind == kind)
            .map(|(index, _)| node.children + index as u32)
    }
}

/// The verb of a segment such as `jobs-7:cancel`.
fn verb_of(segment: &str) -> Option<&str> {
    let (name, verb) = segment.rsplit_once(':')?;
    (!name.is_empty()).then_some(verb)
}

/// The bit of a method; none if no rule names it.
fn bit(methods: &[Method], method: &str) -> Methods {
    let found = methods.binary_search_by(|own| own.as_str().cmp(method));
    found.map_or(0, |index| 1 << index)
}

/// The methods that a rule is for.
fn set_of(methods: &[Method], of_rule: &[Method]) -> Methods {
    if of_rule.is_empty() {
        return Methods::MAX;
    }
    let bits = of_rule.iter().map(|method| bit(methods, method.as_str()));
    bits.fold(0, |all, bit| all | bit)
}

/// The nodes, level by level, and their labels. The templates are sorted, so the rules below a node stand side by side.
fn build(sorted: &[(Vec<Segment<'_>>, usize)]) -> (Vec<Node>, String) {
    let mut labels = Labels::default();
    let mut nodes = vec![labels.node(Segment::Literal(""))];
    let mut queue = VecDeque::from([(0, 0..sorted.len(), 0)]);
    while let Some((node, mut rules, depth)) = queue.pop_front() {
        let ends = rules.clone();
        let ends = ends.take_while(|rule| sorted[*rule].0.len() == depth);
        let end_count = ends.count();
        nodes[node] = Node {
            children: nodes.len() as u32,
            ends: rules.start as u16,
            end_count: end_count as u16,
            ..nodes[node]
        };
        rules.start += end_count;
        while !rules.is_empty() {
            let segment = sorted[rules.start].0[depth];
            let same = rules.clone();
            let same = same.take_while(|rule| sorted[*rule].0[depth] == segment);
            let end = rules.start + same.count();
            queue.push_back((nodes.len(), rules.start..end, depth + 1));
            nodes.push(labels.node(segment));
            nodes[node].child_count += 1;
            rules.start = end;
        }
    }
    (nodes, labels.text)
}

#[derive(Default)]
struct Labels<'t> {
    text: String,
    known: HashMap<&'t str, u32>,
}

impl<'t> Labels<'t> {
    fn node(&mut self, segment: Segment<'t>) -> Node {
        let (kind, label) = match segment {
            Segment::Literal(text) => (Kind::Literal, text),
            Segment::Verb(verb) => (Kind::Verb, verb),
            Segment::Parameter => (Kind::Parameter, ""),
            Segment::Rest => (Kind::Rest, ""),
        };
        let start = *self.known.entry(label).or_insert_with(|| {
            let start = self.text.len() as u32;
            self.text.push_str(label);
            start
        });
        Node {
            kind,
            label: start,
            label_length: label.len() as u16,
            children: 0,
            child_count: 0,
            ends: 0,
            end_count: 0,
        }
    }
}

/// How many positions below a node can be alive at once, from above.
#[derive(Default)]
struct Width {
    /// By the number of segments since the node was entered, if it was entered once.
    at: Vec<usize>,
    /// Those that stay alive, of the children that one path can enter.
    lasting: usize,
    /// Those that stay alive, of all children: a node below `**` is entered again and again.
    all_lasting: usize,
}

impl Width {
    fn add(&mut self, other: &Self) {
        self.combine(other, usize::saturating_add);
    }

    fn raise_to(&mut self, other: &Self) {
        self.combine(other, usize::max);
    }

    /// Combines what one path can enter.
    fn combine(&mut self, other: &Self, with: impl Fn(usize, usize) -> usize) {
        let length = self.at.len().max(other.at.len());
        self.at.resize(length, 0);
        for (own, other) in self.at.iter_mut().zip(&other.at) {
            *own = with(*own, *other);
        }
        self.lasting = with(self.lasting, other.lasting);
    }
}

impl RouteTrie {
    /// How many positions can be alive at once, whatever the path: never fewer than there can be.
    pub(super) fn width(&self) -> usize {
        let width = self.width_below(&self.nodes[0]);
        let most = width.at.iter().copied().max().unwrap_or(0);
        most.saturating_add(width.lasting)
    }

    fn width_below(&self, node: &Node) -> Width {
        let children = self.children(node);
        let widths: Vec<_> = children
            .iter()
            .map(|child| self.width_below(child))
            .collect();
        let mut below = Width::default();
        let mut lasting = 0_usize;
        for kind in [Kind::Literal, Kind::Verb, Kind::Parameter] {
            // A segment matches one of them, and in a lenient realm also the one that lacks its extension.
            let mut most = Width::default();
            for (child, width) in children.iter().zip(&widths) {
                if child.kind != kind {
                    continue;
                }
                let mut both = Width::default();
                both.add(width);
                if self.lenient
                    && let Some(bare) = without_extension(self.label(child))
                    && let Some(index) = self.labelled(node, kind, bare)
                {
                    both.add(&widths[(index - node.children) as usize]);
                }
                most.raise_to(&both);
                below.all_lasting = below.all_lasting.saturating_add(width.all_lasting);
            }
            below.add(&most);
        }
        for (child, width) in children.iter().zip(&widths) {
            if child.kind == Kind::Rest {
                // Each segment enters it anew, so what is alive below it at any distance is alive together.
                let steady = width.at.iter().fold(0, |sum, at| at.saturating_add(sum));
                lasting = steady.saturating_add(width.all_lasting);
            }
        }
        below.at.insert(0, 1);
        below.lasting = below.lasting.saturating_add(lasting);
        below.all_lasting = below.all_lasting.saturating_add(lasting);
        below
    }
}
