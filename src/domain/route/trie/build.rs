//! The construction of a trie.

use std::ops::Range;

use super::{Branch, HAS_BRANCH, Kind};
use crate::domain::route::template::Segment;

/// A builder for the nodes of a trie. The templates are sorted, so the rules below a node are adjacent.
#[derive(Default)]
pub(super) struct Builder<'t> {
    sorted: &'t [(Vec<Segment<'t>>, usize)],
    pub(super) nodes: Vec<u8>,
    pub(super) branches: Vec<Branch>,
    pub(super) children: Vec<u32>,
}

impl<'t> Builder<'t> {
    pub(super) fn of(sorted: &'t [(Vec<Segment<'t>>, usize)]) -> Self {
        Self {
            sorted,
            ..Self::default()
        }
    }

    /// Returns the segment of a rule at a depth; `None` if the template ends there.
    fn segment(&self, rule: usize, depth: usize) -> Option<Segment<'t>> {
        self.sorted[rule].0.get(depth).copied()
    }

    pub(super) fn node(&mut self, segment: Segment<'_>, has_branch: bool) {
        let (kind, label) = match segment {
            Segment::Literal(text) => (Kind::Literal, text),
            Segment::Verb(verb) => (Kind::Verb, verb),
            Segment::Parameter => (Kind::Parameter, ""),
            Segment::Rest => (Kind::Rest, ""),
        };
        self.nodes
            .push(kind as u8 | if has_branch { HAS_BRANCH } else { 0 });
        if matches!(kind, Kind::Literal | Kind::Verb) {
            self.nodes.extend((label.len() as u16).to_le_bytes());
            self.nodes.extend(label.as_bytes());
        }
        if has_branch {
            self.nodes
                .extend((self.branches.len() as u16).to_le_bytes());
        }
    }

    /// Adds the branch of the node that was added last, and all nodes below it.
    pub(super) fn branch(&mut self, mut rules: Range<usize>, depth: usize) {
        let index = self.branches.len();
        self.branches.push(Branch::default());
        let ends = rules.start;
        while !rules.is_empty() && self.segment(rules.start, depth).is_none() {
            rules.start += 1;
        }
        let end_count = rules.start - ends;
        let mut children = Vec::new();
        let (mut has_parameter, mut has_rest) = (false, false);
        while !rules.is_empty() {
            let segment = self.segment(rules.start, depth);
            has_parameter |= segment == Some(Segment::Parameter);
            has_rest |= segment == Some(Segment::Rest);
            let same = rules.clone();
            let same = same.take_while(|rule| self.segment(*rule, depth) == segment);
            let below = rules.start..rules.start + same.count();
            rules.start = below.end;
            children.push(self.nodes.len() as u32);
            self.chain(below, depth);
        }
        self.branches[index] = Branch {
            first_child: self.children.len() as u32,
            child_count: children.len() as u16,
            first_end: ends as u16,
            end_count: end_count as u16,
            has_parameter,
            has_rest,
        };
        self.children.extend(children);
    }

    /// Adds the nodes of rules with the same segment at this depth, up to the depth at which they differ or end.
    fn chain(&mut self, rules: Range<usize>, mut depth: usize) {
        while let Some(segment) = self.segment(rules.start, depth) {
            depth += 1;
            let next = self.segment(rules.start, depth);
            let has_branch = next.is_none() || next != self.segment(rules.end - 1, depth);
            self.node(segment, has_branch);
            if has_branch {
                self.branch(rules, depth);
                return;
            }
        }
    }
}
