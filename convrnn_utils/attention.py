"""The captioner that looks: Show, Attend and Tell (arXiv:1502.03044) with soft attention."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from convrnn_utils.decoders import captions_each
from convrnn_utils.encoders import ImageEncoder, create_encoder
from convrnn_utils.text import PAD


class ShowAttendTell(nn.Module):
    """A CNN gives a grid of features; before each word an LSTM looks at some of its places.

    At each step every place gets a score from the state, a softmax turns the scores into weights,
    and the weighted mean of the places, the context, goes into the LSTM with the last word.

    It follows the paper, with these exceptions:

    - the features are normalised first;
    - the context is the weighted mean of values, which a linear layer computes from the features,
      and not of the features themselves;
    - one layer computes the first state from the mean of the values;
    - the gate is a vector, not a number;
    - the output layer reads word, state and context through one matrix and a tanh, and shares its
      weights with the embedding (arXiv:1608.05859).

    ``images`` may be pictures, (B, 3, S, S) of bytes, or grids of features (B, L, D) that the
    frozen CNN made of them (see ``data.cached_features``). Each picture may have n captions, n · B
    in all, with those of a picture next to each other; its places are then read only once.

    Args:
        embed_size: width of a word embedding.
        hidden_size: width of the state and of the values.
        vocab_size: number of words, the special ones included.
        attention_size: width of keys and queries; by default ``hidden_size``.
        dropout: share of the embeddings, and of the output layer's inputs and hidden values, that
            is set to zero in training.
        gated: multiply the context by the gate β (section 4.2.1 of the paper).
        cnn: the network that reads the picture; by default ResNet-50 with ImageNet weights.
    """

    shared = 2  # the first two parts of the state, keys and values, belong to a picture

    def __init__(
        self,
        embed_size: int,
        hidden_size: int,
        vocab_size: int,
        attention_size: int | None = None,
        dropout: float = 0.0,
        gated: bool = True,
        cnn: ImageEncoder | None = None,
    ):
        super().__init__()
        attention_size = attention_size or hidden_size
        self.arguments = {
            "embed_size": embed_size,
            "hidden_size": hidden_size,
            "vocab_size": vocab_size,
            "attention_size": attention_size,
            "dropout": dropout,
            "gated": gated,
        }
        self.cnn = cnn if cnn is not None else create_encoder("resnet50")
        self.norm = nn.LayerNorm(self.cnn.dim, elementwise_affine=False)
        self.key = nn.Linear(self.cnn.dim, attention_size)
        self.value = nn.Linear(self.cnn.dim, hidden_size)
        self.query = nn.Linear(hidden_size, attention_size)
        self.score = nn.Linear(attention_size, 1, bias=False)
        self.gate = nn.Linear(hidden_size, hidden_size) if gated else None
        self.first_state = nn.Linear(hidden_size, 2 * hidden_size)
        self.embed = nn.Embedding(vocab_size, embed_size)
        self.cell = nn.LSTMCell(embed_size + hidden_size, hidden_size)
        self.combine = nn.Linear(embed_size + 2 * hidden_size, embed_size)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.dropout = nn.Dropout(dropout)
        self.embed.weight.data.uniform_(-0.1, 0.1)

    def start(self, images: Tensor) -> tuple[Tensor, ...]:
        """Keys (B, L, A) and values (B, L, H) of all places, and the first state, (B, H) twice."""
        grid = self.cnn(images) if images.dtype == torch.uint8 else images.float()
        grid = self.norm(grid)
        values = self.value(grid)
        hidden, cell = self.first_state(values.mean(dim=1)).tanh().chunk(2, dim=1)
        return self.key(grid), values, hidden, cell

    def attend(self, keys: Tensor, values: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The context of each state, and the weights of the places, which sum to 1.

        Args:
            keys, values: (B, L, A) and (B, L, H).
            hidden: n states per picture, (n · B, H).

        Returns:
            context (n · B, H) and weights (n · B, L).

        Source: equations 4 to 6 and 13 of the paper; the score is Bahdanau's (arXiv:1409.0473).
        """
        queries = self.query(hidden).unflatten(0, (len(keys), -1))  # (B, n, A)
        sums = keys.unsqueeze(1) + queries.unsqueeze(2)  # (B, n, L, A)
        # in place, since the sums are by far the largest tensor of a step
        weights = self.score(sums.tanh_()).squeeze(3).softmax(dim=2)
        context = torch.bmm(weights, values).flatten(0, 1)
        if self.gate is not None:
            context = torch.sigmoid(self.gate(hidden)) * context
        return context, weights.flatten(0, 1)

    def forward(self, images: Tensor, captions: Tensor) -> Tensor:
        """Scores (n · B, T, vocab_size) for images (B, ...) and captions (n · B, T)."""
        return self.forward_with_attention(images, captions)[0]

    def forward_with_attention(self, images: Tensor, captions: Tensor) -> tuple[Tensor, Tensor]:
        """What ``forward`` gives, and the attention weights (n · B, T, L) used for each word."""
        keys, values, *state = self.start(images)
        each = captions_each(keys, captions)
        hidden, cell = (part.repeat_interleave(each, dim=0) for part in state)
        embeddings = self.dropout(self.embed(captions))
        states, attention = [], []
        for embedding in embeddings.unbind(dim=1):
            context, weights = self.attend(keys, values, hidden)
            hidden, cell = self.cell(torch.cat((embedding, context), dim=1), (hidden, cell))
            states.append(torch.cat((embedding, hidden, context), dim=1))
            attention.append(weights)
        return self._scores(torch.stack(states, dim=1)), torch.stack(attention, dim=1)

    def step(self, words: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple, Tensor]:
        """Read words (n · B,); give scores (n · B, vocab_size), the new state, weights (n · B, L).

        Keys and values are those of B pictures, with n captions each.
        """
        keys, values, hidden, cell = state
        context, weights = self.attend(keys, values, hidden)
        embedding = self.embed(words)
        hidden, cell = self.cell(torch.cat((embedding, context), dim=1), (hidden, cell))
        scores = self._scores(torch.cat((embedding, hidden, context), dim=1))
        return scores, (keys, values, hidden, cell), weights

    def _scores(self, states: Tensor) -> Tensor:
        """The output layer; as in equation 7 it sees the last word, the state and the context."""
        states = self.dropout(torch.tanh(self.combine(self.dropout(states))))
        return functional.linear(states, self.embed.weight, self.bias)


def doubly_stochastic_penalty(attention: Tensor, captions: Tensor) -> Tensor:
    """How far the places' total weights over a caption are from 1, as a mean over captions.

    The total of each place is the sum of its weights over the words. The squares of the differences
    from 1 are added up over the places.

    Args:
        attention: weights (B, T, L), each of T rows summing to 1.
        captions: the words chosen with these weights, (B, T); weights at padding count as 0.

    Source: the second term of equation 14 of Show, Attend and Tell, arXiv:1502.03044, without λ.
    """
    chosen = (captions != PAD).unsqueeze(2)
    return ((1 - (attention * chosen).sum(dim=1)) ** 2).sum(dim=1).mean()
