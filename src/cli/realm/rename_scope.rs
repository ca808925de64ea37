//! The command that renames a scope, also on the keys that hold it: `realm rename-scope`.

use clap::Args;

use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::flags::WaitFlag;
use crate::cli::output::Output;
use crate::cli::prompt::YesFlag;
use crate::cli::request_id::RequestIdFlag;
use crate::cli::response::ChangeResponse as _;
use crate::cli::rounds::{counted, in_rounds};
use crate::cli::text;
use crate::pb::claviger::v1::{RenameScopeRequest, RenameScopeResponse};

/// Rename a scope of a realm, also on the keys that hold it. No key loses access at any moment.
///
/// Afterwards the realm does not know the old name: a Verify that names it is an error. With --keep-old-scope the realm keeps
/// both names, so that these callers can be changed; the same command without it then finishes the renaming. It also goes on
/// after a failure. The command asks at a terminal; elsewhere it needs --yes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger realm rename-scope demo write edit --dry-run
  claviger realm rename-scope demo write edit --keep-old-scope --yes")]
pub struct RenameScope {
    /// The realm's id.
    id: String,
    /// The name of the scope.
    #[arg(value_name = "OLD")]
    scope: String,
    /// The new name.
    #[arg(value_name = "NEW")]
    new_name: String,
    /// Leave the old scope in the realm when every key has the new one.
    #[arg(long)]
    keep_old_scope: bool,
    /// Only show how many keys this would change.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    #[command(flatten)]
    yes: YesFlag,
    /// Fail unless the realm has this revision when the renaming begins.
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
    #[command(flatten)]
    request_id: RequestIdFlag,
    #[command(flatten)]
    wait: WaitFlag,
}

impl RenameScope {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let request = RenameScopeRequest {
            realm: self.id.clone(),
            scope: self.scope.clone(),
            new_name: self.new_name.clone(),
            keep_old_scope: self.keep_old_scope,
            if_revision: self.if_revision,
            dry_run: false,
            wait: self.wait.to_proto(),
            request_id: String::new(),
        };
        if !self.dry_run {
            self.yes.or_terminal()?;
        }
        let client = connection.connect().await?;
        if self.request_id.is_given() && !self.dry_run {
            // The scope of a repeated request may have its new name already, so there is nothing to count.
            self.yes
                .confirm(&format!("{}?", self.naming("Rename")))
                .await?;
        } else if self.dry_run || !self.yes.is_given() {
            let dry_run = RenameScopeRequest {
                dry_run: true,
                ..request.clone()
            };
            let found = client.ask(client.realms().rename_scope(dry_run)).await?;
            if self.dry_run {
                return output.show(&found, |found| {
                    format!("This would {}.", self.on_keys("rename", found))
                });
            }
            let question = format!("{}?", self.on_keys("Rename", &found));
            self.yes.confirm(&question).await?;
        }
        let first = self.request_id.id();
        let answer = in_rounds(first, async |id| {
            let request = RenameScopeRequest {
                request_id: id.to_proto(),
                ..request.clone()
            };
            client
                .change(client.realms().rename_scope(request))
                .await
                .map_err(|failure| first.or_repeat_hint(failure, ""))
        })
        .await?;
        output.show_change(&answer, |answer| self.done(answer))
    }

    /// What the command would do, and to how many keys.
    fn on_keys(&self, verb: &str, found: &RenameScopeResponse) -> String {
        let keys = counted(found.would_update_keys, found.more);
        format!("{}, on {}", self.naming(verb), keys.trim_end_matches(','))
    }

    fn naming(&self, verb: &str) -> String {
        format!(
            "{verb} the scope {} of realm {} to {}",
            text::plain(&self.scope),
            text::plain(&self.id),
            text::plain(&self.new_name),
        )
    }

    fn done(&self, answer: &RenameScopeResponse) -> String {
        let (old, new) = (text::plain(&self.scope), text::plain(&self.new_name));
        let keys = counted(answer.updated_keys, false);
        let done = if answer.replayed {
            format!("This request was made before, and changed {keys} then")
        } else {
            format!("Renamed the scope {old} to {new}, on {keys}")
        };
        let scopes = answer.realm.iter().flat_map(|realm| &realm.scopes);
        let kept = if scopes.clone().any(|scope| scope.name == self.scope) {
            "\nThe realm still has the old scope: the same command without --keep-old-scope removes it."
        } else {
            ""
        };
        format!("{}{kept}", answer.done(&done))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::pb::claviger::v1::{Realm, Scope};

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        rename: RenameScope,
    }

    fn rename() -> RenameScope {
        Command::parse_from(["x", "demo", "write", "edit"]).rename
    }

    #[test]
    fn the_keys_are_counted_before_and_after() {
        let found = RenameScopeResponse {
            would_update_keys: 10_000,
            more: true,
            ..RenameScopeResponse::default()
        };
        assert_eq!(
            rename().on_keys("Rename", &found),
            "Rename the scope write of realm demo to edit, on 10,000 keys, and then more"
        );
        let mut made = RenameScopeResponse {
            updated_keys: 1,
            revision: 7,
            confirmed: true,
            ..RenameScopeResponse::default()
        };
        assert_eq!(
            rename().done(&made),
            "Renamed the scope write to edit, on 1 key."
        );
        made.realm = Some(Realm {
            scopes: vec![Scope {
                name: "write".to_owned(),
                ..Scope::default()
            }],
            ..Realm::default()
        });
        let kept = rename().done(&made);
        assert!(kept.contains("still has the old scope"), "{kept}");
    }
}
