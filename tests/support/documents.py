"""What README.md and docs/ tell a reader to type."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a language in a document."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


def commands() -> dict[str, list[str]]:
    """Every line of a shell block of all documents -> its words, without comments."""
    text = "".join(block for path in DOCUMENTS for block in blocks(path, "sh")).replace("\\\n", " ")
    return {
        line.strip(): shlex.split(line, comments=True) for line in text.splitlines() if shlex.split(line, comments=True)
    }


def example(word: str) -> str:
    """The Python block of docs/extending.md with this word in its first line."""
    (code,) = (code for code in blocks(ROOT / "docs" / "extending.md", "python") if word in code.splitlines()[0])
    return code
