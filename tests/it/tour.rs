//! The command line as a newcomer types it.
