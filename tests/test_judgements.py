"""Kendall's tau against a count of all pairs, and the judgements read from small files."""

import itertools
import random

import pytest

from convrnn_utils import judgements, metrics
from convrnn_utils.files import write_captions

CAPTIONS = {
    "a.jpg": ["a dog runs", "the dog", "one dog"],
    "b.jpg": ["two men sit", "men on a bench", "some men"],
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    records = [
        {"id": number, "file_name": name, "captions": captions}
        for number, (name, captions) in enumerate(CAPTIONS.items())
    ]
    write_captions(tmp_path, "test", records)
    expert = ["a.jpg\tb.jpg#1\t1\t1\t2", "b.jpg\tb.jpg#0\t3\t4\t4", "b.jpg\ta.jpg#2\t1\t1\t1"]
    crowd = ["a.jpg\ta.jpg#1\t1\t3\t0", "a.jpg\tb.jpg#0\t0.25\t1\t3", "b.jpg\ta.jpg#0\t0\t0\t3"]
    (tmp_path / "ExpertAnnotations.txt").write_text("\n".join(expert) + "\n")
    (tmp_path / "CrowdFlowerAnnotations.txt").write_text("\n".join(crowd) + "\n")
    return tmp_path


def test_experts_leave_out_captions_of_the_picture_itself(folder):
    first, second = judgements.expert_judgements(folder)
    assert first.picture == "a.jpg" and first.caption == "men on a bench"
    assert first.references == tuple(CAPTIONS["a.jpg"]) and first.scores == (1, 1, 2)
    assert second.caption == "one dog" and second.scores == (1, 1, 1)


def test_the_crowd_judges_captions_that_leave_the_references(folder):
    own, other, third = judgements.crowd_judgements(folder)
    assert own.caption == "the dog" and own.scores == (1.0,)
    assert own.references == other.references == ("a dog runs", "one dog")
    assert other.caption == "two men sit" and other.scores == (0.25,)
    assert third.references == tuple(CAPTIONS["b.jpg"])


def test_captions_keep_their_numbers_where_one_before_them_has_no_word(folder):
    captions = {**CAPTIONS, "a.jpg": ["a dog runs", "...", "one dog"]}
    records = [
        {"id": number, "file_name": name, "captions": own}
        for number, (name, own) in enumerate(captions.items())
    ]
    write_captions(folder, "test", records)
    assert judgements.expert_judgements(folder)[1].caption == "one dog"


def test_a_copy_without_judgements_says_what_to_do(folder):
    (folder / "ExpertAnnotations.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no ExpertAnnotations.txt.*flickr8k\(\)"):
        judgements.expert_judgements(folder)


def test_agreement_counts_every_score_as_a_case(folder, monkeypatch):
    asked = {}

    def score_each(references, candidates, meteor):
        asked.update(references=references, candidates=candidates, meteor=meteor)
        return {"words": [len(text.split()) for text in candidates.values()]}

    monkeypatch.setattr(metrics, "score_each", score_each)
    found = judgements.agreement(judgements.expert_judgements(folder), "c", meteor=False)
    assert list(asked["candidates"].values()) == ["men on a bench"] * 3 + ["one dog"] * 3
    assert asked["references"][0] == CAPTIONS["a.jpg"] and asked["meteor"] is False
    # cases (4, 1) (4, 1) (4, 2) and three times (2, 1): only (4, 2) and the last three differ on
    # both sides, three pairs in the same order; 2 * 3 / (36 * 1/2)
    assert found == {"words": pytest.approx(1 / 3)}


def counted(first, second, variant):
    """Tau by looking at every pair."""
    same = opposite = equal_first = equal_second = 0
    pairs = list(itertools.combinations(zip(first, second, strict=True), 2))
    for (a, x), (b, y) in pairs:
        same += (a - b) * (x - y) > 0
        opposite += (a - b) * (x - y) < 0
        equal_first += a == b
        equal_second += x == y
    if variant == "b":
        product = (len(pairs) - equal_first) * (len(pairs) - equal_second)
        return (same - opposite) / product**0.5
    smaller = min(len(set(first)), len(set(second)))
    return 2 * (same - opposite) / (len(first) ** 2 * (smaller - 1) / smaller)


@pytest.mark.parametrize("variant", ["b", "c"])
@pytest.mark.parametrize("seed", range(10))
def test_tau_equals_a_count_of_all_pairs(variant, seed):
    generator = random.Random(seed)
    first = [generator.randint(0, 8) / 4 for _ in range(40)]
    second = [generator.randint(1, 4) for _ in range(40)]
    expected = counted(first, second, variant)
    assert judgements.kendall_tau(first, second, variant) == pytest.approx(expected)
    assert judgements.kendall_tau(second, first, variant) == pytest.approx(expected)


def test_tau_of_the_same_and_of_the_opposite_order():
    levels = [1, 1, 2, 2, 3, 3]
    for variant in "bc":
        assert judgements.kendall_tau(levels, levels, variant) == pytest.approx(1)
        assert judgements.kendall_tau([-n for n in levels], levels, variant) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("first", "second", "variant", "complaint"),
    [
        ([1, 2], [1, 2], "a", "no variant 'a'"),
        ([1, 2], [1, 2, 3], "b", "one length"),
        ([1, 1], [1, 2], "b", "two different values"),
        ([1, float("nan")], [1, 2], "b", "not a number"),
        ([1, 2], [1, float("inf")], "c", "infinite"),
    ],
)
def test_tau_refuses_what_it_cannot_compare(first, second, variant, complaint):
    with pytest.raises(ValueError, match=complaint):
        judgements.kendall_tau(first, second, variant)
