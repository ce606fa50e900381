import json
import random

import pytest

from convrnn_utils.text import END, PAD, SPECIAL_WORDS, START, UNKNOWN, Vocabulary, tokenize

CAPTIONS = ["A dog runs.", "A man's dog runs", "a cat"]


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A man's dog doesn't bite.", "a man 's dog does n't bite"),
        ("Two t-shirts, a blue-green one!", "two t-shirts a blue-green one"),
        ("I'm here; they\u2019ve gone", "i 'm here they 've gone"),
        ("5 o'clock, 3.5 metres,1,000 people", "5 o'clock 3.5 metres 1,000 people"),
        ("the dogs' 'STOP' sign -- here ...", "the dogs stop sign here"),
        ("Caf\u00e9 cafe\u0301 \u5317\u4eac", "caf\u00e9 caf\u00e9 \u5317\u4eac"),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", "\u0939\u093f\u0928\u094d\u0926\u0940"),
        ("<end> of a_b & c/d", "end of a b c d"),
        ("", ""),
        (" .,'- \u2764\ufe0f \ud800 \x00", ""),
    ],
)
def test_tokenize(caption, words):
    assert tokenize(caption) == words.split()


def test_tokenize_takes_anything_and_its_words_stay_words():
    letters = "ab1 s'\u2019.,-_nt\u0301\u0941\u200d<>\ud800\u2028\x85\t\u0130\u00df\u00bd\u5317"
    generator = random.Random(0)
    for _ in range(20_000):
        words = tokenize("".join(generator.choices(letters, k=generator.randint(0, 12))))
        assert tokenize(" ".join(words)) == words
        assert " ".join(words).split() == words


def test_every_letter_is_kept():
    letters = [letter for letter in map(chr, range(0x110000)) if letter.isalpha()]
    assert all(tokenize(letter) for letter in letters)


def test_numbering_is_by_count_then_alphabet_whatever_the_order():
    vocabulary = Vocabulary.from_captions(CAPTIONS, min_count=1)
    assert vocabulary.words == [*SPECIAL_WORDS, "a", "dog", "runs", "'s", "cat", "man"]
    assert vocabulary == Vocabulary.from_captions(reversed(CAPTIONS), min_count=1)
    assert vocabulary != Vocabulary.from_captions(CAPTIONS, min_count=2)
    assert len(vocabulary) == 10
    assert "cat" in vocabulary
    assert "zebra" not in vocabulary
    assert vocabulary["zebra"] == UNKNOWN


def test_encode_and_decode():
    vocabulary = Vocabulary.from_captions(CAPTIONS, min_count=1)
    ids = vocabulary.encode("A man's zebra runs.")
    assert ids == [START, 4, 9, 7, UNKNOWN, 6, END]
    assert vocabulary.decode([*ids, PAD, 5]) == "a man 's <unknown> runs"
    assert vocabulary.decode([]) == ""
    with pytest.raises(ValueError, match="No word has the id 10"):
        vocabulary.decode([10])
    with pytest.raises(ValueError, match="No word has the id -1"):
        vocabulary.decode([-1])


def test_decode_takes_arrays():
    numpy = pytest.importorskip("numpy")
    vocabulary = Vocabulary(["dog"])
    assert vocabulary.decode(numpy.array([START, 4, END, 4])) == "dog"


def test_a_caption_cannot_forge_a_special_word():
    captions = [f"{word} {word.upper()} {word[1:-1]}" for word in SPECIAL_WORDS]
    vocabulary = Vocabulary.from_captions(captions, min_count=1)
    for caption in captions:
        assert not {PAD, START, END, UNKNOWN} & set(vocabulary.encode(caption)[1:-1])
    with pytest.raises(ValueError, match="'<end>' is in the vocabulary already"):
        Vocabulary(["dog", "<end>"])
    with pytest.raises(ValueError, match="'dog'"):
        Vocabulary(["dog", "dog"])


def test_a_single_caption_is_refused():
    with pytest.raises(TypeError, match="list of captions"):
        Vocabulary.from_captions("a dog")


def test_save_and_load(tmp_path):
    vocabulary = Vocabulary.from_captions([*CAPTIONS, "caf\u00e9"], min_count=1)
    path = tmp_path / "vocabulary.json"
    path.write_text("an older file")
    vocabulary.save(path)
    assert Vocabulary.load(path) == vocabulary
    assert Vocabulary.load(str(path)).words == vocabulary.words
    assert [file.name for file in tmp_path.iterdir()] == ["vocabulary.json"]


def test_an_interrupted_save_leaves_the_older_file(tmp_path):
    path = tmp_path / "vocabulary.json"
    Vocabulary(["dog"]).save(path)
    with pytest.raises(UnicodeEncodeError):
        Vocabulary(["\ud800"]).save(path)
    assert Vocabulary.load(path) == Vocabulary(["dog"])
    assert [file.name for file in tmp_path.iterdir()] == ["vocabulary.json"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\x80\x04pickle", "not JSON"),
        (b"", "not JSON"),
        (b"[1, 2]", "another one"),
        (b'{"words": ["dog"]}', "another one"),
        (b'{"format": "convrnn-vocabulary", "version": 2, "words": []}', "version 2"),
        (b'{"format": "convrnn-vocabulary", "version": 1}', "damaged"),
        (b'{"format": "convrnn-vocabulary", "version": 1, "words": [1]}', "damaged"),
    ],
)
def test_other_files_are_refused_in_a_sentence(tmp_path, content, complaint):
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=complaint) as refusal:
        Vocabulary.load(path)
    assert str(path) in str(refusal.value)


def test_the_file_is_plain_json(tmp_path):
    Vocabulary(["dog"]).save(tmp_path / "v.json")
    content = json.loads((tmp_path / "v.json").read_text(encoding="utf-8"))
    assert content == {"format": "convrnn-vocabulary", "version": 1, "words": ["dog"]}


def test_a_file_with_a_number_among_its_words_is_refused(tmp_path):
    path = tmp_path / "other.json"
    path.write_text('{"format": "convrnn-vocabulary", "version": 1, "words": ["dog", 1]}')
    with pytest.raises(ValueError, match="damaged"):
        Vocabulary.load(path)
