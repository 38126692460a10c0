"""The numbers of a report, on made-up runs from which they can be worked out by hand."""

import re

import numpy as np
import pytest

from fedstil_mpi import report
from fedstil_mpi.evaluation.lifelong import mean_of_known
from fedstil_mpi.results.reading import measures, runs, variants
from fedstil_mpi.results.report import paired, sections, tables
from support import made_runs
from support.made_runs import FIRST, MB, NAN, SECOND, csv_rows


@pytest.fixture
def three(tmp_path):
    return made_runs.write_three(tmp_path)


def load(folder, against=None):
    return report.load([folder], against)


def by_label(folder):
    return {variant.label: variant for variant in load(folder).variants}


def one_run(folder):
    return runs.read(folder)


def text_of(folder, against=None):
    """report.md, without drawing plots."""
    return report.text(load(folder, against), [])


def table_under(text, title):
    """The first Markdown table below a heading, as lists of cells."""
    lines = text.partition(f"## {title}\n")[2].partition("\n## ")[0].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith("|")), len(lines))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:end] if "---" not in line]


# -- the main table ----------------------------------------------------------------------------------------------------


def test_means_and_deviations_by_hand(three, monkeypatch):
    monkeypatch.setattr(report.plots, "write_all", lambda *_: {})  # which takes most of the time
    report.write(report.load([three]), three / "report")
    rows = {row["variant"]: row for row in csv_rows(three / "report" / "table.csv")}
    fedavg = rows["fedavg"]
    assert (fedavg["n"], fedavg["seeds"]) == ("2", "1 2")
    root2 = 2**0.5  # of two values that are d apart, the standard deviation is d / sqrt 2
    expected = {
        "served_rank1": (65, 10 / root2),
        "served_map": (32.5, 5 / root2),
        "served_forgetting": (5, 10 / root2),
        "local_rank1": (65, 10 / root2),
        "s2c_mb": (160, 0),
        "c2s_mb": (40, 0),
        "total_mb": (200, 0),
        "seconds": (6, 0),
    }
    for name, (mean, sd) in expected.items():
        assert float(fedavg[f"{name}_mean"]) == pytest.approx(mean), name
        assert float(fedavg[f"{name}_sd"]) == pytest.approx(sd, abs=1e-9), name
    assert float(rows["fedstil"]["local_rank1_mean"]) == pytest.approx(70)  # both seeds end at 60 + 10 locally
    assert np.isnan(float(rows["single"]["served_rank1_sd"]))  # one seed has no spread


def test_table_marks_the_best_of_every_column(three):
    header, *rows = table_under(text_of(three), "Results")
    assert header[:5] == ["variant", "n", "served rank-1 (%)", "mAP (%)", "forgetting (%)"]
    found = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert found["fedavg"]["served rank-1 (%)"] == "65.0 ± 7.1"
    assert found["fedstil"]["served rank-1 (%)"] == "**70.0 ± 0.0**"
    assert found["single"]["served rank-1 (%)"] == "60.0"
    assert {label: "**" in row["forgetting (%)"] for label, row in found.items()} == {
        "fedavg": True, "fedstil": True, "single": False,
    }  # fmt: skip
    assert {label: row["total (MB)"] for label, row in found.items()} == {
        "fedavg": "200.0", "fedstil": "140.0", "single": "**100.0**",
    }  # fmt: skip


def test_times_have_a_spread_and_no_winner(tmp_path):
    for seed, method, of_rank in ((1, "fedstil", 1.0), (2, "fedstil", 3.0), (1, "fedavg", 9.0)):
        made_runs.write(tmp_path / f"{method}{seed}", FIRST, method=method, seed=seed, seconds=({"train": of_rank},))
    header, *rows = table_under(text_of(tmp_path), "Results")
    times = {row[0]: row[header.index("time (s)")] for row in rows}
    assert times == {"fedstil": "2.0 ± 1.4", "fedavg": "9.0"}


def test_raw_bytes_have_a_column_where_a_codec_was_at_work(tmp_path):
    made_runs.write(tmp_path / "a", FIRST, ledger=[(1, 0, "C2S", "weights", 8 * MB, 2 * MB)])
    made_runs.write(tmp_path / "b", FIRST, method="fedavg", ledger=[(1, 0, "C2S", "weights", 8 * MB)])
    text = text_of(tmp_path)
    header, *rows = table_under(text, "Results")
    found = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert (found["fedstil"]["total (MB)"], found["fedstil"]["raw total (MB)"]) == ("**1.00**", "4.00")  # two clients
    assert (found["fedavg"]["total (MB)"], found["fedavg"]["raw total (MB)"]) == ("4.00", "4.00")
    assert table_under(text, "Bytes by kind")[1] == ["C2S weights", "1.00 (raw 4.00)", "4.00"]


def test_megabytes_are_told_in_three_digits_and_never_as_powers_of_ten():
    assert [tables.mb(value) for value in (123.45, 9.0, 0.59, 9.6e-05)] == ["123.5", "9.00", "0.590", "0.0000960"]


def test_seconds_are_the_busiest_ranks(tmp_path):
    ranks = [{"train": 1.0, "wait": 50.0}, {"train": 3.0, "evaluate": 2.0, "exchange": 0.5, "set-up": 9.0}]
    assert measures.seconds(one_run(made_runs.write(tmp_path / "a", FIRST, seconds=ranks))) == 5.5


def test_methods_that_know_the_task_have_a_star_and_a_second_table(three):
    made_runs.write(three / "fedweit-1", SECOND, method="fedweit", task_free=FIRST)
    text = text_of(three)
    labels = [row[0] for row in table_under(text, "Results")]
    assert [label for label in labels if "*" in label] == ["fedweit \\*"]
    _, *rows = table_under(text, "Without knowing a query's task")
    assert rows == [["fedweit", "1", "60.0", "30.0", "10.0", "60.0"]]
    assert "Without knowing" not in text_of(three / "fedavg-1")


# -- savings, pairs, bytes ---------------------------------------------------------------------------------------------


def test_savings_by_hand(three):
    """With the start model of 100 MB the totals are 200, 140 and 100 MB; without it 100, 40 and 0."""
    text = text_of(three)
    assert "1 - bytes(fedstil) / bytes(Y)" in text
    assert "140.0 and 40.0 MB" in text
    assert table_under(text, "Savings")[1:] == [
        ["fedavg", "200.0", "30.0 %", "100.0", "60.0 %"],
        ["single", "100.0", "-40.0 %", "0.0", "–"],  # against nothing at all no saving is defined
    ]


def test_a_saving_is_nothing_against_an_equal(tmp_path):
    assert sections.saving(3.0, 3.0) == "0.0 %"
    assert sections.saving(3.0 + 1e-9, 3.0) == "0.0 %"  # and never -0.0
    assert sections.saving(0.0, 0.0) == "–"


@pytest.mark.parametrize(("size", "shown"), [(10.0, "-900.0 %"), (10.1, "10 times"), (418.4, "418 times")])
def test_many_times_as_much_is_written_as_such(size, shown):
    assert sections.saving(size, 1.0) == shown


def test_pairs_are_seeds_that_both_have(three):
    """FedSTIL ends at 70 with both seeds, FedAvg at 60 and 70, single at 60 with seed 1 alone."""
    found = by_label(three)
    assert paired.paired_points(found["fedavg"], found["fedstil"]) == pytest.approx([10, 0])
    rows = table_under(text_of(three), "Seed by seed")[1:]
    assert rows == [
        ["fedavg", "task", "2", "+5.0", "–", "+0.0", "+10.0", "–"],
        ["single", "task", "1", "+10.0", "–", "+10.0", "+10.0", "–"],
    ]
    against = text_of(three, against="single")
    assert table_under(against, "Seed by seed")[1:] == [
        ["fedavg", "task", "1", "+0.0", "–", "+0.0", "+0.0", "–"],
        ["fedstil", "task", "1", "-10.0", "–", "-10.0", "-10.0", "–"],
    ]


def test_interval_of_many_points_is_that_of_a_normal_mean():
    points = np.random.default_rng(0).normal(1, 2, 400)
    half = 1.96 * points.std() / 20
    assert paired.interval(points) == pytest.approx((points.mean() - half, points.mean() + half), abs=0.02)
    assert paired.interval(points) == paired.interval(points)
    assert paired.interval(np.full(5, 0.25)) == (0.25, 0.25)
    assert np.isnan(paired.interval(np.array([1.0, 2.0]))).all()


def test_intervals_of_few_points_are_as_wide_as_they_have_to_be():
    """Of means of three to nine draws 95 in 100 hold the true mean; by hand for 1, 2 and 3: 2 +- 4.303 / root 3."""
    assert paired.interval(np.array([1.0, 2.0, 3.0])) == pytest.approx(
        (2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5), abs=1e-3
    )
    rng = np.random.default_rng(3)
    for points in (3, 5, 9):
        found = [paired.interval(rng.normal(size=points)) for _ in range(400)]
        assert 0.92 < np.mean([low < 0 < high for low, high in found]) < 0.98


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.1, 3, "ahead"), (-3, -0.1, "behind"), (-0.4, 0.5, "level"), (0.1, 0.4, "level"), (-0.6, 0.2, "undecided")],
)
def test_what_an_interval_allows_to_say(low, high, word):
    assert paired.verdict(low, high) == word


def test_a_seed_without_a_value_counts_for_what_it_has():
    """By hand: 1 and 3 have the mean 2 and the deviation root 2; a column without any value has none."""
    values = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]])
    mean, sd = measures.moments(values)
    np.testing.assert_allclose(mean, [2, np.nan])
    np.testing.assert_allclose(sd, [np.sqrt(2), np.nan])
    assert measures.spread(values[:, 0]) == (2, np.sqrt(2), 2)
    assert np.isnan(measures.spread(values[:1, 0]).sd)
    assert measures.half_width(values[:, 0]) == pytest.approx(measures.half_width(values[:2, 0]))


def test_accuracy_by_seed_is_written(three):
    rows = paired.by_seed(load(three).variants)
    assert {(row["variant"], row["seed"]): row["served_rank1"] for row in rows} == {
        ("fedavg", 1): 60,
        ("fedavg", 2): 70,
        ("fedstil", 1): 70,
        ("fedstil", 2): 70,
        ("single", 1): 60,
    }


def test_bytes_of_a_served_model_are_those_that_brought_it(three):
    """Round 1: the model (100), the update (20) and what opens round 2 (30); the rest with the closing distribution."""
    found = by_label(three)
    assert measures.megabytes_by_round(found["fedavg"].runs[0]) == pytest.approx([150, 200])
    assert measures.megabytes_by_round(found["single"].runs[0]) == pytest.approx([100, 100])
    for variant in found.values():
        assert measures.megabytes_by_round(variant.runs[0])[-1] == measures.megabytes(variant.runs[0])


# -- accuracy and forgetting by round ----------------------------------------------------------------------------------


def test_forgetting_by_round_by_hand(tmp_path):
    """Two rounds a task. What counts of a task is its last evaluation, so the 0.95 of round 1 is no candidate."""
    served = [[[0.95, NAN]], [[0.9, NAN]], [[0.6, 0.5]], [[0.7, 0.8]]]
    run = one_run(made_runs.write(tmp_path / "a", served, per_task=2))
    assert measures.stage_by_round(run).ravel().tolist() == [0, 0, 1, 1]
    assert measures.forgetting_by_round(run) == pytest.approx([NAN, NAN, 30, 20], nan_ok=True)
    assert measures.accuracy_by_round(run) == pytest.approx([95, 90, 55, 75])
    assert measures.accuracy_by_task(run) == pytest.approx([70, 80])


def test_tasks_of_the_future_are_not_averaged(tmp_path):
    run = one_run(made_runs.write(tmp_path / "a", [[[0.6, 0.1]], [[0.6, 0.4]]]))
    assert measures.accuracy_by_round(run) == pytest.approx([60, 50])


@pytest.mark.parametrize("drawn", [1, 2, None])
def test_last_round_is_the_runs_own_result(tmp_path, drawn):
    """Whoever takes part when: what is rebuilt from the rounds ends where the record ended."""
    values = np.random.default_rng(0).random((9, 4, 3))
    run = one_run(made_runs.write(tmp_path / "a", values, per_task=2, drawn=drawn, seed=3))
    assert (run.online.sum(axis=1) == (drawn or 4)).all()
    final = run.of("served").final["forgetting"]
    assert np.isfinite(final).any()
    assert measures.forgetting_by_round(run)[-1] == pytest.approx(mean_of_known(final))


# -- variants ----------------------------------------------------------------------------------------------------------


def test_seeds_merge_and_settings_separate(tmp_path):
    for name, seed, alpha in (("a", 2, 0.5), ("b", 1, 0.5), ("c", 1, 0.9)):
        threads = {"threads": seed}  # where a run took place is no setting
        made_runs.write(tmp_path / name, FIRST, seed=seed, options={"alpha": alpha, "tau": 1.0}, placement=threads)
    found = by_label(tmp_path)
    assert {label: variant.seeds for label, variant in found.items()} == {
        "fedstil alpha=0.5": [1, 2],
        "fedstil alpha=0.9": [1],
    }


def test_presets_and_comparisons_name_variants(tmp_path):
    made_runs.write(tmp_path / "a", FIRST, preset="paper")
    made_runs.write(tmp_path / "b", FIRST, method="single", label="alone | at home")
    made_runs.write(tmp_path / "c", FIRST, method="single", seed=2)  # ended before it got its label
    found = load(tmp_path)
    assert [variant.label for variant in found.variants] == ["fedstil paper", "alone | at home"]
    assert found.variants[1].seeds == [1, 2]
    rows = table_under(text_of(tmp_path).replace("\\|", "!"), "Results")
    assert [row[0] for row in rows[1:]] == ["fedstil paper", "alone ! at home"]


def test_what_is_not_as_the_preset_has_it_is_said(tmp_path):
    made_runs.write(tmp_path / "a", FIRST, preset="paper", overridden={"memory.size": "48 (preset: 0)"})
    made_runs.write(tmp_path / "b", FIRST, method="single")
    assert "- fedstil paper: preset paper, but memory.size=48 (preset: 0)" in text_of(tmp_path).splitlines()
    assert text_of(tmp_path).count("preset paper") == 1


def test_a_repetition_is_no_second_seed(tmp_path):
    for name in "ab":
        made_runs.write(tmp_path / name, FIRST)
    found = load(tmp_path)
    assert [variant.seeds for variant in found.variants] == [[1]]
    assert found.notes == [f"{tmp_path / 'b'} repeats {tmp_path / 'a'} (same setting, same seed) and is left out"]
    assert len(report.load([tmp_path / "a", tmp_path], None).notes) == 1  # a folder that is named twice is read once


def test_long_differences_are_cut_but_labels_stay_apart(tmp_path):
    for name, value in (("a", 1), ("b", 2), ("c", 3)):
        made_runs.write(
            tmp_path / name, FIRST, options={key: value if key != "e" or value < 3 else 2 for key in "uvwxe"}
        )
    made_runs.write(tmp_path / "d", FIRST, options={**dict.fromkeys("uvwx", 3), "e": 9})
    labels = [variant.label for variant in load(tmp_path).variants]
    assert labels == [*(f"fedstil u={n} v={n} w={n} +2 more" for n in (1, 2, 3)), "fedstil u=3 v=3 w=3 +2 more #2"]


def test_what_most_of_a_name_have_is_left_out_of_labels(tmp_path):
    for name, options in (("a", {}), ("b", {"u": 2}), ("c", {"v": 2}), ("d", {"u": 2, "v": 2, "w": 2})):
        made_runs.write(tmp_path / name, FIRST, options={"u": 1, "v": 1, "w": 1} | options)
    labels = [variant.label for variant in load(tmp_path).variants]
    assert labels == ["fedstil u=1 v=1", "fedstil u=2 v=1", "fedstil u=1 v=2", "fedstil u=2 v=2 w=2"]


def test_what_is_not_comparable_is_named(three):
    assert "seed" in variants.warnings(load(three).variants)[0]
    comparable = [variant for variant in load(three).variants if variant.label != "single"]
    assert variants.warnings(comparable) == []
    made_runs.write(three / "other-1", FIRST, method="mas", data={"height": 32})
    text = text_of(three)
    assert "**Warning: not comparable.** data.height is not the same: 32 (mas); else 64" in text
    assert "fedavg, fedstil" in re.search(r"\*\*Warning: not comparable.\*\* the seeds.*", text)[0]


def test_one_task_has_no_forgetting(tmp_path):
    made_runs.write(tmp_path / "a", [[[0.5]], [[0.6]]])
    text = report.write(report.load([tmp_path]), tmp_path / "report").read_text()
    assert table_under(text, "Results")[1][4] == "–"
    assert "forgetting.png" not in text
    assert "accuracy.png" in text
