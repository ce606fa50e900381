"""Captions with a beam of 5: how many a second, beside a search that takes one picture at a time.

python benchmarks/speed_generation.py

The captioner that comes with the course, on features that are there already. Ours is
``decoding.beam_search``: all beams of all pictures take a step together, and the places of a
picture are projected once. The reference is ``plain_attention.search_alone``: one picture after the
other, the places projected before every word. Both write the same captions, token for token.
"""

import torch
from plain_attention import plain_copy, search_alone
from timing import command, in_turn, row

from convrnn_utils import data
from convrnn_utils.attention import ShowAttendTell
from convrnn_utils.checkpoints import SHIPPED_CAPTIONER, load_model
from convrnn_utils.decoding import beam_search
from convrnn_utils.env import device
from convrnn_utils.text import PAD

BEAM_WIDTH = 5
REPEATS = 10  # of the photographs, for ours


def captioner_and_features(split: data.Split) -> tuple[ShowAttendTell, torch.Tensor]:
    """The captioner that comes with the course and the grids (N, L, D) of a split, as fp16."""
    model, _, _ = load_model(SHIPPED_CAPTIONER)
    model = model.to(device())
    with torch.inference_mode():
        pictures = data.Pictures(split, model.cnn)[range(len(split))].to(device())
        features = torch.cat([model.cnn.folded()(part) for part in pictures.split(8)])
    return model, features.half().clone()


def check(together: torch.Tensor, alone: list[list[int]]) -> None:
    """The captions are the same, token for token."""
    written = [[word for word in ids if word != PAD] for ids in together.tolist()]
    differ = [pair for pair in zip(written, alone, strict=True) if pair[0] != pair[1]]
    assert not differ, f"{len(differ)} captions differ, such as {differ[0]}"


def measure(repeats: int = REPEATS, rounds: int = 3) -> list[dict]:
    """The row ``generate_beam5``; raises an ``AssertionError`` where the captions differ."""
    photos = data.load_split(data.photos(), "test")
    model, features = captioner_and_features(photos)
    plain, many = plain_copy(model), features.repeat(repeats, 1, 1)
    written = {}

    def together():
        written["together"] = beam_search(model, many, beam_width=BEAM_WIDTH)

    def alone():
        rows = features.split(1)
        written["alone"] = [search_alone(plain, picture, beam_width=BEAM_WIDTH) for picture in rows]

    seconds = in_turn({"ours": together, "reference": alone}, rounds)
    check(written["together"], written["alone"] * repeats)
    rates = len(many) / seconds["ours"], len(features) / seconds["reference"]
    return [row("generate_beam5", *rates, "captions/s")]


if __name__ == "__main__":
    command(__doc__, measure)
