"""Pictures of the benchmarks' figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.serving import Measured

# What each contestant calls the same part of the work, in the order in which the work is done.
PARTS: dict[str, tuple[str, ...]] = {
    "imports and start": ("imports and start",),
    "ingest": ("CsvExampleGen", "ingest"),
    "schema, statistics, gate": ("ImportSchemaGen", "StatisticsGen", "ExampleValidator", "DataGate", "statistics"),
    "transform": ("Transform", "transform"),
    "training": ("Trainer", "training"),
    "evaluation": ("BaselineLookup", "latest_blessed_model_resolver", "Evaluator", "evaluation"),
    "exports": ("Exporter",),
    "push": ("ModelCard", "Pusher"),
    "between and after": ("between and after the stages",),
}
# Okabe and Ito's colours, told apart by everyone (https://jfly.uni-koeln.de/color/); imports and the rest in grey.
COLOURS = ("#bbbbbb", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#F0E442", "#CC79A7", "#dddddd")
# Share of the longest bar from which on a part is wide enough for its number.
LABELLED = 0.025


def parts_of(stages: dict[str, float]) -> dict[str, float]:
    """Return a contestant's seconds by part of the work.

    Raises:
        ValueError: a stage belongs to no part, so that the picture would leave its time out.
    """
    known = {name for names in PARTS.values() for name in names}
    if left := sorted(set(stages) - known):
        raise ValueError(f"no part of the picture holds {', '.join(left)}")
    return {part: sum(stages.get(name, 0.0) for name in names) for part, names in PARTS.items()}


def draw_stages(stages: dict[str, dict[str, float]], target: Path) -> None:
    """Draw one bar a contestant, cut into the parts of the work, as a PNG file.

    Args:
        stages: seconds by stage of each contestant.
        target: the file to write.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(11, 3.6), layout="constrained")
    names = list(stages)
    left = [0.0] * len(names)
    parts = [parts_of(stages[name]) for name in names]
    longest = max(sum(found.values()) for found in parts)
    for part, colour in zip(PARTS, COLOURS, strict=True):
        widths = [found[part] for found in parts]
        bars = axes.barh(names, widths, left=left, color=colour, label=part, edgecolor="white", linewidth=0.6)
        axes.bar_label(
            bars, [f"{w:.1f}" if w >= LABELLED * longest else "" for w in widths], label_type="center", fontsize=8
        )
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for index, total in enumerate(left):
        axes.text(total, index, f"  {total:.1f} s", va="center", fontweight="bold", fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("wall seconds of the whole process")
    axes.set_xlim(0, longest * 1.1)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.45, 1.0), frameon=False, fontsize=8)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=130)
    pyplot.close(figure)


def draw_serving(measured: Measured, target: Path) -> None:
    """Draw throughput, latency and memory of the embedded server as a PNG file.

    Args:
        measured: what was measured.
        target: the file to write.
    """
    import statistics

    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    loads = {
        "aiohttp,\na constant": measured.constant,
        "REST": measured.rest,
        "FastAPI,\nsame file": measured.fastapi,
        "grpc.aio,\na constant": measured.constant_grpc,
        "gRPC": measured.grpc,
    }
    speeds = [statistics.median(one.per_second for one in rounds) for rounds in loads.values()]
    bars = left.bar(list(loads), speeds, color=(COLOURS[1], COLOURS[5], COLOURS[0], COLOURS[1], COLOURS[2]))
    left.bar_label(bars, [f"{speed:,.0f}" for speed in speeds], fontsize=8)
    left.tick_params(axis="x", labelsize=7)
    left.set_title("requests a second, 64 clients", fontsize=10)
    latencies = {"one client": measured.single, "half of the peak": measured.half, "64 clients": measured.rest}
    for offset, (name, colour) in enumerate(
        zip(("p50", "p90", "p99"), (COLOURS[2], COLOURS[1], COLOURS[4]), strict=True)
    ):
        heights = [statistics.median(getattr(one, name) or 0.0 for one in rounds) for rounds in latencies.values()]
        places = [index + 0.27 * (offset - 1) for index in range(len(latencies))]
        bars = middle.bar(places, heights, 0.27, color=colour, label=name)
        middle.bar_label(bars, [f"{height:.1f}" for height in heights], fontsize=7)
    middle.set_xticks(range(len(latencies)), list(latencies))
    middle.set_title("latency over REST, ms", fontsize=10)
    middle.legend(frameon=False, fontsize=8)
    right.plot([count / 1000 for count in measured.memory.requests], measured.memory.megabytes, color=COLOURS[5])
    right.set_ylim(0, 1.3 * max(measured.memory.megabytes))
    right.set_title("resident MB over thousands of requests", fontsize=10)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=130)
    pyplot.close(figure)


def draw_formats(formats: Mapping[str, tuple[float, float]], target: Path) -> None:
    """Draw size and latency of each export format side by side, as a PNG file.

    Args:
        formats: kB and µs of one row by format.
        target: the file to write.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    names = list(formats)
    figure, panels = pyplot.subplots(1, 2, figsize=(11, 0.36 * len(names) + 1.2), sharey=True, layout="constrained")
    for place, (axes, title) in enumerate(zip(panels, ("size, kB", "one row on one core, µs"), strict=True)):
        values = [formats[name][place] for name in names]
        bars = axes.barh(names, values, color=COLOURS[2 + 3 * place])
        axes.bar_label(bars, [f"{value:,.1f}" for value in values], padding=3, fontsize=8)
        axes.set_xscale("log")
        axes.set_xlim(right=max(values) * 3)
        axes.set_xlabel(title)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=130)
    pyplot.close(figure)


def draw_quality(errors: Mapping[str, Mapping[str, float]], target: Path) -> None:
    """Draw the RMSE of every contestant, one panel a protocol, as a PNG file.

    Args:
        errors: RMSE in rentals an hour, by protocol and contestant; the first contestant is the served model.
        target: the file to write.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(name for found in errors.values() for name in found))
    figure, panels = pyplot.subplots(
        1, len(errors), figsize=(2.6 * len(errors) + 2, 2.6), sharey=True, layout="constrained", squeeze=False
    )
    for axes, (protocol, found) in zip(panels[0], errors.items(), strict=True):
        colours = [COLOURS[1] if place == 0 else COLOURS[2] for place in range(len(names))]
        bars = axes.barh(names, [found.get(name, 0.0) for name in names], color=colours)
        axes.bar_label(bars, [f"{found[name]:.1f}" if name in found else "absent" for name in names], fontsize=8)
        axes.set_title(f"{protocol}, RMSE", fontsize=10)
        axes.set_xlim(0, 1.25 * max(found.values()))
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].invert_yaxis()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=130)
    pyplot.close(figure)


def draw_labels(records: Sequence[Mapping[str, Any]], target: Path) -> None:
    """Draw the RMSE over the number of labels, one panel a test, with one standard error, as a PNG file.

    Args:
        records: way, seed, labels, test and rmse of each trained model.
        target: the file to write.
    """
    import matplotlib as mpl
    import numpy as np

    mpl.use("Agg")
    from matplotlib import pyplot

    tests, ways, budgets = (list(dict.fromkeys(one[key] for one in records)) for key in ("test", "way", "labels"))
    figure, panels = pyplot.subplots(1, len(tests), figsize=(4.5 * len(tests), 3.2), layout="constrained")
    for axes, test in zip(panels, tests, strict=True):
        for way, colour in zip(ways, (COLOURS[4], COLOURS[5]), strict=True):
            found = np.array(
                [[o["rmse"] for o in records if (o["test"], o["way"], o["labels"]) == (test, way, b)] for b in budgets]
            )
            mean, error = found.mean(axis=1), found.std(axis=1) / np.sqrt(found.shape[1])
            axes.plot(budgets, mean, color=colour, marker="o", label=way)
            axes.fill_between(budgets, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
        axes.set_title(f"{test}, RMSE", fontsize=10)
        axes.set_xlabel("labelled hours")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=130)
    pyplot.close(figure)


def draw_monitoring(delays: Mapping[str, Mapping[str, Mapping[str, Sequence[float | None]]]], target: Path) -> None:
    """Draw which share of injected faults each contestant told, by share of faulty rows, as a PNG file.

    Args:
        delays: hours until each episode was told, None where it was not, by contestant, fault and share of rows.
        target: the file to write.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    names, faults = list(delays), list(next(iter(delays.values())))
    figure, panels = pyplot.subplots(2, -(-len(faults) // 2), figsize=(13, 5), layout="constrained", sharey=True)
    for axes, fault in zip(panels.flat, faults, strict=False):
        shares = list(delays[names[0]][fault])
        for place, name in enumerate(names):
            told = [[delay is not None for delay in delays[name][fault][share]] for share in shares]
            rates = [100.0 * sum(one) / len(one) for one in told]
            width = 0.8 / len(names)
            places = [index + (place - (len(names) - 1) / 2) * width for index in range(len(shares))]
            axes.bar(places, rates, width, color=COLOURS[(4, 5, 2)[place % 3]], label=name)
        axes.set_title(fault, fontsize=10)
        axes.set_xticks(range(len(shares)), [f"{float(share):.0%}" for share in shares])
        axes.spines[["top", "right"]].set_visible(False)
    panels[0, 0].set_ylabel("told within 48 h, %")
    panels[1, 0].set_ylabel("told within 48 h, %")
    panels[1, 0].set_xlabel("of rows")
    panels[0, 0].legend(frameon=False, fontsize=8)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=130)
    pyplot.close(figure)
