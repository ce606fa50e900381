"""The captioner that comes with the course: its size, its card, and what it writes."""

import re
from functools import partial
from pathlib import Path

import pytest

from convrnn_utils import data
from convrnn_utils.checkpoints import SHIPPED_CAPTIONER, load_model
from convrnn_utils.decoding import beam_search, caption_all

CARD = Path(__file__).resolve().parents[1] / "data" / "README.md"


@pytest.fixture(scope="module")
def card():
    """The part of the data sets' page that is about the captioner."""
    return CARD.read_text().split(f"### `captioner/{SHIPPED_CAPTIONER.name}`")[1].split("\n### ")[0]


def test_it_takes_at_most_12_megabytes():
    assert SHIPPED_CAPTIONER.stat().st_size <= 12e6


def test_it_writes_what_its_card_promises(card, monkeypatch, tmp_path):
    promised = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", card, re.MULTILINE))
    photos = data.load_split(data.photos(), "test")
    model, vocabulary, _ = load_model(SHIPPED_CAPTIONER)
    pictures = data.Pictures(photos, model.cnn)
    search = partial(beam_search, beam_width=5, length_power=1.0)
    written = caption_all(model, pictures, vocabulary, batch_size=8, search=search)
    assert promised == dict(zip([path.stem for path in photos.paths], written, strict=True))
    monkeypatch.setenv("CONVRNN_DATA", str(tmp_path))
    features = data.cached_features(photos, model.cnn)  # computed the fast way
    assert written == caption_all(model, features, vocabulary, search=search)


def test_its_card_has_the_scores_that_it_was_saved_with(card):
    _, _, facts = load_model(SHIPPED_CAPTIONER)
    for split in ("val", "test"):
        scores = " | ".join(f"{value:.1f}" for value in facts["metrics"][split].values())
        assert f"| {split}, greedy | {scores} |" in card
