"""The networks of the second paper for texts, by their sizes alone."""

from collections.abc import Sequence

from lmu.experiments.models.language_model import LanguageModel
from lmu.experiments.models.text import PairClassifier, TextClassifier, TextReader
from lmu.experiments.models.translator import Translator
from lmu.experiments.models.words import EncodedWords, Words
from lmu.initializers import CHILKURI_2021
from lmu.layers import (
    LMU,
    Bidirectional,
    DeepRepresentation,
    Layer,
    Stack,
    window_blocks,
)


def text_memory(channels: int, theta: float, order: int = 1) -> Layer:
    """Make a memory of each of some numbers by itself.

    Args:
        channels: how many numbers.
        theta: the length of the window, in words: the longest text.
        order: how many polynomials; 1 is a running mean that fades with exp(-1/θ).

    Returns:
        The layer, of channels·order outputs. It has nothing to be trained.
    """
    options = {"input_projection": False, "initializers": CHILKURI_2021}
    return LMU(channels, channels, order, theta, **options)


def remembered_words(
    words: int,
    width: int,
    theta: float,
    order: int,
    encoded: Sequence[int],
    trained: bool,
    word_dropout: float,
) -> TextReader:
    """Make the reader of the classifiers below, from their arguments."""
    if encoded:
        vectors = EncodedWords(words, width, encoded, trained=trained)
    else:
        vectors = Words(words, width, trained=trained)
    return TextReader(vectors, text_memory(vectors.width, theta, order), word_dropout)


def memory_text_classifier(
    words: int,
    width: int,
    classes: int,
    theta: float,
    *,
    order: int = 1,
    encoded: Sequence[int] = (),
    trained: bool = False,
    word_dropout: float = 0.0,
    dropout: float = 0.0,
) -> TextClassifier:
    """Make the smallest network that tells texts apart: a fading mean of their words, and a line.

    Args:
        words: how many words there are vectors for; give them by `reader.words.set_vectors`.
        width: numbers in a vector.
        classes: how many classes; 1 gives one score, for and against.
        theta: the length of the window, in words: the longest text.
        order: how many polynomials, d.
        encoded: the sizes of layers of GELUs; what the last gives of a word is remembered in its
            vector's place. Empty: the vector itself.
        trained: whether the vectors are trained.
        word_dropout: the share of words that are left out in training.
        dropout: the share of what is read out that is dropped in training.

    Returns:
        The network, of classes·(width·order + 1) parameters, the encoder's and the vectors.

    Example:
        >>> network = memory_text_classifier(words=400, width=300, classes=1, theta=400.0)
        >>> sum(p.numel() for p in network.parameters() if p.requires_grad)
        301

    References:
        Chilkuri and Eliasmith 2021, section 4.3.
    """
    reader = remembered_words(words, width, theta, order, encoded, trained, word_dropout)
    return TextClassifier(reader, classes, dropout)


def memory_pair_classifier(
    words: int,
    width: int,
    classes: int,
    theta: float,
    *,
    order: int = 1,
    encoded: Sequence[int] = (),
    trained: bool = False,
    word_dropout: float = 0.0,
    dropout: float = 0.0,
) -> PairClassifier:
    """Make the smallest network for pairs of texts: a fading mean of each, compared.

    Args:
        words: how many words there are vectors for; give them by `reader.words.set_vectors`.
        width: numbers in a vector.
        classes: how many classes; 1 gives one score, for and against.
        theta: the length of the window, in words: the longest text.
        order: how many polynomials, d.
        encoded: the sizes of layers of GELUs; what the last gives of a word is remembered in its
            vector's place. Empty: the vector itself.
        trained: whether the vectors are trained.
        word_dropout: the share of words that are left out in training.
        dropout: the share of what is read out that is dropped in training.

    Returns:
        The network, of classes·(4·width·order + 1) parameters, the encoder's and the vectors.

    Example:
        >>> network = memory_pair_classifier(words=400, width=300, classes=3, theta=50.0)
        >>> sum(p.numel() for p in network.parameters() if p.requires_grad)
        3603

    References:
        Chilkuri and Eliasmith 2021, section 4.3.
    """
    reader = remembered_words(words, width, theta, order, encoded, trained, word_dropout)
    return PairClassifier(reader, classes, dropout)


def lmu_language_model(
    words: int,
    width: int,
    depth: int,
    *,
    order: int = 5,
    theta: float = 10.0,
    channels: int | None = None,
    expansion: int = 2,
    dropout: float = 0.0,
    tied: bool = True,
    padded: bool = False,
) -> LanguageModel:
    """Make a language model of highway blocks with small windows.

    Args:
        words: how many words, or letters.
        width: numbers in a vector, and of every layer.
        depth: how many LMUs.
        order: how many polynomials, d, for each channel.
        theta: the length of each window, in words.
        channels: how many signals each LMU remembers. None: `width`.
        expansion: how many times wider the feed-forward layers are inside; 0: there are none.
        dropout: the share that is dropped in training, everywhere.
        tied: whether the vectors of the words also score them.
        padded: whether word 0 is padding.

    Returns:
        The network.

    Example:
        >>> import torch
        >>> network = lmu_language_model(words=27, width=8, depth=2)
        >>> network(torch.randint(27, (2, 50))).shape
        torch.Size([2, 50, 27])

    References:
        Chilkuri and Eliasmith 2021, section 4.4.
    """
    stack = window_blocks(
        width,
        depth,
        order=order,
        theta=theta,
        channels=channels,
        expansion=expansion,
        dropout=dropout,
    )
    return LanguageModel(Words(words, width, padded=padded), stack, tied=tied, dropout=dropout)


def deep_text_classifier(
    model: LanguageModel,
    classes: int,
    theta: float,
    *,
    word_dropout: float = 0.0,
    dropout: float = 0.0,
) -> TextClassifier:
    """Make a classifier out of a language model: all its layers are read, by learned shares.

    The sum of the layers is remembered as by `memory_text_classifier`, to the end of the text. The
    two networks share their weights from then on.

    Args:
        model: a language model of a `Stack` whose words are padded.
        classes: how many classes; 1 gives one score, for and against.
        theta: the length of the last window, in words: the longest text.
        word_dropout: the share of words that are left out in training.
        dropout: the share of the text's vector that is dropped in training.

    Returns:
        The network.

    Raises:
        ValueError: a language model without a stack, or of words that are not padded.

    Example:
        >>> import torch
        >>> model = lmu_language_model(words=90, width=8, depth=2, padded=True)
        >>> deep_text_classifier(model, classes=2, theta=50.0)(torch.randint(90, (4, 20))).shape
        torch.Size([4, 2])

    References:
        Chilkuri and Eliasmith 2021, section 4.5. Peters et al. 2018, eq. 1.
    """
    if not isinstance(model.layer, Stack) or not model.words.padded:
        raise ValueError(
            f"`model` has a {type(model.layer).__name__} and padded={model.words.padded}: expected "
            "a Stack and padded words, as `lmu_language_model(..., padded=True)` makes them."
        )
    deep = DeepRepresentation(model.layer)
    layers = Stack([deep, text_memory(deep.output_size, theta)])
    reader = TextReader(model.words, layers, word_dropout)
    return TextClassifier(reader, classes, dropout)


def lmu_translator(
    source_words: int,
    target_words: int,
    width: int,
    *,
    depth: int = 1,
    order: int = 5,
    theta: float = 10.0,
    channels: int | None = None,
    expansion: int = 2,
    dropout: float = 0.0,
) -> Translator:
    """Make a translator of highway blocks with small windows, trained in parallel over time.

    Args:
        source_words: how many words are read.
        target_words: how many words are written.
        width: numbers in a vector, and of every layer.
        depth: how many LMUs there are in each direction of the encoder, and in the decoder.
        order: how many polynomials, d, for each channel.
        theta: the length of each window, in words.
        channels: how many signals each LMU remembers. None: `width`.
        expansion: how many times wider the feed-forward layers are inside; 0: there are none.
        dropout: the share that is dropped in training, everywhere.

    Returns:
        The network.

    Example:
        >>> import torch
        >>> translator = lmu_translator(source_words=90, target_words=80, width=8)
        >>> translator(torch.randint(4, 80, (5, 2, 7))).shape
        torch.Size([5, 7, 80])

    References:
        Chilkuri and Eliasmith 2021, section 4.6.
    """
    onwards, backwards, decoder = (
        window_blocks(
            width,
            depth,
            order=order,
            theta=theta,
            channels=channels,
            expansion=expansion,
            dropout=dropout,
        )
        for _ in range(3)
    )
    source, target = Words(source_words, width), Words(target_words, width)
    return Translator(source, target, Bidirectional(onwards, backwards), decoder, dropout)
