"""An encoder that reads a sentence, and a decoder that attends to it while writing another."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from linrec import Result
from lmu.experiments.models.attention import AttentionMemory, DotProductAttention
from lmu.experiments.models.beam_search import BeamSearch
from lmu.experiments.models.network import Network
from lmu.experiments.models.words import Words, without_common_padding
from lmu.layers import Bidirectional, Layer

BEGIN, END = 2, 3  # of a sentence, in the words of both languages
SLOWEST = 1_000.0  # the longest period of the places' sinusoids, in periods of the fastest

Sources = tuple[AttentionMemory, ...]  # the source as prepared for each attention
Look = tuple[Layer, nn.LayerNorm, DotProductAttention, AttentionMemory]


class SentenceTranslator(Network):
    """A network that translates sentences, which are words `(pairs, 2, time)`."""

    @abstractmethod
    def translate(self, sentences: Tensor, search: BeamSearch | None = None) -> Tensor:
        """Translate sentences.

        Args:
            sentences (batch, time): words, padded with 0 on the right.
            search: how the best translation is searched for. None: greedily.

        Returns:
            The translations `(batch, longest)`, each with its end, and 0 after it.
        """


class Translator(SentenceTranslator):
    """A translator that reads a sentence and writes it in another language.

        v = encoder(place(source))      x^0 = place(y)       place(e)_t = √width e_t + p_t
        h^k = layer_k(x^{k-1})          x^k_t = h^k_t + attention_k(norm(h^k_t), v)
        logits_t = W norm(block(x^n_t)) + b

    with y delayed by one step, and p_t sinusoids of the place t.

    The decoder has one or more layers, and attends to the source after each. So the layers above
    the first see what the attention below them found, and how far the sentence has got. If the
    target is given, all steps are computed at once; in translation, the network writes word by word
    from its state.

    Args:
        source_words: the vectors of the source's words; 0 is padding.
        target_words: the vectors of the target's words; 0 is padding, 2 the beginning and 3 the end
            of a sentence. W is their transpose.
        encoder: the layer that reads; it may look at later words.
        decoder: the layer or layers that write, the lowest first; they may not.
        block: a layer that combines the decoder's outputs with the results of attention, each step
            by itself. None: there is none.
        dropout: the share of the words' vectors, of the results of attention, and of the inputs of
            W that is dropped in training.
        heads: how many heads each attention has.

    Inputs are words `(pairs, 2, time)`: the source, and the target one step later, from word 2 on.
    Outputs are the logits of the target `(pairs, time, words)`, up to the end of the longest
    target: padding that all pairs have in common is cut off.

    Raises:
        ValueError: vectors of other sizes than the layers read, or no layers.

    Example:
        >>> import torch
        >>> from lmu.layers import LSTM, Bidirectional
        >>> encoder = Bidirectional(LSTM(8, 8), LSTM(8, 8))
        >>> decoder = [LSTM(8, 8), LSTM(8, 8)]
        >>> translator = Translator(Words(90, 8), Words(80, 8), encoder, decoder)
        >>> pairs = torch.randint(4, 80, (5, 2, 7))
        >>> translator(pairs).shape
        torch.Size([5, 7, 80])
        >>> translator.translate(pairs[:, 0], BeamSearch(beams=3, longest=9)).shape
        torch.Size([5, 9])

    References:
        Chilkuri and Eliasmith 2021, section 4.6. Vaswani et al. 2017, Attention Is All You Need,
        section 3.1, with a memory where its decoder attends to itself. Press and Wolf 2017, Using
        the Output Embedding to Improve Language Models (W).
    """

    def __init__(
        self,
        source_words: Words,
        target_words: Words,
        encoder: Layer | Bidirectional,
        decoder: Layer | Sequence[Layer],
        dropout: float = 0.0,
        block: Layer | None = None,
        heads: int = 1,
    ) -> None:
        super().__init__()
        layers = [decoder] if isinstance(decoder, Layer) else list(decoder)
        if not layers:
            raise ValueError("`decoder` has no layers: expected one at least.")
        for words, layer, name in (
            (source_words, encoder, "encoder"),
            *((target_words, layer, "decoder") for layer in layers),
        ):
            if words.width != layer.input_size or not words.padded:
                raise ValueError(
                    f"The words of the {name} have vectors of {words.width} numbers and it reads "
                    f"{layer.input_size}: expected the same, and words that are padded."
                )
        width = target_words.width
        for layer in layers:
            if layer.output_size != width:
                raise ValueError(
                    f"A layer of the decoder gives {layer.output_size} numbers: expected {width}, "
                    "as many as it takes."
                )
        if block is not None and block.state_size:
            raise ValueError(
                f"`block` has a state of {block.state_size} numbers: expected a layer that does "
                "the same to each step by itself, such as `linrec.nn.FeedForward`."
            )
        self.source_words, self.target_words = source_words, target_words
        self.encoder, self.layers = encoder, nn.ModuleList(layers)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in layers)
        self.attentions = nn.ModuleList(
            DotProductAttention(width, encoder.output_size, heads) for _ in layers
        )
        self.block = block
        self.norm = nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(target_words.count))
        self.dropout = nn.Dropout(dropout)
        # The state: the layers' states, and the number of words written.
        self.state_sizes = [*(layer.state_size for layer in layers), 1]

    def features(self, inputs: Tensor) -> Tensor:
        """Return the words: nothing in the network is frozen."""
        return inputs

    def head(self, features: Tensor) -> Tensor:
        """Compute the logits `(*batch, time, words)` of words `(*batch, 2, time)`."""
        read, said = (without_common_padding(words) for words in features.unbind(-2))
        sources = self.read(read)
        # The decoder is causal, so that padding after the sentence does no harm.
        vectors = self.place(self.target_words(said), count_places(said))
        for layer, norm, attention, source in self.looks(sources):
            vectors = layer(vectors).outputs
            vectors = vectors + self.dropout(attention(norm(vectors), source))
        return self.logits(vectors)

    def read(self, sentences: Tensor) -> Sources:
        """Read sentences `(*batch, time)`, for each attention."""
        lengths = self.source_words.lengths(sentences)
        assert lengths is not None  # the words are padded
        vectors = self.place(self.source_words(sentences), count_places(sentences))
        states = self.encoder(vectors, lengths=lengths).outputs
        attentions = cast(Iterable[DotProductAttention], self.attentions)
        return tuple(attention.source(states, lengths) for attention in attentions)

    def place(self, vectors: Tensor, steps: Tensor) -> Tensor:
        """Add sinusoids of the places `steps (*batch)` to the vectors of words."""
        width = vectors.shape[-1]
        # The vectors begin with length 1; scaled to the size of the sinusoids, neither hides the
        # other.
        return self.dropout(width**0.5 * vectors + sinusoids(steps.to(vectors), width))

    def looks(self, sources: Sources) -> Iterator[Look]:
        """Yield the decoder's layers, each with its norm, its attention and the source."""
        looks = zip(self.layers, self.norms, self.attentions, sources, strict=True)
        return cast(Iterator[Look], looks)

    def logits(self, vectors: Tensor) -> Tensor:
        """Compute the logits `(*batch, words)` from the topmost layer's `(*batch, time, size)`."""
        if self.block is not None:
            vectors = self.block(vectors).outputs
        vectors = self.dropout(self.norm(vectors))
        return nn.functional.linear(vectors, self.target_words.embedding.weight, self.bias)

    def step(self, sources: Sources, word: Tensor, state: Tensor | None = None) -> Result:
        """Read one word of the target `(*batch)`, and compute the logits of the next.

        Args:
            sources: the result of `read`.
            word (*batch): the previous word.
            state (*batch, state_size): the state that the previous step returned. None: zeros.

        Returns:
            The logits `(*batch, words)` and the state.
        """
        if state is None:
            state = self.norm.weight.new_zeros(*word.shape, sum(self.state_sizes))
        *states, written = state.split(self.state_sizes, -1)
        vectors = self.place(self.target_words(word), written.squeeze(-1))
        ends = []
        for before, (layer, norm, attention, source) in zip(
            states, self.looks(sources), strict=True
        ):
            vectors, end = layer.step(vectors, before)
            found = attention(norm(vectors).unsqueeze(-2), source).squeeze(-2)
            vectors = vectors + self.dropout(found)
            ends.append(end)
        logits = self.logits(vectors.unsqueeze(-2)).squeeze(-2)
        return Result(logits, torch.cat([*ends, written + 1], -1))

    def stream(self, inputs: Tensor) -> Tensor:
        """Compute the logits, reading the target one word at a time."""
        read, said = (without_common_padding(words) for words in inputs.unbind(-2))
        sources, state = self.read(read), None
        outputs = []
        for word in said.unbind(-1):
            logits, state = self.step(sources, word, state)
            outputs.append(logits)
        return torch.stack(outputs, -2)

    @torch.no_grad()
    def translate(self, sentences: Tensor, search: BeamSearch | None = None) -> Tensor:
        """Translate sentences word by word; arguments and result as of the base class."""
        search = search or BeamSearch()
        training = self.training
        self.eval()
        sources = tuple(source.unsqueeze() for source in self.read(sentences))
        shape = (len(sentences), search.beams, sum(self.state_sizes))
        state = self.norm.weight.new_zeros(shape)
        words = search(partial(self.step, sources), state, begin=BEGIN, end=END)
        self.train(training)
        return words


def count_places(words: Tensor) -> Tensor:
    """Number the places of `words (*batch, time)` from 0."""
    return torch.arange(words.shape[-1], device=words.device)


def sinusoids(steps: Tensor, width: int) -> Tensor:
    """Compute sines and cosines of the places `steps (*batch)`, with periods of 6 to 6,000 steps.

    Args:
        steps (*batch): the places, from 0.
        width: how many numbers; if odd, the last cosine is left out.

    Returns:
        The numbers `(*batch, width)`.

    References:
        Vaswani et al. 2017, Attention Is All You Need, section 3.5.
    """
    count = (width + 1) // 2
    rates = SLOWEST ** -(torch.arange(count, device=steps.device).to(steps) / count)
    angles = steps.unsqueeze(-1) * rates
    return torch.cat([angles.sin(), angles.cos()], -1)[..., :width]
