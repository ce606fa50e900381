"""What people thought of captions, and how well the metrics agree with them.

Flickr8k comes with people's judgements of captions; most of these captions were written, also by
people, for other photographs. ``expert_judgements`` and ``crowd_judgements`` read the judgements,
and ``agreement`` compares a metric with them by Kendall's tau, as the literature does.

Sources: Hodosh, Young & Hockenmaier, JAIR 47 (2013), doi:10.1613/jair.3994. The comparison is that
of Anderson et al., arXiv:1607.08822, as described by Hessel et al., arXiv:2104.08718, appendix A.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from convrnn_utils import metrics
from convrnn_utils.files import one_line, open_captions


@dataclass(frozen=True)
class Judgement:
    """What people said about one caption for one picture.

    Attributes:
        picture: the picture's file name.
        caption: the caption judged.
        references: captions of the picture to score this caption against; it is never one of them.
        scores: one per judgement; higher is better.
    """

    picture: str
    caption: str
    references: tuple[str, ...]
    scores: tuple[float, ...]


def expert_judgements(folder: Path) -> list[Judgement]:
    """Three scores per caption, 1 (does not describe the picture at all) to 4 (describes it).

    Within a caption the scores are in ascending order, not in the order of the judges. Captions
    that are among the picture's own five are left out, as Anderson et al. do (158 of 5,822).

    Args:
        folder: what ``data.flickr8k`` returns.

    Raises:
        FileNotFoundError: the copy of Flickr8k has no judgements.
    """
    captions = _captions(folder)
    judgements = []
    for picture, caption_id, *scores in _rows(folder, "ExpertAnnotations.txt"):
        caption, references = _caption(captions, caption_id), tuple(captions[picture])
        if caption not in references:
            judgements.append(Judgement(picture, caption, references, tuple(map(float, scores))))
    return judgements


def crowd_judgements(folder: Path) -> list[Judgement]:
    """One score per caption: the share of the people asked who say that it describes the picture.

    Where captions of the picture itself were judged, they are taken out of its references, as
    Hessel et al. do: for these pictures four or fewer remain.

    Args, Raises: see ``expert_judgements``.
    """
    captions = _captions(folder)
    rows = [
        (picture, _caption(captions, caption_id), float(share))
        for picture, caption_id, share, _, _ in _rows(folder, "CrowdFlowerAnnotations.txt")
    ]
    judged: dict[str, set[str]] = {}
    for picture, caption, _ in rows:
        judged.setdefault(picture, set()).add(caption)
    references = {
        picture: tuple(text for text in captions[picture] if text not in judged[picture])
        for picture in judged
    }
    return [
        Judgement(picture, text, references[picture], (share,)) for picture, text, share in rows
    ]


def scored_cases(
    judgements: Sequence[Judgement], meteor: bool = True
) -> tuple[dict[str, Sequence[float]], list[float]]:
    """What each metric of ``metrics.score_each`` and what people give to the cases, in one order.

    Every score of a caption counts as a case of its own, and for CIDEr as a document of its own.

    Args:
        judgements: what ``expert_judgements`` or ``crowd_judgements`` returns.
        meteor: whether METEOR is computed, too; without it, this takes a fifth of the time.
    """
    cases = [(judgement, score) for judgement in judgements for score in judgement.scores]
    scores = metrics.score_each(
        {number: list(judgement.references) for number, (judgement, _) in enumerate(cases)},
        {number: judgement.caption for number, (judgement, _) in enumerate(cases)},
        meteor,
    )
    return scores, [score for _, score in cases]


def agreement(
    judgements: Sequence[Judgement], variant: str, meteor: bool = True
) -> dict[str, float]:
    """Kendall's tau of each metric with people's scores, over the cases of ``scored_cases``.

    Args:
        judgements, meteor: see ``scored_cases``.
        variant: of tau: ``"b"`` or ``"c"``.
    """
    scores, people = scored_cases(judgements, meteor)
    return {name: kendall_tau(values, people, variant) for name, values in scores.items()}


def kendall_tau(values: Sequence[float], levels: Sequence[float], variant: str = "c") -> float:
    """Kendall's tau of N pairs of numbers: 1 for the same order, −1 for the opposite one.

    P counts the pairs of cases that both sides put in the same order, Q those in opposite order;
    pairs equal on either side count for neither. tau-b is (P − Q) / √((A − T)(A − U)), where A is
    the number of all pairs, T that of the pairs equal on one side, and U that of the pairs equal on
    the other; tau-c is 2 (P − Q) / (N² (m − 1) / m), where m is the number of different values on
    the side that has fewer.

    Args:
        values: one side.
        levels: the other side; the time grows with the square of the number of different levels.
        variant: ``"b"`` or ``"c"``.

    Raises:
        ValueError: another variant, sides of different length, a side without different values, or
            one with a number that is not finite.

    Source: Kendall, The treatment of ties in ranking problems, Biometrika 33 (1945),
    doi:10.1093/biomet/33.3.239; tau-c, Stuart, Biometrika 40 (1953), doi:10.1093/biomet/40.1-2.105.
    """
    values, levels = numpy.asarray(values, dtype=float), numpy.asarray(levels, dtype=float)
    if variant not in ("b", "c"):
        raise ValueError(f"there is no variant {variant!r} of tau here; choose 'b' or 'c'.")
    if values.shape != levels.shape or values.ndim != 1:
        raise ValueError(f"tau needs two lists of one length, not {values.shape}, {levels.shape}.")
    if not (numpy.isfinite(values).all() and numpy.isfinite(levels).all()):
        raise ValueError("tau needs numbers, and some of these are infinite or not a number.")
    groups = [numpy.sort(values[levels == level]) for level in numpy.unique(levels)]
    difference = 0  # P − Q, exactly: Python's integers
    for low, high in itertools.combinations(groups, 2):
        below = numpy.searchsorted(low, high, side="left").sum()
        not_above = numpy.searchsorted(low, high, side="right").sum()
        difference += int(below) - (len(low) * len(high) - int(not_above))
    counts = [numpy.unique(side, return_counts=True)[1].tolist() for side in (values, levels)]
    if min(map(len, counts)) < 2:
        raise ValueError("tau needs at least two different values on each side.")
    if variant == "c":
        smaller = min(map(len, counts))
        return 2 * difference / (len(values) ** 2 * (smaller - 1) / smaller)
    pairs = len(values) * (len(values) - 1) // 2
    first, second = (pairs - sum(n * (n - 1) // 2 for n in count) for count in counts)
    return difference / (first * second) ** 0.5


def _captions(folder: Path) -> dict[str, list[str]]:
    """The captions of the pictures judged: they are all in the test split."""
    annotations = open_captions(folder, "test")  # all captions: their numbers count
    return {
        image["file_name"]: [one_line(row["caption"]) for row in annotations.imgToAnns[image_id]]
        for image_id, image in annotations.imgs.items()
    }


def _caption(captions: dict[str, list[str]], caption_id: str) -> str:
    picture, number = caption_id.split("#")
    return captions[picture][int(number)]


def _rows(folder: Path, name: str) -> list[list[str]]:
    path = Path(folder) / name
    if not path.exists():
        raise FileNotFoundError(
            f"this copy of Flickr8k has no {name}: earlier versions of the course did not keep it. "
            f"Move the folder {path.parent.name} away and call data.flickr8k() to fetch it anew."
        )
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
