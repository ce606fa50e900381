"""From a trained model to captions, for any decoder with ``start`` and ``step``."""

from collections.abc import Sequence

import torch
from torch import Tensor

from convrnn_utils.text import END, PAD, START, UNKNOWN, Vocabulary


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
    state = model.start(images)
    words = torch.full((len(images),), START, device=images.device)
    finished = torch.zeros_like(words, dtype=torch.bool)
    written = []
    for _ in range(max_words):
        logits, state, _ = model.step(words, state)
        logits[:, [PAD, START, UNKNOWN]] = -torch.inf
        words = logits.argmax(dim=1).masked_fill(finished, PAD)
        written.append(words)
        finished |= words == END
        if finished.all():
            break
    return torch.stack(written, dim=1)


def caption_all(
    model, inputs, vocabulary: Vocabulary, batch_size: int = 256, max_words: int = 20
) -> list[str]:
    """Greedy captions for all of ``inputs``, whatever mode the model is in.

    Args:
        model: a captioning model.
        inputs: N rows, one a picture: ``data.Pictures`` or an array of cached features.
        vocabulary: the model's.
        batch_size: pictures at a time.
        max_words: captions end here at the latest.
    """
    where = next(model.parameters()).device
    training = model.training
    model.eval()
    captions = []
    for start in range(0, len(inputs), batch_size):
        rows = list(range(start, min(start + batch_size, len(inputs))))
        ids = greedy(model, torch.as_tensor(inputs[rows]).to(where), max_words)
        captions += [vocabulary.decode(row) for row in ids.tolist()]
    model.train(training)
    return captions


def candidates(image_ids: Sequence[int], captions: Sequence[str]) -> dict[int, str]:
    """Captions by image id, as ``metrics.score`` takes them."""
    return dict(zip(image_ids, captions, strict=True))
