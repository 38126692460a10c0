"""The plots of a report: what they show is what their CSV files hold, and both are what the runs found."""

import math

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from PIL import Image

from fedstil_mpi import report
from fedstil_mpi.results.reading.variants import Variant
from fedstil_mpi.results.report import plots, styles
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
    """60 and 70: their mean plus and minus as many standard errors, of 5 each, as a Cauchy variable's 97.5 % quantile."""
    figure, rows = drawn["tradeoff"]
    keys = "mb_per_client", "rank1_mean", "rank1_half_width", "n"
    assert numbers(rows, *keys, variant="fedavg")[0] == pytest.approx([200, 65, 5 * math.tan(0.475 * math.pi), 2])
    assert numbers(rows, *keys, variant="single")[0] == pytest.approx([100, 60, NAN, 1], nan_ok=True)
    assert figure.axes[0].get_xscale() == "log"


def variants(*labels, methods=None):
    return [Variant(label, {"method.name": (methods or {}).get(label, label)}, ()) for label in labels]


def colours(looks):
    return {label: look["color"] for label, look in looks.items()}


def test_a_family_has_one_colour_and_each_of_it_a_look_of_its_own():
    codecs = ["FedAvg", "FedAvg, int4", "FedSTIL", "FedAvg, sign"]
    looks = styles.styles(variants(*codecs, methods=dict.fromkeys(codecs, "fedavg")), "FedSTIL")
    assert len({colour for label, colour in colours(looks).items() if label != "FedSTIL"}) == 1
    assert len(set(colours(looks).values())) == 2
    assert len({(look["color"], look["linestyle"], look["marker"]) for look in looks.values()}) == 4


def test_where_there_are_several_methods_each_is_a_family():
    methods = {"FedAvg, paper": "fedavg", "with aids": "fedavg", "ours": "fedstil"}
    found = colours(styles.styles(variants(*methods, methods=methods), "ours"))
    assert found["FedAvg, paper"] == found["with aids"] != found["ours"]


def test_the_reference_stands_out():
    looks = styles.styles(variants("a", "b", "c"), "b")
    for label in "ac":
        assert looks["b"]["linewidth"] > looks[label]["linewidth"]
        assert looks["b"]["alpha"] > looks[label]["alpha"]


def test_equal_lines_are_all_seen(tmp_path):
    """The one below is wider than the one upon it; a third that differs is as usual."""
    for label, values in {"a": made_runs.FIRST, "b": made_runs.FIRST, "c": made_runs.SECOND}.items():
        made_runs.write(tmp_path / label, values, label=label, memory={"size": ord(label)})
    found = report.load([tmp_path], "c").variants
    rows = plots.PLOTS["accuracy"].rows(found, found[2])
    (axes,) = plots.PLOTS["accuracy"].draw(rows, styles.styles(found, "c")).axes
    width = {line.get_label(): line.get_linewidth() for line in axes.lines}
    usual = styles.styles(found, "c")
    assert width["a"] > width["b"] == usual["b"]["linewidth"]
    assert width["c"] == usual["c"]["linewidth"]


def test_bars_add_up_to_all_bytes(drawn):
    figure, rows = drawn["bytes"]
    assert numbers(rows, "received_mb", "sent_mb").tolist() == [[160, 40], [120, 20], [100, 0]]
    ends = [bar.get_x() + bar.get_width() for bar in figure.axes[0].patches]
    assert ends[3:] == [200, 140, 100]


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
    looks = styles.styles(variants(*map(str, range(20))), "0").values()
    assert len({(look["color"], look["linestyle"], look["marker"]) for look in looks}) == 20


def test_a_heat_map_has_the_range_of_its_values(drawn):
    figure, rows = drawn["relevance"]
    (low, high), *others = {axes.images[0].get_clim() for axes in figure.axes if axes.images and axes.get_title()}
    assert not others
    assert (low, high) == (0.0, 1.0) == (min(numbers(rows, "weight")), max(numbers(rows, "weight")))
    panel = next(axes for axes in drawn["per_task"][0].axes if axes.images)
    assert panel.images[0].get_clim() == (pytest.approx(55), pytest.approx(85))


def test_pictures_are_pictures_and_nothing_stale_stays(three):
    folder = report.write(report.load([three]), three / "report").parent
    assert {path.stem for path in folder.glob("*.png")} == set(plots.PLOTS)
    for path in folder.glob("*.png"):
        assert len(Image.open(path).convert("RGB").getcolors(1 << 24)) > 10
        assert f"![]({path.name})" in (folder / "report.md").read_text()
    text = report.write(report.load([three / "single-1"]), folder).read_text()  # has no mixing matrices
    assert not list(folder.glob("relevance.*"))
    assert "relevance.png" not in text
