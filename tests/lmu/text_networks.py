"""Small networks of texts, of LMUs and of LSTMs."""

from collections.abc import Callable

from linrec.nn import FeedForward, Residual
from lmu.experiments.imdb_pretrained import read_all_layers
from lmu.experiments.models import LanguageModel, PairedWords, TextClassifier, Translator, Words
from lmu.layers import LSTM, Bidirectional, Layer, window_blocks

COUNT, WIDTH = 13, 6  # words, and numbers in the vector of each


def blocks(depth: int = 2, width: int = WIDTH, dropout: float = 0.0) -> Layer:
    return window_blocks(width, depth, theta=4.0, dropout=dropout)


def language_model(
    layer: Layer,
    *,
    padded: bool = False,
    tied: bool = True,
    dropout: float = 0.0,
    reach: int = 0,
) -> LanguageModel:
    size = layer.input_size
    words = PairedWords(COUNT, size, reach) if reach else Words(COUNT, size, padded=padded)
    return LanguageModel(words, layer, tied=tied, dropout=dropout)


def translator(
    layers: Callable[[], Layer], width: int = WIDTH, depth: int = 1, heads: int = 1
) -> Translator:
    encoder = Bidirectional(layers(), layers())
    block = Residual(FeedForward(width, 2 * width))
    read, written = Words(COUNT, width), Words(COUNT, width)
    decoder = [layers() for _ in range(depth)]
    return Translator(read, written, encoder, decoder, 0.0, block, heads)


def deep_classifier() -> TextClassifier:
    return read_all_layers(language_model(blocks(), padded=True), theta=9.0)


def lstm(depth: int = 2) -> Layer:
    return LSTM(WIDTH, 5, depth=depth)
