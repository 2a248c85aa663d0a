"""What is looked at in the messages of KServe's gRPC, and the one that is made: by their bytes, without reading the rest.

A message is fields: a tag, which is the field's number times 8 and 2 where bytes follow, their length, and the bytes.
"""

from __future__ import annotations

import re

_TEXT = b"\n"  # the tag of field 1: of a request its model's name, of an input its name, of a stream's answer its error
# An input that is true in a request that is to end another: its name, and its type.
_ENDING = (b"\n\x06cancel\x12\x04BOOL", b"\n\x04stop\x12\x04BOOL")
_SEVERAL = tuple(
    _TEXT + bytes([len(name)]) + name for name in (b"n", b"best_of", b"num_return_sequences", b"sampling_param_best_of")
)

# A shape of several rows of one text; numbers over 127 take several bytes.
_ROWS = re.compile(rb"\n(?:\ntext_input|\x08messages)\x12\x05BYTES\x1a(?:\x02[^\x01]|[\x03-\x0b][\x80-\xff]+.)\x01", re.DOTALL)


def first_text(message: bytes) -> str:
    """The first field, where that is field 1 and a text; else "": it is left out, as every empty field is."""
    if not message.startswith(_TEXT):
        return ""
    length, at = 0, 1
    for place in range(5):
        if at >= len(message):
            return ""
        length |= (message[at] & 0x7F) << 7 * place
        at += 1
        if message[at - 1] < 0x80:
            break
    return message[at : at + length].decode("utf-8", "replace")


def stream_error(text: str) -> bytes:
    """A ModelStreamInferResponse that says why a request failed."""
    data = text.encode()
    length, size = b"", len(data)
    while size > 0x7F:
        length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
    return _TEXT + length + bytes([size]) + data


def ends_another(message: bytes) -> bool:
    """As `bodies.ends_another`."""
    return any(one in message for one in _ENDING)


def places(message: bytes) -> int:
    """As `bodies.places`."""
    return 2 if any(one in message for one in _SEVERAL) or _ROWS.search(message) else 1
