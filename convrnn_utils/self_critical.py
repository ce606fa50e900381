"""Training on the score itself: of captions drawn at random, those with higher CIDEr are favoured.

Source: Rennie et al., Self-critical Sequence Training, arXiv:1612.00563, with the baseline of
Luo, A Better Variant of Self-Critical Sequence Training, arXiv:2003.09971.
"""

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from convrnn_utils.data import CaptionDataset
from convrnn_utils.decoding import evaluating, sample, word_log_probabilities
from convrnn_utils.text import END, PAD, START

# A caption as CIDEr sees it: the weight of each of its n-grams, the length of the vector of these
# weights for n = 1 … 4, and the number of words.
_Vector = tuple[dict[tuple, float], list[float], int]


class CiderReward:
    """CIDEr-D (× 10, as in the paper) of captions given as ids, with a data set's word statistics.

    It is what ``metrics.cider`` computes, but for a few captions at a time, and with all words
    outside the vocabulary taken for one word, which no drawn caption can contain.

    Args:
        captions: the captions of each picture of the data set, as ids; the special words do not
            count.

    Source: Vedantam et al., arXiv:1411.5726, equations 1 to 3 and section 7 (CIDEr-D).
    """

    def __init__(self, captions: Sequence[Sequence[Sequence[int]]]):
        self.pictures = len(captions)
        self.frequency = Counter()  # n-gram: the number of pictures whose captions have it
        for group in captions:
            self.frequency.update({gram for words in group for gram in _ngrams(words)})

    def vector(self, words: Sequence[int]) -> _Vector:
        """A caption as CIDEr sees it."""
        counts = _ngrams(words)
        rarest = math.log(self.pictures)
        weights = {
            gram: count * (rarest - math.log(max(1, self.frequency[gram])))
            for gram, count in counts.items()
        }
        squares = [0.0] * 4
        for gram, weight in weights.items():
            squares[len(gram) - 1] += weight**2
        length = sum(count for gram, count in counts.items() if len(gram) == 1)
        return weights, [math.sqrt(square) for square in squares], length

    def score(self, candidate: _Vector, references: Sequence[_Vector]) -> float:
        """The mean similarity of a caption to the references of its picture, from 0 to 10."""
        return 10 * sum(_similarity(candidate, other) for other in references) / len(references)


def _ngrams(words: Sequence[int]) -> Counter:
    """The runs of one to four words of a caption, counted."""
    words = [word for word in words if word not in (PAD, START, END)]
    runs = (words[i : i + n] for n in range(1, 5) for i in range(len(words) - n + 1))
    return Counter(map(tuple, runs))


def _similarity(candidate: _Vector, reference: _Vector) -> float:
    """The mean over n of the cosines between two captions' weights, times a length penalty.

    In the products, no weight of the candidate counts for more than the reference's. The penalty,
    which CIDEr-D adds, is a Gaussian of the difference in length with a deviation of 6 words.
    """
    weights, norms, length = candidate
    other_weights, other_norms, other_length = reference
    products = [0.0] * 4
    for gram, weight in weights.items():
        if other := other_weights.get(gram):
            products[len(gram) - 1] += min(weight, other) * other
    cosines = [
        product / (norm * other_norm) if norm and other_norm else 0.0
        for product, norm, other_norm in zip(products, norms, other_norms, strict=True)
    ]
    return math.exp(-((length - other_length) ** 2) / (2 * 6**2)) * sum(cosines) / 4


class SelfCriticalLoss:
    """A loss for ``training.train``: captions that score above the others become more probable.

    For each picture some captions are drawn from the model. The advantage of a caption is its score
    minus the mean score of the picture's others, a number without a gradient. The loss is minus the
    mean, over all words, of the caption's advantage times the word's log-probability. Up to a
    factor, which varies a little with the number of words drawn, its gradient is an estimate of
    minus the gradient of the expected score (REINFORCE; equation 5 of Rennie et al.).

    Args:
        dataset: the captions to train on, whose word statistics the score uses.
        captions_each: captions drawn per picture, at least two.
        max_words: captions drawn end here at the latest.

    Raises:
        ValueError: ``captions_each`` is below two.
    """

    def __init__(self, dataset: CaptionDataset, captions_each: int = 5, max_words: int = 18):
        if captions_each < 2:
            raise ValueError("a caption is compared with others of its picture; draw at least two.")
        self.reward = CiderReward(dataset.captions_by_picture())
        self.captions_each, self.max_words = captions_each, max_words

    def __call__(self, model: nn.Module, inputs: Tensor, captions: Tensor) -> Tensor:
        """The loss for inputs (B, ...) and their references, captions (n · B, T)."""
        networks = [module for module in model.modules() if isinstance(module, nn.RNNBase)]
        dropouts = [network.dropout for network in networks]  # between their layers
        with evaluating(model):  # captions are drawn from the whole model, without dropout
            drawn = self._draw(model, inputs)
            advantages = self._advantages(drawn, captions.unflatten(0, (len(inputs), -1)))
            try:
                for network in networks:
                    network.train().dropout = 0.0  # cuDNN gives no gradients in evaluation mode
                logarithms = word_log_probabilities(model, inputs, drawn)
            finally:  # after an interrupt, too
                for network, dropout in zip(networks, dropouts, strict=True):
                    network.dropout = dropout
        weighted = advantages.to(logarithms.device).unsqueeze(1) * logarithms
        return -weighted.sum() / (drawn != PAD).sum()

    def _draw(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Captions (B · captions_each, T), drawn at random."""
        model = getattr(model, "module", model)  # without the wrapper for several processes
        drawn = sample(model, inputs, self.max_words, captions_each=self.captions_each)
        torch.clear_autocast_cache()  # weights rounded while drawing have no gradients
        return drawn.clone()  # an ordinary tensor, not of inference mode

    def _rewards(self, drawn: Tensor, references: Tensor) -> Tensor:
        """The scores (B, captions_each) of captions drawn, given the references (B, n, T)."""
        rewards = []
        groups = drawn.unflatten(0, (len(references), -1)).tolist()
        for candidates, truths in zip(groups, references.tolist(), strict=True):
            others = [self.reward.vector(truth) for truth in truths]
            rewards.append(
                [self.reward.score(self.reward.vector(words), others) for words in candidates]
            )
        return torch.tensor(rewards)

    def _advantages(self, drawn: Tensor, references: Tensor) -> Tensor:
        """Each drawn caption's score minus the mean score of the picture's others, as one row."""
        rewards = self._rewards(drawn, references)
        others = (rewards.sum(dim=1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
        return (rewards - others).flatten()
