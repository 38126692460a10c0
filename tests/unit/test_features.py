"""Exported features find what the program finds, and the two models of a client are those before and after an exchange."""

from itertools import combinations

import h5py
import numpy as np
import pytest
import torch

from fedstil_mpi import features, report
from fedstil_mpi.evaluation import matches, retrieval
from fedstil_mpi.models.files import VIEWS, load_tail, model_file
from fedstil_mpi.results.reading import networks, runs
from fedstil_mpi.results.report.html import page, rankings
from support import SMALL, TINY
from support.launch import alone


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("features")
    done = alone("-m", "fedstil_mpi.run", TINY, SMALL, "save_models=true", "rounds.evaluate_every=1", cwd=place)
    assert done.returncode == 0, done.stderr
    return place / "runs" / "tiny"


def exported(folder, output, *options):
    features.main([str(folder), "--client", "1", "--output", str(output), *options])
    if output.suffix == ".npz":
        return {name.replace("_", "/", 1): values for name, values in np.load(output).items()}
    with h5py.File(output) as file:
        return {f"{split}/{name}": file[split][name][()] for split in file for name in file[split]}


@pytest.mark.parametrize("view", VIEWS)
def test_a_search_with_them_gives_the_runs_own_numbers(folder, tmp_path, view):
    found = exported(folder, tmp_path / "x.h5", "--view", view)
    metrics = runs.read(folder).evaluations[view, "task"].metrics[-1, 1]
    for task, expected in enumerate(metrics):
        query, gallery = (
            {
                name: found[f"{split}/{name}"][found[f"{split}/tasks"] == task]
                for name in ("features", "pids", "cameras")
            }
            for split in ("query", "gallery")
        )
        result = retrieval.evaluate(
            torch.from_numpy(query["features"]), query["pids"],
            torch.from_numpy(gallery["features"]), gallery["pids"], query["cameras"], gallery["cameras"],
        )  # fmt: skip
        assert [result.rank(1), result.rank(5), result.map] == pytest.approx([expected[0], expected[2], expected[4]])


def test_they_are_the_models_own_without_norms_and_metric(folder, tmp_path):
    """Which are there: client 1 has met people whom others have met, and its galleries are by other cameras."""
    own, normed, found = (
        exported(folder, tmp_path / "x.h5", *off)
        for off in (["prototypes.metric=false", "prototypes.norms=0"], ["prototypes.metric=false"], [])
    )
    assert not np.allclose(own["query/features"], found["query/features"])
    galleries = (of["gallery/features"] for of in (own, normed, found))
    assert not any(np.allclose(one, other) for one, other in combinations(galleries, 2))
    run, file = networks.reopen(folder), model_file(folder, 1)
    network = networks.load_network(run.plan, run.stream, file)
    task = run.original.task(1, 0)
    for split, images in (("query", task.query), ("gallery", task.gallery)):
        assert np.allclose(own[f"{split}/features"][: len(images)], matches.features(network, images))
    assert np.array_equal(own["query/features"], normed["query/features"])


def test_features_have_length_1_and_both_formats_hold_the_same(folder, tmp_path):
    found, other = exported(folder, tmp_path / "x.h5"), exported(folder, tmp_path / "x.npz")
    assert found.keys() == other.keys()
    assert all(np.array_equal(found[name], other[name]) for name in found)
    assert np.linalg.norm(found["gallery/features"], axis=1) == pytest.approx(1)
    once, twice = (exported(folder, tmp_path / "y.h5", "--tasks", *tasks)["query/tasks"] for tasks in ("1", "11"))
    assert np.array_equal(once, twice)
    assert set(once) == {1}


def test_the_local_model_is_another_than_the_served(folder):
    run = networks.reopen(folder)
    tails = []
    for view in VIEWS:
        network = networks.load_network(run.plan, run.stream, model_file(folder, 1, view))
        load_tail(model_file(folder, 1, view), network.tail)
        tails.append(torch.cat([value.flatten() for value in network.tail.parameters()]))
    assert not torch.equal(*tails)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--client", "3", "--output", "x.h5"], "--client 3, but there are 3 clients"),
        (["--client", "1", "--output", "x.csv"], "--output x.csv; expected a name that ends in .h5 or .npz"),
        (["--client", "1", "--output", "none/x.h5"], "--output none/x.h5: none is no folder"),
        (["--client", "1", "--tasks", "2", "--output", "x.h5"], "--tasks 2, but there are 2 tasks"),
        (["--client", "1", "--view", "old", "--output", "x.h5"], "invalid choice: 'old'"),
    ],
)
def test_wrong_input(folder, capsys, arguments, reason):
    with pytest.raises(SystemExit) as end:
        features.main([str(folder), *arguments])
    assert end.value.code == 2
    assert reason in capsys.readouterr().err


def test_ranking_lists_show_the_answers_and_frame_the_right_ones(folder, tmp_path):
    """The share of lists that begin with a frame is rank-1 where all queries are shown."""
    if page.missing():
        pytest.skip(f"{page.missing()} not installed: pip install 'fedstil-mpi[html]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rankings, "QUERIES", 1000)
        found = rankings.rankings(runs.read(folder), [1])
        report.main([str(folder), "--output", str(tmp_path), "--rankings", "1"])
    for view in VIEWS:
        expected = runs.read(folder).evaluations[view, "task"].metrics[-1, 1, :, 0]
        for task, rank1 in enumerate(expected):
            assert np.mean([one[view][0]["right"] for one in found if one["task"] == task]) == pytest.approx(rank1)
    text = (tmp_path / "report.html").read_text()
    assert text.count('class="right"') == sum(answer["right"] for one in found for v in VIEWS for answer in one[v]) > 0
    assert text.count('alt="query"') - 1 == 2 * len(found)  # once in the style sheet


def test_few_queries_come_from_all_tasks(folder):
    found = rankings.rankings(runs.read(folder), [1])
    assert len(found) == rankings.QUERIES
    assert {one["task"] for one in found} == {0, 1}


def test_a_run_without_models(folder, tmp_path, capsys):
    (tmp_path / "config.yaml").write_bytes((folder / "config.yaml").read_bytes())
    with pytest.raises(SystemExit):
        features.main([str(tmp_path), "--client", "1", "--view", "local", "--output", str(tmp_path / "x.h5")])
    assert "keeps no client-1-local.safetensors: runs keep models with save_models=true" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "problem"), [(".", "holds no config.yaml"), ("none", "does not exist")])
def test_what_is_no_run(tmp_path, capsys, name, problem):
    with pytest.raises(SystemExit):
        features.main([str(tmp_path / name), "--client", "0", "--output", str(tmp_path / "x.h5")])
    assert f"{tmp_path / name} {problem}; expected a run folder, or a YAML file" in capsys.readouterr().err
