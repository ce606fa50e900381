"""Show, Attend and Tell as it is commonly written: the reference side of the speed_*.py commands.

It has the weights of ``convrnn_utils.attention.ShowAttendTell`` and computes the same numbers, but
does some things more often than necessary: the keys are projected again before every word, the
output layer runs once per word, and a search takes one picture at a time.
"""

import torch
from torch import Tensor

from convrnn_utils.attention import ShowAttendTell
from convrnn_utils.decoding import forbid
from convrnn_utils.text import END, PAD, START


class PlainAttention(ShowAttendTell):
    """The decoder with the projection inside the loop, over a batch that shrinks."""

    shared = 0

    def start(self, images: Tensor) -> tuple[Tensor, ...]:
        """The places (B, L, D) and values (B, L, H), and the first state, (B, H) twice."""
        grid = self.norm(self.cnn(images) if images.dtype == torch.uint8 else images.float())
        values = self.value(grid)
        return grid, values, *self.first_state(values.mean(dim=1)).tanh().chunk(2, dim=1)

    def step(self, words: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple, Tensor]:
        """See ``ShowAttendTell.step``; keys are computed here."""
        grid, values, hidden, cell = state
        keys = self.key(grid)
        logits, (*_, hidden, cell), weights = super().step(words, (keys, values, hidden, cell))
        return logits, (grid, values, hidden, cell), weights

    def forward(self, images: Tensor, captions: Tensor) -> Tensor:
        """Scores (B, T, vocab_size): the longest caption first, each as far as it has words."""
        is_read = (captions != PAD) & (captions != END)
        lengths, order = is_read.sum(dim=1).sort(descending=True)
        lengths = lengths.tolist()
        state = tuple(part[order] for part in self.start(images))
        captions = captions[order]
        logits = torch.zeros(*captions.shape, len(self.bias), device=captions.device)
        for t in range(lengths[0]):
            going_on = sum(length > t for length in lengths)
            state = tuple(part[:going_on] for part in state)
            logits[:going_on, t], state, _ = self.step(captions[:going_on, t], state)
        return logits[order.argsort()]


def plain_copy(model: ShowAttendTell) -> PlainAttention:
    """A model with the same weights that computes in the common way."""
    plain = PlainAttention(**model.arguments, cnn=model.cnn)
    plain.load_state_dict(model.state_dict())
    return plain.to(next(model.parameters()).device).train(model.training)


@torch.inference_mode()
def search_alone(model, picture: Tensor, max_words: int = 20, beam_width: int = 5) -> list[int]:
    """The beam search of ``decoding.beam_search`` for one picture (1, ...); gives ids.

    Beginnings are a Python list; those that have not ended take a step together.
    """
    state = model.start(picture)
    beams = [(0.0, [START], tuple(part[0] for part in state))]
    for _ in range(max_words):
        going_on = [beam for beam in beams if beam[1][-1] != END]
        if not going_on:
            break
        words = torch.tensor([ids[-1] for _, ids, _ in going_on], device=picture.device)
        states = tuple(torch.stack(parts) for parts in zip(*(b[2] for b in going_on), strict=True))
        logits, states, _ = model.step(words, states)
        steps = forbid(logits).log_softmax(dim=1)
        totals = torch.tensor([total for total, _, _ in going_on], device=picture.device)
        best, places = (totals.unsqueeze(1) + steps).flatten().topk(beam_width)
        grown = [beam for beam in beams if beam[1][-1] == END]
        for total, place in zip(best.tolist(), places.tolist(), strict=True):
            row, word = divmod(place, steps.shape[1])
            after = tuple(part[row] for part in states)
            grown.append((total, [*going_on[row][1], word], after))
        beams = sorted(grown, key=lambda beam: -beam[0])[:beam_width]
    return beams[0][1][1:]
