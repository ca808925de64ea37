"""Keys of other systems."""

import base64
import random
import re
import string
import uuid

import grpc

import keytext
from calls import NotImported, entry, hash_of, import_keys, import_one, old_text, outcome, rotate
from checks import case, check
from fixture import PROVEN_NOTHING, Code, Fixture, from_now, letters, until
from wire import Refusal, must, same


@check
def reflection_tells_that_imported_texts_are_to_be_redacted(fixture: Fixture):
    fields = fixture.schema.request("ImportKeys").DESCRIPTOR.fields_by_name["entries"].message_type.fields_by_name
    for name in ("plain_key", "sha256"):
        must(fields[name].GetOptions().debug_redact, f"{name} of an entry is not debug_redact")
    for method in ("IssueKey", "RotateKey"):
        descriptor = fixture.schema.response(method).DESCRIPTOR
        must(descriptor.fields_by_name["plain_key"].GetOptions().debug_redact, f"plain_key of {method}")


@check
def a_key_of_another_system_goes_on_with_its_text(fixture: Fixture):
    text = old_text()
    issued = import_one(fixture, text, name="from before", scopes=["write"], labels={"a": "b"},
                        expire_time=from_now(3600), allowed_cidrs=["10.0.0.0/8"])
    key = issued.key
    same((key.realm, key.partner, key.environment), (fixture.realm, "acme", "production"), "where the key belongs")
    same((key.name, dict(key.labels)), ("from before", {"a": "b"}), "its name and labels")
    same((list(key.scopes), key.full_access), (["write"], False), "what it may do")
    state_and_level = fixture.state_of(key), fixture.level_of(key)
    same(state_and_level, ("KEY_STATE_ACTIVE", "KEY_LEVEL_PARTNER"), "its state and level")
    same(key.created_by, fixture.operator_id, "who imported it")
    [secret] = key.secrets
    must(secret.imported, "its text is told as one of claviger's own")
    same((uuid.UUID(key.id).version, key.hint[-4:]), (7, text[-4:]), "its id and hint")
    must(len(key.hint) < 16, "the hint shows more than the last four characters")
    answer = fixture.expect("VERDICT_ALLOWED", issued, scopes=["read"], client_ip="10.1.2.3", partner="acme")
    same((answer.key.id, list(answer.key.scopes)), (key.id, ["read", "write"]), "the proven key")
    fixture.expect("VERDICT_ADDRESS_DENIED", issued, client_ip="192.0.2.1")
    fixture.expect("VERDICT_SCOPE_MISSING", issued, scopes=["admin"], client_ip="10.1.2.3")
    fixture.expect("VERDICT_ENVIRONMENT_MISMATCH", issued, environment="staging")
    # In another realm it is nobody's.
    fixture.expect("VERDICT_UNKNOWN", text, realm=fixture.plain_realm, environment="")
    for wrong in (keytext.with_one_character_changed(text, -1), text.lower(), text[:-1], text + "x"):
        fixture.expect("VERDICT_UNKNOWN", wrong)
    kinds = [event.kind for event in fixture.operator.every_page("ListEvents", "events", key_id=key.id)]
    same(kinds, ["key.imported"], "the events")
    listed = {key.id for key in fixture.operator.every_page("ListKeys", "keys", realm=fixture.realm, partner="acme")}
    must(key.id in listed, "it is not listed")


@check
def a_key_is_imported_by_the_hash_of_its_text(fixture: Fixture):
    # A hash in which the two alphabets of base64 differ, so that both are tried in earnest.
    text = old_text()
    while not set(b"+/") <= set(base64.b64encode(hash_of(text))):
        text = old_text()
    digest = hash_of(text)
    forms = {
        "hexadecimal digits": digest.hex(),
        "capital hexadecimal digits": digest.hex().upper(),
        "base64": base64.b64encode(digest).decode(),
        "base64 for URLs": base64.urlsafe_b64encode(digest).decode(),
    }
    for what, form in forms.items():
        with case(f"a hash in {what}"):
            [key_id] = import_keys(fixture, entry(fixture, sha256=form))
            must(isinstance(key_id, str), f"it was not imported: {key_id}")
            key = fixture.operator.call("GetKey", key_id=key_id).key
            must(re.fullmatch("hmac:[0-9a-f]{8}…", key.hint), "the hint is not eight digits of the keyed digest")
            must(digest.hex()[:8] not in key.hint, "the hint shows the hash")
            answer = fixture.expect("VERDICT_ALLOWED", text)
            same(answer.key.id, key_id, "the proven key")
            fixture.expect("VERDICT_UNKNOWN", form)
            # Each other form is the same text, and so is the text.
            for other in (*({"sha256": other} for other in forms.values()), {"plain_key": text}):
                [refused] = import_keys(fixture, entry(fixture, **other))
                same((refused.code, refused.reason), (Code.ALREADY_EXISTS, "ALREADY_IMPORTED"), "the second import")
                same(refused.metadata.get("key_id"), key_id, "the key that has the text")
            fixture.operator.call("DeleteKey", key_id=key_id)
            fixture.expect("VERDICT_UNKNOWN", text)


@check
def good_entries_are_imported_and_bad_ones_hurt_only_themselves(fixture: Fixture):
    good, twice, shortest = old_text(), old_text(), old_text()[-22:]
    longest = "".join(random.choices(string.ascii_letters + string.digits, k=512))
    of_all = "A0a-._~+/" + old_text() + "=="
    invalid, missing, taken = Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.ALREADY_EXISTS
    rows = [
        ("a good one", entry(fixture, good), None, ""),
        ("21 characters", entry(fixture, old_text()[:21]), invalid, "plain_key"),
        ("22 characters", entry(fixture, shortest), None, ""),
        ("512 characters", entry(fixture, longest), None, ""),
        ("513 characters", entry(fixture, longest + "x"), invalid, "plain_key"),
        ("every sign of the alphabet", entry(fixture, of_all), None, ""),
        ("a space", entry(fixture, "s3fzXw8Rk2VbN5yL m9Qp4TdHj7CgE1"), invalid, "plain_key"),
        ("a comma", entry(fixture, "s3fzXw8Rk2VbN5yL,m9Qp4TdHj7CgE1"), invalid, "plain_key"),
        ("a colon", entry(fixture, "s3fzXw8Rk2VbN5yL:m9Qp4TdHj7CgE1"), invalid, "plain_key"),
        ("a letter beyond ASCII", entry(fixture, "s3fzXw8Rk2VbN5yLém9Qp4TdHj7CgE1"), invalid, "plain_key"),
        ("an equals sign amidst", entry(fixture, "s3fzXw8Rk2VbN5yL=m9Qp4TdHj7CgE1"), invalid, "plain_key"),
        ("a line break", entry(fixture, old_text() + "\n"), invalid, "plain_key"),
        ("one character", entry(fixture, "x" * 40), invalid, "plain_key"),
        ("two characters", entry(fixture, "xy" * 20), invalid, "plain_key"),
        ("nothing", entry(fixture, ""), invalid, "plain_key"),
        ("no secret at all", entry(fixture), invalid, ""),
        ("one that comes again", entry(fixture, twice), None, ""),
        ("the same again", entry(fixture, twice), taken, ""),
        ("the same again by its hash", entry(fixture, sha256=hash_of(twice).hex()), taken, ""),
        ("63 digits", entry(fixture, sha256=hash_of("x").hex()[1:]), invalid, "sha256"),
        ("65 digits", entry(fixture, sha256=hash_of("x").hex() + "0"), invalid, "sha256"),
        ("a digit that is none", entry(fixture, sha256="g" + hash_of("x").hex()[1:]), invalid, "sha256"),
        ("31 bytes of base64", entry(fixture, sha256=base64.b64encode(b"x" * 31).decode()), invalid, "sha256"),
        ("an empty hash", entry(fixture, sha256=""), invalid, "sha256"),
        ("no partner", entry(fixture, old_text(), partner=""), invalid, "partner"),
        ("an unknown partner", entry(fixture, old_text(), partner="nobody"), missing, ""),
        ("an unknown project", entry(fixture, old_text(), project="nosuch", level=0), missing, ""),
        ("another partner's project", entry(fixture, old_text(), project="gamma", level=0), missing, ""),
        ("no level", entry(fixture, old_text(), level=0), invalid, "level"),
        ("no environment", entry(fixture, old_text(), environment=""), invalid, "environment"),
        ("an unknown environment", entry(fixture, old_text(), environment="nowhere"), invalid, "environment"),
        ("an unknown scope", entry(fixture, old_text(), scopes=["nosuch"]), invalid, "scopes"),
        ("scopes beside full access", entry(fixture, old_text(), scopes=["read"], full_access=True), invalid,
         "full_access"),
        ("a range with host bits", entry(fixture, old_text(), allowed_cidrs=["10.0.0.1/8"]), invalid, "allowed_cidrs"),
        ("an expiry in the past", entry(fixture, old_text(), expire_time=from_now(-60)), invalid, "expire_time"),
        ("a control character in the name", entry(fixture, old_text(), name="two\nlines"), invalid, "name"),
        ("a control character in the external id", entry(fixture, old_text(), external_id="two\nlines"), invalid,
         "external_id"),
        ("17 labels", entry(fixture, old_text(), labels={f"label{n}": "x" for n in range(17)}), invalid, "labels"),
        ("a project key", entry(fixture, old_text(), project="beta", level=0), None, ""),
    ]
    entries = [row[1] for row in rows]
    looked = import_keys(fixture, *entries, dry_run=True)
    fixture.expect("VERDICT_UNKNOWN", good)
    done = import_keys(fixture, *entries)
    again = import_keys(fixture, *entries)
    for (what, sent, code, leaf), in_look, result, repeated in zip(rows, looked, done, again):
        with case(f"{'imported' if code is None else 'not imported'}: {what}"):
            if code is None:
                same(in_look, "", "the look")
                must(isinstance(result, str), f"it was refused: {result}")
                answer = fixture.expect("VERDICT_ALLOWED", sent["plain_key"], any_target=True)
                same(answer.key.id, result, "the proven key")
                same(repeated.reason, "ALREADY_IMPORTED", "what is said of it the second time")
                same(repeated.metadata.get("key_id"), result, "the key that has the text")
                continue
            for refused in (in_look, result, repeated):
                must(isinstance(refused, NotImported), "it was imported")
                same(refused.code, code, "the code")
                must(refused.reason, "an error without ErrorInfo")
                must(any(leaf in field for field in refused.fields) or not leaf, f"{refused.fields} instead of {leaf}")
                same(refused.reason == "ALREADY_IMPORTED", code == taken, "whether it is there already")
            if "plain_key" in sent and code != taken:
                verdict = fixture.verdict(fixture.verify(sent["plain_key"], any_target=True))
                must(verdict in PROVEN_NOTHING, "what was refused was imported all the same")


@check
def a_text_is_imported_once_in_all_realms(fixture: Fixture):
    text = old_text()
    issued = import_one(fixture, text)
    plain = {"partner": "acme", "level": 0, "environment": ""}
    [refused] = import_keys(fixture, entry(fixture, text, **plain), realm=fixture.plain_realm)
    same((refused.code, refused.reason), (Code.ALREADY_EXISTS, "ALREADY_IMPORTED"), "the import into another realm")
    manager = fixture.operator.with_key(fixture.key_of_the_authority("manage", fixture.plain_realm).plain_key)
    [refused] = import_keys(fixture, entry(fixture, text, **plain), realm=fixture.plain_realm, caller=manager)
    same(refused.reason, "ALREADY_IMPORTED", "the import by a manager of another realm")
    must(issued.id not in refused.metadata.values(), "a manager was told of a foreign key")
    fixture.operator.call("RevokeKey", key_id=issued.id)
    [refused] = import_keys(fixture, entry(fixture, text))
    same(refused.reason, "ALREADY_IMPORTED", "the import of a revoked key's text")
    fixture.expect("VERDICT_REVOKED", issued)
    fixture.operator.call("DeleteKey", key_id=issued.id)
    [refused] = import_keys(fixture, entry(fixture, text))
    same(refused.reason, "ALREADY_IMPORTED", "the import of the text of a key that was revoked and deleted")
    text = old_text()
    issued = import_one(fixture, text)
    fixture.operator.call("DeleteKey", key_id=issued.id)
    [other] = import_keys(fixture, entry(fixture, text, **plain), realm=fixture.plain_realm)
    must(isinstance(other, str) and other != issued.id, "a deleted key's text was not imported anew")
    fixture.expect("VERDICT_ALLOWED", text, realm=fixture.plain_realm, environment="")
    fixture.expect("VERDICT_UNKNOWN", text)


@check
def an_imported_text_may_begin_like_one_of_clavigers_own(fixture: Fixture):
    foreign = keytext.with_another_id(fixture.issue().plain_key, uuid.uuid4())
    for text in (f"{fixture.prefix}_live_{old_text()[-32:]}", f"{fixture.prefix}_{old_text()[-32:]}", foreign):
        issued = import_one(fixture, text)
        fixture.expect("VERDICT_ALLOWED", issued)
        other = fixture.verify(keytext.with_one_character_changed(text, -1))
        must(fixture.verdict(other) in PROVEN_NOTHING, "another text is taken for it")


@check
def an_imported_key_is_rotated_to_a_text_of_clavigers_own(fixture: Fixture):
    old = import_one(fixture, old_text())
    new = rotate(fixture, old, 1.2)
    same(keytext.Parts(new.plain_key).key_id, old.id, "the id in the new text")
    same([secret.imported for secret in new.key.secrets], [True, False], "which of its texts was imported")
    must(new.key.hint.endswith(new.plain_key[-4:]), "the hint is not that of the new text")
    answers = [fixture.expect("VERDICT_ALLOWED", issued) for issued in (old, new)]
    must(answers[0].key == answers[1].key, "the two texts are told as different keys")
    until(lambda: fixture.verdict(fixture.verify(old.plain_key)) == "VERDICT_EXPIRED", "the end of an overlap")
    fixture.expect("VERDICT_ALLOWED", new)
    newest = rotate(fixture, old)
    fixture.expect("VERDICT_UNKNOWN", old.plain_key)
    fixture.expect("VERDICT_ALLOWED", newest)


@check
def an_import_that_is_sent_again_under_its_name_is_answered_as_before(fixture: Fixture):
    good, bad = entry(fixture, old_text()), entry(fixture, "x" * 40)
    request = {"realm": fixture.realm, "entries": [good, bad], "request_id": str(uuid.uuid4())}
    first = fixture.operator.call("ImportKeys", **request)
    must(not first.replayed, "the first answer")
    again = fixture.operator.call("ImportKeys", **request)
    must(again.replayed, "the second answer")
    same(again.revision, first.revision, "the revision of the first time")
    before, after = ([outcome(result) for result in answer.results] for answer in (first, again))
    same((after[0], after[1].code), (before[0], before[1].code), "the results of the first time")
    must(isinstance(after[0], str), "the good one is told as taken")
    fixture.operator.refused_field("request_id", "ImportKeys", **request | {"entries": [good]})
    # A look neither takes nor gives a name.
    for other in ({"request_id": str(uuid.uuid4())}, {}):
        dry_run = {"realm": fixture.realm, "entries": [good], "dry_run": True}
        look = fixture.operator.call("ImportKeys", **dry_run | other)
        same(outcome(look.results[0]).reason, "ALREADY_IMPORTED", "the look without the name")


@check
def an_import_as_a_whole_can_be_refused(fixture: Fixture):
    good = entry(fixture, old_text())
    fixture.operator.refused_field("entries", "ImportKeys", realm=fixture.realm, entries=[good] * 1001)
    fixture.operator.refused_field("realm", "ImportKeys", entries=[good])
    fixture.operator.refused("ImportKeys", Code.NOT_FOUND, realm=f"py-{letters(10)}", entries=[good])
    # The keys of this authority itself are not taken over from elsewhere. The contract names no code for this.
    own = entry(fixture, old_text(), partner=fixture.realm, level=0, environment="", scopes=["manage"])
    try:
        [refused] = import_keys(fixture, own, realm="claviger")
        must(isinstance(refused, NotImported), "a key of the authority was imported")
    except grpc.RpcError as error:
        codes = (Code.PERMISSION_DENIED, Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION)
        must(Refusal(error).code in codes, f"the code {Refusal(error).code.name}")
    fixture.expect("VERDICT_UNKNOWN", good["plain_key"])
