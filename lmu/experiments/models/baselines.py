"""The papers' baselines by their sizes: LSTMs, the unit of 2019, and a mixture of both."""

from lmu.experiments.models.language_model import LanguageModel
from lmu.experiments.models.readout import LayerClassifier, LayerPredictor
from lmu.experiments.models.text import PairClassifier, TextClassifier, TextReader
from lmu.experiments.models.translator import Translator
from lmu.experiments.models.words import Words
from lmu.initializers import PSMNIST_2019, VOELKER_2019, Initializers
from lmu.layers import LMU, LSTM, Bidirectional, Stack


def lstm_classifier(classes: int, hidden_size: int, *, input_size: int = 1) -> LayerClassifier:
    """Make an LSTM that is read at the last step.

    Args:
        classes: how many classes.
        hidden_size: the size of h.
        input_size: numbers a step.

    Returns:
        The network.

    Example:
        >>> network = lstm_classifier(classes=10, hidden_size=212)
        >>> sum(p.numel() for p in network.parameters() if p.requires_grad)
        183602
    """
    return LayerClassifier(LSTM(input_size, hidden_size), classes)


def lmu_classifier(
    classes: int,
    hidden_size: int,
    order: int,
    theta: float,
    *,
    input_size: int = 1,
    initializers: Initializers = PSMNIST_2019,
) -> LayerClassifier:
    """Make a unit of 2019 that is read at the last step.

    Args:
        classes: how many classes.
        hidden_size: how many tanh units.
        order: how many polynomials, d.
        theta: the length of the window, in steps.
        input_size: numbers a step.
        initializers: how the weights begin.

    Returns:
        The network.

    Example:
        >>> network = lmu_classifier(classes=10, hidden_size=212, order=256, theta=784.0)
        >>> sum(p.numel() for p in network.parameters() if p.requires_grad)
        102027

    References:
        Voelker, Kajić and Eliasmith 2019, section 4.2.
    """
    unit = LMU.original(input_size, hidden_size, order, theta, initializers=initializers)
    return LayerClassifier(unit, classes)


def lstm_predictor(hidden_size: int = 25, depth: int = 4) -> LayerPredictor:
    """Make LSTMs on top of each other that predict a series.

    Args:
        hidden_size: the size of each h.
        depth: how many.

    Returns:
        The network.

    Example:
        >>> sum(p.numel() for p in lstm_predictor().parameters() if p.requires_grad)
        18026

    References:
        Voelker, Kajić and Eliasmith 2019, section 4.3.
    """
    return LayerPredictor(LSTM(1, hidden_size, depth=depth))


def lmu_predictor(
    hidden_size: int = 49,
    depth: int = 4,
    *,
    order: int = 4,
    theta: float = 4.0,
    initializers: Initializers = VOELKER_2019,
) -> LayerPredictor:
    """Make units of 2019 on top of each other that predict a series.

    Args:
        hidden_size: how many tanh units in each.
        depth: how many.
        order: how many polynomials, d, in each.
        theta: the length of each window, in steps.
        initializers: how the weights begin.

    Returns:
        The network.

    Example:
        >>> sum(p.numel() for p in lmu_predictor().parameters() if p.requires_grad)
        18050

    References:
        Voelker, Kajić and Eliasmith 2019, section 4.3.
    """
    sizes = [1, *[hidden_size] * (depth - 1)]
    return LayerPredictor(
        Stack(
            LMU.original(size, hidden_size, order, theta, initializers=initializers)
            for size in sizes
        )
    )


def hybrid_predictor(
    lmu_size: int = 40,
    lstm_size: int = 25,
    *,
    pairs: int = 2,
    order: int = 4,
    theta: float = 4.0,
    initializers: Initializers = VOELKER_2019,
) -> LayerPredictor:
    """Make units of 2019 and LSTMs by turns, on top of each other, that predict a series.

    Args:
        lmu_size: how many tanh units in each LMU.
        lstm_size: the size of h in each LSTM.
        pairs: how many of each there are.
        order: how many polynomials, d, in each LMU.
        theta: the length of each window, in steps.
        initializers: how the weights of the LMUs begin.

    Returns:
        The network.

    Example:
        >>> sum(p.numel() for p in hybrid_predictor().parameters() if p.requires_grad)
        17900

    References:
        Voelker, Kajić and Eliasmith 2019, section 4.3.
    """
    layers = []
    for size in [1, *[lstm_size] * (pairs - 1)]:
        layers.append(LMU.original(size, lmu_size, order, theta, initializers=initializers))
        layers.append(LSTM(lmu_size, lstm_size))
    return LayerPredictor(Stack(layers))


def lstm_text_classifier(
    words: int,
    width: int,
    classes: int,
    hidden_size: int,
    *,
    trained: bool = False,
    word_dropout: float = 0.0,
    dropout: float = 0.0,
) -> TextClassifier:
    """Make an LSTM that reads a text and names its class.

    Args:
        words: how many words there are vectors for; give them by `reader.words.set_vectors`.
        width: numbers in a vector.
        classes: how many classes; 1 gives one score, for and against.
        hidden_size: the size of h.
        trained: whether the vectors are trained.
        word_dropout: the share of words that are left out in training.
        dropout: the share of h that is dropped in training.

    Returns:
        The network.

    Example:
        >>> network = lstm_text_classifier(words=400, width=50, classes=1, hidden_size=25)
        >>> sum(p.numel() for p in network.parameters() if p.requires_grad)
        7626
    """
    vectors = Words(words, width, trained=trained)
    reader = TextReader(vectors, LSTM(width, hidden_size), word_dropout)
    return TextClassifier(reader, classes, dropout)


def lstm_pair_classifier(
    words: int,
    width: int,
    classes: int,
    hidden_size: int,
    *,
    trained: bool = False,
    word_dropout: float = 0.0,
    dropout: float = 0.0,
) -> PairClassifier:
    """Make an LSTM that reads two texts and names their relation.

    Args:
        words: how many words there are vectors for; give them by `reader.words.set_vectors`.
        width: numbers in a vector.
        classes: how many classes; 1 gives one score, for and against.
        hidden_size: the size of h.
        trained: whether the vectors are trained.
        word_dropout: the share of words that are left out in training.
        dropout: the share of the four vectors that is dropped in training.

    Returns:
        The network.

    Example:
        >>> network = lstm_pair_classifier(words=400, width=50, classes=3, hidden_size=25)
        >>> sum(p.numel() for p in network.parameters() if p.requires_grad)
        7903
    """
    vectors = Words(words, width, trained=trained)
    reader = TextReader(vectors, LSTM(width, hidden_size), word_dropout)
    return PairClassifier(reader, classes, dropout)


def lstm_language_model(
    words: int,
    width: int,
    hidden_size: int,
    *,
    depth: int = 1,
    dropout: float = 0.0,
    tied: bool = True,
    padded: bool = False,
) -> LanguageModel:
    """Make a language model of LSTMs.

    Args:
        words: how many words, or letters.
        width: numbers in a vector.
        hidden_size: the size of each h.
        depth: how many LSTMs, on top of each other.
        dropout: the share that is dropped in training, everywhere.
        tied: whether the vectors of the words also score them.
        padded: whether word 0 is padding.

    Returns:
        The network.

    Example:
        >>> import torch
        >>> network = lstm_language_model(words=27, width=8, hidden_size=16)
        >>> network(torch.randint(27, (2, 50))).shape
        torch.Size([2, 50, 27])
    """
    layer = LSTM(width, hidden_size, depth=depth, dropout=dropout)
    return LanguageModel(Words(words, width, padded=padded), layer, tied=tied, dropout=dropout)


def lstm_translator(
    source_words: int,
    target_words: int,
    width: int,
    *,
    depth: int = 1,
    dropout: float = 0.0,
) -> Translator:
    """Make a translator of LSTMs: both ways in the encoder, with the same attention as the LMU's.

    Args:
        source_words: how many words are read.
        target_words: how many words are written.
        width: numbers in a vector, and in each h.
        depth: how many LSTMs there are in each direction of the encoder, and in the decoder.
        dropout: the share that is dropped in training, everywhere.

    Returns:
        The network.

    Example:
        >>> import torch
        >>> translator = lstm_translator(source_words=90, target_words=80, width=8)
        >>> translator(torch.randint(4, 80, (5, 2, 7))).shape
        torch.Size([5, 7, 80])

    References:
        Luong, Pham and Manning 2015, section 3.
    """
    onwards, backwards, decoder = (
        LSTM(width, width, depth=depth, dropout=dropout) for _ in range(3)
    )
    source, target = Words(source_words, width), Words(target_words, width)
    return Translator(source, target, Bidirectional(onwards, backwards), decoder, dropout)
