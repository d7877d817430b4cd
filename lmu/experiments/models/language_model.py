"""A network that predicts, after each word, the next one."""

import torch
from torch import Tensor, nn

from linrec import Result
from lmu.experiments.models.network import StreamingNetwork
from lmu.experiments.models.words import Words
from lmu.layers import Layer


class LanguageModel(StreamingNetwork):
    """Vectors of words (or letters), a causal layer, and a score for each possible next word.

        logits_t = E z_t + b        z_t = W layer(e_0 … e_t),   e_t the vector of word t

    It trains on all steps in parallel if the layer does, and writes word by word from its state.

    Args:
        words: the vectors of the words.
        layer: reads the vectors.
        tied: True: E holds the vectors of the words themselves. False: E is a matrix of its own. W
            exists only if E is tied and the layer's outputs have another size.
        dropout: the share of e and of z that is dropped in training.
        said: how many of the words, the first ones, have a score. With a long vocabulary, scores
            for all words would be most of the work. None: all.

    Inputs are words `(texts, time)`, outputs `(texts, time, words)` for the words with a score.

    Raises:
        ValueError: vectors of another size than the layer reads.

    Example:
        >>> import torch, lmu
        >>> network = LanguageModel(Words(27, 8, padded=False), lmu.layers.window_blocks(8, 2))
        >>> network(torch.randint(27, (2, 50))).shape
        torch.Size([2, 50, 27])
        >>> network.generate(torch.randint(27, (2, 10)), steps=5).shape
        torch.Size([2, 5])

    References:
        Chilkuri and Eliasmith 2021, section 4.4. Press and Wolf 2017, Using the Output Embedding
        to Improve Language Models.
    """

    time_axis = -1

    def __init__(
        self,
        words: Words,
        layer: Layer,
        *,
        tied: bool = True,
        dropout: float = 0.0,
        said: int | None = None,
    ) -> None:
        super().__init__()
        if words.width != layer.input_size:
            raise ValueError(
                f"`words` have vectors of {words.width} numbers and `layer` reads "
                f"{layer.input_size}: expected the same."
            )
        self.words, self.layer = words, layer
        self.dropout = nn.Dropout(dropout)
        needs_bridge = tied and layer.output_size != words.width
        self.bridge = nn.Linear(layer.output_size, words.width, False) if needs_bridge else None
        self.said = words.count if said is None else min(said, words.count)
        self.scores = None if tied else nn.Linear(layer.output_size, self.said)
        self.bias = nn.Parameter(torch.zeros(self.said)) if tied else None

    def features(self, inputs: Tensor) -> Tensor:
        """Return the words: nothing in the network is frozen."""
        return inputs

    def head(self, features: Tensor) -> Tensor:
        """Compute the logits `(*batch, time, words)` of `words (*batch, time)`."""
        # The layer is causal, so that no word's logits depend on padding. The state is not used, so
        # the layer need not know the lengths, and puts no zeros into the padding.
        return self.logits(self.layer(self.dropout(self.words(features))).outputs)

    def run(self, words: Tensor, initial_state: Tensor | None = None) -> Result:
        """Read words from a given state on, for example to train on long texts in pieces.

        Args:
            words (*batch, time): the words.
            initial_state (*batch, state_size): the state that `run` or `step` returned before.
                None: zeros.

        Returns:
            The logits `(*batch, time, words)`, meaningless past the end of a padded text, and the
            state at each text's own end.
        """
        outputs, state = self.read(words, initial_state)
        return Result(self.logits(outputs), state)

    def read(self, words: Tensor, initial_state: Tensor | None = None) -> Result:
        """Compute the layer's outputs `(*batch, time, size)`, and the state as `run` does.

        The state is the layer's, followed by the last words that later vectors depend on.
        """
        state, before, kept = initial_state, None, self.words.remembered
        if kept and initial_state is not None:
            state, before = initial_state.split([self.layer.state_size, kept], -1)
        vectors = self.dropout(self.words.in_context(words, before))
        outputs, state = self.layer(vectors, state, self.words.lengths(words))
        if kept:  # (of texts without padding)
            start = state.new_zeros(*state.shape[:-1], kept) if before is None else before
            last = torch.cat([start, words.to(state.dtype)], -1)[..., -kept:]
            state = torch.cat([state, last], -1)
        return Result(outputs, state)

    def resume(self, words: Tensor, initial_state: Tensor | None = None) -> Result:
        """Compute the logits of `words (*batch, time)` as `run` does."""
        return self.run(words, initial_state)

    def logits(self, outputs: Tensor) -> Tensor:
        """Compute the logits `(*batch, words)` from the layer's outputs."""
        outputs = self.dropout(outputs)
        if self.scores is not None:
            return self.scores(outputs)
        if self.bridge is not None:
            outputs = self.bridge(outputs)
        return nn.functional.linear(outputs, self.words.embedding.weight[: self.said], self.bias)

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Read one word of each text `(*batch)`; the outputs are the logits of the next."""
        if self.words.remembered:
            outputs, state = self.run(input.unsqueeze(-1), state)
            return Result(outputs.squeeze(-2), state)
        outputs, state = self.layer.step(self.dropout(self.words(input)), state)
        return Result(self.logits(outputs), state)

    def stream(self, inputs: Tensor) -> Tensor:
        """Compute the logits after every word, reading one at a time."""
        return torch.stack(list(self.steps(inputs)), dim=-2)

    @torch.no_grad()
    def generate(
        self,
        prompt: Tensor,
        steps: int,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Continue texts, word by word: each word costs one step, however long the text is.

        Args:
            prompt (*batch, time): the words to begin with, at least one, without padding; they
                are read in parallel.
            steps: how many words to write.
            temperature: the divisor of the logits before a word is drawn; 0 takes the likeliest.
            generator: draws the words; None is torch's global one.

        Returns:
            The new words `(*batch, steps)`.

        Raises:
            ValueError: an empty prompt, or a temperature below 0.
        """
        if not prompt.shape[-1]:
            raise ValueError("`prompt` has no words: expected at least one on the last axis.")
        if temperature < 0:
            raise ValueError(f"`temperature` is {temperature}: expected 0 or more.")
        training = self.training
        self.eval()
        outputs, state = self.read(prompt)
        logits = self.logits(outputs[..., -1, :])
        written = []
        for _ in range(steps):
            word = draw_word(logits, temperature, generator)
            written.append(word)
            logits, state = self.step(word, state)
        self.train(training)
        return torch.stack(written, -1) if written else prompt[..., :0]


def draw_word(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    """Draw a word `(*batch)` from `logits (*batch, words)`."""
    if not temperature:
        return logits.argmax(-1)
    chances = (logits / temperature).softmax(-1)
    flat = chances.reshape(-1, chances.shape[-1])
    return torch.multinomial(flat, 1, generator=generator).view(logits.shape[:-1])
