"""The results of the experiments, with the published ones."""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import lmu.experiments
from linrec.reporting import Table, duration
from lmu.experiments import Experiment, Provenance, PublishedResult, Record
from lmu.experiments.training import ACCURACY, RESULT, Metric
from lmu.files import DamagedFile, read_text

RECORDS = Path(lmu.experiments.__file__).parent / "results"
COLUMNS = (
    "sampling error",
    "seeds",
    "budget",
    "data",
    "parameters",
    "time of a run",
    "further figures",
)


@dataclass(frozen=True)
class Results:
    """Runs that differ only in their seeds.

    Args:
        records: the records of the runs, at least one.
        yours: whether a user made them; otherwise they came with the library.
    """

    records: tuple[Record, ...]
    yours: bool = False

    @property
    def first(self) -> Record:
        """A run that represents all of them, except for its figures and its time."""
        return self.records[0]

    def mean(self, digits: int, figure: str | None = None) -> str:
        """Write the mean of a figure, and the standard deviation over several seeds."""
        values = [r.score if figure is None else r.figures[figure] for r in self.records]
        digits = 0 if all(isinstance(value, int) for value in values) else digits  # counts
        text = f"{statistics.fmean(values):.{digits}f}"
        return text if len(values) < 2 else f"{text} ± {statistics.stdev(values):.{digits}f}"

    def sampling_error(self, metric: Metric) -> str:
        """Write the standard error of a share p of the n test examples: √(p (1 - p) / n)."""
        if metric is not ACCURACY:
            return ""
        share = statistics.fmean(record.score for record in self.records) / 100
        return f"{100 * math.sqrt(share * (1 - share) / self.first.examples[2]):.{metric.digits}f}"

    @property
    def time(self) -> str:
        """Write the median training time of the runs, the processor's time where it was kept.

        Runs on a processor and runs on an accelerator have a median each.
        """
        if not self.first.epochs:
            return ""
        ours = [record for record in self.records if not record.accelerated]
        theirs = [record.seconds for record in self.records if record.accelerated]
        cpu = [record.cpu_seconds for record in ours if record.cpu_seconds is not None]
        times = list[str]()
        if cpu and len(cpu) == len(ours):
            times.append(f"{duration(statistics.median(cpu))} CPU")
        elif ours:
            times.append(duration(statistics.median(record.seconds for record in ours)))
        if theirs:
            times.append(f"{duration(statistics.median(theirs))} GPU")
        return ", ".join(times)


def read_records(
    folder: Path = RECORDS, *, yours: bool = False, damaged: list[Exception] | None = None
) -> list[Results]:
    """Read the records in a folder, and group runs that differ only in their seeds.

    Args:
        folder: a folder of records, whatever their names, or with `yours` of run folders; by
            default the library's own records.
        yours: whether they are a user's: the `result.json` of run folders.
        damaged: a list to which the errors of unreadable files are added, which are left out.
            None: the first of them raises an error.

    Returns:
        The results, in the order of models and budgets.

    Raises:
        ValueError: a file of the library's folder, or a `result.json`, is not a record. The message
            names it.
        OSError: a file or folder cannot be read.
    """
    groups: dict[tuple[object, ...], list[Record]] = {}
    for path in sorted(folder.rglob(RESULT if yours else "*.json")):
        try:
            record = _record(path)
        except (ValueError, OSError) as error:
            if damaged is None:
                raise
            damaged.append(error)
            continue
        same = (record.experiment, record.model, record.budget, record.epochs, record.examples)
        key = (*same, record.reduced, record.parameters, *record.figures)
        groups.setdefault(key, []).append(record)
    return [
        Results(tuple(sorted(records, key=lambda record: record.seed)), yours)
        for records in groups.values()
    ]


def _record(path: Path) -> Record:
    text = read_text(path)
    try:
        return Record.from_json(text)
    except ValueError as error:
        raise DamagedFile(f"`{path}`: {error} Replace it, or delete it.") from None


def result_tables(results: Iterable[Results], experiments: Mapping[str, Experiment]) -> list[Table]:
    """Make a table of each experiment, with the confirmed published figures first.

    Args:
        results: our runs.
        experiments: the experiments by name; results of others are left out.

    Returns:
        The tables, in the order of the experiments.
    """
    results = list(results)
    return [
        result_table(experiment, [r for r in results if r.first.experiment == name])
        for name, experiment in experiments.items()
    ]


def result_table(experiment: Experiment, results: list[Results]) -> Table:
    """Make the table of one experiment."""
    models, budgets = list(experiment.models), ["full", "quick"]
    known = [result for result in results if result.first.model in models]
    known.sort(key=lambda r: (models.index(r.first.model), budgets.index(r.first.budget)))
    confirmed = (f for f in experiment.published if f.source is not Provenance.UNCONFIRMED)
    published = [figure_row(figure) for figure in confirmed]
    notes: list[str] = []
    ours = [result_row(experiment, result, notes) for result in known]
    rows = [*published, *ours]
    # Empty columns are left out.
    kept = [i for i in range(len(COLUMNS) + 2) if i < 2 or any(row[i] for row in rows)]
    where = dict.fromkeys(record.hardware for r in known for record in r.records)
    notes += [f"Run on {', '.join(where)}."] if where else ["There are no runs of ours yet."]
    columns = (f"{experiment.name}: who", figure_name(experiment, known), *COLUMNS)
    return Table(
        experiment.table,
        tuple(columns[i] for i in kept),
        tuple(tuple(row[i] for i in kept) for row in rows),
        # A figure from one seed is not highlighted.
        frozenset(i for i, each in enumerate(known, len(published)) if len(each.records) > 1),
        tuple(notes),
    )


def figure_name(experiment: Experiment, results: list[Results]) -> str:
    """Name the figure that the paper reports."""
    if results:
        return next(iter(results[0].first.figures))
    return experiment.setting().recipe.metric.name if experiment.examine is None else "score"


def figure_row(figure: PublishedResult) -> tuple[str, ...]:
    """Write a published figure."""
    size = f"{figure.parameters:,}" if figure.parameters else ""
    return (figure.who, f"{figure.value:g}", "", "", "published", "", size, "", "")


def effort(record: Record) -> str:
    """Write a run's budget and epochs, and whether it trained on the validation examples too."""
    if not record.epochs:
        return f"{record.budget}, untrained"
    trained = f"{record.budget}, {record.epochs} epoch{'s' * (record.epochs > 1)}"
    return trained if record.examples[1] else f"{trained}, no validation"


def result_row(experiment: Experiment, results: Results, notes: list[str]) -> tuple[str, ...]:
    """Write one of our results; a note is added where its data are incomplete."""
    first = results.first
    metric = experiment.setting(first.model, first.budget).recipe.metric
    reported, *others = first.figures
    digits = metric.digits if reported == metric.name else 2
    data = "whole"
    if first.reduced:
        data = "reduced"
        note = f"Reduced: {first.reduced}"
        notes += [] if note in notes else [note]
    return (
        f"{first.model}, {'yours' if results.yours else 'ours'}",
        results.mean(digits),
        results.sampling_error(metric) if reported == metric.name and first.examples[2] else "",
        ", ".join(str(record.seed) for record in results.records),
        effort(first),
        data,
        f"{first.parameters:,}",
        results.time,
        "; ".join(f"{name} {results.mean(metric.digits, name)}" for name in others),
    )
