"""Plain baselines: counted by hand, solved by numpy, as large as they are said to be."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch

from lmu.experiments import EXPERIMENTS, Budget
from lmu.experiments.data import Dataset, mackey_glass
from lmu.experiments.models import BagOfWords, DelayPolynomial, Pixels
from lmu.experiments.running import count_parameters

WORDS = 9


def texts(*shape: int, seed: int = 0) -> torch.Tensor:
    """Texts of words 4 … 8, padded on the right."""
    random = np.random.default_rng(seed)
    words = random.integers(4, WORDS, shape)
    ends = random.integers(0, shape[-1] + 1, shape[:-1])
    return torch.as_tensor(np.where(np.arange(shape[-1]) < ends[..., None], words, 0))


def bags(text: list[list[int]]) -> list[tuple[int, int]]:
    """List the words of one text, or those of two and of each alone, with their bag."""
    sets = [set(words) - {0} for words in text]
    if len(sets) == 1:
        return [(0, word) for word in sets[0]]
    parts = (sets[0] & sets[1], sets[0] - sets[1], sets[1] - sets[0])
    return [(bag, word) for bag, words in enumerate(parts) for word in words]


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("classes", [1, 3])
def test_a_bag_of_words_begins_as_naive_bayes(classes: int, pairs: bool) -> None:
    inputs = texts(40, 2, 6) if pairs else texts(40, 6)
    labels = torch.arange(40) % max(classes, 2)
    listed = [bags(text if pairs else [text]) for text in inputs.tolist()]
    size = WORDS * (3 if pairs else 1)
    expected = []
    for kind in range(max(classes, 2)):
        own = [found for found, label in zip(listed, labels.tolist(), strict=True) if label == kind]
        counts = Counter(itertools.chain(*own))
        total = math.log(size + sum(counts.values()))
        expected.append(
            [
                math.log(len(own)) + sum(math.log(1 + counts[word]) - total for word in found)
                for found in listed
            ]
        )
    right = torch.tensor(expected).T
    got = BagOfWords(WORDS, classes, pairs).count(inputs, labels)(inputs).detach()
    if classes == 1:
        torch.testing.assert_close(got, right[:, 1] - right[:, 0], rtol=1e-4, atol=1e-4)
    else:  # as far as a number that all classes have in common
        centred = right - right.mean(1, keepdim=True)
        torch.testing.assert_close(got - got.mean(1, keepdim=True), centred, rtol=1e-4, atol=1e-4)


def test_a_polynomial_is_the_least_squares_fit() -> None:
    series, targets = mackey_glass(seed=0, series=4, length=300).train
    model = DelayPolynomial([0, 6, 18], 2).fit(series, targets)
    samples = np.stack([np.pad(series[0, :, 0], (d, 0))[:300] for d in (0, 6, 18)], 1)
    products = [samples[:, i] * samples[:, j] for i in range(3) for j in range(i, 3)]
    terms = np.column_stack([np.ones(300), samples, *products]).astype(float)
    weights, *_ = np.linalg.lstsq(terms, targets[0, :, 0].numpy().astype(float), rcond=None)
    assert model.size == model.fitted == terms.shape[1] == 10
    fit = model(series)[0, :, 0].detach().numpy()
    residual, least = (
        np.square(y - targets[0, :, 0].numpy()).sum() for y in (fit, terms @ weights)
    )
    assert residual <= least * (1 + 1e-4)  # the ridge costs little
    streamed = model.stream(series)
    torch.testing.assert_close(streamed, model(series), rtol=1e-5, atol=1e-5)


def test_a_polynomial_reads_several_numbers_of_a_sample() -> None:
    inputs = torch.randn(3, 40, 2, dtype=torch.float64)
    late = torch.nn.functional.pad(inputs, (0, 0, 1, 0))[:, :-1]
    targets = inputs[..., :1] * late[..., 1:] - 2 * late[..., :1] + 1  # two of its products
    model = DelayPolynomial([0, 1], 2, inputs=2).fit(inputs, targets)
    assert model.size == 1 + 4 + 10
    torch.testing.assert_close(model(inputs), targets, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.stream(inputs), model(inputs))


@pytest.mark.parametrize(
    ("name", "model", "count"),
    [
        ("psmnist", "perceptron", 165_370),
        ("psmnist", "best-perceptron", 669_706),
        ("psmnist", "logistic", 7_850),
        ("mackey-glass", "polynomial", 455),
    ],
)
def test_baselines_have_the_size_they_are_said_to_have(name: str, model: str, count: int) -> None:
    network = EXPERIMENTS[name].setting(model, Budget.QUICK).network(Dataset.empty(200))
    assert count_parameters(network) == count


def test_a_perceptron_knows_no_order() -> None:
    torch.manual_seed(0)
    network, order = Pixels(784, (208,), classes=10).eval(), torch.randperm(784)
    turned, images = Pixels(784, (208,), classes=10).eval(), torch.randn(2, 784, 1)
    weights = network.state_dict()
    turned.load_state_dict(weights | {"layers.0.weight": weights["layers.0.weight"][:, order]})
    torch.testing.assert_close(turned(images[:, order]), network(images), rtol=1e-4, atol=1e-4)
