"""Calls with JSON over HTTP, by the standard library and `google.protobuf.json_format` alone."""

import base64
import http.client
import json

import grpc
from google.protobuf import json_format
from google.protobuf.internal import field_mask, well_known_types
from google.rpc import error_details_pb2, status_pb2

from wire import must, same

# What Connect says of each code.
STATUSES = {
    "canceled": 499, "unknown": 500, "invalid_argument": 400, "deadline_exceeded": 504, "not_found": 404,
    "already_exists": 409, "permission_denied": 403, "resource_exhausted": 429, "failed_precondition": 400,
    "aborted": 409, "out_of_range": 400, "unimplemented": 501, "internal": 500, "unavailable": 503, "data_loss": 500,
    "unauthenticated": 401,
}
CODES = {code.value[1].replace(" ", "_"): code for code in grpc.StatusCode}
CODES["canceled"] = grpc.StatusCode.CANCELLED
DETAILS = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)



def _or_what_it_has(kind, has):
    """Writes also a value that JSON does not have, as it is, so that the server refuses it and not the library."""
    write = kind.ToJsonString

    def text(message):
        try:
            return write(message)
        except ValueError:
            return has(message)
    kind.ToJsonString = text


for span in (well_known_types.Timestamp, well_known_types.Duration):
    _or_what_it_has(span, lambda message: f"{message.seconds} seconds and {message.nanos} nanoseconds")
_or_what_it_has(field_mask.FieldMask, lambda message: ",".join(message.paths))


class JsonError(grpc.RpcError):
    """An error in JSON, in the form in which the library for gRPC has its own, so that the checks cannot tell them apart."""

    def __init__(self, error: dict, raw: bytes):
        super().__init__(error.get("message"))
        self._code, self._message = CODES[error["code"]], error.get("message", "")
        self._status = status_pb2.Status(code=self._code.value[0], message=self._message)
        for detail in error.get("details", ()):
            must("=" not in detail["value"], "the value of a detail has padding")
            packed = self._status.details.add()
            packed.type_url = "type.googleapis.com/" + detail["type"]
            packed.value = base64.b64decode(detail["value"] + "=" * (-len(detail["value"]) % 4), validate=True)
            [kind] = [kind for kind in DETAILS if packed.Is(kind.DESCRIPTOR)]
            message = kind()
            must(packed.Unpack(message), "a detail cannot be unpacked")
            same(detail["debug"], json_format.MessageToDict(message), "what is shown of a detail")
        # As it came, so that it is searched for keys as a whole.
        self._raw = raw

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._message

    def trailing_metadata(self):
        return [("grpc-status-details-bin", self._status.SerializeToString()), ("the-whole-body", self._raw)]


class JsonCalls:
    """Calls each method as `POST /SERVICE/METHOD` with JSON."""

    def __init__(self, address: str):
        self.address = address

    def unary(self, path: str, request, response_class, metadata, timeout: float):
        headers = dict(metadata) | {
            "content-type": "application/json",
            "connect-protocol-version": "1",
            "connect-timeout-ms": str(round(timeout * 1000)),
        }
        body = json_format.MessageToJson(request).encode()
        status, headers, answer = self._exchange(path, headers, body)
        same(headers.get("content-type"), "application/json", "the content type")
        if status == 200:
            # Refuses a field that the response does not have, and one that comes twice.
            return json_format.Parse(answer, response_class())
        error = json.loads(answer)
        same(status, STATUSES[error["code"]], f"the status of {error['code']}")
        failure = JsonError(error, answer)
        retry = [detail for detail in error.get("details", ()) if detail["type"] == "google.rpc.RetryInfo"]
        same("retry-after" in headers, bool(retry), "whether it says when to try again")
        raise failure

    def _exchange(self, path: str, headers: dict, body: bytes):
        # A connection of its own, because calls may be made by several threads.
        connection = http.client.HTTPConnection(self.address, timeout=60)
        try:
            try:
                connection.request("POST", path, body, headers)
            except (BrokenPipeError, ConnectionResetError):
                # The server does not read to its end what is too large, and has answered.
                pass
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        finally:
            connection.close()
