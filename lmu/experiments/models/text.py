"""Networks that read one or two texts and classify them."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from linrec import Result
from linrec.nn import Pretrained
from lmu.experiments.models.network import StreamingNetwork
from lmu.experiments.models.words import PADDING, Words, without_common_padding
from lmu.layers import Layer, Stack


class TextReader(Pretrained, nn.Module):
    """A reader that turns a text into one vector: a layer's output after the last word.

    Args:
        words: the vectors of the words.
        layer: reads the vectors.
        word_dropout: the share of words that are left out in training: their vectors are set to
            zero, and the others are scaled up.

    Raises:
        ValueError: vectors of another size than the layer reads.

    Example:
        >>> import torch, lmu
        >>> reader = TextReader(Words(100, 8), lmu.layers.LSTM(8, 5))
        >>> reader(torch.tensor([[5, 17, 9], [4, 0, 0]])).shape
        torch.Size([2, 5])

    References:
        Iyyer et al. 2015, Deep Unordered Composition Rivals Syntactic Methods for Text
        Classification, section 3.2 (word dropout).
    """

    def __init__(self, words: Words, layer: Layer, word_dropout: float = 0.0) -> None:
        super().__init__()
        if words.width != layer.input_size:
            raise ValueError(
                f"`words` have vectors of {words.width} numbers and `layer` reads "
                f"{layer.input_size}: expected the same."
            )
        if words.remembered:
            raise ValueError(
                f"`words` are {type(words).__name__}, whose vectors depend on the word before: "
                "expected vectors of single words. Pass `Words`."
            )
        self.words, self.layer, self.word_dropout = words, layer, nn.Dropout(word_dropout)
        self.output_size = layer.output_size
        self.state_size = layer.state_size + layer.output_size

    @property
    def frozen(self) -> bool:
        """Whether nothing in the reader is trained, so that vectors can be computed once."""
        trained = any(parameter.requires_grad for parameter in self.parameters())
        return not trained and self.word_dropout.p == 0

    def forward(self, texts: Tensor) -> Tensor:
        """Compute the vectors `(*batch, output_size)` of `texts (*batch, time)`."""
        if self.words.padded:
            texts = without_common_padding(texts)
        vectors = self.words(texts)
        if self.training and self.word_dropout.p:
            vectors = vectors * self.word_dropout(vectors.new_ones(*texts.shape, 1))
        layer = self.layer
        if isinstance(layer, Stack):
            # Layers that can be stepped are causal: padding affects no word's outputs, and only the
            # topmost layer has to know where a text ends.
            *below, layer = layer
            for each in below:
                vectors = each(vectors).outputs
        return layer.final(vectors, lengths=self.words.lengths(texts)).outputs

    def step(self, word: Tensor, state: Tensor | None = None) -> Result:
        """Read one word of each text `(*batch)`; padding changes nothing.

        The state `(*batch, state_size)` is the layer's, followed by its last output.
        """
        if state is None:
            state = self.words.embedding.weight.new_zeros(*word.shape, self.state_size)
        before, said = state.split([self.layer.state_size, self.output_size], -1)
        outputs, after = self.layer.step(self.words(word), before)
        following = torch.cat([after, outputs], -1)
        if self.words.padded:
            goes_on = (word != PADDING).unsqueeze(-1)
            following = torch.where(goes_on, following, state)
            outputs = torch.where(goes_on, outputs, said)
        return Result(outputs, following)


class TextNetwork(StreamingNetwork):
    """The base of networks that read texts into vectors.

    If nothing in the reader is trained, its vectors are the features, computed once.

    Args:
        reader: reads one text.
    """

    time_axis = -1

    def __init__(self, reader: TextReader) -> None:
        super().__init__()
        self.reader = reader

    @abstractmethod
    def classify(self, vectors: Tensor) -> Tensor:
        """Compute the classes' scores from the texts' vectors."""

    def features(self, inputs: Tensor) -> Tensor:
        """Compute the texts' vectors, or return the texts if their reading is trained."""
        return self.reader(inputs) if self.reader.frozen else inputs

    def head(self, features: Tensor) -> Tensor:
        """Compute the classes' scores (logits) `(*batch, classes)`."""
        return self.classify(features if self.reader.frozen else self.reader(features))

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Read a word of each text; the outputs are the scores if the texts ended here."""
        result = self.reader.step(input, state)
        return result._replace(outputs=self.classify(result.outputs))

    def stream(self, inputs: Tensor) -> Tensor:
        """Compute the scores after the last words, reading a word at a time."""
        *_, last = self.steps(inputs)
        return last


class TextClassifier(TextNetwork):
    """A classifier of texts, from the vector that a reader makes of each.

        scores = W v + b

    Args:
        reader: reads the text.
        classes: how many classes; 1 gives one score, for and against.
        dropout: the share of the vector that is dropped in training.

    Inputs are words `(texts, time)`. With one class the scores have no axis of classes.

    Example:
        >>> import torch, lmu
        >>> network = TextClassifier(TextReader(Words(100, 8), lmu.layers.LSTM(8, 5)), classes=3)
        >>> network(torch.tensor([[5, 17, 9], [4, 0, 0]])).shape
        torch.Size([2, 3])
    """

    def __init__(self, reader: TextReader, classes: int, dropout: float = 0.0) -> None:
        super().__init__(reader)
        self.dropout = nn.Dropout(dropout)
        self.scores = nn.Linear(reader.output_size, classes)

    def classify(self, vectors: Tensor) -> Tensor:
        """Compute the scores `(*batch, classes)` from `vectors (*batch, size)`."""
        return squeeze_single_class(self.scores(self.dropout(vectors)))


class PairClassifier(TextNetwork):
    """A classifier of the relation of two texts, which one reader turns into vectors v₁ and v₂.

        scores = W [v₁, v₂, |v₁ - v₂|, v₁·v₂] + b

    Args:
        reader: reads each text.
        classes: how many classes; 1 gives one score, for and against.
        dropout: the share of the four vectors that is dropped in training.

    Inputs are words `(pairs, 2, time)`. With one class the scores have no axis of classes.

    Example:
        >>> import torch, lmu
        >>> network = PairClassifier(TextReader(Words(100, 8), lmu.layers.LSTM(8, 5)), classes=3)
        >>> network(torch.tensor([[[5, 17, 9], [4, 0, 0]]])).shape
        torch.Size([1, 3])

    References:
        Chilkuri and Eliasmith 2021, section 4.3.
    """

    def __init__(self, reader: TextReader, classes: int, dropout: float = 0.0) -> None:
        super().__init__(reader)
        self.dropout = nn.Dropout(dropout)
        self.scores = nn.Linear(4 * reader.output_size, classes)

    def classify(self, vectors: Tensor) -> Tensor:
        """Compute the scores `(*batch, classes)` from `vectors (*batch, 2, size)`."""
        one, other = vectors.unbind(-2)
        compared = torch.cat([one, other, (one - other).abs(), one * other], -1)
        return squeeze_single_class(self.scores(self.dropout(compared)))


def squeeze_single_class(scores: Tensor) -> Tensor:
    """Remove the axis of classes if there is only one."""
    return scores.squeeze(-1) if scores.shape[-1] == 1 else scores
