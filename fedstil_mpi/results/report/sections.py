"""The words and the smaller tables of report.md."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fedstil_mpi.comm.ledger import DOWN, UP
from fedstil_mpi.evaluation.scopes import STRANGERS, gallery, words
from fedstil_mpi.results.reading.measures import megabytes, over_seeds, spread
from fedstil_mpi.results.reading.variants import Variant, differences, is_shared, listed, scopes
from fedstil_mpi.results.report.tables import mb
from fedstil_mpi.util.plugins import label
from fedstil_mpi.util.tables import markdown

DEFINITIONS = """\
- **served**: what a client holds after the exchange that follows a round; **local**: its model after its own training.
- **rank-1, mAP**: a client's mean over its tasks, then the mean over clients, after the last round. *now* below is then.
- **forgetting**: mean over the old tasks (all but a client's newest) of (best rank-1 at any earlier task - rank-1 now).
  *Now* is no candidate for the best, so a task that is better than ever counts as negative forgetting (Chaudhry et al.
  2018, Riemannian Walk for Incremental Learning, ECCV).
- **transfer** (in results.h5): mean over the old tasks of (rank-1 now - rank-1 right after training that task); Lopez-Paz
  and Ranzato 2017, Gradient Episodic Memory, NeurIPS.
- **±**: standard deviation over seeds, with n - 1; **n**: number of seeds. A single seed has none.
- **MB**: 10^6 bytes per client over the whole run, as they leave the codec (encoded), first contact and the closing
  distribution included; **raw**: the same as dense numbers. **S2C**: server to client; **C2S**: client to server.
- **time**: training, evaluation and exchange of the rank that worked longest; it depends on machine and ranks."""

GALLERIES = {
    "client": "- **scope client**: a query is searched in the galleries of all evaluated tasks of its client.",
    "task": "- **scope task**: a query is searched in its task's gallery; the smaller a gallery, the easier.",
    "all": """\
- **scope all**: a query is searched in the galleries of all clients and their evaluated tasks, each described by its own
  client's model; features of different models fit together only as far as the models agree. **MB** has none of this.""",
}
"""What to know of the galleries of `evaluation.gallery`."""
WHOSE = """\
- **strangers**: people who are searched but whom nobody ever trains on. They and the others are searched in the same galleries,
  each among the other."""


def definitions(variants: Sequence[Variant]) -> str:
    """What the terms of a report on these variants mean."""
    found = scopes(variants)
    of_galleries = [text for name, text in GALLERIES.items() if name in map(gallery, found)]
    return "\n".join([DEFINITIONS, *of_galleries, *[WHOSE] * any(name.startswith(STRANGERS) for name in found)])


def compared(variants: Sequence[Variant]) -> str:
    """What was run: data, model, sizes, seeds, software, and in which keys the variants differ."""
    runs = [run for variant in variants for run in variant.runs]
    lines = [
        f"- data: {_values(variants, 'data.kind')}, {_values(variants, 'data.height')} x {_values(variants, 'data.width')} "
        "pixels (height x width)",
        f"- model: {_values(variants, 'model.backbone')}, weights {_weights(variants)}, warm-up steps "
        f"{_values(variants, 'warmup.steps')}",
        f"- searched: {_values(variants, 'evaluation.tasks')} tasks, scopes {', '.join(map(words, scopes(variants)))}, "
        f"protocol {_values(variants, 'evaluation.protocol')}, re-ranked: {_values(variants, 'evaluation.rerank')}",
        f"- clients: {_each([run.clients for run in runs])}; tasks per client: {_each([run.tasks for run in runs])}; "
        f"rounds: {_each([len(run.online) for run in runs])}",
        f"- seeds: {_each([seed for variant in variants for seed in variant.seeds])}",
        f"- ran on: torch {_each([run.environment.get('packages', {}).get('torch', 'unknown') for run in runs])}, ranks: "
        f"{_each([run.ranks for run in runs])}",
    ]
    lines += [f"- {variant.label}: preset {text}" for variant in variants if (text := _overridden(variant))]
    own = {key: labels for key, labels in differences(variants).items() if not is_shared(key)}
    own.pop("method.name", None)
    lines += ["", "What differs:", "", *(f"- `{key}`: {listed(labels)}" for key, labels in own.items())] if own else []
    return "\n".join(lines)


def _overridden(variant: Variant) -> str:
    """The preset's name and what is not as it has it; empty where all is."""
    changed = variant.runs[0].environment.get("overridden")
    if not changed or not isinstance(changed, dict):
        return ""
    return ", ".join([variant.config["method.preset"], *(f"but {key}={value}" for key, value in changed.items())])


def savings(variants: Sequence[Variant], reference: Variant) -> str:
    """The reference's saving of bytes against each other variant, with first contact and without."""
    measures = (megabytes, partial(megabytes, first_contact=False))
    rows = []
    for variant in variants:
        if variant is not reference:
            row = [variant.label]
            for measure in measures:
                ours, theirs = (spread(over_seeds(of, measure)).mean for of in (reference, variant))
                row += [mb(theirs), saving(ours, theirs)]
            rows.append(row)
    own = " and ".join(mb(spread(over_seeds(reference, measure)).mean) for measure in measures)
    return (
        f"Saving of **{reference.label}** against baseline Y = 1 - bytes({reference.label}) / bytes(Y), in encoded bytes of "
        f"both directions over the whole run, per client, mean over seeds: {own} MB with and without first contact (the "
        "start model, which every method sends once to every client). Negative: it sends more; where it sends more than ten "
        "times as much, how many times.\n\n"
        + markdown(["against", "MB", "saving", "MB without first contact", "saving without"], rows)
    )


def saving(size: float, baseline: float) -> str:
    """1 - size / baseline in percent, or how many times as much; undefined against a baseline that sends nothing."""
    if not baseline:
        return "–"
    times = size / baseline
    return f"{times:.0f} times" if times > 10 else f"{100 * (1 - times):z.1f} %"


def bytes_by_kind(variants: Sequence[Variant]) -> str:
    """Encoded MB per client by direction and kind, raw ones behind where they differ."""
    ledgers = [run.ledger for variant in variants for run in variant.runs]
    found = {pair for ledger in ledgers for pair in zip(ledger["direction"], ledger["kind"], strict=True)}
    rows = [
        [f"{direction} {kind}", *(_encoded_and_raw(variant, direction, kind) for variant in variants)]
        for way in (DOWN, UP)
        for direction, kind in sorted(pair for pair in found if pair[0] == way)
    ]
    return "MB per client over the whole run, mean over seeds.\n\n" + markdown(
        ["kind", *(variant.label for variant in variants)], rows
    )


def _encoded_and_raw(variant: Variant, direction: str, kind: str) -> str:
    encoded = spread(over_seeds(variant, lambda run: megabytes(run, direction, kind))).mean
    raw = spread(over_seeds(variant, lambda run: megabytes(run, direction, kind, "raw"))).mean
    return mb(encoded) if encoded == raw else f"{mb(encoded)} (raw {mb(raw)})"


def _weights(variants: Sequence[Variant]) -> str:
    """Files by name alone: where they lie is private."""
    return _each([Path(str(variant.config.get("model.weights", "unknown"))).name for variant in variants])


def _values(variants: Sequence[Variant], key: str) -> str:
    return _each([label(variant.config.get(key, "unknown")) for variant in variants])


def _each(values: Sequence) -> str:
    return ", ".join(str(value) for value in dict.fromkeys(values))
