"""How the test talks to a server: schema by reflection, calls by name, errors taken apart, and no key ever shown.

No generated code: what a message looks like is what the server itself says through reflection, as `grpcurl` learns it.
"""

import contextlib
import re

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

import keytext

PACKAGE = "claviger.v1"
SERVICES = ("KeyVerify", "KeyAdmin", "RealmAdmin", "AuthorityAdmin")
DEADLINE_SECONDS = 20


def must(condition, what: str):
    """An assertion that stays when Python runs with -O, and that shows nothing but its own words."""
    if not condition:
        raise AssertionError(what)


def same(actual, expected, what: str):
    must(actual == expected, f"{what}: {actual!r} instead of {expected!r}")


class Secrets:
    """Every key text that was ever in use here, so that it can be looked for where it must not be."""

    # Shorter texts, such as a lone prefix, may stand in an answer by rights.
    LEAST_LENGTH = 32

    def __init__(self):
        self._texts = set()

    def remember(self, text: str):
        if len(text) >= self.LEAST_LENGTH:
            self._texts.add(text)
        match = keytext.KEY_TEXT.fullmatch(text)
        if match:
            # The secret's digits alone would already be too much to show.
            body = match.group(3)
            self._texts.add(body[keytext.ID_WIDTH : -keytext.CHECK_WIDTH])

    def are_in(self, data: bytes) -> bool:
        return any(text.encode() in data for text in self._texts)

    def hidden(self, text: str) -> str:
        """`text` for people, without any key in it."""
        for secret in sorted(self._texts, key=len, reverse=True):
            text = text.replace(secret, "<key>")
        text = re.sub(r"(?i)(bearer )\S+", r"\1<key>", text)
        return keytext.KEY_TEXT.sub("<key>", text)


class Refusal:
    """A gRPC error, taken apart."""

    def __init__(self, error: grpc.RpcError):
        self.code = error.code()
        self.message = error.details() or ""
        status = rpc_status.from_call(error)
        self.details = list(status.details) if status is not None else []

    def detail(self, kind):
        """The one detail of this kind, or None."""
        for packed in self.details:
            found = kind()
            if packed.Is(kind.DESCRIPTOR):
                must(packed.Unpack(found), "a detail cannot be unpacked")
                return found
        return None

    @property
    def fields(self) -> list[str]:
        bad_request = self.detail(error_details_pb2.BadRequest)
        return [violation.field for violation in bad_request.field_violations] if bad_request else []

    @property
    def reason(self) -> str:
        info = self.detail(error_details_pb2.ErrorInfo)
        return info.reason if info else ""


class Schema:
    """What the server's reflection tells of its messages and methods."""

    def __init__(self, channel: grpc.Channel):
        # A pool of its own: the default one already holds other files under the same names.
        self.database = ProtoReflectionDescriptorDatabase(channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)
        self.methods = {}
        for service in SERVICES:
            for method in self.pool.FindServiceByName(f"{PACKAGE}.{service}").methods:
                must(method.name not in self.methods, f"two methods are called {method.name}")
                self.methods[method.name] = method

    def path(self, method: str) -> str:
        return f"/{self.methods[method].containing_service.full_name}/{method}"

    def request(self, method: str):
        return message_factory.GetMessageClass(self.methods[method].input_type)

    def response(self, method: str):
        return message_factory.GetMessageClass(self.methods[method].output_type)

    def name(self, enum: str, value: int) -> str:
        known = self.pool.FindEnumTypeByName(f"{PACKAGE}.{enum}").values_by_number
        return known[value].name if value in known else f"{enum} {value}"


class GrpcCalls:
    """Calls each method over gRPC."""

    def __init__(self, channel: grpc.Channel):
        self.channel = channel

    def unary(self, path: str, request, response_class, metadata, timeout: float):
        invoke = self.channel.unary_unary(
            path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=response_class.FromString,
        )
        return invoke(request, metadata=metadata, timeout=timeout)


class Caller:
    """Somebody who calls with a credential of theirs, or with none. `calls` makes the calls with one message each."""

    def __init__(self, channel: grpc.Channel, calls, schema: Schema, secrets: Secrets, key: str | None = None,
                 authorization: str | None = None):
        self.channel, self.calls, self.schema, self.secrets = channel, calls, schema, secrets
        if key is not None:
            secrets.remember(key)
            authorization = f"Bearer {key}"
        self._metadata = [("authorization", authorization)] if authorization is not None else []
        # The revision of the last change that this caller was told of.
        self.revision = 0

    def with_key(self, key: str) -> "Caller":
        return Caller(self.channel, self.calls, self.schema, self.secrets, key=key)

    def with_header(self, authorization: str | None) -> "Caller":
        for word in (authorization or "").split():
            self.secrets.remember(word)
        return Caller(self.channel, self.calls, self.schema, self.secrets, authorization=authorization)

    def call(self, method: str, **fields):
        """Calls `method`; what holds of every answer and of every error is checked here once.

        Fields that the request has not, but its `filter`, go into that.
        """
        message = self.schema.request(method)
        known = message.DESCRIPTOR.fields_by_name
        if "filter" in known and "filter" not in fields:
            of_filter = known["filter"].message_type.fields_by_name
            filters = {name: value for name, value in fields.items() if name not in known and name in of_filter}
            fields = {name: value for name, value in fields.items() if name not in filters} | {"filter": filters}
        request = message(**fields)
        # Only gRPC has streams.
        calls = GrpcCalls(self.channel) if self.schema.methods[method].client_streaming else self.calls
        path, kind = self.schema.path(method), self.schema.response(method)
        try:
            response = calls.unary(path, request, kind, self._metadata, DEADLINE_SECONDS)
        except grpc.RpcError as error:
            self._shows_no_key(method, error)
            raise
        names = type(response).DESCRIPTOR.fields_by_name
        without_plain_key = response
        if "plain_key" in names:
            self.secrets.remember(response.plain_key)
            without_plain_key = type(response)()
            without_plain_key.CopyFrom(response)
            without_plain_key.ClearField("plain_key")
        shows_a_key = self.secrets.are_in(without_plain_key.SerializeToString())
        must(not shows_a_key, f"the answer of {method} holds a key's text")
        if "effective_everywhere_time" in names:
            looks_only = getattr(request, "dry_run", False)
            says_when = response.HasField("effective_everywhere_time")
            must(says_when != looks_only, f"whether {method} says when the change holds everywhere: {says_when}")
            # What was done before has the revision of then.
            if not getattr(response, "replayed", False):
                must(response.revision >= self.revision, f"{method} answers with a revision before the last one")
                self.revision = response.revision
        return response

    def stream(self, method: str, requests):
        """Sends all `requests`, each a dictionary of fields, on one stream, and yields the responses as they come."""
        message = self.schema.request(method)
        invoke = self.channel.stream_stream(
            self.schema.path(method),
            request_serializer=message.SerializeToString,
            response_deserializer=self.schema.response(method).FromString,
        )
        try:
            yield from invoke((message(**fields) for fields in requests), metadata=self._metadata,
                              timeout=DEADLINE_SECONDS)
        except grpc.RpcError as error:
            self._shows_no_key(method, error)
            raise

    def refused(self, method: str, *codes: grpc.StatusCode, **fields) -> Refusal:
        """Calls `method` and expects an error with one of these codes, or with any if none is given."""
        try:
            self.call(method, **fields)
        except grpc.RpcError as error:
            refusal = Refusal(error)
            expected = " or ".join(code.name for code in codes)
            must(not codes or refusal.code in codes, f"{method}: {refusal.code.name} instead of {expected}")
            return refusal
        raise AssertionError(f"{method} was answered and not refused")

    def refused_field(self, leaf: str, method: str, **fields) -> Refusal:
        """Calls `method` and expects INVALID_ARGUMENT with a violation of the field `leaf`."""
        refusal = self.refused(method, grpc.StatusCode.INVALID_ARGUMENT, **fields)
        must(refusal.fields, f"{method}: INVALID_ARGUMENT without any field violation")
        must(any(leaf in field for field in refusal.fields), f"{method}: {refusal.fields} instead of {leaf}")
        return refusal

    def every_page(self, method: str, items: str, **filters) -> list:
        """All the items of a list, asked page by page."""
        found, token = [], ""
        while True:
            page = self.call(method, page_token=token, **filters)
            found.extend(getattr(page, items))
            token = page.next_page_token
            if not token:
                return found

    def _shows_no_key(self, method: str, error: grpc.RpcError):
        shown = [(error.details() or "").encode()]
        # Details lie in the trailing metadata, as bytes; so do texts that somebody might add.
        for name, value in error.trailing_metadata() or ():
            shown += [name.encode(), value if isinstance(value, bytes) else value.encode()]
        must(not any(self.secrets.are_in(data) for data in shown), f"the error of {method} holds a key's text")


@contextlib.contextmanager
def connect(endpoint: str):
    with grpc.insecure_channel(endpoint) as channel:
        grpc.channel_ready_future(channel).result(timeout=DEADLINE_SECONDS)
        yield channel
