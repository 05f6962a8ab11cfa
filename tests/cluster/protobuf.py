"""The three kinds that `kubectl create` sends as protocol buffers whatever a server says it speaks: namespaces, ConfigMaps, Secrets."""

import base64
from collections import defaultdict

from cluster.objects import ApiError, Object

MAGIC = b"k8s\0"
#: Numbers of the fields, as in the API's .proto files.
_TYPE, _RAW = 1, 2
_API_VERSION, _KIND = 1, 2
_METADATA, _DATA, _SECRET_TYPE = 1, 2, 3
_NAME = 1
_ENTRY_NAME, _ENTRY_VALUE = 1, 2
_BYTES = 2


def decode(body: bytes) -> Object:
    """The object in a body that begins with MAGIC."""
    envelope = _fields(body.removeprefix(MAGIC))
    named, content = _fields(envelope[_TYPE][0]), _fields(envelope[_RAW][0])
    kind, meta = _text(named, _KIND), _fields(content[_METADATA][0])
    made: Object = {"apiVersion": _text(named, _API_VERSION), "kind": kind, "metadata": {"name": _text(meta, _NAME)}}
    entries = {_text(entry, _ENTRY_NAME): entry[_ENTRY_VALUE][0] for entry in map(_fields, content[_DATA])}
    match kind:
        case "Namespace":
            return made
        case "ConfigMap":
            return {**made, "data": {name: value.decode() for name, value in entries.items()}}
        case "Secret":
            data = {name: base64.b64encode(value).decode() for name, value in entries.items()}
            return {**made, "type": _text(content, _SECRET_TYPE) or "Opaque", "data": data}
    raise ApiError(415, "UnsupportedMediaType", f"a {kind} as protocol buffers is not understood here")


def _text(fields: dict[int, list[bytes]], number: int) -> str:
    return fields[number][0].decode() if fields[number] else ""


def _fields(message: bytes) -> dict[int, list[bytes]]:
    """Number -> values of the fields that hold bytes; numbers are passed over."""
    found, at = defaultdict(list), 0
    while at < len(message):
        tag, at = _varint(message, at)
        size, at = _varint(message, at)
        if tag & 7 == _BYTES:
            found[tag >> 3].append(message[at : at + size])
            at += size
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte, at = message[at], at + 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
