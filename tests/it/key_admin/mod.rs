//! `KeyAdmin`: the life of keys from their issue or import to their deletion, and who may change them.

mod admission;
mod callers_in_flight;
mod delegation;
mod ended_by_filter;
mod external_id;
mod filters;
mod hundred_thousand_keys;
mod idempotency;
mod if_partner;
mod if_revision;
mod import;
mod large_import;
mod operator_labels;
mod own_key;
mod owner;
mod partner_apis;
mod refused_callers;
mod revocation;
mod roles;
mod rotation;
mod totals;
mod update;
mod usage;
