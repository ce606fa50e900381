"""Captions, greedy and with a beam of 5: how many a second, compared with one picture at a time.

python benchmarks/speed_generation.py

The captioner that comes with the course, on features computed beforehand. Ours is
``decoding.beam_search`` (and ``greedy``): all beams of 256 pictures take a step together, and the
places of a picture are projected once. The reference is ``plain_attention.search_alone``: one
picture after the other, the places projected before every word; greedy is a beam of one. Both
write the same captions, token for token. Ours captions 1,008 pictures, the 24 ``photos`` again and
again; the reference captions only the 24, since its rate does not depend on how many there are.
"""

from functools import partial

import torch
from plain_attention import plain_copy, search_alone
from timing import command, in_turn, row

from convrnn_utils import data
from convrnn_utils.attention import ShowAttendTell
from convrnn_utils.checkpoints import SHIPPED_CAPTIONER, load_model
from convrnn_utils.decoding import beam_search, greedy
from convrnn_utils.env import device
from convrnn_utils.text import PAD

REPEATS = 42  # of the photographs, for ours
TOGETHER = 256  # pictures, for ours
SEARCHES = {  # ours, and the width of the reference's beam
    "generate_greedy": (greedy, 1),
    "generate_beam5": (partial(beam_search, beam_width=5), 5),
}


def captioner_and_features(split: data.Split) -> tuple[ShowAttendTell, torch.Tensor]:
    """The captioner that comes with the course and the grids (N, L, D) of a split, as fp16."""
    model, _, _ = load_model(SHIPPED_CAPTIONER)
    model = model.to(device())
    with torch.inference_mode():
        pictures = data.Pictures(split, model.cnn)[range(len(split))].to(device())
        features = torch.cat([model.cnn.folded()(part) for part in pictures.split(8)])
    return model, features.half().clone()


def without_padding(ids: torch.Tensor) -> list[list[int]]:
    """Captions (B, T) as lists of their words."""
    return [[word for word in caption if word != PAD] for caption in ids.tolist()]


def check(together: list[list[int]], alone: list[list[int]]) -> None:
    """The captions are the same, token for token."""
    differ = [pair for pair in zip(together, alone, strict=True) if pair[0] != pair[1]]
    assert not differ, f"{len(differ)} captions differ, such as {differ[0]}"


def measure(repeats: int = REPEATS, rounds: int = 3) -> list[dict]:
    """The rows ``generate_…``; raises an ``AssertionError`` if the captions differ."""
    photos = data.load_split(data.photos(), "test")
    model, features = captioner_and_features(photos)
    plain, many = plain_copy(model), features.repeat(repeats, 1, 1)
    rows = []
    for name, (search, width) in SEARCHES.items():
        written = {}

        def together(search=search, written=written):
            parts = [without_padding(search(model, part)) for part in many.split(TOGETHER)]
            written["together"] = sum(parts, [])

        def alone(width=width, written=written):
            pictures = features.split(1)
            written["alone"] = [search_alone(plain, each, beam_width=width) for each in pictures]

        seconds = in_turn({"ours": together, "reference": alone}, rounds)
        check(written["together"], written["alone"] * repeats)
        rates = len(many) / seconds["ours"], len(features) / seconds["reference"]
        rows.append(row(name, *rates, "captions/s"))
    return rows


if __name__ == "__main__":
    command(__doc__, measure)
