"""Plain baselines that a network has to beat: bags of words and places, polynomials, pixels."""

import itertools
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from lmu.experiments.models.network import Network
from lmu.experiments.models.words import PADDING

SERIES_AT_ONCE = 4  # series whose polynomial terms are in memory at a time


class BagOfWords(Network):
    """Naive Bayes on the words of a text, or of two, and logistic regression from there.

        score_c = b_c + Σ_w s_{c,w}        s_{c,w} = log P(w | c), at first

    over the different words w of a text. Two texts have three bags, each with scores of its own:
    the words of both, the words of the first alone, and the words of the second alone. A single
    score, for and against, is the difference of two.

    Args:
        words: how many words there are; the first is the padding.
        classes: how many classes; 1: one score.
        pairs: whether two texts are read.

    Example:
        >>> import torch
        >>> texts = torch.tensor([[4, 5, 5], [6, 5, 0]])
        >>> model = BagOfWords(7, 1).count(texts, torch.tensor([1, 0]))
        >>> model(torch.tensor([[4, 4, 0], [6, 0, 0], [5, 0, 0]])) > 0
        tensor([ True, False, False])

    References:
        Wang and Manning 2012, Baselines and Bigrams: Simple, Good Sentiment and Topic
        Classification (naive Bayes as the beginning of a linear classifier).
    """

    def __init__(self, words: int, classes: int, pairs: bool = False) -> None:
        super().__init__()
        self.words, self.classes, self.bags = words, classes, 3 if pairs else 1
        self.scores = nn.Embedding(self.bags * words, classes, padding_idx=PADDING)
        self.bias = nn.Parameter(torch.zeros(classes))

    def count(self, texts: Tensor, labels: Tensor) -> Self:
        """Set the scores by naive Bayes.

        Args:
            texts (examples, time), or (examples, 2, time): words.
            labels (examples): their classes.
        """
        classes, words, bags = self.classes, self.words, self.bags
        kinds = max(classes, 2)
        found = self.features(texts).flatten(1)
        counts = torch.ones(kinds, bags * words)  # as if each had already been seen once
        for kind in range(kinds):
            own = found[labels == kind]
            counts[kind] += torch.bincount(own[own != PADDING], minlength=bags * words)
        chances = (counts.unflatten(1, (bags, words)) / counts.sum(1)[:, None, None]).flatten(1)
        scores, shares = chances.log(), torch.bincount(labels, minlength=kinds).log()
        if classes == 1:
            scores, shares = scores[1:] - scores[:1], shares[1:] - shares[:1]
        scores = scores - scores.mean(0) if classes > 1 else scores
        scores[:, PADDING] = 0.0
        with torch.no_grad():
            self.scores.weight.copy_(scores.T)
            self.bias.copy_(shares)
        return self

    def features(self, inputs: Tensor) -> Tensor:
        """List the different words of each text, or of the three bags of two, in any order."""
        if inputs.ndim == 2:
            return different(inputs.long())
        one, other = (different(text) for text in inputs.long().unbind(1))
        shared = (one.unsqueeze(-1) == other.unsqueeze(-2)) & (one != PADDING).unsqueeze(-1)
        both = torch.where(shared.any(-1), one, PADDING)
        alone = (torch.where(shared.any(-1), PADDING, one), self.words)
        others = (torch.where(shared.any(-2), PADDING, other), 2 * self.words)
        moved = [
            torch.where(bag != PADDING, bag + offset, PADDING) for bag, offset in (alone, others)
        ]
        return torch.cat([both, *moved], -1)

    def head(self, features: Tensor) -> Tensor:
        """Add up the scores of the words."""
        scores = self.scores(features).sum(-2) + self.bias
        return scores.squeeze(-1) if self.classes == 1 else scores

    def stream(self, inputs: Tensor) -> Tensor:
        """Compute the scores of whole texts: in a bag of words the reading order is irrelevant."""
        return self(inputs)


def different(words: Tensor) -> Tensor:
    """Sort the words of each of `words (texts, time)`; repetitions become padding."""
    ordered = words.sort(-1).values
    again = ordered[:, 1:] == ordered[:, :-1]
    return torch.cat([ordered[:, :1], torch.where(again, PADDING, ordered[:, 1:])], -1)


class DelayPolynomial(Network):
    """A polynomial of the last samples, fitted by least squares.

        y_t = Σ_{|α| ≤ p} w_α Π_i x_{t-d_i}^{α_i}

    Samples before the first are zeros. With several inputs, products mix all of them.

    Args:
        delays: d, in samples.
        degree: p, the largest degree of a product.
        inputs: how many numbers a sample has.

    Example:
        >>> import torch
        >>> x = torch.randn(2, 50, 1)
        >>> model = DelayPolynomial([0, 1], 2).fit(x, x.square())
        >>> bool((model(x) - x.square()).abs().max() < 1e-5)
        True

    References:
        Gauthier, Bollt, Griffith and Barbosa 2021, Next generation reservoir computing.
    """

    def __init__(self, delays: Sequence[int], degree: int, inputs: int = 1) -> None:
        super().__init__()
        self.delays, self.degree = tuple(delays), degree
        places = range(inputs * len(self.delays))
        self.products = [
            list(itertools.combinations_with_replacement(places, power))
            for power in range(1, degree + 1)
        ]
        self.size = 1 + sum(map(len, self.products))
        self.fitted = self.size
        self.weights = nn.Parameter(torch.zeros(self.size, 1, dtype=torch.float64))

    def fit(self, series: Tensor, targets: Tensor) -> Self:
        """Fit the polynomial by least squares; without series it stays unchanged.

        Args:
            series (series, time, inputs): the inputs.
            targets (series, time, 1): the desired outputs.
        """
        if not len(series):
            return self
        gram = torch.zeros(self.size, self.size, dtype=torch.float64)
        right = torch.zeros(self.size, 1, dtype=torch.float64)
        parts = (each.double().split(SERIES_AT_ONCE) for each in (series, targets))
        for x, y in zip(*parts, strict=True):
            terms = self.terms(x).flatten(0, 1)
            gram += terms.T @ terms
            right += terms.T @ y.reshape(-1, 1)
        # A ridge of a billionth, because products of neighbouring samples are nearly collinear.
        gram += 1e-9 * gram.diagonal().mean() * torch.eye(self.size, dtype=torch.float64)
        with torch.no_grad():
            self.weights.copy_(torch.linalg.solve(gram, right))
        return self

    def terms(self, series: Tensor) -> Tensor:
        """Write out the products at each sample, `(series, time, size)`."""
        time = series.shape[-2]
        late = [nn.functional.pad(series, (0, 0, d, 0))[..., :time, :] for d in self.delays]
        samples, found = torch.cat(late, -1), [torch.ones_like(series[..., :1])]
        for products in self.products:
            factors = torch.tensor(products)
            found.append(samples[..., factors].prod(-1))
        return torch.cat(found, -1)

    def features(self, inputs: Tensor) -> Tensor:
        """Return the series."""
        return inputs

    def head(self, features: Tensor) -> Tensor:
        """Compute the polynomial at each sample of `features (series, time, inputs)`."""
        parts = features.double().split(SERIES_AT_ONCE)
        return torch.cat([self.terms(x) @ self.weights for x in parts]).to(features.dtype)

    def stream(self, inputs: Tensor) -> Tensor:
        """Compute the outputs of `forward` from only the samples that the longest delay reaches."""
        reach = max(self.delays) + 1
        padded = nn.functional.pad(inputs, (0, 0, reach - 1, 0))
        windows = padded.unfold(-2, reach, 1).transpose(-1, -2).flatten(0, 1)
        return self(windows)[:, -1].unflatten(0, inputs.shape[:-1])


class Pixels(Network):
    """A perceptron on all samples of a sequence at once, whatever their order.

    Args:
        samples: how many there are.
        hidden_sizes: rectified units of each layer; none: logistic regression.
        classes: how many classes.
        dropout: the share of units that is dropped in training.

    Example:
        >>> import torch
        >>> Pixels(50, [8], 10)(torch.randn(3, 50, 1)).shape
        torch.Size([3, 10])
    """

    def __init__(
        self, samples: int, hidden_sizes: Sequence[int], classes: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        sizes = [samples, *hidden_sizes]
        layers: list[nn.Module] = []
        for size, following in itertools.pairwise(sizes):
            layers += [nn.Linear(size, following), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], classes))

    def features(self, inputs: Tensor) -> Tensor:
        """Put the samples side by side."""
        return inputs.flatten(-2)

    def head(self, features: Tensor) -> Tensor:
        """Compute the classes' scores (logits)."""
        return self.layers(features)

    def stream(self, inputs: Tensor) -> Tensor:
        """Compute the scores after the last sample: all samples are needed at once."""
        return self(inputs)


class BagOfPlaces(Network):
    """A guess of the order of scattered tokens, from the place of each alone.

        score_{i,c} = log Σ_{t: token c} P(i | t)
        P(i | t) = C(t, i) C(T - 1 - t, k - 1 - i) / C(T - 1, k - 1)

    With k tokens scattered evenly over T steps, P(i | t) is the chance that the token at step t is
    the i-th: the best guess from one token without the others. The only number that could be
    trained is a factor of the scores, 1.

    Args:
        tokens: how many tokens there are, including those that are not copied.
        copied: k, how many tokens are copied.
        others: how many tokens, the first ones, are not copied.

    Inputs are tokens `(sequences, T + k)`, outputs scores `(sequences, T + k, tokens)`; the scores
    of the last k steps are for the copies.

    Example:
        >>> import torch
        >>> model = BagOfPlaces(4, 2, others=2)
        >>> model(torch.tensor([[2, 0, 0, 0, 0, 3, 1, 1]]))[0, -2:].argmax(-1)
        tensor([2, 3])
    """

    def __init__(self, tokens: int, copied: int, others: int) -> None:
        super().__init__()
        self.tokens, self.copied, self.others = tokens, copied, others
        self.scale = nn.Parameter(torch.ones(()))

    def chances(self, length: int) -> Tensor:
        """Compute P(i | t) `(k, T)`."""
        t, i = torch.arange(length), torch.arange(self.copied).unsqueeze(-1)
        all_of_them = log_choose(length - 1, torch.tensor(self.copied - 1))
        logs = log_choose(t, i) + log_choose(length - 1 - t, self.copied - 1 - i)
        return (logs - all_of_them).exp().float()

    def features(self, inputs: Tensor) -> Tensor:
        """Return the tokens."""
        return inputs

    def head(self, features: Tensor) -> Tensor:
        """Compute the scores of `features (sequences, T + k)`."""
        length = features.shape[-1] - self.copied
        seen = nn.functional.one_hot(features[..., :length].long(), self.tokens).float()
        seen[..., : self.others] = 0.0
        scores = (self.chances(length).to(seen.device) @ seen).clamp(min=1e-30).log() * self.scale
        before = scores.new_zeros(*scores.shape[:-2], length, self.tokens)
        return torch.cat([before, scores], -2)

    def stream(self, inputs: Tensor) -> Tensor:
        """Compute the scores after the last token: all tokens are needed at once."""
        return self(inputs)


def log_choose(total: Tensor | int, chosen: Tensor) -> Tensor:
    """Compute log C(total, chosen), -∞ where more are chosen than there are."""
    total = torch.as_tensor(total)
    logs = [torch.lgamma(count.double() + 1) for count in (total, chosen, total - chosen)]
    return torch.where((chosen >= 0) & (chosen <= total), logs[0] - logs[1] - logs[2], -torch.inf)
