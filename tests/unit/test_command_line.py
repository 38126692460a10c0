"""What the programs without MPI make of a mistake, and the texts that they share."""

import pytest

from fedstil_mpi.config.command_line import cli_main
from fedstil_mpi.util.errors import InputError, did_you_mean
from fedstil_mpi.util.tables import markdown


def ended(work, capsys):
    with pytest.raises(SystemExit) as caught:
        cli_main(work, "interrupted; nothing was written")
    return caught.value.code, capsys.readouterr().err


def test_a_mistake_is_one_line_and_exit_code_2(capsys):
    def mistaken():
        raise InputError("no such file; name another")

    assert ended(mistaken, capsys) == (2, "fedstil_mpi: no such file; name another\n")


def test_an_interruption_is_one_line(capsys):
    def interrupted():
        raise KeyboardInterrupt

    assert ended(interrupted, capsys) == (130, "fedstil_mpi: interrupted; nothing was written\n")


def test_what_ends_well_ends():
    assert cli_main(lambda: None) is None


def test_a_suggestion_stands_before_what_is_expected():
    assert did_you_mean("lrr", ["lr", "steps"], "train.") == "did you mean train.lr? "
    assert did_you_mean("zzz", ["lr", "steps"]) == ""


def test_a_cell_of_a_markdown_table_may_hold_a_bar():
    assert markdown(["a", "b"], [["x|y", "1"]]).splitlines() == ["| a | b |", "| --- | ---: |", r"| x\|y | 1 |"]
