"""Bytes that are damaged, or changed into something nasty."""

import random

PIECES = [
    b"",
    b"\0",
    b"\xff",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b"&a ",
    b"*a",
    b"- ",
    b"!!python/object:os.system ",
    b"1e999",
    b"nan",
]
PIECES += [
    b"\n",
    b"  ",
    b"'",
    b"${",
    b"${oc.env:HOME}",
    b"extends: quickstart.yaml\n",
    b"9" * 400,
    b"[" * 200,
    b"null",
    b"true",
    b"-1",
]


def mutated(data: bytes, draw: random.Random) -> bytes:
    """The bytes with one to four places changed, cut out, doubled or filled with something nasty; never the same."""
    result = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        start = draw.randrange(len(result) + 1)
        end = min(len(result), start + draw.choice([0, 1, 1, 4, 40]))
        kind = draw.randrange(4)
        if kind == 0:
            result[start:end] = bytes(draw.randrange(256) for _ in range(end - start))
        elif kind == 1:
            result[start:end] = b""
        elif kind == 2:
            result[start:end] = result[start:end] * 2
        else:
            result[start:end] = draw.choice(PIECES)
    return bytes(result) if result != data else mutated(data, draw)
