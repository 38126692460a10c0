"""The plots of a report: what they show is what their CSV files hold, and both are what the runs found."""

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from PIL import Image

from fedstil_mpi import report
from fedstil_mpi.results.report import plots
from support import made_runs
from support.made_runs import NAN, SKEWED, UNIFORM, csv_rows


@pytest.fixture
def three(tmp_path):
    return made_runs.write_three(tmp_path)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """name -> (the figure, the rows of its CSV file), of the report on the three."""
    folder = made_runs.write_three(tmp_path_factory.mktemp("three"))
    figures = {}
    save = Figure.savefig

    def note(figure, path, **how):
        figures[path.name.split(".")[1]] = figure  # .NAME.png and what follows until it is complete
        save(figure, path, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", note)
        report.write(report.load([folder]), folder / "report")
    return {name: (figure, csv_rows(folder / "report" / f"{name}.csv")) for name, figure in figures.items()}


def numbers(rows, *keys, **where):
    return np.array([[float(row[key]) for key in keys] for row in rows if all(row[k] == v for k, v in where.items())])


@pytest.mark.parametrize(
    ("name", "x", "y"),
    [
        ("accuracy", "round", "rank1"),
        ("accuracy_bytes", "mb_per_client", "rank1"),
        ("forgetting", "round", "forgetting"),
    ],
)
def test_curves_show_what_their_csv_holds(drawn, name, x, y):
    figure, rows = drawn[name]
    (axes,) = figure.axes
    curves = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert list(curves) == ["fedavg", "fedstil", "single"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(curves)
    shades = [shade for shade in axes.collections if isinstance(shade, PolyCollection)]
    bands = dict(zip(curves, shades, strict=True))
    for label, line in curves.items():
        points = numbers(rows, x, f"{y}_mean", f"{y}_sd", variant=label)
        assert np.array_equal(line.get_xydata(), points[:, :2])
        if label != "single":  # a single seed has no band
            edges = bands[label].get_paths()[0].vertices
            for at, mean, sd in points:
                assert {mean - sd, mean + sd} <= set(edges[edges[:, 0] == at, 1])
    assert axes.get_xlabel()
    assert axes.get_ylabel()


def test_curves_by_hand(drawn):
    _, rows = drawn["accuracy"]
    assert numbers(rows, "round", "rank1_mean", "n", variant="fedavg") == pytest.approx(
        np.array([[1, 65, 2], [2, 65, 2]])
    )
    _, rows = drawn["forgetting"]
    assert numbers(rows, "round", "forgetting_mean", variant="fedavg") == pytest.approx(np.array([[2, 5]]))
    _, rows = drawn["accuracy_bytes"]
    assert numbers(rows, "mb_per_client", variant="fedavg").ravel() == pytest.approx([150, 200])
    assert numbers(rows, "mb_per_client", variant="single").ravel() == pytest.approx([100])  # its end alone


def test_heat_maps_show_what_their_csv_holds(drawn):
    figure, rows = drawn["per_task"]
    panels = {axes.get_title(): axes for axes in figure.axes if axes.images and axes.get_title()}
    assert list(panels) == ["mean over clients", "client 0", "client 1"]
    for panel, axes in panels.items():
        plotted = np.ma.filled(axes.images[0].get_array(), np.nan)
        assert np.array_equal(plotted.ravel(), numbers(rows, "rank1_mean", panel=panel).ravel(), equal_nan=True)
    # FedSTIL, mean over seeds: after task 0 (60 + 50) / 2 and (80 + 90) / 2, then (50 + 60) / 2 and (70 + 80) / 2
    assert numbers(rows, "rank1_mean", panel="client 0").ravel() == pytest.approx([55, NAN, 55, 85], nan_ok=True)
    assert numbers(rows, "rank1_mean", panel="mean over clients").ravel() == pytest.approx(
        [70, NAN, 65, 75], nan_ok=True
    )
    (end,) = (axes for axes in figure.axes if axes.get_ylabel().startswith("served rank-1 at the end"))
    for line in end.lines:
        plotted = numbers(rows, "task", "rank1_mean", panel="all variants at the end", variant=line.get_label())
        assert np.array_equal(line.get_xydata(), plotted)


def test_accuracy_against_bytes_by_hand(drawn):
    """60 and 70: their mean plus and minus 12.7 standard errors, of which one is 5."""
    figure, rows = drawn["tradeoff"]
    keys = "mb_per_client", "rank1_mean", "rank1_half_width", "n"
    assert numbers(rows, *keys, variant="fedavg")[0] == pytest.approx([200, 65, 5 * 12.706, 2])
    assert numbers(rows, *keys, variant="single")[0] == pytest.approx([100, 60, NAN, 1], nan_ok=True)
    assert figure.axes[0].get_xscale() == "log"


def test_a_family_has_one_colour_and_each_of_it_a_look_of_its_own():
    styles = plots._styles(["FedAvg", "FedAvg, int4", "FedSTIL", "FedAvg, sign"])
    assert {label for label, look in styles.items() if look["color"] == styles["FedAvg"]["color"]} == set(styles) - {
        "FedSTIL"
    }
    assert len({tuple(look.values()) for look in styles.values()}) == 4


def test_mixing_matrices_are_the_runs(drawn):
    figure, rows = drawn["relevance"]
    images = {axes.get_title(): axes for axes in figure.axes if axes.images and axes.get_title()}
    assert list(images) == ["round 2", "round 3"]
    for (title, axes), matrix in zip(images.items(), (UNIFORM, SKEWED), strict=True):
        assert np.array_equal(axes.images[0].get_array(), matrix)
        assert np.array_equal(numbers(rows, "weight", round=title.split()[1]).reshape(2, 2), matrix)
        assert [text.get_text() for text in axes.texts] == [f"{value:.2f}" for value in matrix.ravel()]
    assert {(row["variant"], row["seed"]) for row in rows} == {("fedstil", "1")}
    assert any("rows sum to 1" in axes.get_ylabel() for axes in figure.axes)


def test_a_variant_looks_the_same_in_every_plot(drawn):
    styles = {}
    for figure, _ in drawn.values():
        for line in (line for axes in figure.axes for line in axes.lines if not line.get_label().startswith("_")):
            styles.setdefault(line.get_label(), set()).add((line.get_color(), line.get_linestyle(), line.get_marker()))
    assert all(len(found) == 1 for found in styles.values())
    assert len(set.union(*styles.values())) == len(styles) == 3


def test_twenty_variants_look_different():
    styles = plots._styles([str(number) for number in range(20)])
    assert len({tuple(look.values()) for look in styles.values()}) == 20


def test_pictures_are_pictures_and_nothing_stale_stays(three):
    folder = report.write(report.load([three]), three / "report").parent
    assert {path.stem for path in folder.glob("*.png")} == set(plots.PLOTS)
    for path in folder.glob("*.png"):
        assert len(Image.open(path).convert("RGB").getcolors(1 << 24)) > 10
        assert f"![]({path.name})" in (folder / "report.md").read_text()
    text = report.write(report.load([three / "single-1"]), folder).read_text()  # has no mixing matrices
    assert not list(folder.glob("relevance.*"))
    assert "relevance.png" not in text
