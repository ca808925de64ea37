"""The audit trail."""

import keytext
from checks import case, check
from fixture import Fixture
from wire import must, same


@check
def the_audit_trail_has_every_change_newest_first_without_gaps(fixture: Fixture):
    events, token = [], ""
    while not events or events[-1].revision > fixture.first_revision:
        page = fixture.operator.call("ListEvents", page_size=1000, page_token=token)
        events.extend(page.events)
        token = page.next_page_token
        if not token:
            break
    revisions = [event.revision for event in events]
    must(revisions[0] >= fixture.operator.revision, "the last change is not in the audit trail")
    for newer, older in zip(revisions, revisions[1:]):
        same(older, newer - 1, f"the revision that follows on {newer}, newest first")
    must(revisions[-1] <= fixture.first_revision, "the audit trail does not reach back to the first change")

    kinds = {event.kind for event in events if event.revision >= fixture.first_revision}
    wanted = {"key.issued", "key.imported", "key.updated", "key.disabled", "key.enabled", "key.rotated",
              "key.rotation_ended", "key.revoked", "keys.revoked", "key.deleted", "realm.put", "realm.deleted",
              "partner.put", "project.put", "project.deleted"}
    must(wanted <= kinds, f"the audit trail lacks {sorted(wanted - kinds)}")
    ours = [event for event in events if event.realm == fixture.realm]
    must(ours and all(event.actor and event.peer for event in ours), "an event without an author or an origin")
    for event in events:
        # Every answer is searched for keys as it comes in; this looks for anything of that form besides.
        for value in (event.actor, event.peer, event.kind, *event.detail.keys(), *event.detail.values()):
            must(keytext.KEY_TEXT.search(value) is None, "an event holds what looks like a key")


@check
def events_are_found_by_what_they_are_about(fixture: Fixture):
    everything = fixture.operator.every_page("ListEvents", "events", realm=fixture.realm, page_size=1000)
    middle = everything[len(everything) // 2].time
    border = {"seconds": middle.seconds, "nanos": middle.nanos}

    def before_border(event) -> bool:
        return (event.time.seconds, event.time.nanos) < (middle.seconds, middle.nanos)

    some_key = next(event.key_id for event in everything if event.kind == "key.disabled")
    for what, filters, belongs in (
        ("partner", {"partner": "pages"}, lambda event: event.partner == "pages"),
        ("kind", {"kind": "key.revoked"}, lambda event: event.kind == "key.revoked"),
        ("key", {"key_id": some_key}, lambda event: event.key_id == some_key),
        ("actor", {"actor": everything[0].actor}, lambda event: event.actor == everything[0].actor),
        ("start", {"start_time": border}, lambda event: not before_border(event)),
        ("end", {"end_time": border}, before_border),
        ("kinds", {"kinds": ["key.revoked", "key.disabled"]}, lambda event: event.kind in ("key.revoked", "key.disabled")),
        ("kind and kinds", {"kind": "key.revoked", "kinds": ["key.disabled"]},
         lambda event: event.kind in ("key.revoked", "key.disabled")),
        ("suspension", {"kinds": ["partner.suspended"]}, lambda event: event.detail.get("suspension") == "began"),
        ("restoration", {"kinds": ["partner.restored"]}, lambda event: event.detail.get("suspension") == "ended"),
        ("kind and partner", {"kind": "key.issued", "partner": "acme"},
         lambda event: event.kind == "key.issued" and event.partner == "acme"),
    ):
        with case(f"events are found by {what}"):
            found = fixture.operator.every_page("ListEvents", "events", realm=fixture.realm, page_size=7, **filters)
            wanted = [event.revision for event in everything if belongs(event)]
            must(wanted, f"nothing to find by {what}")
            same([event.revision for event in found], wanted, f"the events by {what}")
