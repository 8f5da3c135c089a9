"""Damage to sound files: bytes, lines and values changed, cut, doubled, or replaced by what no file should hold.

What is odd comes from what readers meet: numbers of hundreds of digits, infinities, lists and tables where a scalar belongs, deep nesting,
text where a number belongs, control characters, words that other languages take for code.
"""

from __future__ import annotations

import random
import re

NUMBERS = (
    *("-1", "0", "1", "2", "1e308", "-1e-308", "nan", "inf", "-inf", "9" * 25, "9" * 400, "9" * 5000, "0.5", "4294967296", "true"),
    *("9223372036854775807", "-9223372036854775808", "18446744073709551616", "1e19", "1e-320", "2147483648", "0x7fffffff", "1_0", "١"),
)
TEXTS = ('""', '"\\u0000"', '"' + "x" * 5000 + '"', "[" * 200 + "]" * 200, "{}", "[[1]]", "null", '"../../etc/passwd"', '"\\u001b[2J"',
         "[]", "[1, 2]", "{a = 1}", "1979-05-27", "'", '"""', "\x1b[31m", "&a [*a]", "!!python/object:os.system", "=1+1")  # fmt: skip


_MARKS, _ENDS = re.compile(rb"[:=,\[\n]"), re.compile(rb"[,\n}\]]")


def damaged(sound: bytes, source: random.Random) -> bytes:
    """A text with some of its bytes, lines, words or values changed."""
    data = bytearray(sound)
    for _ in range(source.choice((1, 1, 1, 2, 3, 5))):
        way = source.random()
        at = source.randrange(len(data) + 1)
        if way < 0.12 and data:
            data[at % len(data)] = source.randrange(256)
        elif way < 0.17:
            data[at:at] = source.randbytes(source.randint(1, 8))
        elif way < 0.25:
            del data[at : at + source.randint(1, 40)]
        elif way < 0.3:
            data[at:at] = data[at : at + source.randint(1, 200)] * source.randint(1, 3)
        elif way < 0.38:
            _change_line(data, source)
        elif way < 0.4:
            del data[at:]
        else:
            _change_value(data, source)
    return bytes(data[: 1 << 20])


def _change_line(data: bytearray, source: random.Random) -> None:
    """Leave a line out, say it twice or change places with another."""
    lines = data.split(b"\n")
    i, j = source.randrange(len(lines)), source.randrange(len(lines))
    way = source.randrange(3)
    if way == 0:
        del lines[i]
    elif way == 1:
        lines.insert(j, lines[i])
    else:
        lines[i], lines[j] = lines[j], lines[i]
    data[:] = b"\n".join(lines)


def _change_value(data: bytearray, source: random.Random) -> None:
    """Replace what stands between two marks by something odd."""
    marks = [found.end() for found in _MARKS.finditer(data)]
    if not marks:
        return
    start = source.choice(marks)
    found = _ENDS.search(data, start)
    end = found.start() if found else len(data)
    data[start:end] = source.choice(("", " ")).encode() + source.choice((*NUMBERS, *TEXTS)).encode()


def damaged_bytes(sound: bytes, source: random.Random) -> bytes:
    """A binary file with bits turned, cut, doubled, or numbers made huge (of a fixed width, or of as many bytes as have their high bit)."""
    data = bytearray(sound)
    for _ in range(source.choice((1, 1, 2, 3, 5))):
        way, at = source.random(), source.randrange(max(1, len(data)))
        if way < 0.4 and data:
            data[at] ^= 1 << source.randrange(8)
        elif way < 0.6 and data:
            data[at] = source.randrange(256)
        elif way < 0.65:
            data[at : at + 8] = b"\xff" * source.randint(1, 8)
        elif way < 0.7:
            data[at : at + 1] = b"\xff" * source.randint(1, 9) + b"\x01"
        elif way < 0.8:
            del data[at : at + source.randint(1, 30)]
        elif way < 0.9:
            data[at:at] = data[at : at + source.randint(1, 60)]
        else:
            del data[at:]
    return bytes(data)
