//! Edits of realms, partners and projects: changes that keep everything that they do not name.
//!
//! The proto's Put methods replace a resource as a whole. So an edit reads the resource, sets the named fields and puts the
//! result, on condition that no other caller has changed the resource since it was read. The resource stays a
//! [`DynamicMessage`] all the way, because a generated message drops the fields that only a newer server knows.

use prost::Message;
use prost_reflect::{DynamicMessage, ReflectMessage as _, Value};
use tonic::Code;

use super::client::Client;
use super::failure::Failure;
use super::flags::WaitFlag;
use super::output::Output;
use super::response::ChangeResponse;
use super::{reflect, request_id, text};

/// The maximum number of attempts. An attempt fails only if another caller's change has succeeded, so this is also the number
/// of callers that can each make one change at the same time.
const ATTEMPTS: usize = 10;

/// A change of a realm, a partner or a project.
#[derive(Debug)]
pub(super) struct Edit {
    /// The name of the message, such as `Realm`.
    resource: &'static str,
    /// The ids and the edited fields. If the resource does not exist, it is created with these.
    values: DynamicMessage,
    fields: Vec<EditedField>,
    /// The revision that the resource must have; 0 if it must not exist.
    if_revision: Option<u64>,
    wait: WaitFlag,
}

/// Whether an edit may create what it edits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The resource may exist or not.
    Put,
    /// The resource must not exist.
    Create,
    /// The resource must exist.
    Update,
}

/// What an edit did.
#[derive(Debug, PartialEq, Eq)]
enum Done {
    /// The resource is new.
    Created,
    /// These fields have another value than before.
    Changed(Vec<String>),
    /// Everything was so already.
    Unchanged,
}

impl Done {
    /// What was done, in one word for programs.
    fn outcome(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed(_) => "changed",
            Self::Unchanged => "unchanged",
        }
    }

    /// What was done with the resource, and since when that is in force, for people.
    fn sentence(&self, resource: &str, answer: &impl ChangeResponse) -> String {
        match self {
            Self::Created => answer.done(&format!("Created {resource}")),
            Self::Changed(fields) => {
                answer.done(&format!("Changed {resource} ({})", fields.join(", ")))
            }
            Self::Unchanged => format!("{resource} was so already; nothing was changed"),
        }
    }
}

/// A field that an edit sets.
#[derive(Clone, Copy, Debug)]
pub(super) struct EditedField {
    name: &'static str,
    /// For a list of messages: the fields that the edit sets in an entry. The entry's other fields are kept from the old entry
    /// of the same `name`.
    of_entry: &'static [&'static str],
}

impl EditedField {
    /// A field that is replaced as a whole.
    pub(super) const fn whole(name: &'static str) -> Self {
        Self::list(name, &[])
    }

    /// A list that is replaced by entries of which the edit sets only these fields.
    pub(super) const fn list(name: &'static str, of_entry: &'static [&'static str]) -> Self {
        Self { name, of_entry }
    }
}

impl Edit {
    /// Creates an edit of the resource that `values` names by its ids.
    pub(super) fn new(
        resource: &'static str,
        values: &impl Message,
        fields: Vec<EditedField>,
        if_revision: Option<u64>,
        wait: WaitFlag,
    ) -> Self {
        Self {
            resource,
            values: reflect::dynamic(resource, values),
            fields,
            if_revision,
            wait,
        }
    }

    /// Whether the edit sets each of these fields.
    pub(super) fn names(&self, fields: &[&str]) -> bool {
        let is_set = |name: &&str| self.fields.iter().any(|field| field.name == *name);
        fields.iter().all(is_set)
    }

    /// Makes the edit, and again if another caller was faster. `find` reads the resource.
    ///
    /// # Errors
    /// `ABORTED` if the resource has another revision than required, or if other callers changed it during every attempt.
    pub(super) async fn put<A: Message + Default>(
        &self,
        client: &Client,
        find: impl AsyncFn() -> Result<Option<DynamicMessage>, Failure>,
    ) -> Result<A, Failure> {
        let (answer, _) = self.make(client, Mode::Put, find).await?;
        Ok(answer)
    }

    /// Makes the edit as [`Self::put`] does, in a mode, and returns what it did.
    async fn make<A: Message + Default>(
        &self,
        client: &Client,
        mode: Mode,
        find: impl AsyncFn() -> Result<Option<DynamicMessage>, Failure>,
    ) -> Result<(A, Done), Failure> {
        for _ in 0..ATTEMPTS {
            let found = find().await?;
            self.require(mode, found.is_some())?;
            let revision = found.as_ref().map_or(0, revision);
            // Compared here, because the put must have the revision that was read and no other.
            if let Some(required) = self.if_revision
                && required != revision
            {
                return Err(wrong_revision(&self.noun(), required, revision));
            }
            let put = match &found {
                Some(found) => self.applied_to(found.clone()),
                None => self.values.clone(),
            };
            let method = format!("Put{}", self.resource);
            let call = client.call(&method, self.request(put, revision));
            match client.change(call).await {
                Err(failure) if failure.is_changed_meanwhile() && self.if_revision.is_none() => {}
                answer => {
                    let answer = answer?;
                    let done = self.done(found.as_ref(), &answer);
                    return Ok((reflect::generated(&answer)?, done));
                }
            }
        }
        let message = format!(
            "other callers changed the {} during each of {ATTEMPTS} attempts, so this command has changed nothing",
            self.noun()
        );
        Err(Failure::changed_meanwhile(message)
            .hint("repeat the command when the other callers have finished"))
    }

    /// Makes the edit in a mode, and shows what it did.
    pub(super) async fn run<A: ChangeResponse + Default>(
        &self,
        client: &Client,
        output: &Output,
        mode: Mode,
        find: impl AsyncFn() -> Result<Option<DynamicMessage>, Failure>,
    ) -> Result<(), Failure> {
        let (answer, done): (A, _) = self.make(client, mode, find).await?;
        let resource = format!("{} {}", self.noun(), self.id());
        output.show_edit(&answer, done.outcome(), |answer| {
            done.sentence(&resource, answer)
        })
    }

    /// The id of the resource, for people.
    fn id(&self) -> String {
        let id = field(&self.values, "id");
        text::plain(id.as_str().unwrap_or_default()).into_owned()
    }

    /// Fails if the resource exists and must not, or must and does not.
    fn require(&self, mode: Mode, exists: bool) -> Result<(), Failure> {
        let (noun, id) = (self.noun(), self.id());
        match (mode, exists) {
            (Mode::Create, true) => Err(Failure::new(
                Code::AlreadyExists,
                format!("the {noun} {id} exists already, and nothing was changed"),
            )
            .hint(format!("to change it: claviger {noun} update {id}"))),
            (Mode::Update, false) => Err(Failure::new(
                Code::NotFound,
                format!("there is no {noun} {id}"),
            )
            .hint(format!("to create it: claviger {noun} create {id}"))),
            _ => Ok(()),
        }
    }

    /// Compares the resource as it was read with that of the answer.
    fn done(&self, before: Option<&DynamicMessage>, answer: &DynamicMessage) -> Done {
        let Some(before) = before else {
            return Done::Created;
        };
        let after = answer.get_field_by_name(&self.noun());
        let Some(after) = after.as_deref().and_then(Value::as_message) else {
            return Done::Unchanged;
        };
        let fields = after.descriptor();
        let changed: Vec<_> = fields
            .fields()
            .filter(|field| !["revision", "create_time"].contains(&field.name()))
            .filter(|field| before.get_field(field) != after.get_field(field))
            .map(|field| field.name().replace('_', " "))
            .collect();
        if changed.is_empty() {
            Done::Unchanged
        } else {
            Done::Changed(changed)
        }
    }

    /// Sets the edited fields in the resource as it was read.
    fn applied_to(&self, mut resource: DynamicMessage) -> DynamicMessage {
        for &EditedField { name, of_entry } in &self.fields {
            let old = resource.take_field_by_name(name);
            if !self.values.has_field_by_name(name) {
                continue;
            }
            let mut value = field(&self.values, name);
            if let (Value::List(entries), Some(Value::List(old))) = (&mut value, &old) {
                for entry in entries.iter_mut().filter_map(Value::as_message_mut) {
                    keep_other_fields(entry, of_entry, old);
                }
            }
            resource.set_field_by_name(name, value);
        }
        resource
    }

    fn request(&self, put: DynamicMessage, revision: u64) -> DynamicMessage {
        let name = format!("Put{}Request", self.resource);
        let mut request = DynamicMessage::new(reflect::descriptor(&name));
        request.set_field_by_name(&self.noun(), Value::Message(put));
        request.set_field_by_name("if_revision", Value::U64(revision));
        request.set_field_by_name("wait", Value::EnumNumber(self.wait.to_proto()));
        request.set_field_by_name("request_id", Value::String(request_id::fresh()));
        request
    }

    /// The resource in a sentence, which is also the name of its field in requests.
    fn noun(&self) -> String {
        self.resource.to_lowercase()
    }
}

/// Reads a resource by the method `Get...`, with the fields that this program does not know.
pub(super) async fn get(
    client: &Client,
    resource: &str,
    request: &impl Message,
) -> Result<DynamicMessage, Failure> {
    let request = reflect::dynamic(&format!("Get{resource}Request"), request);
    let method = format!("Get{resource}");
    let mut answer = client.ask(client.call(&method, request)).await?;
    match answer.take_field_by_name(&resource.to_lowercase()) {
        Some(Value::Message(found)) => Ok(found),
        _ => Err(Failure::failed(
            "the server returned nothing: it may be of another version",
        )),
    }
}

/// Fails if the resource has another revision than required, as the server would after the question.
pub(super) fn check_revision(noun: &str, required: Option<u64>, found: u64) -> Result<(), Failure> {
    match required {
        Some(required) if required != found => Err(wrong_revision(noun, required, found)),
        _ => Ok(()),
    }
}

fn wrong_revision(noun: &str, required: u64, found: u64) -> Failure {
    let message = match (required, found) {
        (0, _) => format!("the {noun} exists already, at revision {found}"),
        (_, 0) => format!("the {noun} does not exist, so it has no revision {required}"),
        _ => format!("the {noun} has the revision {found}, and not {required}"),
    };
    Failure::changed_meanwhile(message)
        .hint("read the current state, then repeat the command with its revision (--if-revision)")
}

/// Takes the fields that an edit does not set from the old entry of the same name.
fn keep_other_fields(entry: &mut DynamicMessage, set: &[&str], old: &[Value]) {
    let name = field(entry, "name");
    let mut same = old
        .iter()
        .filter_map(Value::as_message)
        .filter(|old| field(old, "name") == name);
    if let Some(old) = same.next() {
        let new = std::mem::replace(entry, old.clone());
        for set in set {
            entry.set_field_by_name(set, field(&new, set));
        }
    }
}

fn field(message: &DynamicMessage, name: &str) -> Value {
    let value = message.get_field_by_name(name);
    value.expect("the proto has this field").into_owned()
}

fn revision(resource: &DynamicMessage) -> u64 {
    field(resource, "revision").as_u64().unwrap_or_default()
}
