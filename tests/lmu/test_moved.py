"""Names of before 0.1 are those of today, with a warning."""

import sys
from importlib import import_module

import pytest

from lmu._moved import name_of_today
from tests import forked

OLD = {
    "lmu.data": ("text8", "Dataset"),
    "lmu.data.glove": ("glove_vocabulary",),
    "lmu.models": ("LanguageModel",),
    "lmu.pictures": (),
    "lmu.speedup": (),
    "lmu.tables": ("recorded", "result_tables"),
    "lmu.training": ("RunFolder", "write", "Recipe"),
    "lmu.layers.layer": ("without_padding",),
    "lmu.layers.parallel": ("ParallelLMU",),
    "lmu.layers.recurrent": ("LMU", "Parallelism"),
}


@pytest.mark.parametrize("name", OLD)
def test_an_old_name_is_the_module_of_today(name: str) -> None:
    sys.modules.pop(name, None)
    with pytest.warns(DeprecationWarning, match=f"`{name}` is `lmu."):
        old = import_module(name)
    new = import_module(name_of_today(name) or "")
    assert old is new and new.__spec__ is not None and new.__name__ == new.__spec__.name
    assert all(hasattr(old, each) for each in OLD[name])


def test_old_names_of_experiments() -> None:
    from lmu import experiments

    assert experiments.Figure is experiments.PublishedResult
    assert experiments.Setting is experiments.TrainingSetup
    assert experiments.Source is experiments.Provenance
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = experiments.Nothing


def test_a_fresh_process_imports_them() -> None:
    program = (
        "from lmu.data import text8\n"
        "from lmu.data.files import DataFile\n"
        "import lmu.experiments.data.files as now\n"
        "assert DataFile is now.DataFile\n"
        "import lmu.nothing\n"
    )
    done = forked.run(program)
    assert "No module named 'lmu.nothing'" in done.stderr and "AssertionError" not in done.stderr
