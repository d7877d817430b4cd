"""What networks write, word by word, is what their parallel form says is likely."""

import itertools
from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from linrec import Result
from lmu.experiments.models import (
    BeamSearch,
    DotProductAttention,
    LanguageModel,
    Network,
    Translator,
)
from lmu.layers import LSTM, Layer, window_blocks
from tests.lmu.text_networks import COUNT, WIDTH, blocks, language_model, lstm, translator

TIME = 11

MODELS: dict[str, Callable[[], LanguageModel]] = {
    "lmu": lambda: language_model(blocks()),
    "lstm": lambda: language_model(lstm()),
    "pairs": lambda: language_model(blocks(), reach=1),
    "pairs further back": lambda: language_model(blocks(), reach=2),
}
TRANSLATORS: dict[str, Callable[[], Translator]] = {
    "lmu": lambda: translator(lambda: blocks(1)),
    "lmu, two layers": lambda: translator(lambda: blocks(1), depth=2, heads=3),
    "lstm": lambda: translator(lambda: LSTM(WIDTH, WIDTH, depth=2)),
}
Made = TypeVar("Made", bound=Network)


def network(build: Callable[[], Made]) -> Made:
    """Make a network whose weights are zero nowhere, in float64."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    try:
        made = build()
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return made.eval()


def texts(count: int) -> Tensor:
    """Words 4 to 12, the rows ending in 0, 1, 2, ... words of padding."""
    words = torch.randint(4, COUNT, (count, TIME), generator=torch.Generator().manual_seed(1))
    return torch.where(torch.arange(TIME) < TIME - torch.arange(count)[:, None], words, 0)


def assert_close(one: Tensor, other: Tensor) -> None:
    """Two orders of summation of the same few dozen numbers."""
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_generation_is_the_likeliest_of_the_parallel_form(name: str) -> None:
    """Each new word from a run over the whole text so far, and from the state alone."""
    made = network(MODELS[name])
    prompt = torch.randint(COUNT, (3, 5))
    text = prompt
    for _ in range(12):
        text = torch.cat([text, made(text)[:, -1].argmax(-1, keepdim=True)], 1)
    assert torch.equal(made.generate(prompt, 12, temperature=0), text[:, 5:])
    assert made.generate(prompt, 0).shape == (3, 0)
    assert made.generate(prompt[0], 4, temperature=0).tolist() == text[0, 5:9].tolist()


def test_generation_draws_with_the_model_s_chances() -> None:
    made = network(MODELS["lmu"])
    draws = 20_000
    prompt = texts(1)
    generator = torch.Generator().manual_seed(0)
    drawn = made.generate(prompt.expand(draws, -1), 1, temperature=2.0, generator=generator)
    chances = (made(prompt)[0, -1] / 2).softmax(-1)
    shares = torch.bincount(drawn.flatten(), minlength=COUNT) / draws
    spread = (chances * (1 - chances) / draws).sqrt()
    assert bool(((shares - chances).abs() < 5 * spread).all())


def test_generation_leaves_the_mode_as_it_was() -> None:
    made = language_model(blocks(1, dropout=0.5), dropout=0.5)
    prompt = texts(2)
    first = made.train().generate(prompt, 5, temperature=0)
    assert made.training
    assert torch.equal(first, made.eval().generate(prompt, 5, temperature=0))
    assert not made.training


def test_a_language_model_learns_to_count() -> None:
    """Words follow one another in a circle; what is learned in parallel is written in steps."""
    torch.manual_seed(0)
    made = language_model(blocks(1, width=12))
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-2)
    for _ in range(60):
        words = (torch.randint(COUNT, (16, 1)) + torch.arange(9)) % COUNT
        logits = made(words[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), words[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    written = made.generate(torch.tensor([[3, 4, 5]]), 20, temperature=0)
    assert written[0].tolist() == [(6 + i) % COUNT for i in range(20)]


def test_attention_by_hand() -> None:
    attention = DotProductAttention(4, 6, heads=2).double()
    values, queries = torch.randn(2, 9, 6).double(), torch.randn(2, 3, 4).double()
    lengths = torch.tensor([9, 5])
    outputs = attention(queries, attention.source(values, lengths))
    for row, length in enumerate(lengths.tolist()):
        own = values[row, :length]
        found = [
            nn.functional.scaled_dot_product_attention(
                queries[row] @ attention.query.weight[share].mT,
                own @ attention.key.weight[share].mT,
                own @ attention.value.weight[share].mT,
            )
            for share in (slice(0, 2), slice(2, 4))
        ]
        assert_close(outputs[row], torch.cat(found, -1) @ attention.combined.weight.mT)


def chain(logits: Tensor) -> Callable[[Tensor, Tensor], Result]:
    """A decoder that knows the last two words: the one before the last is its state."""

    def step(words: Tensor, state: Tensor) -> Result:
        return Result(logits[state.long().squeeze(-1), words], words.unsqueeze(-1).double())

    return step


def likelihood(logits: Tensor, sentence: list[int], begin: int) -> float:
    words = [0, begin, *sentence]
    threes = zip(words, words[1:], words[2:], strict=False)
    return sum(float(logits.log_softmax(-1)[three]) for three in threes)


@pytest.mark.parametrize("length_power", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_wide_beams_find_the_best_sentence_of_all(seed: int, length_power: float) -> None:
    """Words 1 and 4, 2 begins, 3 ends: all sentences of up to 4 words, by enumeration."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(5, 5, 5, generator=generator).double()
    open_words = (1, 2, 4)
    sentences = [
        [*inner, 3] for size in range(4) for inner in itertools.product(open_words, repeat=size)
    ] + [list(inner) for inner in itertools.product(open_words, repeat=4)]

    def score(sentence: list[int]) -> float:
        return likelihood(logits, sentence, 2) / len(sentence) ** length_power

    best = max(sentences, key=score)
    search = BeamSearch(beams=200, longest=4, length_power=length_power)
    found = search(chain(logits), torch.zeros(1, 200, 1).double(), begin=2, end=3)
    assert [word for word in found[0].tolist() if word] == best


def test_hypotheses_are_ranked_by_their_lengths_with_the_next_word() -> None:
    """-2.0 of two words that end, against -1.5 - 1.2 of three: -1.0 and -0.9 a word."""
    search = BeamSearch(beams=2, length_power=1.0)
    following = torch.tensor([[[-9.0] * 5, [-9.0, -9.0, -9.0, -9.0, -1.2]]])
    written = torch.tensor([[[4, 3], [4, 4]]])
    ended = torch.tensor([[True, False]])
    totals, chosen = search.best(torch.tensor([[-2.0, -1.5]]), following, written, ended)
    torch.testing.assert_close(totals, torch.tensor([[-2.7, -2.0]]))
    assert chosen.tolist() == [[5 + 4, 0]]


def test_one_beam_is_greedy() -> None:
    logits = torch.randn(3, 9, 9, 9, generator=torch.Generator().manual_seed(0))
    logits[..., 0] = -torch.inf  # padding is never said
    for table in logits:
        before, word, expected = 0, 2, []
        while word != 3 and len(expected) < 12:
            before, word = word, int(table[before, word].argmax())
            expected.append(word)
        search = BeamSearch(longest=12)
        found = search(chain(table), torch.zeros(1, 1, 1).double(), begin=2, end=3)
        assert found[0].tolist() == expected + [0] * (12 - len(expected))


@pytest.mark.parametrize("name", TRANSLATORS)
def test_translations_are_scored_as_the_parallel_form_scores_them(name: str) -> None:
    """A greedy sentence is what the parallel form says is likeliest after each of its words."""
    made = network(TRANSLATORS[name])
    with torch.no_grad():
        made.bias[0] = -99.0  # padding, which is never said
        made.bias[3] -= 2.0  # the end, so that something is said before
    sources = texts(5)
    found = made.translate(sources, BeamSearch(longest=TIME))
    begin = torch.full((5, 1), 2)
    said = torch.cat([begin, found[:, :-1]], 1)
    said = torch.where((said == 3).cumsum(1) > 0, 0, said)
    likeliest = made(torch.stack([sources, said], 1)).argmax(-1)
    assert torch.equal(likeliest[said != 0], found[said != 0])
    assert int((found != 0).sum()) > 10
    wider = made.translate(sources, BeamSearch(beams=4, longest=TIME))

    def scores(sentences: Tensor) -> Tensor:
        said = torch.cat([begin, sentences[:, :-1]], 1)
        said = torch.where((said == 3).cumsum(1) > 0, 0, said)
        chances = made(torch.stack([sources, said], 1)).log_softmax(-1)
        each = chances.gather(-1, sentences.unsqueeze(-1)).squeeze(-1)
        return torch.where(sentences != 0, each, 0).sum(-1)

    with torch.no_grad():
        assert float(scores(wider).mean()) >= float(scores(found).mean())


@pytest.mark.parametrize("layer", [lambda: window_blocks(32, 1), lambda: LSTM(32, 32)])
def test_a_translator_learns_to_turn_sentences_round(layer: Callable[[], Layer]) -> None:
    """Of four of nine words: without the source a ninth of them can be guessed, and each end."""
    torch.manual_seed(0)
    made = translator(layer, width=32)
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-2)

    def examples(count: int) -> tuple[Tensor, Tensor]:
        source = torch.randint(4, COUNT, (count, 4))
        target = torch.cat([source.flip(1), torch.full((count, 1), 3)], 1)
        said = torch.cat([torch.full((count, 1), 2), target[:, :-1]], 1)
        source = torch.cat([source, torch.full((count, 1), 3)], 1)
        return torch.stack([source, said], 1), target

    for _ in range(120):
        inputs, targets = examples(32)
        loss = nn.functional.cross_entropy(made(inputs).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    inputs, targets = examples(50)
    found = made.translate(inputs[:, 0], BeamSearch(beams=2, longest=5))
    guessed = (4 / 9 + 1) / 5
    assert float((found == targets).double().mean()) > (1 + guessed) / 2
