//! An upper bound for the number of positions of a trie that are active at once.

use super::{Kind, ROOT, RouteTrie};
use crate::domain::path::without_extensions;

/// An upper bound for the number of positions at and below a node that are active at once.
#[derive(Default)]
struct Width {
    /// The positions by the number of segments since the node was entered, if the node is entered once.
    at: Vec<usize>,
    /// The positions that remain active, counted over the children that one path can enter.
    lasting: usize,
    /// The positions that remain active, counted over all children: a node below `**` is entered repeatedly.
    all_lasting: usize,
}

impl Width {
    fn add(&mut self, other: &Self) {
        self.combine(other, usize::saturating_add);
    }

    fn raise_to(&mut self, other: &Self) {
        self.combine(other, usize::max);
    }

    /// Combines the positions that one path can enter.
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
    /// Returns an upper bound for the number of positions that are active at once for any path.
    pub(in crate::domain::route) fn width(&self) -> usize {
        let width = self.width_below(ROOT);
        let most = width.at.iter().copied().max().unwrap_or(0);
        most.saturating_add(width.lasting)
    }

    fn width_below(&self, node: u32) -> Width {
        let node = self.node(node);
        let children = self.children(&node).iter();
        let children: Vec<_> = children
            .map(|child| (self.node(*child), self.width_below(*child)))
            .collect();
        let mut below = Width::default();
        let mut lasting = 0_usize;
        for kind in [Kind::Literal, Kind::Verb, Kind::Parameter] {
            // A segment matches one of the labels, and in a lenient realm also the labels without its extensions.
            let mut most = Width::default();
            let of_kind = || children.iter().filter(|(child, _)| child.kind == kind);
            for (child, width) in of_kind() {
                let mut together = Width::default();
                together.add(width);
                let label = str::from_utf8(child.label).unwrap_or_default();
                let bare = without_extensions(label).filter(|_| self.lenient);
                for other in bare.filter_map(|bare| self.labelled(&node, kind, bare)) {
                    let index = self.children(&node).binary_search(&other);
                    together.add(&children[index.expect("the children are sorted")].1);
                }
                most.raise_to(&together);
                below.all_lasting = below.all_lasting.saturating_add(width.all_lasting);
            }
            if kind == Kind::Verb && self.has_semicolons && !most.at.is_empty() {
                // The part before a `;` and the whole segment may each end with a verb, also with the same verb.
                most.at[0] = 2;
            }
            below.add(&most);
        }
        for (_, width) in children
            .iter()
            .filter(|(child, _)| child.kind == Kind::Rest)
        {
            // Each segment enters the `**` again, so the positions below it at all distances are active together.
            let steady = width.at.iter().fold(0, |sum, at| at.saturating_add(sum));
            lasting = steady.saturating_add(width.all_lasting);
        }
        below.at.insert(0, 1);
        below.lasting = below.lasting.saturating_add(lasting);
        below.all_lasting = below.all_lasting.saturating_add(lasting);
        below
    }
}
