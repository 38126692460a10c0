"""What the programs without MPI make of a mistake, and the texts that they share."""

import os
import subprocess
import sys

import pytest

from fedstil_mpi.comm.start import prepare_environment
from fedstil_mpi.config.command_line import cli_main
from fedstil_mpi.data import __main__ as data
from fedstil_mpi.util.errors import InputError, did_you_mean
from fedstil_mpi.util.tables import markdown
from fedstil_mpi.util.terminal import nobody_reads


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


@pytest.mark.parametrize("work", ["print('x' * 100000)", "print('x')", "show('x' * 100000)", "show('x')"])
def test_into_a_closed_pipe_a_program_ends_without_a_word(work):
    """As in `plan ... | head -1`, with Python's own print and with the console; before and after it fills a buffer."""
    unread, pipe = os.pipe()
    os.close(unread)
    code = f"from fedstil_mpi.config.command_line import cli_main; from fedstil_mpi.util.terminal import show; cli_main(lambda: {work})"
    done = subprocess.run([sys.executable, "-c", code], stdout=pipe, stderr=subprocess.PIPE)
    os.close(pipe)
    assert (done.returncode, done.stderr) == (141, b"")


def test_another_pipe_that_breaks_is_no_silent_end():
    assert not nobody_reads(BrokenPipeError())


@pytest.mark.parametrize("program", ["cli_main(lambda: show('x'))", "with start(): show('x')"], ids=["alone", "MPI"])
@pytest.mark.parametrize(("output", "code", "said"), [(">/dev/full", 74, "the disk takes no more"), (">&-", 0, "")])
def test_without_an_output_or_with_a_full_disk_behind_it_there_is_no_traceback(program, output, code, said, tmp_path):
    names = {"config.command_line": "cli_main", "comm.start": "start", "util.terminal": "show"}
    lines = [*(f"from fedstil_mpi.{module} import {name}" for module, name in names.items()), program]
    (tmp_path / "program.py").write_text("\n".join(lines))
    command = (
        f"unset PYTHONUNBUFFERED; exec {sys.executable} {tmp_path}/program.py {output}"  # buffered, as for most users
    )
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == bool(said)
    assert said in done.stderr


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_a_leading_tilde_is_the_home_folder_in_paths_on_the_command_line(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SystemExit):
        data.main([command, "~/none.h5"])
    assert f"{tmp_path}/none.h5 does not exist" in capsys.readouterr().err


def test_without_a_home_the_one_of_the_user_is_taken_as_open_mpi_needs_one(monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    prepare_environment()
    assert os.path.isabs(os.environ["HOME"])
