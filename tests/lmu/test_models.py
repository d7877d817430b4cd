"""The networks: two forms of each, padding, and the papers' sizes."""

# Wrong arguments are passed on purpose, and what is known to be there is used as such.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from linrec.nn import MinGRU
from lmu.experiments.imdb_pretrained import read_all_layers
from lmu.experiments.models import (
    EncodedWords,
    LanguageModel,
    LayerClassifier,
    LayerPredictor,
    Network,
    PairClassifier,
    PairedWords,
    SequenceClassifier,
    SeriesPredictor,
    TextClassifier,
    TextReader,
    Translator,
    Words,
)
from lmu.experiments.texts import fading_mean
from lmu.layers import LMU, LSTM, Gated, Layer, Residual, Stack, window_blocks
from tests.lmu.text_networks import (
    COUNT,
    WIDTH,
    blocks,
    deep_classifier,
    language_model,
    lstm,
    translator,
)

TIME = 11


def series(*batch: int) -> Tensor:
    return torch.randn(*batch, TIME, 1, generator=torch.Generator().manual_seed(1)).double()


def texts(*batch: int) -> Tensor:
    """Words 4 to 12, the rows ending in 0, 1, 2, ... words of padding."""
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(4, COUNT, (*batch, TIME), generator=generator)
    ends = torch.arange(words[..., 0].numel()).view(*batch, 1) % TIME
    return torch.where(torch.arange(TIME) < TIME - ends, words, 0)


def frozen(**options: bool) -> Words:
    return Words(COUNT, WIDTH, trained=False, **options)


def remembering(words: Words | None = None, word_dropout: float = 0.0) -> TextReader:
    """A reader that keeps a fading mean of the words' numbers."""
    return fading_mean(words or frozen(), 9.0, word_dropout)


def stepping(word_dropout: float = 0.0) -> TextReader:
    return TextReader(frozen(), LSTM(WIDTH, 5), word_dropout)


def unit_2019(input_size: int = 1) -> LMU:
    return LMU.original(input_size, 5, order=4, theta=9.0)


NETWORKS: dict[str, tuple[Callable[[], Network], Callable[[], Tensor], tuple[int, ...]]] = {
    "classifier": (
        lambda: SequenceClassifier(classes=3, hidden_size=5, order=4, theta=9.0),
        lambda: series(4),
        (4, 3),
    ),
    "predictor": (
        lambda: SeriesPredictor(hidden_size=5, dense_size=3, order=4, theta=9.0),
        lambda: series(4),
        (4, TIME, 1),
    ),
    "lstm classifier": (lambda: LayerClassifier(LSTM(1, 5), 3), lambda: series(4), (4, 3)),
    "lmu classifier": (lambda: LayerClassifier(unit_2019(), 3), lambda: series(4), (4, 3)),
    "lstm predictor": (
        lambda: LayerPredictor(LSTM(1, 5, depth=2)),
        lambda: series(4),
        (4, TIME, 1),
    ),
    "lmu predictor": (
        lambda: LayerPredictor(Stack([unit_2019(), unit_2019(5)])),
        lambda: series(4),
        (4, TIME, 1),
    ),
    "hybrid predictor": (
        lambda: LayerPredictor(Stack([unit_2019(), LSTM(5, 3)]), dense_size=4),
        lambda: series(4),
        (4, TIME, 1),
    ),
    "memory of a text": (
        lambda: TextClassifier(remembering(), 3),
        lambda: texts(14),
        (14, 3),
    ),
    "memory, trained words": (
        lambda: TextClassifier(remembering(Words(COUNT, WIDTH)), 1),
        lambda: texts(14),
        (14,),
    ),
    "memory of encoded words": (
        lambda: TextClassifier(remembering(EncodedWords(COUNT, WIDTH, [4, 3]), 0.5), 1),
        lambda: texts(14),
        (14,),
    ),
    "memory of pairs": (
        lambda: PairClassifier(remembering(), 3),
        lambda: texts(7, 2),
        (7, 3),
    ),
    "lstm of a text": (
        lambda: TextClassifier(stepping(), 3),
        lambda: texts(14),
        (14, 3),
    ),
    "lstm of pairs": (
        lambda: PairClassifier(stepping(), 1),
        lambda: texts(7, 2),
        (7,),
    ),
    "deep": (deep_classifier, lambda: texts(14), (14,)),
    "lmu language model": (
        lambda: language_model(blocks()),
        lambda: texts(4),
        (4, TIME, COUNT),
    ),
    "lstm language model": (
        lambda: language_model(lstm()),
        lambda: texts(4),
        (4, TIME, COUNT),
    ),
    "language model of pairs": (
        lambda: language_model(blocks(), reach=1),
        lambda: texts(4),
        (4, TIME, COUNT),
    ),
    "language model of pairs further back": (
        lambda: language_model(Residual(Gated(MinGRU(WIDTH, 7))), reach=2),
        lambda: texts(4),
        (4, TIME, COUNT),
    ),
    "untied language model": (
        lambda: language_model(lstm(1), tied=False),
        lambda: texts(4),
        (4, TIME, COUNT),
    ),
    "lmu translator": (
        lambda: translator(lambda: blocks(1)),
        lambda: texts(7, 2),
        (7, TIME, COUNT),
    ),
    "lmu translator of two layers": (
        lambda: translator(lambda: blocks(1), depth=2, heads=2),
        lambda: texts(7, 2),
        (7, TIME, COUNT),
    ),
    "lstm translator": (
        lambda: translator(lambda: LSTM(WIDTH, WIDTH, depth=2)),
        lambda: texts(7, 2),
        (7, TIME, COUNT),
    ),
}


def network(name: str) -> Network:
    """Make a network whose weights are zero nowhere, in float64."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    try:
        made = NETWORKS[name][0]()
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        for key, parameter in made.named_parameters():
            if "bias_hh" not in key:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return made.eval()


def assert_close(one: Tensor, other: Tensor) -> None:
    """Two orders of summation of the same few hundred numbers, through at most ten layers."""
    torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_is_head_of_features_and_the_stream(name: str) -> None:
    made, (_, data, shape) = network(name), NETWORKS[name]
    inputs = data()
    outputs = made(inputs)
    assert outputs.shape == shape
    assert torch.equal(outputs, made.head(made.features(inputs)))
    streamed = made.stream(inputs)
    if shape[-1] == COUNT:  # what is said of padding has no meaning
        own = (inputs if inputs.ndim == 2 else inputs[:, 1]) != 0
        outputs, streamed = outputs[own], streamed[own]
    assert_close(streamed, outputs)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_example_is_by_itself_and_padding_adds_nothing(name: str) -> None:
    made, (_, data, shape) = network(name), NETWORKS[name]
    inputs = data()
    outputs = made(inputs)
    for row, example in enumerate(inputs):
        if not example.is_floating_point():
            longest = int((example != 0).sum(-1).max())
            example = example[..., :longest]
        alone = made(example.unsqueeze(0))[0]
        own = outputs[row]
        if len(shape) == 3:
            own = own[: example.shape[-1 if example.dtype == torch.int64 else -2]]
            if example.dtype == torch.int64 and example.ndim == 2:
                said = example[1, : len(alone)] != 0  # what is padding in all is cut off
                assert said.sum() == (example[1] != 0).sum()
                own, alone = own[: len(said)][said], alone[said]
        assert_close(own, alone)


@pytest.mark.parametrize("name", NETWORKS)
def test_all_that_is_trained_gets_a_gradient(name: str) -> None:
    made, (_, data, _) = network(name), NETWORKS[name]
    made(data()).square().sum().backward()
    for key, parameter in made.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.any(), key


@pytest.mark.parametrize("name", ["classifier", "predictor"])
def test_keys_of_checkpoints(name: str) -> None:
    """Checkpoints of trained networks hold these keys."""
    keys = set(network(name).state_dict())
    shared = {"lmu.memory.A", "lmu.memory.B", "lmu.input_to_hidden.weight"} | {
        f"lmu.memory_to_hidden.{kind}" for kind in ("weight", "bias")
    }
    last = ("scores.",) if name == "classifier" else ("prediction.0.", "prediction.2.")
    assert keys == shared | {f"{part}{kind}" for part in last for kind in ("weight", "bias")}


def trained(made: nn.Module) -> int:
    return sum(p.numel() for p in made.parameters() if p.requires_grad)


def test_parameter_counts_of_the_papers() -> None:
    reader = remembering(Words(40, 300, trained=False))
    assert trained(TextClassifier(reader, 1)) == 301
    assert trained(PairClassifier(reader, 1)) == 1_201
    assert trained(PairClassifier(reader, 3)) == 3_603


def test_frozen_readers_are_read_once_and_trained_ones_are_not() -> None:
    words = texts(5)
    assert TextClassifier(remembering(), 1).features(words).shape == (5, WIDTH)
    for reader in (remembering(Words(COUNT, WIDTH)), stepping()):
        assert TextClassifier(reader, 1).features(words) is words


def test_words_are_encoded_each_by_itself() -> None:
    def gelu(numbers: Tensor) -> Tensor:
        return numbers * torch.special.ndtr(numbers)

    words, made = texts(5), EncodedWords(COUNT, WIDTH, [4, 3]).double()
    once = gelu(made.encoder[0](Words.forward(made, words)))
    assert_close(made(words), gelu(made.encoder[2](once)))
    assert made.width == 3 and trained(made) == 4 * (WIDTH + 1) + 3 * (4 + 1)
    made(words).sum().backward()
    assert made.embedding.weight.grad is None
    vectors = torch.randn(COUNT, WIDTH).double()
    made.set_vectors(vectors)
    assert torch.equal(made.embedding.weight, vectors)


@pytest.mark.parametrize("kind", [remembering, stepping])
def test_words_are_left_out_in_training_alone(kind: Callable[..., TextReader]) -> None:
    made, words = TextClassifier(kind(word_dropout=0.5), 1), texts(6)
    assert made.features(words) is words  # not computed once: each time others are left out
    assert not torch.equal(made(words), made(words))
    assert torch.equal(made.eval()(words), made(words))
    kept = made.train().reader.word_dropout(torch.ones(1000))
    assert set(kept.tolist()) == {0.0, 2.0}


def test_a_memory_of_order_1_is_a_fading_mean() -> None:
    """m_t = e^(-1/θ) m_{t-1} + (1 - e^(-1/θ)) x_t, of order 1."""
    made = TextClassifier(remembering(), 1)
    vectors = made.reader.words(texts(1))[0].double()
    expected = torch.zeros(WIDTH).double()
    for vector in vectors:
        expected = math.exp(-1 / 9) * expected + (1 - math.exp(-1 / 9)) * vector
    torch.testing.assert_close(made.features(texts(1))[0].double(), expected, rtol=1e-5, atol=1e-6)


def test_pairs_are_compared() -> None:
    made = PairClassifier(TextReader(Words(COUNT, WIDTH), LSTM(WIDTH, 5)), classes=3)
    one, other = made.reader(texts(4, 2)).unbind(1)
    four = torch.cat([one, other, (one - other).abs(), one * other], -1)
    torch.testing.assert_close(made(texts(4, 2)), four @ made.scores.weight.mT + made.scores.bias)


def test_vectors_can_be_given() -> None:
    words = Words(COUNT, WIDTH, trained=False)
    vectors = torch.randn(COUNT, WIDTH)
    words.set_vectors(vectors)
    assert torch.equal(words(torch.tensor([[3, 5]]))[0], vectors[[3, 5]])
    assert not words.embedding.weight.requires_grad
    for kind in (torch.uint8, torch.int32, torch.int64):
        assert torch.equal(words(torch.tensor([7], dtype=kind))[0], vectors[7])


def test_a_long_text_can_be_read_in_pieces() -> None:
    for name in (
        "lmu language model",
        "lstm language model",
        "language model of pairs",
        "language model of pairs further back",
    ):
        made = network(name)
        assert isinstance(made, LanguageModel)
        words = torch.randint(1, COUNT, (3, 20))
        whole, end = made.run(words)
        first, middle = made.run(words[:, :8])
        second, last = made.run(words[:, 8:], middle)
        assert_close(torch.cat([first, second], 1), whole)
        assert_close(last, end)


def test_tied_words_are_one_matrix() -> None:
    made = language_model(blocks(1))
    assert made.scores is None and made.bridge is None
    assert isinstance(language_model(lstm()).bridge, nn.Linear)
    assert isinstance(language_model(lstm(), tied=False).scores, nn.Linear)
    outputs = made.layer(made.words(texts(2))).outputs
    expected = outputs @ made.words.embedding.weight.mT + made.bias
    torch.testing.assert_close(made(texts(2)), expected)


def with_decoder(*layers: Layer, heads: int = 1, block: Layer | None = None) -> Translator:
    """Build a translator of words of 4 numbers."""
    words = (Words(9, 4), Words(9, 4))
    return Translator(*words, LSTM(4, 4), layers, block=block, heads=heads)


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "vectors of a text": (lambda: TextReader(Words(9, 4), LSTM(3, 2)), "expected the same"),
    "vectors of a model": (lambda: LanguageModel(Words(9, 4), LSTM(3, 2)), "expected the same"),
    "pairs of a text": (
        lambda: TextReader(PairedWords(9, 4), LSTM(4, 2)),
        "expected vectors of single words",
    ),
    "shape of vectors": (lambda: Words(9, 4).set_vectors(torch.zeros(4, 9)), r"expected \(9, 4\)"),
    "no sizes": (lambda: EncodedWords(9, 4, []), "expected a size for each layer"),
    "no prompt": (
        lambda: language_model(lstm()).generate(torch.zeros(2, 0).long(), 3),
        "at least one",
    ),
    "temperature": (
        lambda: language_model(lstm()).generate(torch.zeros(2, 1).long(), 3, temperature=-1),
        "`temperature` is -1",
    ),
    "words that are not padded": (
        lambda: Translator(Words(9, 4, padded=False), Words(9, 4), LSTM(4, 4), LSTM(4, 4)),
        "words that are padded",
    ),
    "no layers": (lambda: with_decoder(), "`decoder` has no layers"),
    "wide layer": (lambda: with_decoder(LSTM(4, 4), LSTM(5, 4)), "4 numbers and it reads 5"),
    "narrow layer": (lambda: with_decoder(LSTM(4, 3)), "gives 3 numbers: expected 4"),
    "heads": (lambda: with_decoder(LSTM(4, 4), heads=3), "`heads` is 3"),
    "block": (lambda: with_decoder(LSTM(4, 4), block=LSTM(4, 4)), "`block` has a state of 8"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_refused(case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_a_deep_classifier_shares_the_weights_of_its_language_model() -> None:
    model = language_model(blocks(), padded=True)
    made = read_all_layers(model, theta=9.0)
    own = {id(parameter) for parameter in made.parameters()}
    assert {id(parameter) for parameter in model.layer.parameters()} <= own
    assert isinstance(made.reader.layer, Stack)
    assert window_blocks(WIDTH, 2).state_size == model.layer.state_size
