"""Changes to the headers of weights' files: of safetensors as JSON, of GGUF field by field, of both as bytes.

Its readers are its own, and believe what sound files say.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator

from support.damaged_files import damaged

from .json_changes import change_json
from .values import TEXTS, hostile, words

_COUNTS = (0, 1, 7, 2**16, 2**31 - 1, 2**32 - 1, 2**33, 100_000_001, 2**60, 2**63 - 1, 2**63, 2**64 - 1)
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # of GGUF's scalars
_STRING, _ARRAY = 8, 9


def change_safetensors(content: bytes, dice: random.Random) -> tuple[bytes, str]:
    """Another header, or other bytes in it, or another length."""
    if len(content) < 16:
        return content + b"x", "one byte more"
    (length,) = struct.unpack("<Q", content[:8])
    header, data = content[8 : 8 + length], content[8 + length :]
    match dice.randrange(12):
        case 8 | 9 | 10 | 11:
            data, done = change_numbers(data, dice)
            return content[: 8 + length] + data, done
        case 0:
            count = dice.choice([*_COUNTS, length - 1, length + 1, len(content), len(content) - 8])
            return struct.pack("<Q", count) + content[8:], f"header of {count} bytes"
        case 1:
            at = dice.randrange(len(content))
            return content[:at], f"ends at byte {at}"
        case 2:
            return content + bytes(dice.choice([1, 8, 4096])), "is longer"
        case 3:
            return damaged(content, dice, 8 + length), "header has other bytes"
        case 4:
            changed = _other_tensors(json.loads(header), dice) if _is_object(header) else (header, "")
            return _joined(changed[0], data), changed[1]
        case _:
            header, done = change_json(header, dice)
            return _joined(header, data), f"header {done}"


def change_numbers(data: bytes, dice: random.Random) -> tuple[bytes, str]:
    """Weights that are no numbers, infinite, huge or all the same."""
    begin = dice.randrange(len(data) or 1)
    end = begin + dice.choice([1, 4, 64, 4096, len(data)])
    fill = dice.choice([b"\xff", b"\x7f", b"\x80", b"\x00", b"\x7f\x80", b"\x80\x7f", b"\xfc", b"\x7e"])
    held = data[begin:end]
    return data[:begin] + (fill * len(held))[: len(held)] + data[
        begin + len(held) :
    ], f"numbers {fill!r} from byte {begin} to {end}"


def _is_object(header: bytes) -> bool:
    try:
        return isinstance(json.loads(header), dict)
    except (ValueError, RecursionError):
        return False


def _joined(header: bytes, data: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def _other_tensors(entries: dict[str, object], dice: random.Random) -> tuple[bytes, str]:
    """More tensors than there are bytes for, or under other names."""
    name = dice.choice(sorted(entries) or ["x"])
    match dice.randrange(4):
        case 0:
            count = dice.choice([1, 1000, 50_000])
            empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
            entries |= {f"model.layers.{i}.x.weight": empty for i in range(count)}
            return json.dumps(entries).encode(), f"{count} empty tensors"
        case 1:
            entries[dice.choice(TEXTS)] = entries.pop(name, None)
        case 2:
            entries[name] = {
                "dtype": "F32",
                "shape": [dice.choice(_COUNTS)] * dice.choice([1, 2, 9, 10**5]),
                "data_offsets": [0, 0],
            }
        case _:
            entries[name] = {"dtype": hostile(dice) if dice.random() < 0.5 else "F32", "shape": [2, 2], "data_offsets": [0, 16]}
            return json.dumps(entries, default=str).encode("utf-8", "surrogatepass"), f"{words(name)} is {words(entries[name])}"
    return json.dumps(entries).encode(), f"{words(name)} is another"


def change_gguf(content: bytes, dice: random.Random) -> tuple[bytes, str]:
    """Other fields, or other bytes in the header, or another length."""
    try:
        fields = list(_fields(content))
    except (struct.error, KeyError, UnicodeDecodeError, MemoryError, OverflowError):
        fields = []
    kind = dice.randrange(12)
    if kind >= 10:
        begin = dice.randrange(len(content) // 2, len(content))
        data, done = change_numbers(content[begin:], dice)
        return content[:begin] + data, done
    if kind == 0 or not fields:
        most = dice.choice([24, 100, 1200, 9000, 20_000])
        return damaged(content, dice, most), f"first {most} bytes have others among them"
    if kind == 1:
        at = dice.randrange(len(content))
        return content[:at], f"ends at byte {at}"
    if kind == 2:
        where, count = dice.choice([4, 8, 16]), dice.choice([*_COUNTS, 3, 2])
        return content[:where] + struct.pack("<Q", count) + content[where + 8 :], f"number at byte {where} is {count}"
    if kind == 3:
        begin = fields[-1][2]  # of what tensors there are
        return content[:begin] + damaged(content[begin:], dice, 1500), "tensors' entries have other bytes"
    key, begin, end = dice.choice(fields)
    (count,) = struct.unpack("<Q", content[16:24])
    if kind == 4:
        rest, done = b"", "gone"
        count -= 1
    elif kind == 5:
        other = dice.choice([field[0] for field in fields] + [t for t in TEXTS if t.isprintable()] + ["x" * 70_000, "\x1b[2J"])
        rest, done = _text(other) + content[begin + 8 + len(key.encode()) : end], f"named {words(other)}"
    else:
        value, done = _value(dice)
        rest = _text(key) + value
    changed = content[:16] + struct.pack("<Q", count) + content[24:begin] + rest + content[end:]
    return changed, f"field {key} {done}"


def _fields(content: bytes) -> Iterator[tuple[str, int, int]]:
    """Key, begin and end of each field of a sound file."""
    at = 24
    for _ in range(min(struct.unpack("<Q", content[16:24])[0], 1000)):
        begin = at
        (length,) = struct.unpack_from("<Q", content, at)
        key = content[at + 8 : at + 8 + length].decode()
        at += 8 + length
        (kind,) = struct.unpack_from("<I", content, at)
        at = _behind(content, at + 4, kind)
        yield key, begin, at


def _behind(content: bytes, at: int, kind: int) -> int:
    if kind == _STRING:
        return int(at + 8 + struct.unpack_from("<Q", content, at)[0])
    if kind == _ARRAY:
        of, count = struct.unpack_from("<IQ", content, at)
        at += 12
        if of != _STRING:
            return int(at + count * _SIZES[of])
        for _ in range(count):
            at = _behind(content, at, _STRING)
        return at
    return at + _SIZES[kind]


def _text(value: str) -> bytes:
    encoded = value.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(encoded)) + encoded


def _value(dice: random.Random) -> tuple[bytes, str]:
    """A value of any type with its type in front, and in words."""
    match dice.randrange(7):
        case 0:
            number = dice.choice([0, 1, 2, 3, 31, 1000, 10**6, 2**31, 2**32 - 1])
            return struct.pack("<II", 4, number), f"= {number}"
        case 1:
            real = dice.choice([0.0, -0.0, -1.0, 0.5, 1e-45, 3e38, float("nan"), float("inf")])
            return struct.pack("<If", 6, real), f"= {real}"
        case 2:
            large = dice.choice(_COUNTS)
            return struct.pack("<IQ", 10, large), f"= {large}"
        case 3:
            said = str(dice.choice([*TEXTS, "a" * 200_000, "{% for i in range(10**9) %}x{% endfor %}"]))
            return struct.pack("<I", _STRING) + _text(said), f"= {words(said)}"
        case 4:
            flag = dice.randrange(3)
            return struct.pack("<IB", 7, flag), f"= flag {flag}"
        case 5:
            count, held = dice.choice(_COUNTS), dice.choice([0, 1, 3, 300])
            return struct.pack("<IIQ", _ARRAY, dice.choice([0, 4, 6, 8, 9, 77]), count) + bytes(8 * held), f"= array of {count}"
        case _:
            texts = [dice.choice(["a", "b", "a" * 20_000, "<0x00>", "▁"]) for _ in range(dice.choice([1, 5, 260]))]
            return struct.pack("<IIQ", _ARRAY, 8, len(texts)) + b"".join(map(_text, texts)), f"= {len(texts)} texts"
