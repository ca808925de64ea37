"""Updates of keys."""

from calls import refused_by_state, time_of, update
from checks import case, check
from fixture import Code, Fixture, from_now, seconds, until
from wire import must, same


@check
def an_update_changes_what_its_mask_names_and_nothing_else(fixture: Fixture):
    issued = fixture.issue(scopes=["read"], labels={"a": "b"}, allowed_cidrs=["10.0.0.0/8"], expire_time=from_now(3600))
    from_home = {"client_ip": "10.1.2.3"}
    fixture.expect("VERDICT_ALLOWED", issued, **from_home)
    end = from_now(7200)
    for what, fields, told in (
        ("the name", {"name": "Another näme"}, lambda key: key.name == "Another näme"),
        ("the labels", {"labels": {"c": "d", "e": ""}}, lambda key: dict(key.labels) == {"c": "d", "e": ""}),
        ("the scopes", {"scopes": ["write", "read"]}, lambda key: list(key.scopes) == ["read", "write"]),
        ("the end", {"expire_time": end}, lambda key: time_of(key.expire_time) == end),
        ("the ranges", {"allowed_cidrs": ["10.1.0.0/16"]}, lambda key: list(key.allowed_cidrs) == ["10.1.0.0/16"]),
    ):
        with case(f"an update changes {what}"):
            before = fixture.operator.call("GetKey", key_id=issued.id).key
            must(not told(before), f"{what}: it is so already")
            [path] = fields
            after = update(fixture, issued, path, **fields)
            must(told(after), f"{what} was not changed")
            must(fixture.operator.call("GetKey", key_id=issued.id).key.secrets[0].create_time ==
                 before.secrets[0].create_time, "the secret is another one")
            # The rest is as it was; when it was last used may be told meanwhile.
            must(after.revision > before.revision, "the revision is that of an earlier change")
            for key in (before, after):
                key.ClearField(path)
                key.ClearField("revision")
                key.ClearField("last_used_time")
                key.secrets[0].ClearField("last_used_time")
            must(before == after, f"more than {what} was changed")
    answer = fixture.expect("VERDICT_ALLOWED", issued, **from_home, scopes=["write"])
    same((answer.key.name, dict(answer.key.labels)), ("Another näme", {"c": "d", "e": ""}), "what Verify tells")
    fixture.expect("VERDICT_ADDRESS_DENIED", issued, client_ip="10.2.0.1")

    kinds = [event.kind for event in fixture.operator.every_page("ListEvents", "events", key_id=issued.id)]
    same(kinds, ["key.updated"] * 5 + ["key.issued"], "the events")
    # Several at once, some of them emptied.
    key = update(fixture, issued, "labels", "allowed_cidrs", "expire_time", "name", name="")
    same((key.name, dict(key.labels), list(key.allowed_cidrs), key.HasField("expire_time")), ("", {}, [], False),
         "what was emptied")
    fixture.expect("VERDICT_ALLOWED", issued)


@check
def an_update_that_changes_nothing_is_no_event(fixture: Fixture):
    issued = fixture.issue(name="same", scopes=["read"])
    first = fixture.operator.call("UpdateKey", key_id=issued.id, update_mask={"paths": ["name", "scopes"]}, name="same",
                                scopes=["read"])
    must(first.key.name == "same", "the key")
    kinds = [event.kind for event in fixture.operator.every_page("ListEvents", "events", key_id=issued.id)]
    same(kinds, ["key.issued"], "the events")


@check
def a_change_from_an_old_reading_is_refused(fixture: Fixture):
    issued = fixture.issue(scopes=["read"])
    read = fixture.operator.call("GetKey", key_id=issued.id).key
    changed = update(fixture, issued, "name", name="changed", if_revision=read.revision)
    must(changed.revision > read.revision, "the revision of the key")
    for method, fields in (
        ("UpdateKey", {"update_mask": {"paths": ["name"]}, "name": "lost"}),
        ("RotateKey", {"overlap": {"seconds": 60}}),
        ("EndRotation", {"keep": "KEEP_SECRET_NEW"}),
        ("DisableKey", {}),
        ("EnableKey", {}),
    ):
        with case(f"{method} at a revision that the key had before"):
            refusal = fixture.operator.refused(method, Code.ABORTED, key_id=issued.id, if_revision=read.revision, **fields)
            same(refusal.reason, "CHANGED_MEANWHILE", "the reason")
    now = fixture.operator.call("GetKey", key_id=issued.id).key
    same((now.name, now.revision), ("changed", changed.revision), "the key")


@check
def an_update_says_what_it_changes(fixture: Fixture):
    issued = fixture.issue(name="before", scopes=["read"])
    for what, leaf, paths, fields in (
        ("no mask", "update_mask", None, {"name": "after"}),
        ("an empty mask", "update_mask", [], {"name": "after"}),
        ("an empty path", "update_mask", [""], {}),
        ("a path to nowhere", "update_mask", ["nosuch"], {}),
        ("a path to nowhere beside a good one", "update_mask", ["name", "nosuch"], {"name": "after"}),
        ("a path within a field", "update_mask", ["labels.x"], {"labels": {"x": "y"}}),
        ("a path within a list", "update_mask", ["scopes[0]"], {"scopes": ["write"]}),
        ("everything", "update_mask", ["*"], {"name": "after"}),
        ("what names the key", "update_mask", ["key_id"], {}),
        ("what never changes", "update_mask", ["partner"], {}),
        ("in other case", "update_mask", ["Name"], {"name": "after"}),
    ):
        with case(f"refused in UpdateKey: {what}"):
            mask = {} if paths is None else {"update_mask": {"paths": paths}}
            fixture.operator.refused_field(leaf, "UpdateKey", key_id=issued.id, **mask, **fields)
    # A field that is set and not named would be left out in silence. The mask or the field is to blame: either will do.
    for field, value in (
        ("name", "after"),
        ("labels", {"x": "y"}),
        ("scopes", ["write"]),
        ("full_access", True),
        ("expire_time", from_now(60)),
        ("allowed_cidrs", ["10.0.0.0/8"]),
    ):
        with case(f"refused in UpdateKey: {field} is set and not in the mask"):
            path = "labels" if field == "name" else "name"
            refusal = fixture.operator.refused("UpdateKey", Code.INVALID_ARGUMENT, key_id=issued.id,
                                             update_mask={"paths": [path]}, **{field: value})
            must(any(field in named or "update_mask" in named for named in refusal.fields), f"{refusal.fields}")
    must(fixture.operator.call("GetKey", key_id=issued.id).key == issued.key, "a refused update changed the key")


@check
def a_bad_field_of_an_update_is_named(fixture: Fixture):
    issued = fixture.issue(scopes=["read"])
    for what, leaf, fields in (
        ("an unknown scope", "scopes", {"scopes": ["nosuch"]}),
        ("65 scopes", "scopes", {"scopes": [f"scope{n}" for n in range(65)]}),
        ("scopes beside full access", "full_access", {"scopes": ["read"], "full_access": True}),
        ("a name of 129 characters", "name", {"name": "é" * 129}),
        ("a name with a control character", "name", {"name": "two\nlines"}),
        ("a label's name of 65 characters", "labels", {"labels": {"x" * 65: "value"}}),
        ("a label's value of 257 characters", "labels", {"labels": {"name": "x" * 257}}),
        ("17 labels", "labels", {"labels": {f"label{n}": "value" for n in range(17)}}),
        ("a range that is none", "allowed_cidrs", {"allowed_cidrs": ["10.0.0.0/8", "not a range"]}),
        ("a range with host bits", "allowed_cidrs", {"allowed_cidrs": ["10.0.0.1/8"]}),
        ("a v6 range with host bits", "allowed_cidrs", {"allowed_cidrs": ["2001:db8::1/32"]}),
        ("33 ranges", "allowed_cidrs", {"allowed_cidrs": [f"10.{n}.0.0/16" for n in range(33)]}),
        ("an expiry in the past", "expire_time", {"expire_time": from_now(-60)}),
        ("an expiry of 1970", "expire_time", {"expire_time": {"seconds": 0}}),
        ("an expiry that is no time", "expire_time", {"expire_time": {"seconds": 2**62, "nanos": -1}}),
    ):
        with case(f"refused in UpdateKey: {what}"):
            fixture.operator.refused_field(leaf, "UpdateKey", key_id=issued.id, update_mask={"paths": list(fields)},
                                         **fields)
    refusal = fixture.operator.refused_field("name", "UpdateKey", key_id="not-a-uuid", update_mask={"paths": ["name"]},
                                           name="two\nlines")
    must(any("key_id" in field for field in refusal.fields), "key_id is not named beside the others")
    must(fixture.operator.call("GetKey", key_id=issued.id).key == issued.key, "a refused update changed the key")


@check
def an_update_never_turns_nothing_into_everything(fixture: Fixture):
    # In this realm a key that is issued without scopes gets all of them.
    use = {"realm": fixture.plain_realm, "environment": ""}
    issued = fixture.issue_exactly(realm=fixture.plain_realm, partner="acme", scopes=["use"])
    key = update(fixture, issued, "scopes")
    same((list(key.scopes), key.full_access), ([], False), "the access after the scopes were emptied")
    fixture.expect("VERDICT_SCOPE_MISSING", issued, **use, scopes=["use"])
    key = update(fixture, issued, "full_access", full_access=True)
    same((list(key.scopes), key.full_access), ([], True), "the access after full access was given")
    fixture.expect("VERDICT_ALLOWED", issued, **use, scopes=["use", "audit"])
    key = update(fixture, issued, "scopes", scopes=["audit"])
    same((list(key.scopes), key.full_access), (["audit"], False), "the access by name")
    key = update(fixture, issued, "full_access", full_access=True)
    key = update(fixture, issued, "full_access")
    same((list(key.scopes), key.full_access), ([], False), "the access after full access was taken")
    fixture.expect("VERDICT_SCOPE_MISSING", issued, **use, scopes=["audit"])


@check
def an_expired_key_can_be_given_a_later_end_and_a_revoked_one_cannot(fixture: Fixture):
    issued = fixture.issue(expire_time=from_now(0.3))
    until(lambda: fixture.verdict(fixture.verify(issued.plain_key)) == "VERDICT_EXPIRED", "the expiry of a key")
    key = update(fixture, issued, "expire_time", expire_time=from_now(3600))
    same(fixture.state_of(key), "KEY_STATE_ACTIVE", "the state")
    fixture.expect("VERDICT_ALLOWED", issued)
    fixture.operator.call("RevokeKey", key_id=issued.id)
    refused_by_state(fixture, "UpdateKey", key_id=issued.id, update_mask={"paths": ["expire_time"]})
    refused_by_state(fixture, "UpdateKey", key_id=issued.id, update_mask={"paths": ["name"]}, name="revived")
    fixture.expect("VERDICT_REVOKED", issued)


@check
def an_update_keeps_to_the_longest_life_of_its_realm(fixture: Fixture):
    issued = fixture.issue_exactly(realm=fixture.short_realm, partner="acme", expire_time=from_now(60))
    key = update(fixture, issued, "expire_time")
    same(round(seconds(key.expire_time) - seconds(key.create_time)), 3600, "the life of the key without an end")
    fixture.operator.refused_field("expire_time", "UpdateKey", key_id=issued.id,
                                 update_mask={"paths": ["expire_time"]}, expire_time=from_now(3700))
