"""Config files: which can be read, what extends what, and the command line's overrides."""

from functools import partial

import pytest

from fedstil_mpi.config import loading
from fedstil_mpi.util.errors import InputError
from support import configs
from support.configs import write


@pytest.fixture
def refusal(tmp_path):
    return partial(configs.refusal, tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: b: c", "mapping values are not allowed"),
        ("seed: 1\nseed: 2", "duplicate key seed"),
        ("train: {lr: 1, lr: 2}", "duplicate key lr"),
        ("- train", "holds a list, expected a mapping of sections"),
        ("5", "config.yaml is not plain YAML"),
        ("\x00", "not allowed"),
        ("seed: ${oops", "config.yaml is not plain YAML"),
        ("seed: ${nowhere}", "'nowhere' not found"),
        ("seed: " + "9" * 5000, "is not plain YAML"),
        ("name: ${output}\noutput: ${name}", "does not give plain sections and values"),
        (
            "base: run.yaml\nvariants: {a: {}}",
            "is a comparison, no single run; give it to python -m fedstil_mpi.compare",
        ),
    ],
)
def test_not_a_config_file(refusal, text, reason):
    message = refusal(text)
    assert reason in message
    assert "config.yaml" in message


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.mkdir [{}]", "!!python/name:os.mkdir", "!mine x", "!!set {{a}}"]
)
@pytest.mark.parametrize("where", ["file", "override"])
def test_tags_that_build_objects_are_refused(refusal, tmp_path, tag, where):
    victim = tmp_path / "made"
    value = tag.format(victim)
    message = refusal(f"output: {value}") if where == "file" else refusal("", f"output={value}")
    assert "tag" in message or "not a supported" in message
    assert not victim.exists()


@pytest.mark.parametrize("value", ["!!python/object/apply:pathlib.Path [runs]", "!!binary aGVsbG8="])
def test_values_that_cannot_travel_to_the_other_ranks_are_refused(refusal, value):
    assert "not JSON serializable" in refusal(f"output: {value}")


def test_files_that_cannot_be_read(tmp_path):
    folder, latin = tmp_path / "folder.yaml", tmp_path / "latin.yaml"
    folder.mkdir()
    latin.write_bytes("name: café".encode("latin-1"))
    for path, reason in (
        (tmp_path / "none.yaml", "does not exist"),
        (folder, "is a folder, no file"),
        (latin, "is not plain YAML"),
    ):
        with pytest.raises(InputError) as caught:
            loading.read(path)
        assert str(caught.value).startswith(f"config file {path} {reason}")


@pytest.mark.parametrize("argument", ["train", "--verbose", "=5", "extends=base.yaml"])
def test_an_argument_that_is_no_override(refusal, argument):
    assert refusal("", argument) == f"argument {argument!r} is no override; expected section.key=value"


@pytest.mark.parametrize("text", ["007", "1e-1", "2024_01", "true", "1.50"])
def test_a_text_that_looks_like_a_number_is_taken_as_it_is_typed(tmp_path, text):
    source = loading.read(write(tmp_path, "a.yaml", "seed: 1"), [f"name={text}", f"data.path={text}", f"output={text}"])
    experiment = loading.resolve(source)
    assert (experiment.name, experiment.data.path, experiment.output) == (text, text, text)


def test_the_last_text_counts_and_may_refer_to_others(tmp_path):
    path = write(tmp_path, "a.yaml", "data: {kind: synthetic}")
    assert loading.read(path, ["name=abc", "name=007"])["name"] == "007"
    assert loading.read(path, ["name=007", "name=x-${data.kind}"])["name"] == "x-synthetic"


@pytest.mark.parametrize("number", ["010", "1:30", "-007"])
def test_a_number_that_yaml_takes_for_another_is_refused(refusal, number):
    assert refusal("", f"seed={number}").startswith(f"argument seed={number}; expected a number without leading zeros")


@pytest.mark.parametrize("value", ["2", "-1"])
def test_a_number_is_no_yes(refusal, value):
    assert refusal("", f"data.pooled={value}") == f"config key data.pooled = {value}; expected true or false"


def test_null_is_no_text(tmp_path):
    source = loading.read(write(tmp_path, "a.yaml", "data: {path: x}"), ["data.path=null"])
    assert loading.resolve(source).data.path is None


@pytest.mark.parametrize("value", ["[", "9" * 5000, "[" * 3000])
def test_an_override_that_is_no_yaml(refusal, value):
    assert refusal("", f"name={value}").startswith("cannot read the overrides ['name=")


# -- extends -----------------------------------------------------------------------------------------------------------


def test_extends_a_chain_relative_to_each_file(tmp_path):
    write(tmp_path, "base.yaml", "seed: 1\ntrain: {lr: 0.1, batch: 4, steps: 3}")
    write(tmp_path, "sub/middle.yaml", "extends: ../base.yaml\ntrain: {lr: 0.2, batch: 5}")
    top = write(tmp_path, "sub/deep/top.yaml", "extends: [../middle.yaml]\ntrain: {lr: 0.3}")
    assert loading.read(top) == {"seed": 1, "train": {"lr": 0.3, "batch": 5, "steps": 3}}


def test_of_a_list_the_later_file_lies_above(tmp_path):
    write(tmp_path, "a.yaml", "seed: 1\nname: a")
    write(tmp_path, "b.yaml", "seed: 2\noutput: b")
    top = write(tmp_path, "top.yaml", "extends: [a.yaml, b.yaml]")
    assert loading.read(top) == {"seed": 2, "name": "a", "output": "b"}


def test_two_parents_may_extend_the_same_file(tmp_path):
    write(tmp_path, "base.yaml", "seed: 1")
    write(tmp_path, "a.yaml", "extends: base.yaml\nname: a")
    write(tmp_path, "b.yaml", "extends: base.yaml\noutput: b")
    top = write(tmp_path, "top.yaml", "extends: [a.yaml, b.yaml]")
    assert loading.read(top) == {"seed": 1, "name": "a", "output": "b"}


def test_a_cycle_is_refused(tmp_path):
    write(tmp_path, "a.yaml", "extends: b.yaml")
    top = write(tmp_path, "b.yaml", "extends: a.yaml")
    with pytest.raises(InputError, match=r"b\.yaml extends itself \(via b\.yaml -> a\.yaml\)"):
        loading.read(top)


def test_a_missing_parent_is_named_and_who_wants_it(tmp_path):
    top = write(tmp_path, "top.yaml", "extends: nowhere.yaml")
    with pytest.raises(
        InputError, match=r"nowhere\.yaml does not exist; top\.yaml extends it: give the path of a YAML file"
    ):
        loading.read(top)


@pytest.mark.parametrize("value", ["5", "{a: b}", "[1]", "[[a.yaml]]"])
def test_extends_names_files(refusal, value):
    assert "expected a file or a list of files" in refusal(f"extends: {value}")


def test_a_section_extended_by_something_else(tmp_path):
    write(tmp_path, "base.yaml", "train: [1, 2]")
    top = write(tmp_path, "top.yaml", "extends: base.yaml\ntrain: {lr: 1}")
    with pytest.raises(InputError, match=r"^con[^\n]*$"):
        loading.resolve(loading.read(top))


def test_references_are_filled_in_where_the_file_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    path = write(tmp_path, text="seed: 3\nname: run-${seed}\noutput: ${oc.env:SCRATCH}/runs")
    assert loading.read(path, ["seed=4"]) == {"seed": 4, "name": "run-4", "output": "/scratch/me/runs"}


@pytest.mark.parametrize(
    "doubled", ["'${{{0}}}${{{0}}}'", "['${{{0}}}', '${{{0}}}']", "{{x: '${{{0}}}', y: '${{{0}}}'}}"]
)
def test_references_that_multiply_are_refused_before_they_grow(refusal, doubled):
    lines = ["a0: xx", *(f"a{n + 1}: {doubled.format(f'a{n}')}" for n in range(30))]
    message = refusal("\n".join(reversed(lines)))
    assert "comes to more than 100,000 characters; refer to less" in message


def test_references_are_to_keys_and_the_environment_alone(refusal):
    expected = "; expected ${section.key} or ${oc.env:NAME} in it, not nested"
    for value in ("${${output}}", "${oc.decode:x}", "${.output}"):
        assert refusal(f"name: {value}") == f"config value {value!r}{expected}"


def test_files_that_extend_each_other_twice_are_read_once(tmp_path):
    """Read as often as they are named, the first of thirty would be read 2**30 times."""
    write(tmp_path, "0.yaml", "seed: 7")
    for number in range(30):
        write(tmp_path, f"{number + 1}.yaml", f"extends: [{number}.yaml, {number}.yaml]")
    assert loading.read(tmp_path / "30.yaml") == {"seed": 7}


@pytest.mark.parametrize("argument", ["name=???", "train.lr=???"])
def test_no_value_on_the_command_line_is_refused_not_passed_over(refusal, argument):
    key = argument.partition("=")[0]
    assert refusal("name: x\ntrain: {lr: 1}", argument) == f"config key {key} has no value yet (???); give it one"
