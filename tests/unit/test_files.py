"""A file is there only when it is complete, a failure leaves what was there before; what others give is looked at first."""

import os

import pytest

from fedstil_mpi.util.errors import InputError, StorageError
from fedstil_mpi.util.files import atomic, clear_partials, complete, regular_file, storing, write, write_text


def test_a_file_gets_its_name_when_the_block_ends(tmp_path):
    path = tmp_path / "a.txt"
    with atomic(path) as partial:
        partial.write_text("new")
        assert partial.parent == tmp_path
        assert not path.exists()
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "new"


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old\r\n")
    with pytest.raises(TypeError), atomic(path) as partial:
        partial.write_text(1)
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_bytes() == b"old\r\n"


def test_what_was_not_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic(tmp_path / "a.txt"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_replaces_an_empty_one_only(tmp_path):
    tree, place = tmp_path / "tree", tmp_path / "place"
    for folder in (tree, place):
        folder.mkdir()
    (tree / "file").touch()
    complete(tree, place)
    assert [file.name for file in place.iterdir()] == ["file"]
    tree.mkdir()
    with pytest.raises(OSError, match="not empty"):
        complete(tree, place)


def test_a_regular_file_of_sane_size_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.yaml").write_text("four")
    assert regular_file("~/a.yaml", "config file", at_most=4) == tmp_path / "a.yaml"


def test_what_cannot_be_read_to_its_end_is_refused_before_it_is_opened(tmp_path):
    (tmp_path / "a.yaml").write_text("four")
    os.mkfifo(tmp_path / "pipe")
    for path, problem in {
        tmp_path / "a.yaml": "has 4 bytes, expected at most 3; give another",
        tmp_path / "pipe": "is a pipe or a device, no file; give another",
        "/dev/zero": "is a pipe or a device, no file; give another",
        tmp_path: "is a folder, no file; give another",
        tmp_path / "none": "does not exist; give another",
        tmp_path / "a.yaml" / "b": "cannot be read (Not a directory); give another",
        tmp_path / ("b" * 300): "cannot be read (File name too long); give another",
        "nu\0ll": "cannot be read (",
    }.items():
        with pytest.raises(InputError) as caught:
            regular_file(path, "pack", at_most=3, remedy="give another")
        assert str(caught.value).startswith("pack ")
        assert problem in str(caught.value)


def test_a_message_is_one_printable_line_whatever_it_quotes():
    message = str(InputError(f"name = \x1b[2J\0 ü\n{'a' * 10**7}; expected less"))
    assert message.startswith(r"name = \x1b[2J\x00 ü aaa")
    assert message.endswith("aaa; expected less")
    assert message.isprintable()
    assert len(message) < 2100


def test_a_new_file_replaces_no_other(tmp_path):
    path = tmp_path / "a.txt"

    def too_late():
        with atomic(path, new=True) as partial:
            partial.write_text("mine")
            path.write_text("another program's")

    with pytest.raises(FileExistsError):
        too_late()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "another program's")]
    with atomic(tmp_path / "b.txt", new=True) as partial:
        partial.write_text("mine")
    assert (tmp_path / "b.txt").read_text() == "mine"


def test_what_the_disk_does_not_take_names_the_file_and_an_exit_code(tmp_path):
    path = tmp_path / "gone" / "a.txt"
    with (
        pytest.raises(StorageError, match=r"a\.txt cannot be written \(No such file.*--resume") as error,
        storing(path),
    ):
        write(path, b"")
    assert error.value.code == 74


def test_what_interrupted_writes_have_left_is_cleared(tmp_path):
    (tmp_path / "a" / "b.partial" / "c").mkdir(parents=True)
    (tmp_path / "a" / ".x.1234.partial").touch()
    (tmp_path / "a" / "whole").touch()
    clear_partials(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "whole"]
