"""A comparison's file and command line: what they set, and what is refused before anything runs."""

import json

import pytest

from fedstil_mpi import compare
from fedstil_mpi.config import loading
from fedstil_mpi.config.command_line import Parser, integer
from fedstil_mpi.util.errors import InputError
from support.configs import write


def plan(folder, **changes):
    """The path of a comparison of FedAvg as in its paper."""
    write(folder, "base.yaml", "memory: {size: 48}")
    keys = {"base": "base.yaml", "seeds": [1], "variants": {"A": {"method.name": "fedavg", "method.preset": "paper"}}}
    return str(write(folder, "compare.yaml", json.dumps(keys | changes)))


def prepared(path, *overrides, only=None):
    """The states of the runs' folders, by label."""
    found = compare.expand(compare.read(path, overrides), path, list(overrides), None, only)
    return {entry.label: compare.prepare(entry, set()) for entry in found}


@pytest.mark.parametrize(
    ("changes", "overrides", "by"),
    [
        ({}, (), "the base"),
        ({"settings": {"memory": {"size": 5}}}, (), "the comparison's settings"),
        ({"settings": {"memory.size": 5}}, ("memory.size=6",), "the command line"),
    ],
)
def test_a_preset_that_is_overridden_elsewhere_is_refused(tmp_path, changes, overrides, by):
    with pytest.raises(
        InputError, match=rf"^variant 'A' has preset paper, but {by} sets memory.size=\d+ \(preset: 0\)"
    ):
        prepared(plan(tmp_path, **changes), *overrides)


@pytest.mark.parametrize("size", [0, 48])
def test_the_variant_itself_may_set_it(tmp_path, size):
    variants = {"A": {"method.name": "fedavg", "method.preset": "paper", "memory.size": size}}
    assert prepared(plan(tmp_path, variants=variants)) == {"A": "absent"}


def test_name_and_output_are_the_comparisons(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path, own = plan(tmp_path, output="elsewhere"), ["name=mine", "output=~/results", "train.lr=0.5"]
    (entry,) = compare.expand(compare.read(path, own), path, own, None, None)
    assert entry.folder == f"{tmp_path}/results/mine/a-1"
    assert entry.source["train"] == {"lr": 0.5}


def test_an_override_behind_an_option_of_several_values_is_one():
    parser = Parser("compare", "")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--seeds", type=integer, nargs="+")
    given = parser.parse(["--only", "A", "tau=0.5", "train.lr=1", "--seeds", "1", "2", "name=x"])
    assert (given.only, given.seeds) == (["A", "tau=0.5"], [1, 2])
    assert sorted(given.overrides) == ["name=x", "train.lr=1"]
    with pytest.raises(InputError, match="invalid integer value: 'x'"):
        parser.parse(["--seeds", "1", "x"])


@pytest.mark.parametrize("variant", [{"train.lr": 0.01}, {"train": {"lr": 0.01}}])
def test_settings_hold_for_a_variant_however_it_is_written(tmp_path, variant):
    path = plan(tmp_path, settings={"train": {"steps": 3}}, variants={"A": variant})
    (entry,) = compare.expand(compare.read(path, ()), path, [], None, None)
    train = loading.resolve(entry.source).train
    assert (train.steps, train.lr) == (3, 0.01)


def test_a_label_may_look_like_a_number(tmp_path):
    path = plan(tmp_path, variants={"1e": {}, "007": {}})
    found = compare.expand(compare.read(path, ()), path, [], None, None)
    assert [loading.resolve(entry.source).folder.name for entry in found] == ["1e-1", "007-1"]
    assert [entry.folder.rpartition("/")[2] for entry in found] == ["1e-1", "007-1"]


@pytest.mark.parametrize("label", ["方法", "-"])
def test_a_label_of_which_no_folder_can_be_named_is_refused(tmp_path, label):
    path = plan(tmp_path, variants={label: {}})
    with pytest.raises(InputError, match=f"has the label '{label}', of which no folder can be named"):
        compare.expand(compare.read(path, ()), path, [], None, None)


@pytest.mark.parametrize("name", ["../x", "x" * 201])
def test_a_name_that_no_folder_can_have_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="it names a folder"):
        compare.read(plan(tmp_path, name=name))


def test_a_run_config_is_no_comparison(tmp_path):
    with pytest.raises(
        InputError, match=r"has no base:, so it is no comparison; python -m fedstil_mpi\.run is for a single"
    ):
        compare.read(str(write(tmp_path, text="seed: 1")))


def test_what_is_named_twice_is_run_once(tmp_path):
    path = plan(tmp_path)
    once, twice = (
        compare.expand(compare.read(path), path, [], *given) for given in (([7], ["A"]), ([7, 7], ["A", "A"]))
    )
    assert once == twice
    assert len(once) == 1


@pytest.mark.parametrize(
    ("changes", "overrides", "only", "message"),
    [
        ({"variants": {"bad": {"method.name": "fedawg"}}}, [], None, "unknown method 'fedawg'; did you mean fedavg"),
        ({"variants": {"bad": {"train.lrr": 1}}}, [], None, "unknown config key train.lrr; did you mean train.lr"),
        ({"seed": 1}, [], None, "unknown config key comparison.seed; did you mean comparison.seeds"),
        ({"variants": {}}, [], None, "give one or more of each"),
        ({"against": "B"}, [], None, "expected one of A"),
        ({"variants": {"FedAvg": {}}}, [], ["fedavg"], "did you mean FedAvg"),
        ({}, ["seed=3"], ["A"], "seed=3: that is for the comparison to set; give --seeds, or seeds in"),
        ({"variants": {"a b": {}, "A-B": {}}}, [], None, "rename one"),
        ({"base": "nowhere.yaml"}, [], None, "nowhere.yaml does not exist"),
    ],
)
def test_mistakes_are_refused_before_the_first_run(tmp_path, changes, overrides, only, message):
    with pytest.raises(InputError, match=message) as refused:
        prepared(plan(tmp_path, **changes), *overrides, only=only)
    assert "\n" not in str(refused.value)


def test_a_label_is_one_however_it_was_typed(tmp_path):
    path = plan(tmp_path, variants={"cafe\u0301": {}, "B": {}}, against="caf\u00e9")
    (entry,) = compare.expand(compare.read(path), path, [], None, ["caf\u00e9"])
    assert entry.label == "caf\u00e9"


def test_a_label_that_would_move_the_cursor_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"label .*x1b\[2J.*; expected at most 150 printable characters"):
        compare.read(plan(tmp_path, variants={"\x1b[2J": {}}))
