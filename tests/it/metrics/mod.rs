//! `/metrics` of the real program: what happens is in the next scrape.

mod counts;
mod observed;
mod prometheus;
mod scrape;

pub(crate) use scrape::Scrape;
