"""Captions as words, and words as numbers: `tokenize` and `Vocabulary`."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from convrnn_utils.files import complete_or_absent

PAD, START, END, UNKNOWN = 0, 1, 2, 3
SPECIAL_WORDS = ["<pad>", "<start>", "<end>", "<unknown>"]  # in the order of their ids

_APOSTROPHES = str.maketrans("\u2018\u2019", "''")
_PUNCTUATION = re.compile(r"[^\w\s'.,-]|_")
_SUFFIX = re.compile(r"(?<=\w)('(?:s|m|d|re|ve|ll)|n't)\b")
# A word begins with a letter or digit. Hyphens and apostrophes may join parts of it (t-shirt,
# o'clock), full stops and commas only digits (3.5). A suffix such as 's is a word of its own.
_PART = r"\w[^\s'.,-]*"
_WORD = re.compile(rf"'(?:s|m|d|re|ve|ll)\b|{_PART}(?:['-]{_PART}|(?<=\d)[.,](?=\d){_PART})*")


def _blank(match: re.Match) -> str:
    """A space for punctuation; accents and vowel signs (category M) stay with their letter."""
    return match[0] if unicodedata.category(match[0])[0] == "M" else " "


def tokenize(caption: str) -> list[str]:
    """Split a caption into lower-case words without punctuation.

    Close to the Penn Treebank rules that the metrics use: "A man's T-shirt isn't red." gives
    ``a man 's t-shirt is n't red``. Digits and the letters of any script are kept; symbols
    (``< > / & $`` and the like) are not, so no word can look like ``<end>``. Takes any string,
    and gives an empty list if it holds no word. Joining the words with spaces and splitting
    them again changes nothing.
    """
    text = unicodedata.normalize("NFC", caption.lower()).translate(_APOSTROPHES)
    text = _PUNCTUATION.sub(_blank, text)
    return _WORD.findall(_SUFFIX.sub(r" \1", text))


class Vocabulary:
    """The words a model knows, numbered from 0; the first four are the special words.

    ``vocabulary[word]`` is the id of a word (the id of ``<unknown>`` if the word is not in it),
    ``vocabulary.words[id]`` is the word with an id, and ``len(vocabulary)`` the number of words,
    the special ones included.
    """

    FORMAT, VERSION = "convrnn-vocabulary", 1

    def __init__(self, words: Iterable[str]):
        """Number ``words``, given without the special ones, in the order given.

        Raises ValueError if a word comes twice or is one of the special words.
        """
        self.words = [*SPECIAL_WORDS, *words]
        self._ids = {word: number for number, word in enumerate(self.words)}
        if len(self._ids) < len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise ValueError(f"The word {twice!r} is in the vocabulary already.")

    @classmethod
    def from_captions(cls, captions: Iterable[str], min_count: int = 5) -> "Vocabulary":
        """Take the words that occur at least ``min_count`` times, the most frequent first.

        Equally frequent words are in alphabetical order, so the order of the captions does not
        matter. Use the captions of the training split only.
        """
        if isinstance(captions, str):
            raise TypeError("from_captions takes a list of captions, not a single string.")
        counts = Counter(word for caption in captions for word in tokenize(caption))
        frequent = [word for word, count in counts.items() if count >= min_count]
        return cls(sorted(frequent, key=lambda word: (-counts[word], word)))

    @property
    def own_words(self) -> list[str]:
        """The words without the special ones: what ``Vocabulary`` is made from."""
        return self.words[len(SPECIAL_WORDS) :]

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._ids

    def __getitem__(self, word: str) -> int:
        return self._ids.get(word, UNKNOWN)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.words == other.words

    def __repr__(self) -> str:
        return f"Vocabulary of {len(self)} words"

    def encode(self, caption: str) -> list[int]:
        """Turn a caption into ids, START first and END last; unknown words become UNKNOWN."""
        return [START, *(self[word] for word in tokenize(caption)), END]

    def decode(self, ids: Iterable[int]) -> str:
        """Turn ids (a list, an array or a tensor) into words joined by spaces.

        Stops at the first END, skips PAD and START. Raises ValueError for an id that no word
        has, which is a sign that the vocabulary belongs to another model.
        """
        words = []
        for number in map(int, ids):
            if number == END:
                break
            if not 0 <= number < len(self):
                raise ValueError(f"No word has the id {number}: there are {len(self)} words.")
            if number not in (PAD, START):
                words.append(self.words[number])
        return " ".join(words)

    def save(self, path: str | Path) -> None:
        """Write the vocabulary to ``path`` as JSON; an older file is replaced in one step."""
        content = {"format": self.FORMAT, "version": self.VERSION, "words": self.own_words}
        with complete_or_absent(Path(path)) as unfinished:
            unfinished.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Read a vocabulary that `save` wrote; raises ValueError for any other file."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:  # not JSON, or not even text
            raise ValueError(f"{path} is not a vocabulary file: it is not JSON.") from error
        if not isinstance(content, dict) or content.get("format") != cls.FORMAT:
            raise ValueError(f"{path} is not a vocabulary file: its format is another one.")
        if content.get("version") != cls.VERSION:
            raise ValueError(
                f"{path} is a vocabulary of version {content.get('version')!r}, and this program "
                f"reads version {cls.VERSION}; use the course that it was written with."
            )
        words = content.get("words")
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError(f"{path} is a damaged vocabulary file: its words are missing.")
        return cls(words)
