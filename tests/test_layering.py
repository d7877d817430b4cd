"""Imports point down, every file has a place, and no file is long."""

import ast
import fnmatch
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# What a module may import, from the bottom to the top. A row is a layer: a module may import those
# of the layers below and, within its own, those to the left of a `<` before it, which order what
# would otherwise be free. A package stands for its `__init__`. A new file has to be given a place.
LAYERS = {
    "linrec": """
        0  _files < reporting
           _tensors < _tensors.annotated < _tensors.dtypes _tensors.shapes _tensors.numpy_arrays
           _tensors.open_sizes _tensors.full_precision
           _tensors.reused_memory < _tensors.huge_pages
           < _tensors.arguments _tensors.autograd _tensors.devices _tensors.exact_gradients
           < _tensors.known_values
           kernels.scan_kernels kernels.chunk_kernels kernels.tile_products
           kernels.cpu_threads kernels.cpu_vectors < kernels.cpu_transforms kernels.cpu_scan
           < kernels.cpu_convolution kernels.cpu_halves
           < kernels.cpu_launch kernels.cpu_spectra kernels.cpu_halves_launch < kernels.cpu_loops
           < kernels.gated_kernels < kernels.delta_kernels < kernels.launch
           < kernels.chunk_launch kernels.gated_launch < kernels.delta_launch
           < kernels.elementwise < kernels.chunks < kernels.gated < kernels.delta < kernels
           < scan_forward < scan_half < lengths scan
        1  structures.base < structures.dense
           < structures.block structures.companion structures.diagonal structures.low_rank
           < structures
        2  systems.four_matrices < systems.varying < systems.linear_recurrence systems.state_space
           < systems.checks < systems
           < discretization.exponential < discretization.methods < discretization.discretize
           < discretization composition real_part log_weights resets
        3  loops coordinates.whole_numbers < powers coordinates.contraction
           < coordinates.similarity < coordinates.balancing < coordinates
           < response constraints memories
        4  executors.changed_values executors.workload < executors.base
           < executors.prepare executors.tiled_bilinear
           executors.varying.matrices < executors.varying.carry < executors.varying.chunk_algebra
           < executors.varying.shared_gate_gradient < executors.varying.own_gates_gradient
           < executors.varying.tile_by_tile < executors.varying.chunks
           < executors.varying.device_kernel < executors.varying
           < executors.impulse_response
           < executors.toeplitz executors.fft executors.recurrent executors.scan
           < executors.carry < executors.chunked < executors
        5  planner.rates planner.costs < planner.selection < planner.explain < planner.auto
           < planner
        6  _call.arguments < _call.prepared_call < _call < _call.half_precision < run < packed
        7  symbolic.matrices symbolic.polynomials symbolic.torch_lowering pre_update
           < symbolic.functions symbolic.parameters symbolic.signals symbolic.stability
           symbolic.typeset < symbolic.realization
           < symbolic.binding symbolic.sampling symbolic.named_matrices
           < symbolic.systems < symbolic.recurrence
           < symbolic.state_space < symbolic.composition symbolic.differences
           symbolic.differentials < symbolic.equations < symbolic
           nn.packed < nn.plans nn.initial_steps nn.arguments < nn.hub
           < nn.pretrained nn.segments < nn.layer nn.outputs nn.sampled < nn.checks
           < nn.recurrence nn.recurrent < nn.heads
           < nn.delta_net nn.ema nn.linear_attention nn.linoss nn.lru nn.min_rnn nn.s4d nn.s5
           nn.online nn.selective_ssm nn.ssd nn.stack nn.token_shift < nn.blocks < nn
           interop signal.arguments < signal.delays signal.filters < signal
           certificate.exact < certificate.norm certificate.real < certificate.propagation
           certificate.sums
           < certificate.chunks certificate.enclosure < certificate.certify < certificate
           stream.prepared stream.numbering < stream.frozen_copy < stream.cuda_graph stream.saved
           < stream.stream < stream
        8  testing.modes testing.products testing.matrices testing.reference testing.as_code
           testing.paths testing.plain_loops testing.on_device
           < testing.run_sizes testing.strategies testing.engineers_systems
           < testing.bounds.loop < testing.bounds.own_coordinates
           < testing.bounds.long testing.bounds.steady
           < testing.bounds.other_coordinates < testing.bounds.error_bound < testing.bounds
           < testing.case < testing.large testing.report testing.values
           < testing.derivatives testing.forms testing.operations testing.shrink
           < testing.check testing.module_memory testing.module_values
           < testing.module_segments < testing.module_derivatives
           < testing.modules testing.device_kernels < testing.device_checks < testing
           export.kernels export.wrappers export.c_source export.rounded
           < export.quantize export.quantize_weights export.layers
           < export.c_integers < export.c_halves
           export.c_arrays < export.c_operations
           export.forms < export.program < export.c_network export.onnx export.package
           < export.c < export.writing < export.comparison < export
        9  benchmark.timing benchmark.tables
           < benchmark.peak_memory < benchmark.recurrences benchmark.cases
           benchmark.calibration benchmark.charts < benchmark.accuracy benchmark.latency
           benchmark.models benchmark.small_models benchmark.peers
           benchmark.crossover benchmark.device_cases benchmark.floors
           benchmark.regret < benchmark.certificates benchmark.device_peers
           benchmark.device_tables < benchmark.parts < benchmark.session < benchmark
        10 commands.target < commands.bench commands.explain commands.export
           commands.plot commands.verify < commands < cli
        11 .
    """,
    "lmu": """
        0  files.refusals files.entries < files.text files.archives files.writing files.locks
           < files.torch_checkpoints < files.checkpoints < files
           _clash _moved derive legendre
        1  hidden_module initializers memory < cell
        2  layers.padding < layers.torch_recurrent < layers.gru layers.lstm
           layers.parallel_lmu layers.lmu layers.bidirectional
           layers.scalar_mix layers.convolution < layers.blocks layers.lmuformer
           < layers.spiking < layers
           < keras.hdf5 keras.cells < keras.files < keras.convert < keras
        3  experiments.models.network experiments.models.words experiments.models.attention
           < experiments.models.deep_classifier experiments.models.delays experiments.models.ngrams
           experiments.models.baselines experiments.models.online
           experiments.models.frozen_memory experiments.models.readout
           experiments.models.text experiments.models.language_model
           experiments.models.beam_search < experiments.models.translator
           < experiments.models.word_translation < experiments.models
        4  experiments.data.files experiments.data.splits experiments.data.vocabulary
           < experiments.data.copying experiments.data.delays experiments.data.glove
           experiments.data.mackey_glass experiments.data.mnist experiments.data.iwslt15
           experiments.data.text8 experiments.data.speech experiments.data.lost
           < experiments.data.streams experiments.data.imdb experiments.data.pairs
           < experiments.data
        5  experiments.training.board experiments.training.recipe experiments.training.run_folder
           experiments.training.subnormals experiments.training.allocation
           < experiments.training.learning_curve < experiments.training.loop < experiments.training
        6  experiments.experiment experiments.free_run < experiments.record < experiments.running
           experiments.capacity experiments.mackey_glass experiments.psmnist experiments.texts
           experiments.online_regression
           < experiments.imdb experiments.imdb_pretrained experiments.iwslt15 experiments.pairs
           experiments.selective_copy experiments.spoken_digits experiments.text8
           < experiments.lost_samples experiments.characters experiments.scaling < experiments
        7  experiments.speedup.cases
           < experiments.speedup.timing < experiments.speedup.chart < experiments.speedup
        8  experiments.tables.page experiments.tables.results
           experiments.tables.speedups < experiments.tables
        9  experiments.pictures.canvas < experiments.pictures.capacity
           experiments.pictures.prediction experiments.pictures.scaling experiments.pictures.sizes
           experiments.pictures.window
           < experiments.pictures
        10 commands.options commands.samples commands.scores
           < commands.evaluate commands.export commands.list commands.plot commands.speedup
           commands.stream commands.table commands.train commands.write < commands < cli
        11 .
    """,
}

# These know nothing of the layers below them, so that they serve any network and any task.
ALONE = {("lmu", 4), ("lmu", 5)}
ALLOWED = "lmu.files"  # but these they know: files know of nothing

# What a package may import of the other: lmu is built on linrec's public names.
PUBLIC = (
    "linrec",
    "linrec.export",
    "linrec.kernels",
    "linrec.lengths",
    "linrec.memories",
    "linrec.nn",
    "linrec.nn.blocks",
    "linrec.nn.checks",
    "linrec.nn.sampled",
    "linrec.nn.packed",
    "linrec.nn.segments",
    "linrec.reporting",
    "linrec.stream.cuda_graph",
    "linrec.symbolic",
)
ACROSS = {"linrec": (), "lmu": PUBLIC}

LONGEST = 400  # lines of a file
VAGUE = {"utils", "util", "misc", "helpers", "helper", "common", "tools"}
TOP_LEVEL = {
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "docs",
    "linrec",
    "lmu",
    "pyproject.toml",
    "tests",
}


@dataclass(frozen=True)
class Place:
    """Where a module stands: its layer, and how far right in it."""

    layer: int
    row: int


def places(table: str, package: str) -> dict[str, Place]:
    """Read a table of layers; the names are whole, the package itself is `.`."""
    found: dict[str, Place] = {}
    layer = row = -1
    for word in table.split():
        if word.isdigit():
            layer, row = int(word), 0
        elif word == "<":
            row += 1
        else:
            name = package if word == "." else f"{package}.{word}"
            assert name not in found, f"{name} is in the table twice"
            found[name] = Place(layer, row)
    return found


PLACES = {package: places(table, package) for package, table in LAYERS.items()}


def module_name(path: Path, root: Path = ROOT) -> str:
    """Turn `linrec/run.py` into `linrec.run`, an `__init__.py` into its package."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str, name: str, is_package: bool, known: Iterable[str]) -> Iterator[str]:
    """Find the modules that a source imports, inside functions too.

    `from package import x` means the module `package.x` where there is one, else the package.
    """
    known = set(known)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = name.split(".")
                above = above[: len(above) - node.level + is_package]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield whole if whole in known else base


def complaints(source: str, name: str, *, is_package: bool = False) -> list[str]:
    """Say what is wrong with where a module stands and with what it imports."""
    package = name.partition(".")[0]
    own = PLACES[package]
    if name not in own:
        return [f"{name} has no place: expected one in LAYERS of tests/test_layering.py"]
    here = own[name]
    wrong = []
    for target in imported(source, name, is_package, [n for ps in PLACES.values() for n in ps]):
        other = target.partition(".")[0]
        if other not in PLACES:
            continue
        if other != package:
            if target not in ACROSS[package]:
                wrong.append(f"{name} imports {target}: {package} may import {ACROSS[package]}")
            continue
        if target not in own:
            wrong.append(f"{name} imports {target}, which has no place in LAYERS")
            continue
        there = own[target]
        left = there.layer == here.layer and there.row < here.row
        alone = (package, here.layer) in ALONE and not f"{target}.".startswith(f"{ALLOWED}.")
        below = there.layer < here.layer and not alone
        if not (left or below):
            wrong.append(f"{name} {here} imports {target} {there}: imports point down")
    return wrong


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", sources("linrec", "lmu"), ids=module_name)
def test_imports_point_down(path: Path) -> None:
    found = complaints(
        path.read_text(encoding="utf-8"), module_name(path), is_package=path.stem == "__init__"
    )
    assert not found, "\n".join(found)


@pytest.mark.parametrize("package", PLACES)
def test_the_table_names_no_file_that_is_gone(package: str) -> None:
    assert set(PLACES[package]) <= {module_name(path) for path in sources(package)}


@pytest.mark.parametrize("path", sources("linrec", "lmu", "tests"), ids=module_name)
def test_no_file_is_long_or_vague(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{path} has {lines} lines: expected {LONGEST} at most. Split it."
    assert path.stem not in VAGUE, f"{path}: expected a name that says what is in it"


def test_the_top_level_holds_what_it_should_and_nothing_else() -> None:
    lines = (ROOT / ".gitignore").read_text().split()
    ignored = [line.rstrip("/") for line in lines]
    held = {
        path.name
        for path in ROOT.iterdir()
        if not path.name.startswith(".")
        and not any(fnmatch.fnmatch(path.name, pattern) for pattern in ignored)
    }
    assert held == TOP_LEVEL


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("linrec.structures.dense", "from linrec.systems import LinearRecurrence"),
        ("linrec.structures.dense", "import linrec.systems"),
        ("linrec.structures.dense", "from linrec import systems"),
        ("linrec.structures.dense", "from ..systems import LinearRecurrence"),
        ("linrec.structures.dense", "def late():\n    from linrec.run import run"),
        ("linrec.structures.dense", "from linrec import Auto"),
        ("linrec.structures.dense", "from linrec.structures.diagonal import Diagonal"),
        ("linrec.executors.fft", "from linrec.executors.scan import scan_states"),
        ("linrec.executors.fft", "from linrec.executors import Plan"),
        ("linrec.run", "import lmu"),
        ("linrec.nowhere", ""),
        ("linrec.run", "from linrec.nowhere import x"),
        ("lmu.experiments.training.loop", "from lmu.experiments import Experiment"),
        ("lmu.experiments.training.loop", "from lmu.experiments.data import Split"),
        ("lmu.layers", "from linrec._tensors.arguments import as_tensor"),
        ("lmu.cell", "from lmu.layers import Layer"),
    ],
)
def test_the_checker_sees_what_it_should(name: str, source: str) -> None:
    assert complaints(source, name)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("linrec.run", "import torch\nfrom linrec._call import prepare_call"),
        ("linrec.executors.chunked", "from linrec.executors.scan import scan_states"),
        ("linrec.executors.chunked", "from .base import Cost"),
        ("lmu.layers", "import linrec\nfrom linrec.nn import PlanCache"),
        ("lmu.experiments.running", "from lmu.experiments.data import Dataset"),
        ("lmu.experiments.training.loop", "from lmu.experiments.training.recipe import Recipe"),
    ],
)
def test_the_checker_lets_pass_what_it_should(name: str, source: str) -> None:
    assert not complaints(source, name)


CONCRETE = {
    *("Dense", "Diagonal", "BlockDiagonal", "Companion", "DiagonalPlusLowRank"),
    *("Recurrent", "Toeplitz", "FFTConvolution", "AssociativeScan", "Chunked", "Auto"),
}
# The kit bounds the errors of each kind of executor by what that kind does.
ASKS_FOR_KINDS = {"linrec/testing/bounds/error_bound.py", "linrec/testing/paths.py"}


def test_nobody_asks_for_a_structure_or_an_executor_by_its_class() -> None:
    """A user's structure that can do the same is treated the same."""
    found = {}
    for path in sorted((ROOT / "linrec").rglob("*.py")) + sorted((ROOT / "lmu").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        own = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                names = {getattr(each, "id", getattr(each, "attr", "")) for each in ast.walk(node)}
                if names & CONCRETE - own:
                    found[path.relative_to(ROOT).as_posix()] = names & CONCRETE
    assert found.keys() <= ASKS_FOR_KINDS, found
