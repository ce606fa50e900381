"""From a trained model to captions, for any decoder with ``start`` and ``step``."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from convrnn_utils.text import END, PAD, START, UNKNOWN, Vocabulary


def forbid(logits: Tensor) -> Tensor:
    """Scores (..., V) in which ``<pad>``, ``<start>`` and ``<unknown>`` can never be the best."""
    logits[..., [PAD, START, UNKNOWN]] = -torch.inf
    return logits


def words_before(captions: Tensor) -> Tensor:
    """What a model reads to give captions (B, T) a probability: ``<start>``, and all but the last.

    Args:
        captions: ids without ``<start>``, as ``greedy`` gives them.
    """
    return torch.cat((torch.full_like(captions[:, :1], START), captions[:, :-1]), dim=1)


@torch.inference_mode()
def greedy(model, images: Tensor, max_words: int = 20) -> Tensor:
    """Write a caption for each image, always with the most probable next word.

    ``<pad>``, ``<start>`` and ``<unknown>`` are never written. All captions of a batch grow
    together; one that has ended is filled up with ``<pad>``.

    Args:
        model: anything with ``start`` and ``step``, in evaluation mode.
        images: what its ``start`` takes, (B, ...).
        max_words: captions end here at the latest.

    Returns:
        ids of words, (B, T) with T at most ``max_words``, without ``<start>``.
    """
    return _write(model, images, max_words, lambda logits: logits.argmax(dim=1))


@torch.inference_mode()
def sample(
    model,
    images: Tensor,
    max_words: int = 20,
    temperature: float = 1.0,
    top_p: float = 1.0,
    captions_each: int = 1,
) -> Tensor:
    """As ``greedy``, but the next word is drawn by lot from the model's probabilities.

    Args:
        model, images, max_words: see ``greedy``.
        temperature: scores are divided by it; near 0 the most probable word always wins.
        top_p: draw only among the most probable words that together have this probability
            (nucleus sampling, arXiv:1904.09751); the most probable one is always among them.
        captions_each: captions drawn a picture; they stand one after the other.
    """
    if temperature <= 0 or not 0 < top_p <= 1:
        raise ValueError("temperature must be above 0, and top_p above 0 and at most 1.")

    def draw(logits: Tensor) -> Tensor:
        probabilities, words = (logits / temperature).softmax(dim=1).sort(descending=True)
        before = probabilities.cumsum(dim=1) - probabilities
        chosen = torch.multinomial(probabilities.masked_fill(before >= top_p, 0), 1)
        return words.gather(1, chosen).squeeze(1)

    return _write(model, images, max_words, draw, captions_each)


def _write(
    model, images: Tensor, max_words: int, choose: Callable[[Tensor], Tensor], captions_each=1
) -> Tensor:
    """Captions (B, T), one word after the other; ``choose`` takes scores (B, V) to words (B,)."""
    state = tuple(part.repeat_interleave(captions_each, dim=0) for part in model.start(images))
    words = torch.full((len(images) * captions_each,), START, device=images.device)
    finished = torch.zeros_like(words, dtype=torch.bool)
    written = []
    for _ in range(max_words):
        logits, state, _ = model.step(words, state)
        words = choose(forbid(logits)).masked_fill(finished, PAD)
        written.append(words)
        finished |= words == END
        if finished.all():
            break
    return torch.stack(written, dim=1)


@torch.inference_mode()
def beam_search(
    model, images: Tensor, max_words: int = 20, beam_width: int = 5, length_power: float = 0.0
) -> Tensor:
    """Write a caption for each image, keeping the ``beam_width`` most probable beginnings.

    Args:
        model, images, max_words, beam_width: see ``beams_at_end``; a width of 1 is greedy search.
        length_power: of the beams at the end, the one whose log-probability, divided by its
            number of words to this power, is highest is taken. 0 takes the most probable one, 1
            the highest mean over the words (Wu et al., arXiv:1609.08144, have a similar one).

    Returns:
        ids of words, (B, T) with T at most ``max_words``, without ``<start>``.
    """
    beams, log_probabilities = beams_at_end(model, images, max_words, beam_width)
    lengths = (beams != PAD).sum(dim=2)
    chosen = (log_probabilities / lengths**length_power).argmax(dim=1)
    longest = lengths.gather(1, chosen.unsqueeze(1)).max()
    return beams[torch.arange(len(images), device=images.device), chosen, :longest]


@torch.inference_mode()
def beams_at_end(
    model, images: Tensor, max_words: int = 20, beam_width: int = 5
) -> tuple[Tensor, Tensor]:
    """All captions that are in the beam when a search ends, the most probable first.

    All beams of all images take a step together. A caption that has ended stays in its beam with
    the probability that it has.

    Args:
        model, images, max_words: see ``greedy``.
        beam_width: beginnings kept at every step, and captions at the end.

    Returns:
        ids of words (B, beam_width, T) with T at most ``max_words``, without ``<start>``, and the
        natural logarithms (B, beam_width) of the probabilities of these captions.
    """
    count = len(images)
    start = tuple(part.repeat_interleave(beam_width, dim=0) for part in model.start(images))
    state = start
    beams = torch.full((count, beam_width, 1), START, device=images.device)
    log_probabilities = torch.full((count, beam_width), -torch.inf, device=images.device)
    log_probabilities[:, 0] = 0.0  # all beams begin alike: only one may count
    first = torch.arange(count, device=images.device).unsqueeze(1) * beam_width
    for _ in range(max_words):
        logits, state, _ = model.step(beams[:, :, -1].flatten(), state)
        steps = forbid(logits).float().log_softmax(dim=1).view(count, beam_width, -1)
        ended = (beams[:, :, -1] == END) | (beams[:, :, -1] == PAD)
        steps = steps.masked_fill(ended.unsqueeze(2), -torch.inf)
        steps[:, :, PAD].masked_fill_(ended, 0.0)  # the only way on from an end, and free
        totals = (log_probabilities.unsqueeze(2) + steps).flatten(1)
        log_probabilities, best = totals.topk(beam_width, dim=1)
        parents, words = best // steps.shape[2], best % steps.shape[2]
        beams = beams.gather(1, parents.unsqueeze(2).expand(-1, -1, beams.shape[2]))
        beams = torch.cat((beams, words.unsqueeze(2)), dim=2)
        if ((words == END) | (words == PAD)).all():
            break
        rows = (first + parents).flatten()
        # what no step has changed is the same for all beams of a picture: the places, say
        state = tuple(
            part if part is unchanged else part[rows]
            for part, unchanged in zip(state, start, strict=True)
        )
    return beams[:, :, 1:], log_probabilities


def log_probabilities(model, images: Tensor, captions: Tensor) -> Tensor:
    """The natural logarithm of the probability that a model gives to each word, (n · B, T).

    Args:
        model: a captioning model.
        images: (B, ...).
        captions: ids (n · B, T) without ``<start>``, as ``greedy`` and ``sample`` give them;
            padding counts nothing.
    """
    logits = model(images, words_before(captions))[:, -captions.shape[1] :]
    words = forbid(logits.float()).log_softmax(dim=2).gather(2, captions.unsqueeze(2)).squeeze(2)
    return words.masked_fill(captions == PAD, 0.0)


@torch.inference_mode()
def log_probability(model, images: Tensor, captions: Tensor) -> Tensor:
    """The natural logarithm of the probability that a model gives to captions, (n · B,).

    Args:
        model: a captioning model in evaluation mode.
        images, captions: see ``log_probabilities``.
    """
    return log_probabilities(model, images, captions).sum(dim=1)


@torch.inference_mode()
def attention_of(model, images: Tensor, captions: Tensor) -> Tensor:
    """Where a model that attends looked for each word of captions: weights (n · B, T, L).

    Args:
        model: has ``forward_with_attention`` and is in evaluation mode.
        images: (B, ...).
        captions: ids (B, T) without ``<start>``, as ``greedy`` gives them.
    """
    return model.forward_with_attention(images, words_before(captions))[1]


def caption_all(
    model,
    inputs,
    vocabulary: Vocabulary,
    batch_size: int = 256,
    max_words: int = 20,
    search: Callable[..., Tensor] = greedy,
) -> list[str]:
    """Captions for all of ``inputs``, whatever mode the model is in.

    Args:
        model: a captioning model.
        inputs: N rows, one a picture: ``data.Pictures`` or an array of cached features.
        vocabulary: the model's.
        batch_size: pictures at a time.
        max_words: captions end here at the latest.
        search: ``greedy``, or another function that is called as it is.
    """
    where = next(model.parameters()).device
    training = model.training
    model.eval()
    captions = []
    for start in range(0, len(inputs), batch_size):
        rows = list(range(start, min(start + batch_size, len(inputs))))
        ids = search(model, torch.as_tensor(inputs[rows]).to(where), max_words)
        captions += [vocabulary.decode(row) for row in ids.tolist()]
    model.train(training)
    return captions


def candidates(image_ids: Sequence[int], captions: Sequence[str]) -> dict[int, str]:
    """Captions by image id, as ``metrics.score`` takes them."""
    return dict(zip(image_ids, captions, strict=True))
