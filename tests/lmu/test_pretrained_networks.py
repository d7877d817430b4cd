"""The networks of the experiments into folders and back."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import linrec
import lmu
from lmu.experiments import EXPERIMENTS
from lmu.experiments.data import Dataset
from lmu.experiments.models import (
    BagOfWords,
    LayerClassifier,
    LayerPredictor,
    Network,
    PairClassifier,
    Pixels,
    TextClassifier,
    TextReader,
    Words,
)
from lmu.layers import LSTM
from tests.lmu.text_networks import COUNT, blocks, deep_classifier, language_model, translator

pytest.importorskip("huggingface_hub")
pytest.importorskip("safetensors")


def built(name: str, model: str) -> Callable[[], Network]:
    return lambda: EXPERIMENTS[name].setting(model).network(Dataset.empty())


def reader() -> TextReader:
    return TextReader(Words(COUNT, 6), lmu.ParallelLMU(6, 5, 2, 3, 10.0))


# Of numbers, and of words (texts, pairs of them).
SAMPLES: dict[str, Callable[[], Network]] = {
    "LSTM": lambda: LayerClassifier(LSTM(1, 4), classes=3),
    "layers": lambda: LayerPredictor(lmu.layers.window_blocks(1, 2)),
    **{
        f"{name} {model}": built(name, model)
        for name in ("psmnist", "mackey-glass")
        for model in EXPERIMENTS[name].models
    },
}
TEXTS: dict[str, Callable[[], Network]] = {
    "bag of words": lambda: BagOfWords(COUNT, 3),
    "classifier": lambda: TextClassifier(reader(), 2),
    "deep classifier": deep_classifier,
    "language": lambda: language_model(blocks(), padded=True),
}
PAIRS: dict[str, Callable[[], Network]] = {
    "pairs": lambda: PairClassifier(reader(), 1),
    "translator": lambda: translator(blocks),
}


@pytest.mark.parametrize("name", [*SAMPLES, *TEXTS, *PAIRS])
def test_what_is_read_is_what_was_written(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = {**SAMPLES, **TEXTS, **PAIRS}[name]().eval()
    network.save_pretrained(tmp_path)
    again = Network.from_pretrained(tmp_path)
    assert type(again) is type(network) and not again.training
    words = torch.randint(4, COUNT, (2, 2, 9))
    inputs = {**dict.fromkeys(TEXTS, words[0]), **dict.fromkeys(PAIRS, words)}
    steps = 784 if isinstance(network, Pixels) else 9
    given = inputs.get(name, torch.randn(2, steps, 1))
    with torch.no_grad():
        assert torch.equal(again(given), network(given))
    trained = [
        {n for n, p in each.named_parameters() if p.requires_grad} for each in (network, again)
    ]
    assert trained[0] == trained[1]


def one_layer_twice() -> linrec.nn.Stack:
    layer = linrec.nn.MinGRU(3, 3)
    return linrec.nn.Stack([layer, layer])


def one_weight_twice() -> linrec.nn.Stack:
    first, second = linrec.nn.MinGRU(3, 3), linrec.nn.MinGRU(3, 3)
    second.projection.weight = first.projection.weight
    return linrec.nn.Stack([first, second])


@pytest.mark.parametrize("make", [one_layer_twice, one_weight_twice])
def test_shared_weights_stay_shared(make: Callable[[], linrec.nn.Stack], tmp_path: Path) -> None:
    """As many parameters, and the same after training."""
    torch.manual_seed(0)
    mine, inputs = make(), torch.randn(2, 5, 3)
    mine.save_pretrained(tmp_path)
    again = linrec.nn.Stack.from_pretrained(tmp_path)
    for module in (mine, again):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            module(inputs).outputs.square().sum().backward()
            optimizer.step()
    assert len(list(again.parameters())) == len(list(mine.parameters()))
    assert torch.equal(again(inputs).outputs, mine(inputs).outputs)
