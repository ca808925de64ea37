//! Tips about a mistyped command line. The parser's own go too far: for `create` it offers `restore`.

use clap::Command;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// How similar a name must be, by Jaro.
const NEAR: f64 = 0.85;

/// Removes the tips that are not near to what was typed.
pub fn keep_near(error: &mut Error, program: &Command) {
    for (tip, typed) in [
        (
            ContextKind::SuggestedSubcommand,
            ContextKind::InvalidSubcommand,
        ),
        (ContextKind::SuggestedArg, ContextKind::InvalidArg),
        (ContextKind::SuggestedValue, ContextKind::InvalidValue),
    ] {
        let Some(ContextValue::String(typed)) = error.get(typed) else {
            continue;
        };
        let is_near = |name: &String| {
            let [name, typed] = [name, typed].map(|name| name.trim_start_matches('-'));
            strsim::jaro(name, typed) >= NEAR
        };
        let near = match error.get(tip) {
            Some(ContextValue::String(name)) => vec![name.clone()],
            Some(ContextValue::Strings(names)) => names.clone(),
            _ => continue,
        };
        let near: Vec<_> = near.into_iter().filter(is_near).collect();
        if near.is_empty() {
            error.remove(tip);
        } else {
            error.insert(tip, ContextValue::Strings(near));
        }
    }
    // "To pass '--reason' as a value, use '-- --reason'" is never what was meant.
    if let Some(ContextValue::StyledStrs(tips)) = error.get(ContextKind::Suggested) {
        let tips: Vec<_> = tips
            .iter()
            .filter(|tip| !tip.to_string().starts_with("to pass "))
            .cloned()
            .collect();
        if tips.is_empty() {
            error.remove(ContextKind::Suggested);
        } else {
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
        }
    }
    if let Some(elsewhere) = elsewhere(error, program) {
        let tip = format!("`{elsewhere}`").into();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
}

/// The command of `keys` that was looked for in `key`, which makes API keys without a server.
fn elsewhere(error: &Error, program: &Command) -> Option<String> {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) else {
        return None;
    };
    let keys = program.find_subcommand("keys")?;
    let is_of_key = usage.to_string().contains("claviger key ");
    let found = keys.find_subcommand(typed).filter(|_| is_of_key)?;
    Some(format!("claviger keys {}", found.get_name()))
}
