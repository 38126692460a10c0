"""A file is there only when it is complete; a failure leaves what was there before, and nothing else."""

import pytest

from fedstil_mpi.util.files import atomic, complete, write_text


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
