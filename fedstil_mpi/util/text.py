"""Texts from outside, made fit to be shown: no control character reaches a terminal, no message fills a screen."""

LONGEST = 2000
"""Characters of a message; of a longer one the middle is left out."""


def printable(text: object) -> str:
    """The text with line ends, terminal escapes and all else that is no visible character written as in Python."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def printable_lines(text: object) -> str:
    """The same, but for line ends."""
    return "\n".join(map(printable, str(text).split("\n")))


def one_line(text: object) -> str:
    """The text as one printable line of bounded length."""
    line = " ".join(part.strip() for part in str(text).splitlines())
    if len(line) > LONGEST:
        line = f"{line[: LONGEST // 2]} [... {len(line) - LONGEST:,} characters ...] {line[-LONGEST // 2 :]}"
    return printable(line)
