//! The topics of `claviger help`.

use clap::Command;

use super::page;

/// A topic, and its text.
const TOPICS: [(&str, &str); 6] = [
    ("connection", ""),
    (
        "exit-codes",
        "\
Exit codes, of every command unless its --help says otherwise

  0    done, or allowed
  1    failed: the error says why
  2    the command line or the request is invalid, or the caller's own key is
       missing or cannot be read
  3    denied: only of verify and explain
  4    no verdict: only of verify and explain. The server cannot be reached,
       does not answer in time, or returns another error, also about the
       caller's own key. Never treat it as a denial
  5    something was found: only with --fail-if-any, of keys list and diff
  78   the configuration cannot work: of serve, bootstrap, migrate and doctor
  130  ended by Ctrl-C. An import says what is in

With --json, errors are JSON on standard error, also those of the command line.",
    ),
    (
        "import-format",
        "\
The file of `claviger keys import`: CSV with a header line, or JSON Lines

Each line is one key. Only `plain_key` or `sha256` is required.

  plain_key      the API key
  sha256         its SHA-256 instead: 64 hexadecimal digits, or base64
  partner        the id of the partner that owns the key
  project        the id of the project that the key is bound to
  level          partner or project
  environment    the name of the environment
  name           a display name
  external_id    the id that another system has for the key
  scopes         CSV: separated by spaces. JSON: a list
  full_access    true or false
  expire_time    such as 2030-01-31T12:00:00Z
  labels         CSV: name=value;name=value. JSON: an object
  allowed_cidrs  CSV: separated by spaces. JSON: a list

The flags of the command are the defaults of fields that a line does not have.
A line that is invalid affects no other line. The same file again imports
nothing twice, so an import that was interrupted goes on with the same command.

  plain_key,partner,scopes
  9f2c81d4e0b74a31a6d2c5f8,acme,read write

  {\"plain_key\": \"9f2c81d4e0b74a31a6d2c5f8\", \"partner\": \"acme\"}",
    ),
    (
        "list",
        "\
Lists: keys list, partner list, project list, realm list, events

Flags that select are combined: an entry must match all of them. Of a flag that
can be repeated, such as --label, it must match each value; of --state, one.

  --all          all pages instead of one
  --page-size N  the entries of a page, also --limit N or -n N
  --page-token   the next page, as the page before it printed
  --json         the entries as one JSON document
  --field NAME   one field of each entry, one on each line
  --fail-if-any  only keys list: exit with 5 if a key is found, for checks

At most 80 columns are used on a terminal of 80; piped, a list has all columns
and nothing is cut.",
    ),
    (
        "scopes",
        "\
Scopes: what a key may do

A realm lists its scopes. A scope can imply others: who holds `write` with
`--scope write=read` holds `read` too.

  claviger realm update demo --scope read --scope write=read

A key holds the scopes that it was issued with, and what they imply. With
--full-access it holds every scope of the realm, also those that are added
later. What a key without scopes may do is the realm's --unscoped-keys:
no-access, or full-access.

A verification names the scopes that a request needs: each --scope must be
held, and of several --any-scope one. The keys of gateways and operators are in
the realm `claviger`, whose scopes are fixed: verify, manage, read, operator.",
    ),
    (
        "times",
        "\
Times, and spans of time

A time is in RFC 3339, such as 2030-01-31T12:00:00Z or
2030-01-31T13:00:00+01:00.

A span is a number and a unit, or several: 30s, 15min, 1h 30min, 90d, 2w, 1y.
`m` alone is refused, because it may mean minutes or months: 1min, 30d.

A flag for the past, such as --since, takes both: `--since 24h` is 24 hours
ago. Of --expires-in and --expires-at, the first takes a span and the second a
time.",
    ),
];

/// The names of the topics.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TOPICS.iter().map(|(name, _)| *name)
}

/// The text of a topic; `None` if there is no topic of this name.
pub fn text(program: &Command, name: &str) -> Option<String> {
    let (_, text) = TOPICS.iter().find(|(topic, _)| *topic == name)?;
    if name != "connection" {
        return Some((*text).to_owned());
    }
    let flags = page::connection(program);
    Some(format!(
        "\
Connection: how a command reaches the server, and with which key

These flags may stand before or after each command that calls a server. A flag
wins over its variable, and both win over the context (claviger login).

{flags}

Variables without a flag:
  CLAVIGER_KEY          the caller's own API key
  CLAVIGER_KEY_FILE     the file with it; CLAVIGER_KEY wins over it
  CLAVIGER_REALM        the realm of commands without --realm
  CLAVIGER_ENVIRONMENT  the environment of commands without --environment
  CLAVIGER_PAGER        the pager of a terminal; empty for none"
    ))
}
