"""The networks that write captions: the document's ``RNNDecoder`` and ``ConvRNN``.

A decoder is anything with these three methods; training and searches need no more (drawings of
where it looks also need ``forward_with_attention``, which gives scores and the weights of places):

- ``forward(features, captions)`` is for training. ``captions`` hold T words each, ``<start>``
  first. The last T outputs belong to these words: the output for word t scores the word after it.
  Each picture may have several captions, all pictures the same number; the captions of a picture
  stand next to each other.
- ``start(features)`` gives the state before the first word.
- ``step(words, state)`` reads one word per caption and gives the scores of the next word, the new
  state, and where the decoder looked (``None`` if it does not look).

A state is a tuple of tensors with the batch first, so that a search can reorder it by index. A
decoder may have a number ``shared``: the first ``shared`` tensors of its state then belong to a
picture, not to a caption. ``step`` takes them once for the n captions of the picture, which stand
next to each other, and never repeats them.

To be saved, as `training.train` does with the best model so far, a decoder also needs two
attributes: ``cnn``, its encoder, and ``arguments``, those that its class was called with. Its class
needs a name in ``checkpoints.DECODERS``.
"""

import torch
from torch import Tensor, nn

from convrnn_utils.encoders import CNNEncoder, ImageEncoder

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def captions_each(features: Tensor, captions: Tensor) -> int:
    """How many captions there are per picture: n for features (B, ...) and captions (n · B, T).

    Raises:
        ValueError: the captions cannot be shared out evenly.
    """
    each, left_over = divmod(len(captions), len(features))
    if left_over or not each:
        raise ValueError(
            f"{len(captions)} captions cannot be shared out evenly among {len(features)} pictures."
        )
    return each


class RNNDecoder(nn.Module):
    """The recurrent decoder of the source document (section 5), after Vinyals et al.

    The image is the first input and the words follow, so that T words give T + 1 outputs: the
    first one comes before ``<start>`` is read and does not answer a word of the caption.

    Args:
        embed_size: width of the image feature and of a word embedding.
        hidden_size: width of the recurrent state.
        vocab_size: number of words, the special ones included.
        num_layers: number of recurrent layers, stacked on top of each other.
        cell: ``"lstm"``, ``"gru"`` or ``"rnn"``.
        dropout: share of the inputs (the image feature and embeddings), of what goes from layer to
            layer, and of the outputs, set to zero in training.

    Raises:
        ValueError: there is no such cell.

    Source: Show and Tell, arXiv:1411.4555, equations 10 to 12.
    """

    def __init__(
        self,
        embed_size: int,
        hidden_size: int,
        vocab_size: int,
        num_layers: int = 1,
        cell: str = "lstm",
        dropout: float = 0.0,
    ):
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"there is no cell {cell!r}; choose one of {', '.join(CELLS)}.")
        between = dropout if num_layers > 1 else 0.0
        self.embed = nn.Embedding(vocab_size, embed_size)
        self.rnn = CELLS[cell](
            embed_size, hidden_size, num_layers, batch_first=True, dropout=between
        )
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden_size, vocab_size)
        self.init_weights()

    def init_weights(self) -> None:
        """Embeddings and output weights uniform in ±0.1, the output bias zero."""
        self.embed.weight.data.uniform_(-0.1, 0.1)
        self.linear.weight.data.uniform_(-0.1, 0.1)
        self.linear.bias.data.fill_(0)

    def forward(self, features: Tensor, captions: Tensor) -> Tensor:
        """Scores for image features (B, embed_size) and words (B, T): (B, T + 1, vocab_size)."""
        embeddings = self.embed(captions)
        embeddings = torch.cat((features.unsqueeze(1), embeddings), dim=1)
        hiddens, _ = self.rnn(self.dropout(embeddings))
        return self.linear(self.dropout(hiddens))

    def start(self, features: Tensor) -> tuple[Tensor, ...]:
        """The state after reading image features (B, embed_size) and before the first word."""
        _, hidden = self.rnn(features.unsqueeze(1))
        return _batch_first(hidden)

    def step(self, words: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple, None]:
        """Read words (B,); give scores (B, vocab_size), the new state, and no attention."""
        output, hidden = self.rnn(self.embed(words).unsqueeze(1), _layers_first(state))
        return self.linear(output.squeeze(1)), _batch_first(hidden), None


def _batch_first(hidden) -> tuple[Tensor, ...]:
    """torch's hidden state, (layers, B, H) or a pair of these, as a tuple of (B, layers, H)."""
    tensors = hidden if isinstance(hidden, tuple) else (hidden,)
    return tuple(tensor.transpose(0, 1) for tensor in tensors)


def _layers_first(state: tuple[Tensor, ...]):
    """The inverse of ``_batch_first``."""
    tensors = tuple(tensor.transpose(0, 1).contiguous() for tensor in state)
    return tensors if len(tensors) > 1 else tensors[0]


class ConvRNN(nn.Module):
    """The source document's model: a CNN reads the image, a recurrent network writes the caption.

    ``images`` may be pictures, (B, 3, S, S) of bytes, or what the frozen CNN makes of them,
    computed once and kept (see ``data.cached_features``).

    Args:
        embed_size, hidden_size, vocab_size, num_layers, cell, dropout: see ``RNNDecoder``.
        cnn: the network inside ``CNNEncoder``; by default the document's ResNet-50.
    """

    def __init__(
        self,
        embed_size: int,
        hidden_size: int,
        vocab_size: int,
        num_layers: int = 1,
        cell: str = "lstm",
        dropout: float = 0.0,
        cnn: ImageEncoder | None = None,
    ):
        super().__init__()
        self.arguments = {
            "embed_size": embed_size,
            "hidden_size": hidden_size,
            "vocab_size": vocab_size,
            "num_layers": num_layers,
            "cell": cell,
            "dropout": dropout,
        }
        self.cnn_encoder = CNNEncoder(embed_size, cnn)
        self.rnn_decoder = RNNDecoder(**self.arguments)

    @property
    def cnn(self) -> ImageEncoder:
        """The network that reads the pictures."""
        return self.cnn_encoder.cnn

    def forward(self, images: Tensor, captions: Tensor) -> Tensor:
        """Scores (n · B, T + 1, vocab_size) for images (B, ...) and captions (n · B, T)."""
        features = self.cnn_encoder(images)
        features = features.repeat_interleave(captions_each(features, captions), dim=0)
        return self.rnn_decoder(features, captions)

    def start(self, images: Tensor) -> tuple[Tensor, ...]:
        """The decoder's state after reading the images."""
        return self.rnn_decoder.start(self.cnn_encoder(images))

    def step(self, words: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple, None]:
        """Read one more word: see ``RNNDecoder.step``."""
        return self.rnn_decoder.step(words, state)
