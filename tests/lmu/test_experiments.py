"""Experiments: the records say what the papers did, and running one does what it says."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lmu.experiments import (
    EXPERIMENTS,
    Budget,
    Experiment,
    Provenance,
    PublishedResult,
    Record,
    Run,
    TrainingSetup,
    evaluate,
)
from lmu.experiments.data import Dataset, mackey_glass
from lmu.experiments.models import (
    DeepClassifier,
    Network,
    SequenceClassifier,
    SeriesPredictor,
    StreamingNetwork,
)
from lmu.experiments.running import count_parameters
from lmu.files import read_checkpoint, written_checkpoint

REAL = os.environ.get("LMU_DATA")
FULL = "LINREC_FULL" in os.environ
NETWORKS: dict[str, Network] = {
    "classifier": SequenceClassifier(
        classes=3, hidden_size=10, order=7, theta=30.0, memory_dropout=0.5
    ),
    "deep classifier": DeepClassifier(
        classes=3, hidden_sizes=(10, 8), order=7, theta=30.0, dropout=0.5
    ),
    "predictor": SeriesPredictor(hidden_size=10, dense_size=6, order=7, theta=30.0),
}
BOUND = 1e-4  # float32, a few hundred additions of numbers of size 1


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Network:
    return NETWORKS[request.param].eval()


def test_a_name_finds_its_experiment() -> None:
    assert all(name == experiment.name for name, experiment in EXPERIMENTS.items())
    assert {"psmnist", "mackey-glass", "imdb", "qqp", "snli", "text8", "iwslt15"} <= set(
        EXPERIMENTS
    )


@pytest.mark.parametrize(
    ("name", "model", "count"),
    [
        ("psmnist", "lmu", 166_090),
        ("psmnist", "best", 670_218),
        ("psmnist", "lmu-2019", 102_027),
        ("mackey-glass", "lmu", 17_241),
        ("mackey-glass", "lmu-2019", 18_050),
        ("mackey-glass", "lstm", 18_026),
        ("mackey-glass", "hybrid", 17_900),
    ],
)
def test_the_networks_have_the_size_they_are_said_to_have(
    name: str, model: str, count: int
) -> None:
    setting = EXPERIMENTS[name].setting(model)
    assert count_parameters(setting.network(Dataset.empty())) == count


def test_the_published_figures() -> None:
    psmnist, series = EXPERIMENTS["psmnist"], EXPERIMENTS["mackey-glass"]
    assert psmnist.target == PublishedResult(
        "parallel LMU (the paper)", 98.49, Provenance.CONFIRMED, 166_092
    )
    assert series.target == PublishedResult(
        "parallel LMU (the paper)", 0.044, Provenance.UNCONFIRMED
    )
    assert series.published[0] == series.target and series.published[1:] == series.baselines
    assert {figure.who: figure.value for figure in series.baselines}["LSTM"] == 0.059


def test_the_memory_is_frozen_and_the_rest_is_trained(network: Network) -> None:
    inputs = torch.randn(3, 30, 1)
    features = network.features(inputs)
    assert not features.requires_grad
    network.head(features).square().sum().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert gradients and all(gradient is not None for gradient in gradients)


def test_features_and_head_make_the_network(network: Network) -> None:
    inputs = torch.randn(3, 40, 1)
    assert torch.equal(network.head(network.features(inputs)), network(inputs))


def test_streaming_gives_what_the_parallel_form_gives(network: Network) -> None:
    inputs = torch.randn(3, 75, 1)
    streamed = network.stream(inputs)
    assert streamed.shape == network(inputs).shape
    assert (streamed - network(inputs)).abs().max() < BOUND


def test_a_stream_may_be_interrupted(network: StreamingNetwork) -> None:
    inputs = torch.randn(3, 20, 1)
    state, outputs = None, torch.empty(0)
    for input in inputs.unbind(-2):
        outputs, state = network.step(input, None if state is None else state.clone())
    expected = network(inputs)
    last = expected if expected.ndim == outputs.ndim else expected[..., -1, :]
    assert (outputs - last).abs().max() < BOUND


def test_the_memory_dropout_acts_in_training_only() -> None:
    network = NETWORKS["classifier"]
    inputs = torch.randn(3, 30, 1)
    network.train()
    assert not torch.equal(network(inputs), network(inputs))
    network.eval()
    assert torch.equal(network(inputs), network(inputs))


def test_running_trains_and_scores_the_test_examples(tiny: Experiment, tmp_path: Path) -> None:
    record, outcome = Run(tiny, tmp_path / "run").train()
    assert record.score > 75.0
    assert len(outcome.history) == record.epochs == 6
    assert evaluate(tiny, tmp_path / "run" / "best.safetensors").score == record.score


def test_a_run_leaves_a_record_of_itself(tiny: Experiment, tmp_path: Path) -> None:
    run = Run(tiny, tmp_path, model="lstm", budget=Budget.QUICK, seed=3)
    record, outcome = run.train()
    assert Record.from_json((tmp_path / "result.json").read_text()) == record
    assert record.path == Path("tiny", "lstm-quick-seed3.json")
    assert record.figures == {"accuracy": record.score}
    assert (record.epochs, record.examples, record.reduced) == (2, (60, 30, 30), "")
    assert record.parameters == count_parameters(run.network) == 4 * 8 * (1 + 8 + 1) + 2 * 9
    assert record.data == tiny.data(3, None, Budget.QUICK).digest()
    assert record.data != tiny.data(4, None, Budget.QUICK).digest()
    assert record.versions["torch"] == torch.__version__ and "cores" in record.hardware
    assert record.seconds == round(sum(entry["seconds"] for entry in outcome.history), 1)


@pytest.mark.parametrize("epochs", [0, 2])
def test_a_recipe_may_train_on_the_validation_examples(
    tiny: Experiment, tmp_path: Path, epochs: int
) -> None:
    setting, seen = tiny.setting(), []

    def watched(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(len(targets))
        return setting.recipe.loss(outputs, targets)

    recipe = replace(setting.recipe, loss=watched, with_validation=True, epochs=epochs)
    models = {"lmu": {Budget.FULL: replace(setting, recipe=recipe)}}
    record, _ = Run(replace(tiny, models=models), tmp_path).train()
    assert sum(seen) == 90 * epochs
    assert (record.examples, record.validation) == ((90, 0, 30), None)
    assert record.best_epoch == epochs and record.recipe["validation"] == "trained on"
    assert Record.from_json((tmp_path / "result.json").read_text()) == record


@pytest.mark.parametrize(
    "change", [{"with_validation": True}, {"adversarial_distance": 0.5}, {"max_gradient_norm": 2.0}]
)
def test_a_run_of_another_recipe_is_not_resumed(
    tiny: Experiment, tmp_path: Path, change: dict[str, float]
) -> None:
    Run(tiny, tmp_path, epochs=1).train()
    setting = tiny.setting()
    other = replace(setting, recipe=replace(setting.recipe, **change))
    models = {"lmu": {Budget.FULL: other}}
    with pytest.raises(ValueError, match=r"another configuration.* there and .* here"):
        Run(replace(tiny, models=models), tmp_path, epochs=1, resume=True)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"budget": "quick"}', '{"budget": "large"}'])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no record of a run"):
        Record.from_json(text)


def test_further_figures_come_first(tiny: Experiment, tmp_path: Path) -> None:
    curious = replace(tiny, examine=lambda network, data: {"size": float(len(data.test.targets))})
    record, _ = Run(curious, tmp_path, epochs=1).train()
    assert list(record.figures) == ["size", "accuracy"]
    assert record.score == 30.0


def test_a_model_that_an_experiment_lacks_is_refused(tiny: Experiment, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected one of lmu, lstm"):
        Run(tiny, tmp_path / "run", model="gru")
    assert not (tmp_path / "run").exists()


def test_a_run_leaves_the_random_numbers_of_others_alone(tiny: Experiment, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    Run(tiny, tmp_path / "run", epochs=1).train()
    assert torch.equal(torch.rand(1), expected)


def test_a_run_does_not_depend_on_the_random_numbers_of_others(
    tiny: Experiment, tmp_path: Path
) -> None:
    losses = []
    for name in ("one", "other"):
        torch.rand(7)
        _, outcome = Run(tiny, tmp_path / name, epochs=2).train()
        losses.append([entry["training_loss"] for entry in outcome.history])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("seed", [2**70, 2**63, -1])
def test_a_seed_that_no_generator_takes_is_refused(
    seed: int, tiny: Experiment, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"`seed` is .*: expected a whole number from 0 to 2\^63"):
        Run(tiny, tmp_path / "run", seed=seed)
    assert not (tmp_path / "run").exists()


def test_another_seed_is_another_run(tiny: Experiment, tmp_path: Path) -> None:
    Run(tiny, tmp_path / "run", seed=0, epochs=1).train()
    with pytest.raises(ValueError, match="`seed` is 0 there and 1 here"):
        Run(tiny, tmp_path / "run", seed=1, epochs=1, resume=True)


def test_evaluation_compares_the_two_forms(tiny: Experiment, tmp_path: Path) -> None:
    Run(tiny, tmp_path / "run", epochs=2).train()
    result = evaluate(tiny, tmp_path / "run" / "best.safetensors", streaming=True, limit=20)
    assert result.examples == 20
    assert result.streaming_score == result.score
    assert result.differing == 0
    assert result.largest_difference is not None and result.largest_difference < BOUND


def test_evaluation_sees_a_recurrent_form_that_is_wrong(
    tiny: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Run(tiny, tmp_path / "run", epochs=2).train()

    def late(self: StreamingNetwork, inputs: Tensor) -> Tensor:
        *_, before_the_last, _ = self.steps(inputs)
        return -before_the_last

    monkeypatch.setattr(SequenceClassifier, "stream", late)
    result = evaluate(tiny, tmp_path / "run" / "best.safetensors", streaming=True)
    assert result.differing is not None and result.differing > 0
    assert result.largest_difference is not None and result.largest_difference > 0.1
    assert result.streaming_score != result.score


def test_evaluation_refuses_what_is_no_checkpoint(tiny: Experiment, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    with pytest.raises(FileNotFoundError, match="is no file"):
        evaluate(tiny, path)
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="not a checkpoint"):
        evaluate(tiny, path)
    torch.save({"network": {}}, path)
    with pytest.raises(ValueError, match="not a checkpoint"):
        evaluate(tiny, path)
    torch.save(nn.Linear(1, 1), path)
    with pytest.raises(ValueError, match="not a checkpoint"):
        evaluate(tiny, path)


@pytest.mark.parametrize(
    "change",
    [
        {"network": None},
        {"network": [1.0]},
        {"network": {0: torch.zeros(1)}},
        {"seed": "0"},
        {"seed": None},
        {"seed": 0.5},
        {"seed": True},
        {"seed": 2**70},
        {"seed": -1},
        {"model": "gru"},
        {"model": "\x1b[2J"},
        {"data": 3},
        {"model": ["lmu"]},
        {"model": None},
    ],
    ids=str,
)
@pytest.mark.sampled(2)
def test_evaluation_refuses_values_of_another_kind(
    change: dict[str, object], tiny: Experiment, tmp_path: Path
) -> None:
    Run(tiny, tmp_path, epochs=1).train()
    path = tmp_path / "best.safetensors"
    checkpoint = read_checkpoint(path)
    (checkpoint if "network" in change else checkpoint["configuration"]).update(change)
    path.write_bytes(written_checkpoint(checkpoint))
    with pytest.raises(ValueError, match=r"` (is not a checkpoint|do not fit|was trained)"):
        evaluate(tiny, path)


def test_evaluation_refuses_the_checkpoint_of_another_experiment(
    tiny: Experiment, tmp_path: Path
) -> None:
    Run(tiny, tmp_path / "run", epochs=1).train()
    with pytest.raises(ValueError, match="trained for `tiny`"):
        evaluate(EXPERIMENTS["mackey-glass"], tmp_path / "run" / "best.safetensors")
    recipe = tiny.setting().recipe
    setting = TrainingSetup(lambda data: NETWORKS["classifier"], recipe)
    larger = replace(tiny, models={"lmu": {Budget.FULL: setting, Budget.QUICK: setting}})
    with pytest.raises(ValueError, match="do not fit"):
        evaluate(larger, tmp_path / "run" / "best.safetensors")


def test_evaluation_refuses_other_data(tiny: Experiment, tmp_path: Path) -> None:
    Run(tiny, tmp_path, epochs=1).train()
    other = replace(tiny, data=lambda seed, folder, budget: tiny.data(seed + 1, folder, budget))
    with pytest.raises(ValueError, match="trained on data of checksum"):
        evaluate(other, tmp_path / "best.safetensors")


def test_the_quick_budget_of_mackey_glass_cuts_the_training_series() -> None:
    experiment = EXPERIMENTS["mackey-glass"]
    whole, cut = (experiment.data(0, None, budget) for budget in Budget)
    assert whole.train.inputs.shape == (32, 5_000, 1) and not whole.reduced
    assert cut.train.inputs.shape == (640, 250, 1) and "windows of 250" in cut.reduced
    assert torch.equal(cut.train.targets.view(32, 5_000, 1), whole.train.targets)
    assert torch.equal(cut.test.inputs, whole.test.inputs)


def test_mackey_glass_learns_to_predict(tmp_path: Path) -> None:
    """Short series, few epochs: far from the goal, but far better than saying zero."""
    experiment = replace(
        EXPERIMENTS["mackey-glass"],
        data=lambda seed, folder, budget: mackey_glass(seed, series=32, length=600),
    )
    record, _ = Run(experiment, tmp_path / "run", epochs=25).train()
    assert record.score < 0.3


@pytest.mark.slow
@pytest.mark.skipif(not FULL, reason="half a minute: run with LINREC_FULL=1")
def test_mackey_glass_reaches_the_published_error(tmp_path: Path) -> None:
    record, _ = Run(EXPERIMENTS["mackey-glass"], tmp_path / "run").train()
    assert record.score <= 0.044


@pytest.mark.slow
@pytest.mark.skipif(not FULL, reason="ten seconds and MNIST: run with LINREC_FULL=1")
@pytest.mark.skipif(REAL is None, reason="LMU_DATA names no folder with MNIST")
def test_psmnist_passes_96_percent_in_three_epochs(tmp_path: Path) -> None:
    run = Run(EXPERIMENTS["psmnist"], tmp_path / "run", epochs=3, data_folder=REAL)
    record, _ = run.train()
    assert record.score > 96.0
    result = evaluate(
        EXPERIMENTS["psmnist"],
        tmp_path / "run" / "best.safetensors",
        data_folder=REAL,
        streaming=True,
        limit=200,
    )
    assert result.differing == 0
