"""Config keys: what is refused and with which words, what lies above what, and that a saved config gives its run."""

from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path

import pytest

from fedstil_mpi import compare, methods
from fedstil_mpi.config import loading
from fedstil_mpi.config.fields import bounded
from fedstil_mpi.config.schema import Data, Experiment, Method, Train
from fedstil_mpi.results.writing.run_folder import RunFolder
from fedstil_mpi.util.errors import InputError
from support import configs
from support.configs import Options, write

SHIPPED = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))
CONFIGS = [path for path in SHIPPED if path.parent.name == "configs"]  # test_configs_of_the_paper.py has the others
COMPARISONS = [path for path in SHIPPED if path.parent.name == "compare" and "base:" in path.read_text()]


@pytest.fixture
def load(tmp_path):
    return partial(configs.load, tmp_path)


@pytest.fixture
def refusal(tmp_path):
    return partial(configs.refusal, tmp_path)


@pytest.mark.parametrize("text", ["", "# only a comment", "{}", "method:"])
def test_an_empty_file_gives_the_defaults(load, text):
    assert load(text) == Experiment(method=Method(options=Options()))


def test_values_arrive_with_their_types(load):
    text = """
        name: 2024
        seed: 7
        data: {kind: folder, path: images, synthetic: {walkers: 1}}
        train: {lr: 1e-4, early_stop: false, softmax: all}
        memory: {share: null}
        method: {kind: other}
    """
    experiment = load(text, "rounds.total=9", "model.num_classes=null", "method.alpha=1")
    assert experiment.name == "2024"
    assert experiment.data.synthetic.walkers == 1.0
    assert (experiment.train.lr, experiment.train.early_stop) == (1e-4, False)
    assert (experiment.memory.share, experiment.model.num_classes, experiment.rounds.total) == (None, None, 9)
    assert experiment.method.options == Options(alpha=1.0, kind="other")
    assert type(experiment.method.options.alpha) is float


def test_without_the_methods_options_the_rest_is_checked_already(tmp_path):
    path = write(tmp_path, text="method: {name: whatever, alpha: 3}\nseed: 5")
    draft = loading.resolve(loading.read(path))
    assert (draft.method.name, draft.method.options, draft.seed) == ("whatever", None, 5)
    with pytest.raises(InputError, match=r"unknown config key sed; did you mean seed\?"):
        loading.resolve({"sed": 5})


def test_every_choice_and_every_limit_is_taken():
    for key, known in limits(Experiment):
        several = [list(known["each"])] if "each" in known else (known.get("low"), known.get("high"))
        for value in known.get("choices", several):
            beside = {"data": {"path": "images"}, "train": {"steps": 0 if key == "train.rate" else 12}}
            if value is not None and (key, value) != ("train.crop_pad", 4096):  # less than the images' shorter side
                loading.resolve(nested(key, value, beside))


def test_beyond_every_limit_a_value_is_refused():
    for key, known in limits(Experiment):
        low, high = known.get("low"), known.get("high")
        words = [["none of them"], [known["each"][0]] * 2] if "each" in known else ["none of them"]
        for value in words if low is None else [low - 1, 2 * high + 1]:
            with pytest.raises(InputError, match=f"^{key} = "):
                loading.resolve(nested(key, value))


def test_where_to_search_is_a_list_or_a_word():
    for given, meant in (("all", ["all"]), (["task", "client"], ["task", "client"]), (["all"], ["all"])):
        assert loading.resolve({"evaluation": {"gallery": given}}).evaluation.gallery == meant
    assert loading.resolve({"tracking": "mlflow"}).tracking == ["mlflow"]
    with pytest.raises(
        InputError, match=r"^evaluation.gallery = \[\]; expected at least 1, different ones, of client, task, all$"
    ):
        loading.resolve({"evaluation": {"gallery": []}})


def limits(schema, prefix=""):
    """("section.key", what is known of its values) for every key that does not take all of them."""
    for field in fields(schema):
        if is_dataclass(field.type):
            yield from limits(field.type, f"{prefix}{field.name}.")
        elif field.metadata:
            yield f"{prefix}{field.name}", field.metadata


def test_most_keys_know_their_limits():
    assert len(dict(limits(Experiment))) >= 70


def test_every_number_has_limits():
    """So nothing asks for what no machine has: 2147483648 tasks, a batch of 10**12."""
    numbers = {key for key, kind in typed(Experiment) if kind in (int, float, int | None, float | None)}
    assert len(numbers) > 45
    assert {key for key, known in limits(Experiment) if "high" in known} == numbers


@pytest.mark.parametrize("name", methods.names())
def test_every_number_of_a_method_has_limits(name):
    options = methods.load(name).Options
    numbers = {key for key, kind in typed(options) if kind in (int, float, int | None, float | None)}
    assert {key for key, known in limits(options) if "high" in known} == numbers


def typed(schema, prefix=""):
    for field in fields(schema):
        if is_dataclass(field.type):
            yield from typed(field.type, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field.type


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 9223372036854775808", "seed = 9223372036854775808; expected between -92233720368"),
        ("data: {tasks: 2147483648}", "data.tasks = 2147483648; expected between 1 and 10000"),
        (
            "data: {tasks: 1000, synthetic: {clients: 1000}}",
            "data.synthetic has 1000 clients x 1000 tasks x 12 people = 12,000,000; expected at most 2,000,000 in all",
        ),
        ("train: {lr: 1e300}", "train.lr = 1e+300; expected between 0 and 1e+30"),
        (f"name: {'n' * 201}", "name = 'nnnn"),
        (f"output: {'n' * 5000}", "output = 'nnnn"),
        ('output: "a\\0b"', "output = 'a\\x00b'; expected at most 4096 characters, and no null character"),
        ("method: []", "method = []; expected a section"),
        ("method: ''", "method = ''; expected a section"),
        ("seed: ???", "config key seed has no value yet (???); give it one"),
        ("data: {path: '???'}", "config key data.path has no value yet (???); give it one"),
        ("participation: {away: {a: 1}}", "config key participation.away = {'a': 1}; expected a value, no section"),
        ("data: {clients: {a: 1}}", "config key data.clients = {'a': 1}; expected a value, no section"),
        ("data: {clients: [a]}", "config key data.clients"),
        ("data: {clients: [[1]]}", "data.clients = [[1]]; expected a list of numbers"),
        (
            "{train: {on_divergence: continue}, compression: {down: int8}}",
            "train.on_divergence is continue, but compression.down=int8 has no code for what is not finite",
        ),
        ("train: {rate: reference_code}", "train.rate=reference_code counts epochs, but train.steps is set"),
    ],
)
def test_what_no_run_could_use_is_refused(refusal, text, message):
    assert refusal(text).startswith(message)


def test_what_the_epochs_own_needs_is_taken_with_epochs(load):
    assert load("train: {rate: reference_code, steps: 0}").train.rate == "reference_code"


def test_paths_expand_the_home_folder(load, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    found = load("data: {path: ~/images, kind: ~/mine.py}", "output=~/runs", "model.weights=~/w.pt")
    assert (found.output, found.model.weights) == ("/home/me/runs", "/home/me/w.pt")
    assert (found.data.path, found.data.kind) == ("/home/me/images", "/home/me/mine.py")


def test_a_name_is_one_however_it_was_typed(load):
    assert load("name: cafe\u0301").name == load("name: caf\u00e9").name == "caf\u00e9"


def test_a_methods_options_may_have_limits_too():
    @dataclass
    class Bounded:
        share: float = bounded(0.5, 0, 1)

    with pytest.raises(InputError, match=r"^method\.share = 2\.0; expected between 0 and 1$"):
        loading.resolve({"method": {"share": 2}}, Bounded, {"best": {}})


@pytest.mark.parametrize(
    ("source", "old"), [({"train": {"pace": 1}}, "train.pace"), ({"train": {"rate": "x"}}, "train.rate=x")]
)
def test_what_was_replaced_is_named(source, old, monkeypatch):
    monkeypatch.setitem(loading.REPLACED, old, "train.speed")
    with pytest.raises(InputError, match=f"^config key {old} is train.speed now$"):
        loading.resolve(source)


def nested(key, value, beside=None):
    section, *rest = key.split(".")
    if not rest:
        return {section: value}
    inner = dict((beside or {}).get(section, {}))
    inner.update({rest[0]: value} if len(rest) == 1 else {rest[0]: {rest[1]: value}})
    return {section: inner}


# -- what is wrong -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trian: {lr: 1}", "unknown config key trian; did you mean train?"),
        ("train: {lrr: 1}", "unknown config key train.lrr; did you mean train.lr?"),
        ("data: {synthetic: {wakers: 1}}", "unknown config key data.synthetic.wakers; did you mean "),
        ("data: {synthetic: {tasks: 2}}", "unknown config key data.synthetic.tasks; "),
        ("method: {alhpa: 1}", "unknown config key method.alhpa; did you mean method.alpha?"),
        ("method: {options: {alpha: 1}}", "unknown config key method.options; "),
        ("extend: base.yaml", "unknown config key extend; did you mean extends?"),
        ("prototypes: {zzz: 1}", "unknown config key prototypes.zzz; known here: exchange"),
        ("1: 2", "unknown config key 1; known here: name, seed"),
    ],
)
def test_unknown_key(refusal, text, message):
    assert refusal(text).startswith(message)


def test_unknown_key_of_an_override(refusal):
    assert refusal("", "train.lrr=1") == "unknown config key train.lrr; did you mean train.lr?"


@pytest.mark.parametrize(
    ("text", "key", "found"),
    [
        ("seed: abc", "seed", "'abc'"),
        ("seed: 1.5", "seed", "'1.5'"),
        ("seed: null", "seed", "'None'"),
        ("seed: true", "seed", "'True'"),
        ("train: {lr: fast}", "train.lr", "'fast'"),
        ("train: {lr: [1]}", "train.lr", "'[1]'"),
        ("train: {early_stop: maybe}", "train.early_stop", "'maybe'"),
        ("data: {synthetic: {clients: 2.5}}", "data.synthetic.clients", "'2.5'"),
        ("method: {alpha: strong}", "method.alpha", "'strong'"),
    ],
)
def test_wrong_type(refusal, text, key, found):
    message = refusal(text)
    assert message.startswith(f"config key {key}")
    assert found in message


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("train:", (), "config key train = None; expected a section with keys such as train.steps"),
        ("data: {synthetic: 5}", (), "config key data.synthetic = 5; expected a section with keys such as data.synth"),
        ("", ("train=5",), "config key train = 5; expected a section with keys such as train.steps"),
        ("", ("method=fedavg",), "method = 'fedavg'; expected a section: the method's name is method.name"),
        ("seed: 1", ("seed.x=3",), "config key seed = {'x': 3}; expected a value, no section"),
    ],
)
def test_a_value_where_a_section_belongs_and_the_reverse(refusal, text, overrides, message):
    assert refusal(text, *overrides).startswith(message)


def test_value_outside_the_choices(refusal):
    assert refusal("train: {softmax: know}") == (
        "train.softmax = 'know'; did you mean known? expected one of known, all"
    )
    assert refusal("placement: {device: tpu}").endswith("expected one of auto, cpu, cuda")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {batch: 1}", "train.batch = 1; expected between 2 and 1000000"),
        ("memory: {share: 1}", "memory.share = 1.0; expected between 0.01 and 0.9"),
        ("data: {synthetic: {walkers: -0.1}}", "data.synthetic.walkers = -0.1; expected between 0 and 1"),
        ("data: {synthetic: {clients: 1}}", "data.synthetic.clients = 1; expected between 2 and 20000"),
        ("data: {synthetic: {colours: 11}}", "data.synthetic.colours = 11; expected between 2 and 10"),
        ("train: {lr: .nan}", "train.lr = nan; expected between 0 and 1e+30"),
        ("train: {lr: .inf}", "train.lr = inf; expected between 0 and 1e+30"),
        ("memory: {share: .nan}", "memory.share = nan; expected between 0.01 and 0.9"),
    ],
)
def test_value_outside_its_range(refusal, text, message):
    assert refusal(text).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: ../elsewhere", "name = '../elsewhere'; expected at most 200 letters, digits"),
        ("name: ''", "name = ''; expected at most 200 letters"),
        ("data: {kind: pku}", "data.kind is pku but data.path is not set"),
        ("train: {steps: 0, epochs: 0}", "train.steps and train.epochs are both 0"),
        ("train: {early_stop: true}", "train.early_stop counts epochs, but train.steps is set"),
    ],
)
def test_values_that_do_not_go_together(refusal, text, message):
    assert refusal(text).startswith(message)


# -- what lies above what ----------------------------------------------------------------------------------------------


def test_defaults_below_preset_below_file_below_command_line(load):
    strong = "method: {preset: strong}"
    assert load().train.lr == Train.lr
    assert load(strong).train.lr == 0.1
    assert load(f"{strong}\ntrain: {{lr: 0.2}}").train.lr == 0.2
    assert load(f"{strong}\ntrain: {{lr: 0.2}}", "train.lr=0.3").train.lr == 0.3
    assert load(f"{strong}\ntrain: {{lr: 0.2}}").train.steps == 7  # what the file does not name stays the preset's
    assert load(strong).memory.share is None


def test_the_same_order_for_the_methods_own_options(load):
    assert load().method.options.alpha == Options.alpha
    assert load("", "method.preset=strong").method.options == Options(alpha=0.9, kind="strong")
    assert load("method: {preset: strong, alpha: 0.2}").method.options == Options(alpha=0.2, kind="strong")
    assert load("method: {preset: strong, alpha: 0.2}", "method.alpha=0.3").method.options.alpha == 0.3


def test_null_in_a_file_lies_above_a_presets_value(load):
    strong = "method: {preset: strong}"
    assert load(strong).rounds.total == 30
    assert load(f"{strong}\nrounds: {{total: null}}").rounds.total is None
    assert load(f"{strong}\nmemory: {{share: 0.25}}").memory.share == 0.25


def test_what_is_not_as_the_preset_has_it_is_known(load):
    method = load("method: {preset: strong, alpha: 0.9, kind: plain}\nmemory: {share: 0.25}", "train.steps=8").method
    assert method.overridden == {
        "method.kind": "plain (preset: strong)",
        "train.steps": "8 (preset: 7)",
        "memory.share": "0.25 (preset: null)",
    }
    assert method.preset_and_more.startswith("strong, but method.kind=plain (preset: strong), but train.steps=8")
    assert load("method: {preset: strong}").method.preset_and_more == "strong"


def test_unknown_preset(refusal):
    assert refusal("method: {preset: stronk}") == "method fedstil has no preset 'stronk'; choose one of best, strong"


def test_unknown_method():
    with pytest.raises(InputError, match=r"unknown method 'fedavgg'; did you mean fedavg\? there are .*fedstil"):
        methods.check_name("fedavgg")
    with pytest.raises(InputError, match="unknown method 'common'"):
        methods.load("common")


# -- what is shipped and what is saved ---------------------------------------------------------------------------------


def complete(source):
    method = methods.load(loading.resolve(source).method.name)
    return loading.resolve(source, method.Options, method.PRESETS)


def test_every_shipped_config_resolves():
    assert "quickstart.yaml" in [path.name for path in CONFIGS]
    for path in CONFIGS:
        complete(loading.read(path))


@pytest.mark.parametrize("name", methods.names())
def test_every_preset_resolves_and_what_is_saved_gives_the_same_experiment(name, tmp_path):
    method = methods.load(name)
    assert not {field.name for field in fields(method.Options)} & {field.name for field in fields(Method)}
    for preset in method.PRESETS:
        source = {"name": preset, "output": str(tmp_path), "method": {"name": name, "preset": preset}}
        experiment = complete(source)
        experiment.folder.mkdir()
        RunFolder(experiment.folder).create(experiment, [])
        assert complete(loading.read(tmp_path / preset / "config.yaml")) == experiment


def test_what_differs_from_every_default_survives_saving(tmp_path):
    changed = {"kind": "pku", "path": "a: b, ünï", "height": 48, "width": 24, "tasks": 2, "pooled": True}
    changed["synthetic"] = {"drift": 0.25}
    assert all(getattr(Data, key, None) != value for key, value in changed.items())
    source = {"output": str(tmp_path), "data": changed, "memory": {"share": None}, "method": {"alpha": 0.25}}
    experiment = complete(source)
    assert experiment.data.path == "a: b, ünï"
    experiment.folder.mkdir()
    RunFolder(experiment.folder).create(experiment, [])
    assert complete(loading.read(tmp_path / "experiment" / "config.yaml")) == experiment


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.stem)
def test_a_shipped_comparison_runs_every_variant_as_its_preset_says(path):
    """What differs from the preset stands in the variant itself: no base, and no settings, change what its name promises."""
    for entry in compare.expand(compare.read(str(path)), str(path), [], [1], None):
        preset = complete(entry.source).method
        by = {key: entry.set_by.get(key) for key in preset.overridden}
        assert set(by.values()) <= {compare.VARIANT}, (entry.label, by)
