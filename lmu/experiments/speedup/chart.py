"""The paper's figure 1, drawn from our measurements."""

from linrec.reporting import image_of
from lmu.experiments.speedup.cases import Way
from lmu.experiments.speedup.timing import Speedups

COLOURS = {
    Way.ORIGINAL: "tab:gray",
    Way.STEPPED: "tab:orange",
    Way.PARALLEL: "tab:blue",
    Way.FROZEN: "tab:cyan",
    Way.LSTM: "tab:pink",
    Way.ORIGINAL_GRAPH: "black",
    Way.PARALLEL_GRAPH: "navy",
    Way.FROZEN_GRAPH: "teal",
    Way.LSTM_GRAPH: "purple",
}
OVER_LENGTH = "length-"


def chart(speedups: Speedups) -> bytes:
    """Draw the time of an epoch of each task, and the time of a step over sequence length.

    Args:
        speedups: the measured timings.

    Returns:
        A PNG file's content.
    """
    from matplotlib.figure import Figure

    cases = [(name, timings) for name, timings in speedups.cases()]
    tasks = [timings for name, timings in cases if not name.startswith(OVER_LENGTH)]
    lengths = [timings for name, timings in cases if name.startswith(OVER_LENGTH)]
    figure = Figure(figsize=(9, 4), layout="constrained")
    bars, lines = figure.subplots(1, 2)
    ways = [way for way in Way if any(way is t.way for task in tasks for t in task)]
    for place, task in enumerate(tasks):
        for timing in task:
            left = place + (ways.index(timing.way) - (len(ways) - 1) / 2) * 0.85 / len(ways)
            bars.bar(left, timing.epoch, 0.8 / len(ways), color=COLOURS[timing.way])
            ratio = speedups.ratio(timing)
            if ratio is not None and timing.way is not Way.ORIGINAL:
                label = f"{ratio:.0f}×" if ratio >= 10 else f"{ratio:.1f}×"
                bars.text(left, timing.epoch, label, ha="center", va="bottom", fontsize=7)
    titles = [task[0].title.replace(", ", "\n") for task in tasks]
    bars.set_xticks(range(len(tasks)), titles, fontsize=8)
    bars.set(yscale="log", ylabel="seconds an epoch", title="An epoch of training")
    bars.margins(y=0.15)
    handles = [bars.bar(0, 0, color=COLOURS[way], label=way.value) for way in ways]
    bars.legend(handles=handles, fontsize=7)
    for way in Way:
        points = [(t.length, t.step) for timings in lengths for t in timings if t.way is way]
        if points:
            steps, seconds = zip(*sorted(points), strict=True)
            lines.plot(steps, seconds, "o-", ms=4, color=COLOURS[way], label=way.value)
    lines.set(
        xscale="log",
        yscale="log",
        xlabel="time steps of a sequence",
        ylabel="seconds a training step",
        title="A training step of 16 sequences",
    )
    return image_of(figure, dpi=110)
