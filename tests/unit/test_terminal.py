"""What comes from outside is printed as it is: it commands neither the terminal nor the library that prints."""

import re

import pytest

from fedstil_mpi.util import terminal
from fedstil_mpi.util.tables import plain

HOSTILE = "[bold]a[/x] \x1b]0;title\x07 \u202e :smile: \udcff"
SHOWN = r"[bold]a[/x] \x1b]0;title\x07 \u202e :smile: \udcff"


@pytest.mark.parametrize("watched", [False, True])
def test_texts_from_outside_are_shown_as_they_are(monkeypatch, capsys, watched):
    monkeypatch.setattr(terminal, "is_watched", lambda: watched)
    table = plain(HOSTILE, left=(HOSTILE,))
    table.add_row(HOSTILE)
    terminal.console().print(table)
    terminal.console().print(f"\n{HOSTILE}")
    terminal.show(HOSTILE)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [SHOWN, SHOWN, "", SHOWN, SHOWN]


def test_a_message_is_one_line(capsys):
    terminal.say(f"{HOSTILE}\nmore")
    assert capsys.readouterr().err == f"fedstil_mpi: {SHOWN} more\n"
