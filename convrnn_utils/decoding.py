"""From a trained model to captions, for any decoder with ``start`` and ``step``."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from convrnn_utils.text import END, PAD, START, UNKNOWN, Vocabulary


def forbid(logits: Tensor) -> Tensor:
    """Change scores (..., V) in place so that ``<pad>``, ``<start>``, ``<unknown>`` never win."""
    for word in (PAD, START, UNKNOWN):  # indexing with a list would copy it to a GPU each time
        logits[..., word] = -torch.inf
    return logits


def words_before(captions: Tensor) -> Tensor:
    """The words that a model reads to score captions (B, T): ``<start>``, then all but the last.

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
        images: what the model's ``start`` takes, (B, ...).
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
    """As ``greedy``, but the next word is drawn at random from the model's probabilities.

    Args:
        model, images, max_words: see ``greedy``.
        temperature: scores are divided by it; near 0 the most probable word always wins.
        top_p: draw only among the most probable words that together have this probability
            (nucleus sampling, arXiv:1904.09751); the most probable one is always among them.
        captions_each: captions drawn per picture; they stand one after the other.

    Returns:
        ids (captions_each · B, T), with ``<end>`` where a caption ends, then ``<pad>``.

    Raises:
        ValueError: ``temperature``, ``top_p`` or a size is out of range.
    """
    if temperature <= 0 or not 0 < top_p <= 1:
        raise ValueError("temperature must be above 0, and top_p above 0 and at most 1.")

    def draw(logits: Tensor) -> Tensor:
        # in float32: a sum of bfloat16 is rounded to 1 long before the last word
        scores = logits.float() / temperature
        probabilities, words = scores.softmax(dim=1).sort(descending=True)
        before = probabilities.cumsum(dim=1) - probabilities
        chosen = torch.multinomial(probabilities.masked_fill(before >= top_p, 0), 1)
        return words.gather(1, chosen).squeeze(1)

    return _write(model, images, max_words, draw, captions_each)


def _write(
    model, images: Tensor, max_words: int, choose: Callable[[Tensor], Tensor], captions_each=1
) -> Tensor:
    """Captions (n · B, T), n per picture; ``choose`` picks words (n · B,) by scores (n · B, V)."""
    _require_sizes(images, max_words=max_words, captions_each=captions_each)
    state = _for_captions(model, model.start(images), captions_each)
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


def _require_sizes(images: Tensor, **sizes: int) -> None:
    for name, size in ({"the number of images": len(images)} | sizes).items():
        if size < 1:
            raise ValueError(f"{name} is {size}; it must be 1 or more.")


def _for_captions(model, state: tuple[Tensor, ...], each: int) -> tuple[Tensor, ...]:
    """The pictures' state, repeated for each caption, except the parts that captions share."""
    shared = getattr(model, "shared", 0)
    own = (part.repeat_interleave(each, dim=0) for part in state[shared:])
    return *state[:shared], *own


@torch.inference_mode()
def beam_search(
    model, images: Tensor, max_words: int = 20, beam_width: int = 5, length_power: float = 0.0
) -> Tensor:
    """Write a caption for each image, keeping the ``beam_width`` most probable beginnings.

    Args:
        model, images, max_words, beam_width: see ``beams_at_end``; a width of 1 is greedy search.
        length_power: at the end, the log-probability of each beam is divided by the number of its
            words, ``<end>`` included, raised to this power; the highest quotient wins. 0 takes the
            most probable caption, 1 the one with the highest mean log-probability per word (Wu et
            al., arXiv:1609.08144, have a similar rule). At most 10.

    The search for an image ends when no unfinished beam can still win: further words only lower the
    logarithm, and it is divided by ``max_words ** length_power`` at most.

    Returns:
        ids of words, (B, T) with T at most ``max_words``, without ``<start>``.

    Raises:
        ValueError: a size is below 1, or ``length_power`` is out of range.
    """
    if not 0 <= length_power <= 10:  # ample; far higher powers would overflow
        raise ValueError(f"length_power is {length_power}; it must be between 0 and 10.")

    def values(beams: Tensor, log_probabilities: Tensor) -> Tensor:
        return log_probabilities / (beams[:, :, 1:] != PAD).sum(dim=2) ** length_power

    def decided(beams: Tensor, log_probabilities: Tensor) -> Tensor:
        ended = _has_ended(beams)
        most = log_probabilities / max_words**length_power  # the best that a beam may still reach
        best = values(beams, log_probabilities).masked_fill(~ended, -torch.inf).amax(dim=1)
        return best > most.masked_fill(ended, -torch.inf).amax(dim=1)

    beams, log_probabilities = _search(model, images, max_words, beam_width, decided)
    chosen = values(beams, log_probabilities).argmax(dim=1)
    captions = beams[torch.arange(len(images), device=images.device), chosen, 1:]
    return captions[:, : (captions != PAD).sum(dim=1).max()]


@torch.inference_mode()
def beams_at_end(
    model, images: Tensor, max_words: int = 20, beam_width: int = 5
) -> tuple[Tensor, Tensor]:
    """All captions that are in the beam when a search ends, the most probable first.

    A caption that has ended stays in the beam, and its probability no longer changes.

    Args:
        model, images, max_words: see ``greedy``.
        beam_width: number of beginnings kept at every step, and of captions at the end. If there
            are not that many captions, the last ones have a log-probability of minus infinity.

    Returns:
        ids of words (B, beam_width, T) with T at most ``max_words``, without ``<start>``, and the
        natural logarithms (B, beam_width) of the probabilities of these captions.

    Raises:
        ValueError: a size is below 1.
    """

    def all_ended(beams: Tensor, log_probabilities: Tensor) -> Tensor:
        return _has_ended(beams).all(dim=1)

    beams, log_probabilities = _search(model, images, max_words, beam_width, all_ended)
    return beams[:, :, 1:], log_probabilities


def _search(
    model,
    images: Tensor,
    max_words: int,
    beam_width: int,
    finished: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """The beams (B, beam_width, 1 + T), ``<start>`` first, and their log-probabilities.

    All beams of all images take a step together. ``finished`` takes beams and log-probabilities and
    says which images (B,) need no further step; once these are a quarter of the batch, they leave
    it.
    """
    _require_sizes(images, max_words=max_words, beam_width=beam_width)
    count, shared = len(images), getattr(model, "shared", 0)
    found = torch.full((count, beam_width, 1 + max_words), PAD, device=images.device)
    scores = torch.zeros((count, beam_width), device=images.device)
    rows = torch.arange(count, device=images.device)  # rows of the images still in the batch
    state = model.start(images)
    beams = torch.full((count, 1, 1), START, device=images.device)  # all begin alike: one is enough
    log_probabilities = torch.zeros((count, 1), device=images.device)
    for length in range(1, max_words + 1):
        width = beams.shape[1]
        logits, state, _ = model.step(beams[:, :, -1].flatten(), state)
        beams, log_probabilities, parents = _grow(beams, log_probabilities, logits, beam_width)
        staying = ~finished(beams, log_probabilities)
        leaving = len(staying) - staying.sum().item()
        parents = parents + width * torch.arange(len(parents), device=images.device).unsqueeze(1)
        if 4 * leaving >= len(staying):
            found[rows, :, : 1 + length], scores[rows] = beams, log_probabilities
            if leaving == len(staying):
                break
            rows, beams, parents = rows[staying], beams[staying], parents[staying]
            log_probabilities = log_probabilities[staying]
            state = (*(part[staying] for part in state[:shared]), *state[shared:])
        state = (*state[:shared], *(part[parents.flatten()] for part in state[shared:]))
    else:
        found[rows], scores[rows] = beams, log_probabilities
    return found[:, :, : 1 + length], scores


def _has_ended(beams: Tensor) -> Tensor:
    """Which captions (B, n, T) are complete: (B, n)."""
    return (beams[:, :, -1] == END) | (beams[:, :, -1] == PAD)


def _grow(
    beams: Tensor, log_probabilities: Tensor, logits: Tensor, beam_width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The most probable continuations of beams (B, n, T), given scores (n · B, V) of words.

    Returns:
        beams (B, beam_width, T + 1), their log-probabilities, and which of the n they come from.
    """
    steps = forbid(logits).float().log_softmax(dim=1).view(*beams.shape[:2], -1)
    ended = _has_ended(beams)
    steps = steps.masked_fill(ended.unsqueeze(2), -torch.inf)
    steps[:, :, PAD].masked_fill_(ended, 0.0)  # only <pad> follows an end, at no cost
    totals = (log_probabilities.unsqueeze(2) + steps).flatten(1)
    too_few = max(0, beam_width - totals.shape[1])  # in the first step, for a very wide beam
    totals = torch.nn.functional.pad(totals, (0, too_few), value=-torch.inf)
    log_probabilities, best = totals.topk(beam_width, dim=1)
    parents = (best // steps.shape[2]).clamp(max=beams.shape[1] - 1)
    beams = beams.gather(1, parents.unsqueeze(2).expand(-1, -1, beams.shape[2]))
    words = (best % steps.shape[2]).unsqueeze(2)
    return torch.cat((beams, words), dim=2), log_probabilities, parents


def word_log_probabilities(model, images: Tensor, captions: Tensor) -> Tensor:
    """The natural logarithm of the probability that a model gives to each word, (n · B, T).

    Args:
        model: a captioning model.
        images: (B, ...).
        captions: ids (n · B, T) without ``<start>``, as ``greedy`` and ``sample`` give them;
            padding has a logarithm of 0.
    """
    logits = model(images, words_before(captions))[:, -captions.shape[1] :]
    words = forbid(logits.float()).log_softmax(dim=2).gather(2, captions.unsqueeze(2)).squeeze(2)
    return words.masked_fill(captions == PAD, 0.0)


@torch.inference_mode()
def log_probability(model, images: Tensor, captions: Tensor) -> Tensor:
    """The natural logarithm of the probability that a model gives to captions, (n · B,).

    Args:
        model: a captioning model in evaluation mode.
        images, captions: see ``word_log_probabilities``.
    """
    return word_log_probabilities(model, images, captions).sum(dim=1)


@torch.inference_mode()
def attention_of(model, images: Tensor, captions: Tensor) -> Tensor:
    """Where a model with attention looked for each word of captions: weights (n · B, T, L).

    Args:
        model: has ``forward_with_attention`` and is in evaluation mode.
        images: (B, ...).
        captions: ids (n · B, T) without ``<start>``, as ``greedy`` gives them.
    """
    return model.forward_with_attention(images, words_before(captions))[1]


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A model in evaluation mode; afterwards, or after an interrupt, it is in the mode it had."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


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
        inputs: N rows, one per picture: ``data.Pictures`` or an array of cached features.
        vocabulary: the model's.
        batch_size: pictures at a time.
        max_words: captions end here at the latest.
        search: ``greedy``, or another function that takes the same arguments.
    """
    where = next(model.parameters()).device
    captions = []
    with evaluating(model):
        for start in range(0, len(inputs), batch_size):
            rows = list(range(start, min(start + batch_size, len(inputs))))
            ids = search(model, torch.as_tensor(inputs[rows]).to(where), max_words)
            captions += [vocabulary.decode(row) for row in ids.tolist()]
    return captions


def candidates(image_ids: Sequence[int], captions: Sequence[str]) -> dict[int, str]:
    """Captions by image id, as ``metrics.score`` takes them."""
    return dict(zip(image_ids, captions, strict=True))
