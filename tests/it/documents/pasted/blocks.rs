//! The blocks of pages: commands of a shell, and Python.

use crate::documents::read;

/// A block of commands, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BlockRef {
    pub(super) page: &'static str,
    pub(super) heading: &'static str,
    /// Among the blocks under this heading.
    pub(super) index: usize,
}

pub(super) const fn in_page(page: &'static str, heading: &'static str, index: usize) -> BlockRef {
    BlockRef {
        page,
        heading,
        index,
    }
}

/// The blocks of a page, each with its heading and its text.
pub(super) fn blocks(page: &'static str) -> Vec<(BlockRef, String)> {
    let mut found: Vec<(BlockRef, String)> = Vec::new();
    let mut heading = "";
    let mut index = 0;
    let mut open = false;
    let text: &'static str = Box::leak(read(page).into_boxed_str());
    for line in text.lines() {
        match line {
            "```sh" | "```python" => {
                found.push((in_page(page, heading, index), String::new()));
                (open, index) = (true, index + 1);
            }
            "```" => open = false,
            _ if open => {
                let (_, block) = found.last_mut().unwrap();
                block.push_str(line);
                block.push('\n');
            }
            _ if line.starts_with('#') => (heading, index) = (line, 0),
            _ => {}
        }
    }
    found
}

pub(super) fn block(place: BlockRef) -> String {
    let found = blocks(place.page)
        .into_iter()
        .find(|(found, _)| *found == place);
    found.unwrap_or_else(|| panic!("{place:?} is there")).1
}
