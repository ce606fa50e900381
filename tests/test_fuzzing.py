"""Made-up input in great numbers: 200 cases of each in ``make test``, 10,000 in test-faults."""

import itertools
import json
import math
import warnings
import zipfile
from collections import Counter

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from test_decoding import Markov, all_captions, pad

from convrnn_utils import data, metrics
from convrnn_utils.archives import open_archive, unpack_pictures
from convrnn_utils.decoding import beam_search, greedy, log_probability
from convrnn_utils.files import one_line
from convrnn_utils.text import END, PAD, START, UNKNOWN, Vocabulary, tokenize

ANY_TEXT = some.text(some.characters())  # halves of letters and control characters, too
LETTERS = "ab1 s'\u2019.,-_nt\u0301\u0941\u200d<>\u2028\t\u0130\u00df\u5317"
CAPTION_LIKE = some.text(LETTERS, max_size=20)
TEXTS = ANY_TEXT | CAPTION_LIKE


@pytest.fixture
def fuzz(fault, many):
    """``fuzz(strategy, check)`` calls ``check`` with so many made-up values."""

    def run(strategy, check):
        count, wanted = 0, many(200, 10_000)

        @settings(
            max_examples=wanted,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def case(value):
            nonlocal count
            count += 1
            check(value)

        try:
            case()
        finally:
            fault("fuzzing", count)
        assert count >= wanted

    return run


# ---------------------------------------------------------------- words


def test_words_stay_words(fuzz):
    def check(text):
        words = tokenize(text)
        assert tokenize(" ".join(words)) == words
        assert all(word and not set(word) & set(" <>\n\t\0") for word in words)
        line = one_line(text)
        assert tokenize(line) == words and len(line.splitlines()) <= 1
        line.encode("utf-8")

    fuzz(TEXTS, check)


def test_captions_come_back_from_their_numbers(fuzz):
    def check(captions):
        vocabulary = Vocabulary.from_captions(captions, min_count=1)
        for caption in captions:
            ids = vocabulary.encode(caption)
            assert ids[0] == START and ids[-1] == END and UNKNOWN not in ids
            assert vocabulary.decode(ids) == " ".join(tokenize(caption))
            assert not {PAD, START, END, UNKNOWN} & set(ids[1:-1])

    fuzz(some.lists(TEXTS, max_size=5), check)


def test_a_vocabulary_comes_back_from_its_file(fuzz, tmp_path):
    words = some.text(min_size=1).filter(lambda word: not word.startswith("<"))
    path = tmp_path / "words.json"

    def check(words):
        content = {"format": Vocabulary.FORMAT, "version": Vocabulary.VERSION, "words": words}
        path.write_text(json.dumps(content), encoding="utf-8")
        assert Vocabulary.load(path) == Vocabulary(words)
        assert Vocabulary.load(path).own_words == words

    fuzz(some.lists(words, unique=True, max_size=8), check)


# ---------------------------------------------------------------- files from elsewhere


def sometimes(usual, strange):
    """Mostly ``usual``; else what has no business there."""
    # 7, since Hypothesis prefers the ends of a range
    return some.integers(0, 9).flatmap(lambda n: strange if n == 7 else usual)


ANYTHING = some.none() | some.booleans() | some.floats() | some.text(max_size=5) | some.just([])
IDS = sometimes(some.integers(0, 3), ANYTHING)
SAYINGS = some.just("a dog") | TEXTS
IMAGES = {"id": IDS, "file_name": sometimes(some.text(min_size=1, max_size=8), ANYTHING)}
ANNOTATIONS = {"id": IDS, "image_id": IDS, "caption": sometimes(SAYINGS, ANYTHING)}


def rows(fields):
    """A list of objects with mostly different ids; now and then one lacks a field."""
    row = sometimes(
        some.fixed_dictionaries(fields),
        some.fixed_dictionaries({}, optional=fields),
    )
    lists = some.lists(row, min_size=1, max_size=4)
    unlike = some.lists(row, min_size=1, max_size=4, unique_by=lambda made: repr(made.get("id")))
    return sometimes(sometimes(unlike, lists), ANYTHING)


COCO = some.fixed_dictionaries({"images": rows(IMAGES), "annotations": rows(ANNOTATIONS)})


def test_the_coco_reader_reads_or_refuses_in_words(fuzz, tmp_path):
    path, read = tmp_path / "captions_train.json", []

    def check(content):
        path.write_text(json.dumps(content), encoding="utf-8")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                split = data.load_split(tmp_path, "train")
        except ValueError as error:
            assert "captions_train.json" in str(error)
            return
        read.append(len(split))
        assert all(type(image_id) is int for image_id in split.ids)
        assert all(own and all(tokenize(text) for text in own) for own in split.captions)
        inside = tmp_path.resolve() / "images"
        assert all(inside in (path.resolve(), *path.resolve().parents) for path in split.paths)

    fuzz(COCO, check)
    assert read  # some are read


NAME_PARTS = some.sampled_from(
    ["..", ".", "", "a", "A", "caf\u00e9", "cafe\u0301", "C:", "\\", "/"]
)
NAMES = some.lists(NAME_PARTS | some.text(max_size=3), max_size=4).map("/".join)


def test_no_name_in_an_archive_leads_out(fuzz, tmp_path):
    path, inside = tmp_path / "some.zip", tmp_path / "inner" / "inside"
    unpacked = []

    def check(names):
        names = [f"{name}.jpg" for name in names]
        with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in names:
                member = zipfile.ZipInfo("x")
                member.filename = name
                archive.writestr(member, b"content")
        try:
            with open_archive(path, "try again") as archive:
                written = unpack_pictures(archive, inside, len(names))
        except ValueError:
            pass
        else:
            assert len(set(written)) == len(names)
            unpacked.append(len(names))
        assert {left.name for left in tmp_path.iterdir()} <= {"some.zip", "inner"}
        if inside.exists():
            assert [left.name for left in inside.parent.iterdir()] == ["inside"]
            assert all(left.is_file() for left in inside.iterdir())
            for left in inside.iterdir():
                left.unlink()

    fuzz(some.lists(NAMES, min_size=1, max_size=3), check)
    assert unpacked  # some are not refused


# ---------------------------------------------------------------- search

LONGEST = 3
CAPTIONS = torch.tensor(list(all_captions(LONGEST)))
SEEDS = some.tuples(some.integers(0, 2**31), some.sampled_from([0.0, 0.5, 1.0]), some.booleans())


def test_beam_search_finds_what_a_search_of_everything_finds(fuzz):
    """A beam as wide as there are captions, one or several images at a time."""
    lengths = (CAPTIONS != PAD).sum(dim=1)

    def check(case):
        seed, power, several = case
        model, images = Markov(seed), torch.arange(3 if several else 1)
        found = pad(beam_search(model, images, LONGEST, len(CAPTIONS), power), LONGEST)
        for image in images:
            scores = log_probability(model, image.repeat(len(CAPTIONS)), CAPTIONS) / lengths**power
            ours = (found[image] == CAPTIONS).all(dim=1).nonzero().item()
            assert scores[ours] >= scores.max() - 1e-5
        narrow = beam_search(model, images, LONGEST, 1, power)
        assert torch.equal(narrow, greedy(model, images, LONGEST))

    fuzz(SEEDS, check)


# ---------------------------------------------------------------- metrics, written anew

WORDS = some.lists(some.sampled_from(["a", "dog", "cat", "on", "grass", "two"]), max_size=9)
REFERENCES = some.lists(WORDS.filter(bool).map(" ".join), min_size=1, max_size=3)
PAIRS = some.lists(some.tuples(REFERENCES, WORDS.map(" ".join)), min_size=1, max_size=4)


def grams(text, n):
    words = text.split()
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def bleu(pairs):
    """BLEU-1 to BLEU-4 of a corpus: Papineni et al., with the closest reference length."""
    written = sum(len(candidate.split()) for _, candidate in pairs)
    closest = sum(
        min((abs(len(r.split()) - len(c.split())), len(r.split())) for r in references)[1]
        for references, c in pairs
    )
    product, result = 1.0, []
    for n in (1, 2, 3, 4):
        right = sum(
            min(count, max(grams(reference, n)[gram] for reference in references))
            for references, candidate in pairs
            for gram, count in grams(candidate, n).items()
        )
        total = sum(grams(candidate, n).total() for _, candidate in pairs)
        product *= (right + 1e-15) / (total + 1e-9)  # pycocoevalcap's way around a division by 0
        result.append(product ** (1 / n))
    penalty = math.exp(1 - closest / written) if 0 < written < closest else 1.0
    return [value * penalty for value in result], written


def common(one, other):
    """Length of the longest common subsequence, by trying all of the shorter one's parts."""
    short, long = sorted((one.split(), other.split()), key=len)
    for size in range(len(short), 0, -1):
        for part in itertools.combinations(short, size):
            rest = iter(long)
            if all(word in rest for word in part):
                return size
    return 0


def rouge(pairs):
    """ROUGE-L: Lin, with the best precision and recall of the references and beta 1.2."""
    total = 0.0
    for references, candidate in pairs:
        shared = [common(candidate, reference) for reference in references]
        recall = max(n / len(r.split()) for n, r in zip(shared, references, strict=True))
        precision = max(shared) / len(candidate.split()) if candidate else 0.0
        if precision and recall:
            total += (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)
    return total / len(pairs)


def cider(pairs):
    """CIDEr-D as published and as pycocoevalcap has it: lengths are those in pairs of words."""
    seen = Counter()
    for references, _ in pairs:
        seen.update({g for r in references for n in range(1, 5) for g in grams(r, n)})

    def vector(text, n):
        pictures = math.log(len(pairs))
        return {
            gram: count * (pictures - math.log(max(1, seen[gram])))
            for gram, count in grams(text, n).items()
        }

    def norm(weights):
        return math.sqrt(sum(weight**2 for weight in weights.values()))

    total = 0.0
    for references, candidate in pairs:
        for reference, n in itertools.product(references, range(1, 5)):
            ours, theirs = vector(candidate, n), vector(reference, n)
            both = norm(ours) * norm(theirs)
            if both:
                dot = sum(min(w, theirs.get(g, 0)) * theirs.get(g, 0) for g, w in ours.items())
                apart = max(0, len(candidate.split()) - 1) - max(0, len(reference.split()) - 1)
                weight = 10 / 4 / len(references) * math.exp(-(apart**2) / 72)
                total += weight * dot / both
    return total / len(pairs)


def test_the_metrics_are_those_of_the_papers(fuzz, monkeypatch):
    """Without Java, whose words and METEOR are compared with pycocoevalcap's own elsewhere."""
    monkeypatch.setattr(
        metrics, "_split", lambda captions: (metrics._split_without_java(captions), True)
    )

    def check(pairs):
        references = {key: own for key, (own, _) in enumerate(pairs)}
        candidates = {key: candidate for key, (_, candidate) in enumerate(pairs)}
        scores = metrics.score(references, candidates, meteor=False)
        expected, written = bleu(pairs)
        if written:
            for n, value in enumerate(expected, start=1):
                assert scores[f"BLEU-{n}"] == pytest.approx(100 * value, rel=1e-6, abs=1e-6)
        assert scores["ROUGE-L"] == pytest.approx(100 * rouge(pairs), abs=1e-6)
        assert scores["CIDEr"] == pytest.approx(100 * cider(pairs), abs=1e-6)
        assert metrics.cider(references, candidates) == pytest.approx(scores["CIDEr"], abs=1e-9)
        assert all(
            0 <= value <= (1000.001 if name == "CIDEr" else 100.001)
            for name, value in scores.items()
        )

    fuzz(PAIRS, check)
