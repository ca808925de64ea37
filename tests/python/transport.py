"""Limits of messages, and errors that repeat no key."""

from checks import case, check
from fixture import Code, Fixture
from wire import same


@check
def a_key_in_the_wrong_place_is_not_repeated(fixture: Fixture):
    # Somebody pastes a key where its id, a token or a word belongs. Each error is searched for it as it comes in.
    issued = fixture.issue()
    text = issued.plain_key
    for method, place, fields in (
        ("GetKey", "key_id", {"key_id": text}),
        ("RevokeKey", "key_id", {"key_id": text}),
        ("DeleteKey", "key_id", {"key_id": text}),
        ("ListKeys", "page_token", {"realm": fixture.realm, "page_token": text}),
        ("ListEvents", "key_id", {"realm": fixture.realm, "key_id": text}),
        ("IssueKey", "allowed_cidrs", fixture.key_request(allowed_cidrs=[text])),
        ("IssueKey", "scopes", fixture.key_request(scopes=[text])),
        ("IssueKey", "environment", fixture.key_request(environment=text)),
        ("Verify", "realm", fixture.question(text, realm=text)),
        ("Verify", "environment", fixture.question(text, environment=text)),
        ("Verify", "scopes", fixture.question(text, scopes=[text])),
    ):
        with case(f"a key in {place} of {method} is refused and not repeated"):
            fixture.operator.refused_field(place, method, **fields)
    for fields in ({"realm": text}, {"partner": text}, {"project": text}):
        fixture.operator.refused("IssueKey", Code.NOT_FOUND, Code.INVALID_ARGUMENT, **fixture.key_request(**fields))


@check
def a_message_beyond_the_limit_is_an_error_and_the_channel_lives_on(fixture: Fixture):
    issued = fixture.issue()
    fixture.operator.refused("Verify", **fixture.question("x" * (64 * 1024 + 1)))
    fixture.expect("VERDICT_ALLOWED", issued)
    fixture.operator.refused("IssueKey", **fixture.key_request(name="x" * (1024 * 1024 + 1)))
    same(fixture.operator.call("GetKey", key_id=issued.id).key.id, issued.id, "the key")
