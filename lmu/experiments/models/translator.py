"""An encoder that reads a sentence, and a decoder that looks at it while it writes another."""

from abc import abstractmethod
from functools import partial

import torch
from torch import Tensor, nn

from linrec import Result
from lmu.experiments.models.attention import AttentionMemory, DotProductAttention
from lmu.experiments.models.beam_search import BeamSearch
from lmu.experiments.models.network import Network
from lmu.experiments.models.words import Words, without_common_padding
from lmu.layers import Bidirectional, Layer

BEGIN, END = 2, 3  # of a sentence, in the words of both languages


class SentenceTranslator(Network):
    """A network that translates sentences, which are words `(pairs, 2, time)`."""

    @abstractmethod
    def translate(self, sentences: Tensor, search: BeamSearch | None = None) -> Tensor:
        """Translate sentences.

        Args:
            sentences (batch, time): words, padded with 0 on the right.
            search: how the best translation is looked for. None: greedily.

        Returns:
            The translations `(batch, longest)`, each with its end, and 0 after it.
        """


class Translator(SentenceTranslator):
    """Read a sentence, and write it in another language.

        v = encoder(source)                q_t = decoder(y_0 … y_{t-1})
        logits_t = W block(o_t) + b        o_t = attention(q_t, v)

    The decoder hears of the source through attention alone, and not of o_{t-1}. Given the words
    before, all its steps are computed at once; it writes word by word from its state.

    Args:
        source_words: the vectors of the words that are read; 0 is padding.
        target_words: those of the words that are written; 0 is padding, 2 the beginning and 3 the
            end of a sentence.
        encoder: reads; it may look at later words.
        decoder: writes; it may not.
        block: combines what was found with what was written, each step by itself. None: nothing
            stands there.
        dropout: the share of all vectors of words, and of o, that is dropped in training.

    Inputs are words `(pairs, 2, time)`: the source, and the target one step later, from word 2 on.
    Outputs are the logits of the target `(pairs, time, words)`, as far as the longest target goes:
    what is padding in all pairs is cut off.

    Raises:
        ValueError: vectors of other sizes than the layers read.

    Example:
        >>> import torch
        >>> from lmu.layers import LSTM, Bidirectional
        >>> encoder = Bidirectional(LSTM(8, 8), LSTM(8, 8))
        >>> translator = Translator(Words(90, 8), Words(80, 8), encoder, LSTM(8, 8))
        >>> pairs = torch.randint(4, 80, (5, 2, 7))
        >>> translator(pairs).shape
        torch.Size([5, 7, 80])
        >>> translator.translate(pairs[:, 0], BeamSearch(beams=3, longest=9)).shape
        torch.Size([5, 9])

    References:
        Chilkuri and Eliasmith 2021, section 4.6. Luong, Pham and Manning 2015, section 3.1.
    """

    def __init__(
        self,
        source_words: Words,
        target_words: Words,
        encoder: Layer | Bidirectional,
        decoder: Layer,
        dropout: float = 0.0,
        block: Layer | None = None,
    ) -> None:
        super().__init__()
        for words, layer, name in (
            (source_words, encoder, "encoder"),
            (target_words, decoder, "decoder"),
        ):
            if words.width != layer.input_size or not words.padded:
                raise ValueError(
                    f"The words of the {name} have vectors of {words.width} numbers and it reads "
                    f"{layer.input_size}: expected the same, and words that are padded."
                )
        self.source_words, self.target_words = source_words, target_words
        self.encoder, self.decoder = encoder, decoder
        self.attention = DotProductAttention(decoder.output_size, encoder.output_size)
        self.block = block
        if block is not None and block.state_size:
            raise ValueError(
                f"`block` has a state of {block.state_size} numbers: expected a layer that does "
                "the same to each step by itself, such as `linrec.nn.FeedForward`."
            )
        self.dropout = nn.Dropout(dropout)
        self.scores = nn.Linear(decoder.output_size, target_words.count)

    def features(self, inputs: Tensor) -> Tensor:
        """Return the words: nothing of it is frozen."""
        return inputs

    def head(self, features: Tensor) -> Tensor:
        """Compute the logits `(*batch, time, words)` of words `(*batch, 2, time)`."""
        read, said = (without_common_padding(words) for words in features.unbind(-2))
        # The decoder looks at no later word, so that padding behind the sentence does no harm.
        queries = self.decoder(self.dropout(self.target_words(said))).outputs
        return self.logits(queries, self.read(read))

    def read(self, sentences: Tensor) -> AttentionMemory:
        """Read sentences `(*batch, time)`."""
        lengths = self.source_words.lengths(sentences)
        assert lengths is not None  # the words are padded
        vectors = self.dropout(self.source_words(sentences))
        return self.attention.source(self.encoder(vectors, lengths=lengths).outputs, lengths)

    def logits(self, queries: Tensor, source: AttentionMemory) -> Tensor:
        """Compute the logits `(*batch, time, words)` from the decoder's outputs."""
        found = self.attention(queries, source)
        if self.block is not None:
            found = self.block(found).outputs
        return self.scores(self.dropout(found))

    def step(self, source: AttentionMemory, word: Tensor, state: Tensor | None = None) -> Result:
        """Hear one word of the target `(*batch)`, and give the logits of the next.

        Args:
            source: what was read.
            word (*batch): the word before.
            state (*batch, state_size): what the step before returned. None: zeros.

        Returns:
            The logits `(*batch, words)` and the decoder's state.
        """
        queries, state = self.decoder.step(self.dropout(self.target_words(word)), state)
        return Result(self.logits(queries.unsqueeze(-2), source).squeeze(-2), state)

    def stream(self, inputs: Tensor) -> Tensor:
        """Compute the logits, hearing the target one word at a time."""
        read, said = (without_common_padding(words) for words in inputs.unbind(-2))
        source, state = self.read(read), None
        outputs = []
        for word in said.unbind(-1):
            logits, state = self.step(source, word, state)
            outputs.append(logits)
        return torch.stack(outputs, -2)

    @torch.no_grad()
    def translate(self, sentences: Tensor, search: BeamSearch | None = None) -> Tensor:
        """Translate, one word of the translation after the other."""
        search = search or BeamSearch()
        training = self.training
        self.eval()
        source = self.read(sentences).unsqueeze()
        shape = (len(sentences), search.beams, self.decoder.state_size)
        state = source.values.new_zeros(shape)
        words = search(partial(self.step, source), state, begin=BEGIN, end=END)
        self.train(training)
        return words
