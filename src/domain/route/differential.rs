//! Compares the trie with a naive model that tries every rule in order.
//!
//! The model was written from the contract in `realm_admin.proto` alone and shares no code with
//! the matcher. `CLAVIGER_TEST_ROUTES` sets the number of comparisons (fewer than 20,000 do not
//! reach every class in every setting). A failure prints the case and `CLAVIGER_TEST_SEED`.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::domain::access::ScopeHierarchy;
use crate::domain::path::{EncodedCharacters, PathRules, RequestPath, TrailingSlash};
use crate::domain::violation::Violations;

/// The outcome for a request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    PathError,
    Unmatched,
    Semicolon(usize),
    /// The number of the rule, whether it is public, and the projects that the key must reach.
    Rule(usize, bool, BTreeSet<String>),
}

/// A rule of the model, as text.
#[derive(Clone, Debug)]
struct Rule {
    /// The index in the generated set.
    number: usize,
    methods: &'static [&'static str],
    path: String,
    need: &'static str,
    parameter: String,
}

/// A path: its segments, decoded once, and whether it ends with a significant slash.
struct Path(Vec<String>, bool);

/// Computes the outcome for a request by a test of every rule in order.
fn expected(rules: &[Rule], settings: &PathRules, method: &str, target: &str) -> Outcome {
    let Some(path) = read(target, settings) else {
        return Outcome::PathError;
    };
    let is_upper = method.bytes().all(|byte| byte.is_ascii_uppercase());
    let serves = |rule: &&Rule| rule.methods.is_empty() || rule.methods.contains(&method);
    let mut serving = rules.iter().filter(|rule| is_upper && serves(rule));
    match serving.find(|rule| rule.matches(&path, settings, true)) {
        None => Outcome::Unmatched,
        Some(rule) if !rule.matches(&path, settings, false) => Outcome::Semicolon(rule.number),
        Some(rule) if rule.need == "public" => Outcome::Rule(rule.number, true, BTreeSet::new()),
        Some(rule) => Outcome::Rule(rule.number, false, rule.projects(&path, settings)),
    }
}

/// Parses a request target. `None`: the path is denied.
fn read(target: &str, settings: &PathRules) -> Option<Path> {
    let keep = matches!(settings.encoded_characters, EncodedCharacters::Keep);
    let raw = target.strip_prefix('/')?.split('/');
    let mut segments: Vec<String> = raw.map(|raw| decode(raw, keep)).collect::<Option<_>>()?;
    // The root is one empty segment here; it has no slash at the end.
    let slash = segments.pop_if(|last| last.is_empty()).is_some() && !segments.is_empty();
    match settings.trailing_slash {
        _ if segments.iter().any(|segment| is_denied(segment)) => None,
        TrailingSlash::Deny if slash => None,
        TrailingSlash::Significant => Some(Path(segments, slash)),
        _ => Some(Path(segments, false)),
    }
}

/// Decodes a segment once. `None`: it contains a character that no path may contain.
fn decode(raw: &str, keep: bool) -> Option<String> {
    let mut chunks = raw.split('%');
    let mut decoded = chunks.next()?.as_bytes().to_vec();
    for chunk in chunks {
        let (code, bare) = chunk.split_at_checked(2)?;
        let value = u8::from_str_radix(code, 16).ok()?;
        let denied: &[u8] = if keep { b"\\?#" } else { b"\\?#/%;" };
        if value.is_ascii_control() || denied.contains(&value) {
            return None;
        }
        decoded.push(value);
        decoded.extend(bare.bytes());
    }
    let is_mark = |bare| "%-._~!$&'()*+,=:@".contains(bare) || keep && bare == ';';
    let is_bare = |bare: char| bare.is_ascii_alphanumeric() || is_mark(bare);
    let decoded = String::from_utf8(decoded).ok()?;
    raw.chars().all(is_bare).then_some(decoded)
}

/// Returns whether no path may have this decoded segment.
fn is_denied(segment: &str) -> bool {
    let is_dots = |part| matches!(before_semicolon(part), "." | "..");
    before_semicolon(segment).is_empty() || segment.split('/').any(is_dots)
}

fn before_semicolon(text: &str) -> &str {
    text.split(';').next().unwrap_or_default()
}

/// Returns whether a text matches a literal, verb or project segment.
fn is_same(literal: &str, text: &str, lenient: bool) -> bool {
    let folded: String = text.chars().map(fold).collect();
    let literal_folded = literal.to_ascii_lowercase();
    let rest = folded.strip_prefix(&literal_folded);
    let is_loosely = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    literal == text || lenient && is_loosely
}

/// Returns the letter that a case-insensitive server reads.
fn fold(letter: char) -> char {
    match letter {
        'ı' | 'İ' => 'i',
        'ſ' => 's',
        '\u{212a}' => 'k',
        _ => letter.to_ascii_lowercase(),
    }
}

/// Returns the verb of a piece `{parameter}:verb`.
fn verb(piece: &str) -> Option<&str> {
    Some(piece.strip_prefix('{')?.split_once("}:")?.1)
}

/// Returns whether a piece takes a segment. `cut`: literals and verbs take segments with a `;`.
fn takes(piece: &str, segment: &str, lenient: bool, cut: bool) -> bool {
    let before = before_semicolon(segment);
    let is_verb = |verb, text: &str| {
        let parts = text.rsplit_once(':');
        parts.is_some_and(|(name, end)| !name.is_empty() && is_same(verb, end, lenient))
    };
    let is_taken = match verb(piece) {
        None if piece == "*" || piece.starts_with('{') => return true,
        None => is_same(piece, before, lenient),
        // Servers differ about whether the verb is before or after the `;`.
        Some(verb) => is_verb(verb, before) || is_verb(verb, segment),
    };
    is_taken && (cut || !segment.contains(';'))
}

/// Returns whether the pieces can take all the segments.
fn take_all(pieces: &[&str], segments: &[String], lenient: bool, cut: bool) -> bool {
    let takes_from = |others, from: usize| take_all(others, &segments[from..], lenient, cut);
    match (pieces, segments) {
        ([], _) => segments.is_empty(),
        (["**", others @ ..], _) => (0..=segments.len()).any(|from| takes_from(others, from)),
        (_, []) => false,
        ([piece, others @ ..], [first, ..]) => {
            takes(piece, first, lenient, cut) && takes_from(others, 1)
        }
    }
}

impl Rule {
    /// Returns the pieces between the slashes, and whether the path ends with a slash. The root does not.
    fn pieces(&self) -> (Vec<&str>, bool) {
        let mut pieces: Vec<&str> = self.path[1..].split('/').collect();
        let slash = pieces.pop_if(|last| last.is_empty()).is_some() && !pieces.is_empty();
        (pieces, slash)
    }

    fn matches(&self, path: &Path, settings: &PathRules, cut: bool) -> bool {
        let (pieces, mut slash) = self.pieces();
        slash &= !matches!(settings.trailing_slash, TrailingSlash::Ignored);
        let takes_slash = path.1 && pieces.last() == Some(&"**");
        (slash == path.1 || takes_slash) && take_all(&pieces, &path.0, settings.lenient, cut)
    }

    /// Returns the projects that the key must reach, for a path that this rule matches.
    fn projects(&self, Path(segments, _): &Path, settings: &PathRules) -> BTreeSet<String> {
        let names_next = |segment: &str| {
            let matches =
                |name: &String| is_same(name, before_semicolon(segment), settings.lenient);
            settings.project_segments.iter().any(matches)
        };
        let count = segments.len();
        let named = (1..count).filter(|at| names_next(&segments[at - 1]));
        let pieces = self.pieces().0;
        let start = format!("{{{}}}", self.parameter);
        let own = pieces.iter().position(|piece| piece.starts_with(&start));
        let from_end = |at| at + count - pieces.len();
        let is_late = |at: usize| pieces[..at].contains(&"**");
        let own = own.map(|at| if is_late(at) { from_end(at) } else { at });
        let name = |at: usize| match segments[at].rsplit_once(':') {
            Some((before, _)) if at + 1 == count && self.path.contains("}:") => before.to_owned(),
            _ => segments[at].clone(),
        };
        named.chain(own).map(name).collect()
    }

    /// Returns the same rule for the trie. `None`: the path is not a valid template.
    fn route(&self) -> Option<Route> {
        let reach = match self.need {
            "public" => None,
            "partner" => Some(Reach::Partner),
            "own-project" => Some(Reach::OwnProject),
            "any" => Some(Reach::Any),
            "project" => Some(Reach::Project(self.parameter.clone())),
            "project-by-partner" => Some(Reach::ProjectByPartner(self.parameter.clone())),
            _ => Some(Reach::PartnerKey),
        };
        let key = |reach| KeyNeed {
            reach,
            scopes: Vec::new(),
            any_scopes: Vec::new(),
        };
        let methods = self.methods.iter().map(|name| Method::parse(name));
        Some(Route {
            methods: methods.collect::<Result<_, _>>().expect("methods"),
            path: PathTemplate::parse(&self.path).ok()?,
            need: reach.map_or(Need::Public, |reach| Need::Key(key(reach))),
        })
    }
}

const METHODS: [&[&str]; 5] = [&[], &[], &["GET"], &["PUT"], &["GET", "PUT"]];
const NEEDS: [&str; 2] = ["project project-by-partner", ANY];
const ANY: &str = "public partner partner-key own-project any";
const LITERALS: &str = "a b A ab projects keys keys.json a.b x:stop projects";
const SUFFIXES: &str = ";x %3Bx ; %3bx:stop ;x=%2F .json .J1 .1x .tar.gz . .j-n ;x:stop ;:cancel %2Fb %2f.. %25 \
     %252F %20 %C3%A9 %2D %7E %2Ejson :stop :STOP.json :stop;x :cancel %3Astop";
const ODDITIES: &str = ". .. %2e%2e .%2E %252e%252e ... ..x ..%3Bx ..; .;x ;x %3B %2F %2Fa a%2F;x \
     %2e%2Fa a;%2F.. %zz %4 % %+4 %C3 %5C %3F %23 %00 %7F é a\" a#b :stop x: x;y:stop";

/// The number of combinations of settings.
const SETTINGS: usize = 3 * 2 * 3 * 2;

/// The settings of a case: all combinations in turn.
fn settings(number: usize) -> PathRules {
    let project_segments = ["projects", "keys"].into_iter().take(number % 3);
    PathRules {
        project_segments: project_segments.map(str::to_owned).collect(),
        lenient: number / 3 % 2 == 1,
        trailing_slash: match number / 6 % 3 {
            0 => TrailingSlash::Deny,
            1 => TrailingSlash::Significant,
            _ => TrailingSlash::Ignored,
        },
        encoded_characters: match number / 18 % 2 {
            0 => EncodedCharacters::Deny,
            _ => EncodedCharacters::Keep,
        },
    }
}

/// A generator of random numbers with a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let once = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let twice = (once ^ (once >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((twice ^ (twice >> 31)) % end as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Returns one of the words with a probability of `percent`, and otherwise an empty text.
    fn word(&mut self, percent: usize, words: &'static str) -> &'static str {
        let words: Vec<&str> = words.split(' ').filter(|word| !word.is_empty()).collect();
        let is_there = self.below(100) < percent;
        if is_there { self.pick(&words) } else { "" }
    }

    fn rule(&mut self, number: usize) -> Rule {
        let length = self.pick(&[0, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 5]);
        let (mut path, mut parameter) = (String::new(), String::new());
        for at in 0..length {
            let piece = match self.below(20) {
                0..=9 => self.word(100, LITERALS),
                10..=11 => "*",
                12..=15 => "**",
                16..=17 if at + 1 == length => self.word(100, "{}:stop {}:cancel {}:Stop"),
                _ => "{}",
            };
            if piece.starts_with('{') && self.below(10) < 7 {
                parameter = format!("p{at}");
            }
            path = path + "/" + &piece.replace("{}", &format!("{{p{at}}}"));
        }
        path += self.word(if length == 0 { 100 } else { 15 }, "/");
        let need = self.word(100, NEEDS[usize::from(parameter.is_empty())]);
        Rule {
            number,
            methods: self.pick(&METHODS),
            path,
            need,
            parameter,
        }
    }

    /// Returns a request target, mostly similar to the path of one of the rules.
    fn target(&mut self, like: &[Rule]) -> String {
        let mut pieces = vec!["*"; self.below(5)];
        if !like.is_empty() && self.below(4) > 0 {
            pieces = like[self.below(like.len())].pieces().0;
        }
        let mut segments = Vec::new();
        for piece in pieces {
            let count = if piece == "**" { self.below(3) } else { 1 };
            segments.extend((0..count).map(|_| self.segment(piece)));
        }
        let (start, end) = (self.word(99, "/"), self.word(20, "/"));
        format!("{start}{}{end}", segments.join("/"))
    }

    /// Returns a segment that the piece may take, sometimes in another spelling or with a suffix.
    fn segment(&mut self, piece: &str) -> String {
        let (is_wild, word) = (piece.starts_with(['*', '{']), self.word(100, LITERALS));
        let mut text = if is_wild { word } else { piece }.to_owned();
        let verb = verb(piece).map_or_else(String::new, |verb| format!(":{verb}"));
        match self.below(32) {
            0 => return self.word(96, ODDITIES).to_owned(),
            1..=3 => text = text.to_uppercase(),
            4 => text = text.replace('k', "%E2%84%AA").replace('s', "%C5%BF"),
            9 => text += ";x",
            10 if !verb.is_empty() => text.clear(),
            5..=8 => {
                let at = self.below(text.len());
                let code = format!("%{:02X}", text.as_bytes()[at]);
                let codes = [code.to_lowercase(), code];
                text.replace_range(at..=at, &codes[self.below(2)]);
            }
            _ => {}
        }
        let (inner, outer) = (self.word(8, SUFFIXES), self.word(12, SUFFIXES));
        format!("{text}{inner}{verb}{outer}")
    }
}

/// Returns the rules that `check` refuses: the number of each, and whether the reason is that it can never win.
fn refusals(rules: &[Rule], settings: &PathRules) -> BTreeSet<(usize, bool)> {
    let (mut violations, mut refusals) = (Violations::default(), BTreeSet::new());
    let routes: Vec<Route> = rules.iter().filter_map(Rule::route).collect();
    check(&routes, settings, &mut violations);
    for violation in violations.kept() {
        let mut parts = violation.field.split(['[', ']']);
        let place = parts.nth(1).and_then(|part| part.parse::<usize>().ok());
        let never_wins = violation.description.contains("can never win");
        // A violation without a rule applies to all rules.
        let refused = place.map_or(rules, |place| &rules[place..=place]);
        refusals.extend(refused.iter().map(|rule| (rule.number, never_wins)));
    }
    refusals
}

/// Generates rules, without those that `check` refuses for another reason than never winning.
/// Returns all rules, the refused rules and the kept rules.
fn draw(case: usize) -> (Random, [Vec<Rule>; 3]) {
    let mut random = Random(((seed() as u64) << 32) ^ case as u64);
    let rules = (0..=random.below(8)).map(|number| random.rule(number));
    let mut rules: Vec<Rule> = rules.filter(|rule| rule.route().is_some()).collect();
    loop {
        let refused = refusals(&rules, &settings(case));
        if refused.iter().all(|&(_, never_wins)| never_wins) {
            let is_loser = |rule: &Rule| refused.contains(&(rule.number, true));
            let (losers, kept) = rules.iter().cloned().partition(is_loser);
            return (random, [rules, losers, kept]);
        }
        rules.retain(|rule| !refused.contains(&(rule.number, false)));
    }
}

/// Returns the outcome for a request by the trie of the `kept` rules.
fn outcome(kept: &[Rule], found: Result<Matched, NoRoute>) -> Outcome {
    match found {
        Err(NoRoute::Unmatched) => Outcome::Unmatched,
        Err(NoRoute::Semicolon(rule)) => Outcome::Semicolon(kept[rule].number),
        Ok(found) => {
            let projects = found.projects.iter().map(ToString::to_string);
            let is_public = found.access == RouteAccess::Public;
            Outcome::Rule(kept[found.rule].number, is_public, projects.collect())
        }
    }
}

/// Compares the trie of the kept rules with the model of all rules. Returns the classes of outcomes.
fn compare(case: usize, random: &mut Random, sets: [&[Rule]; 3]) -> Vec<&'static str> {
    let ([rules, kept, like], settings) = (sets, settings(case));
    let routes: Vec<Route> = kept.iter().filter_map(Rule::route).collect();
    let trie = RouteTrie::new(&routes, &settings);
    let table = RouteTable::new(trie, &routes, &ScopeHierarchy::default());
    let mut classes = Vec::new();
    for _ in 0..20 {
        let target = random.target(like);
        for method in ["GET", "PUT", random.word(100, "POST POST POST get")] {
            let found = match RequestPath::parse(&target, &settings) {
                Ok(path) => outcome(kept, table.find(method, &path, &settings)),
                Err(_) => Outcome::PathError,
            };
            let expected = expected(rules, &settings, method, &target);
            let place = format!("seed {}, case {case}: {method} {target}", seed());
            assert_eq!(found, expected, "{place}\n{settings:?}\n{rules:#?}");
            classes.push(class(&found, &target, rules));
        }
    }
    classes
}

/// Returns the class of an outcome.
fn class(outcome: &Outcome, target: &str, rules: &[Rule]) -> &'static str {
    let mut verbs = rules.iter().filter(|rule| rule.path.contains("}:"));
    match outcome {
        Outcome::PathError => "path error",
        Outcome::Unmatched => "unmatched",
        Outcome::Semicolon(_) => "semicolon",
        Outcome::Rule(..) if target.len() > 1 && target.ends_with('/') => "matched, slash",
        Outcome::Rule(_, true, _) => "matched, public",
        Outcome::Rule(n, ..) if verbs.any(|rule| rule.number == *n) => "matched, verb",
        Outcome::Rule(_, _, projects) if projects.len() > 1 => "matched, several projects",
        Outcome::Rule(..) => "matched",
    }
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn seed() -> usize {
    number("CLAVIGER_TEST_SEED", 2024)
}

#[test]
fn the_trie_finds_what_trying_every_rule_in_order_finds() {
    let cases = number("CLAVIGER_TEST_ROUTES", 40_000).div_ceil(60);
    let mut seen: BTreeMap<&str, [usize; SETTINGS]> = BTreeMap::new();
    for case in 0..cases {
        let (mut random, [_, _, rules]) = draw(case);
        for class in compare(case, &mut random, [&rules; 3]) {
            seen.entry(class).or_insert([0; SETTINGS])[case % SETTINGS] += 1;
        }
    }
    println!("{cases} sets of rules, {} comparisons", cases * 60);
    for (class, counts) in &seen {
        println!("{class}: {}", counts.iter().sum::<usize>());
        // The second half of the settings keeps encoded characters.
        let first = SETTINGS / 2 * usize::from(*class == "semicolon");
        let is_missing = counts[first..].contains(&0);
        assert!(!is_missing || class.contains(','), "{counts:?}");
    }
    assert_eq!(seen.len(), 8, "a class is missing: {seen:?}");
}

#[test]
fn a_rule_that_check_refuses_as_never_winning_never_wins() {
    let cases = number("CLAVIGER_TEST_ROUTES", 40_000).div_ceil(60);
    let (mut refused, mut won) = (0, 0);
    for case in 0..cases {
        let (mut random, [rules, losers, kept]) = draw(case);
        if losers.is_empty() {
            continue;
        }
        refused += 1;
        // The table does not contain the losers. If a loser wins in the model, the outcomes differ.
        for like in [&losers, &rules, &losers] {
            let classes = compare(case, &mut random, [&rules, &kept, like]);
            won += classes.concat().matches("matched").count();
        }
    }
    println!("{refused} of {cases} sets refused; {won} requests matched in them");
    assert!(refused > 0 && refused < cases && won > 0);
}
