"""Charts of the measurements."""

from typing import Any

import matplotlib.pyplot as plt

from linrec.reporting import image_of

Rows = list[dict[str, Any]]


def draw_roofline(rows: Rows, rates: dict[str, float]) -> bytes:
    """Draw the roofline: outputs a second over operations per byte, under the machine's limits.

    Outputs cannot be written faster than memory is filled, nor computed faster than the processor
    computes: the roof is the lesser of the two rates.
    """
    figure, axes = plt.subplots(figsize=(7, 4.5))
    shown = [row for row in rows if row.get("numbers") and row["way"] in ("floor", "forward")]
    cases = list(dict.fromkeys(row["case"] for row in shown))
    for index, case in enumerate(cases):
        of_case = {row["way"]: row for row in shown if row["case"] == case}
        for way, marker in (("floor", "_"), ("forward", "o")):
            row = of_case[way]
            intensity = max(row["operations"] / (4 * row["numbers"]), 1e-2)
            rate = row["numbers"] / row["seconds"] / 1e9
            label = case if way == "forward" else None
            axes.plot(intensity, rate, marker, color=f"C{index}", ms=9, label=label)
    intensities = [10 ** (exponent / 10) for exponent in range(-10, 26)]
    roof = [
        min(rates["bytes"] / 4, rates["operations"] / (4 * intensity)) / 1e9
        for intensity in intensities
    ]
    axes.plot(intensities, roof, color="0.6", lw=1, zorder=0, label="memory and arithmetic")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="operations of the definition, a byte of output",
        ylabel="outputs, billions a second",
        title="Achieved (●) beside filling the outputs (–)",
    )
    axes.legend(fontsize=7)
    return png_of(figure)


def draw_crossover(rows: Rows) -> bytes:
    """Draw every executor's time over steps and over states."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 4), sharey=True)
    for axes, name in zip(panels, ("steps", "states"), strict=True):
        of_panel = [row for row in rows if row["over"] == name]
        for index, executor in enumerate(dict.fromkeys(row["executor"] for row in of_panel)):
            own = [row for row in of_panel if row["executor"] == executor]
            sizes = [row[name] for row in own]
            per_number = [row["seconds"] / row["numbers"] * 1e9 for row in own]
            axes.plot(sizes, per_number, "o-", ms=4, color=f"C{index}", label=executor)
        fixed = {row["fixed"] for row in of_panel}
        axes.set(xscale="log", yscale="log", xlabel=name, title=", ".join(sorted(fixed)))
    panels[0].set_ylabel("nanoseconds an output")
    panels[0].legend(fontsize=8)
    return png_of(figure)


def draw_models(rows: Rows) -> bytes:
    """Draw every layer's time for a training step over the number of steps; torch's are dashed."""
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for index, model in enumerate(dict.fromkeys(row["model"] for row in rows)):
        own = [row for row in rows if row["model"] == model]
        axes.plot(
            [row["steps"] for row in own],
            [row["seconds"] for row in own],
            color=f"C{index % 10}",
            linestyle="--" if model.startswith("torch.") else "-",
            marker="os"[index // 10],
            markersize=4,
            label=model,
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="steps",
        ylabel="seconds",
        title="A training step: outputs of all steps, and gradients",
    )
    axes.legend(fontsize=7, ncols=2)
    return png_of(figure)


def png_of(figure: Any) -> bytes:
    """Render a figure and close it."""
    figure.tight_layout()
    content = image_of(figure, dpi=150)
    plt.close(figure)
    return content
