//! The tests of the running service.
