"""Captions as they come: COCO files and CSV files with faults, and strange text in a notebook."""

import csv
import errno
import io
import json
import random
import re
import shutil

import pytest
from PIL import Image

from convrnn_utils import data, metrics, plots
from convrnn_utils.caption_data_figures import caption_browser
from convrnn_utils.files import one_line
from convrnn_utils.text import Vocabulary

STRANGE = {
    "emoji": "a \U0001f436 on a beach \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "Chinese": "一只狗在草地上奔跑",
    "control characters": "a dog\x00 runs\x07 on\x1b[31m grass\r\n and\x85 on\u2028 sand",
    "half a letter": "a dog \ud83d runs",
    "HTML": "<script>alert(1)</script> a dog & \"a cat\" <img src=x onerror='alert(2)'>",
    "mathematics": "a hat for $5 and $\\frac{ is _ not ^ math$",
    "turned round": "a dog \u202enur sgod\u202c runs",
    "ten thousand words": "a very " * 5000 + "big dog",
    "a word without end": "d" + "o" * 50_000 + "g",
}


def coco(captions, images=None, **changes):
    """A captions file of pairs of an image id and a caption."""
    ids = sorted({image_id for image_id, _ in captions})
    images = images or [{"id": number, "file_name": f"{number}.jpg"} for number in ids]
    annotations = [
        {"id": number, "image_id": image_id, "caption": caption}
        for number, (image_id, caption) in enumerate(captions)
    ]
    return {"images": images, "annotations": annotations} | changes


def written(folder, content):
    (folder / "captions_train.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


GOOD = [(1, "a dog"), (2, "a cat")]
ONE = [{"id": 1, "file_name": "1.jpg"}]
REFUSED = {
    "an image id twice": (coco(GOOD, images=[*ONE, *ONE]), "image id 1 comes twice"),
    "an annotation id twice": (
        coco(GOOD, annotations=[{"id": 1, "image_id": 1, "caption": "a"}] * 2),
        "annotation id 1 comes twice",
    ),
    "an id that is text": (
        coco(GOOD, images=[{"id": "1", "file_name": "a"}]),
        "is not a whole number",
    ),
    "an id that is true": (
        coco(GOOD, images=[{"id": True, "file_name": "a"}]),
        "is not a whole number",
    ),
    "an id in a list": (coco(GOOD, images=[{"id": [1], "file_name": "a"}]), "TypeError"),
    "a fraction": (
        coco(GOOD, annotations=[{"id": 1, "image_id": 1.5, "caption": "a"}]),
        "is not a whole number",
    ),
    "a file name that is a number": (coco(GOOD, images=[{"id": 1, "file_name": 7}]), "not text"),
    "no file name": (coco(GOOD, images=[{"id": 1, "file_name": ""}]), "not text"),
    "a way out": (coco(GOOD, images=[{"id": 1, "file_name": "../../x.jpg"}]), "leads out"),
    "an absolute name": (coco(GOOD, images=[{"id": 1, "file_name": "/etc/x.jpg"}]), "leads out"),
    "a drive": (coco(GOOD, images=[{"id": 1, "file_name": "C:\\x.jpg"}]), "leads out"),
    "images in an object": (coco(GOOD, images={"1": "a"}), "not a COCO"),
    "annotations of null": (coco(GOOD, annotations=None), "not a COCO"),
    "a row that is text": (coco(GOOD, annotations=["a dog"]), "not a COCO"),
    "no caption": (coco(GOOD, annotations=[{"id": 1, "image_id": 1}]), "not a COCO"),
    "a caption of numbers": (coco([(1, [1, 2])]), "not text"),
    "nothing": (coco([], images=[]), "no picture"),
}


@pytest.mark.parametrize("content, message", REFUSED.values(), ids=REFUSED)
def test_a_file_with_a_fault_is_refused_in_a_sentence(tmp_path, content, message, fault):
    fault("captions")
    with pytest.raises(ValueError, match=message) as error:
        data.load_split(written(tmp_path, content), "train")
    assert "captions_train.json is not a COCO captions file" in str(error.value)
    assert "\n" not in str(error.value)


def test_very_deep_json_is_refused(tmp_path, fault):
    fault("captions")
    (tmp_path / "captions_train.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match="is not a COCO captions file"):
        data.open_captions(tmp_path, "train")


def test_what_has_no_use_is_left_out_and_counted(tmp_path, fault):
    fault("captions", 6)
    captions = [(1, "a dog"), (1, ""), (2, " ... "), (9, "a lost one"), (3, "\x00"), (4, "a cat")]
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in (5, 4, 3, 2, 1)]
    with pytest.warns(UserWarning) as warned:
        split = data.load_split(written(tmp_path, coco(captions, images)), "train")
    assert split.ids == [1, 4] and split.captions == [["a dog"], ["a cat"]]
    assert str(warned[0].message).endswith(
        "3 captions without a word, 1 captions of no picture, 3 pictures without a caption."
    )
    with pytest.raises(ValueError, match="has no picture with a caption"):
        data.load_split(written(tmp_path, coco([(1, "!")])), "train")


@pytest.fixture
def strange(tmp_path):
    """A split of pictures with one strange caption each, and a plain one."""
    captions = [
        (number, text) for number, own in enumerate(STRANGE.values()) for text in (own, "a dog")
    ]
    (tmp_path / "images").mkdir()
    for number in range(len(STRANGE)):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / f"{number}.jpg")
    return data.load_split(written(tmp_path, coco(captions)), "train")


def test_strange_captions_are_read_trained_on_and_scored(strange, fault):
    fault("captions", len(STRANGE))
    assert [own[1] for own in strange.captions] == ["a dog"] * len(STRANGE)
    texts = [own[0] for own in strange.captions]
    assert all(one_line(text) == text for text in texts)
    assert texts[2] == "a dog runs on [31m grass and on sand"
    assert not any(len(text.splitlines()) > 1 or "\x00" in text for text in texts)
    assert texts[0] == STRANGE["emoji"] and texts[1] == STRANGE["Chinese"]
    vocabulary = Vocabulary.from_captions(texts, min_count=1)
    dataset = data.CaptionDataset(strange, [[0.0]] * len(strange), vocabulary)
    assert max(len(ids) for _, ids in dataset.pairs) <= 42
    candidates = dict.fromkeys(strange.ids, "a dog runs")
    assert 0 <= metrics.cider(strange.references(), candidates) <= 1000
    scores = metrics.score(strange.references(), candidates, meteor=False)
    assert scores["BLEU-1"] > 50


def test_strange_captions_are_shown_as_text(strange, fault):
    fault("captions", len(STRANGE))
    for word in ("dog", "<script>alert", '"><b>'):
        shown = caption_browser(strange, words=word, count=20).children[1].value
        tags = set(re.findall(r"<\s*/?\s*(\w+)", re.sub(r'="[^"]*"', "", shown)))
        assert tags <= {"p", "b", "div", "figure", "figcaption", "ul", "li", "img", "mark"}
        assert "<script" not in shown and "<img src=x" not in shown
    captions = [own[0][:300] for own in strange.captions]
    figure = plots.show_pictures([Image.new("RGB", (8, 8))] * len(captions), captions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # of letters the font does not have
        figure.savefig(io.BytesIO(), format="png", dpi=20)
    plots.plt.close(figure)


# ---------------------------------------------------------------- a CSV file of one's own


@pytest.fixture
def album(tmp_path, data_home):
    """A folder with twelve pictures; and a function that writes a table beside them."""
    folder = tmp_path / "my photos, 我的"
    folder.mkdir()
    for number in range(12):
        Image.new("RGB", (9, 6), (20 * number, 0, 0)).save(folder / f"{number}.png")

    def write(rows, header=("path", "caption"), name="mine.csv", encoding="utf-8", **options):
        with (folder / name).open("w", newline="", encoding=encoding) as file:
            csv.writer(file, **options).writerows([header, *rows])
        return folder / name

    return write


ROWS = [(f"{number}.png", f"picture {number}, {n}") for number in range(12) for n in (1, 2)]


@pytest.mark.parametrize("options", [{}, {"delimiter": ";"}, {"delimiter": "\t"}])
def test_a_table_becomes_a_data_set(album, data_home, options, capsys):
    path = album(ROWS, encoding="utf-8-sig", **options)
    folder = data.from_csv(path)
    assert folder == data_home / "mine"
    splits = [data.load_split(folder, name) for name in ("train", "val", "test")]
    assert [len(split) for split in splits] == [10, 1, 1]
    found = {}
    for split in splits:
        for picture, captions, record in zip(
            split.paths, split.captions, split.records, strict=True
        ):
            number = int(record["original"].split(".")[0])
            assert data.read_image(picture).getpixel((0, 0)) == (20 * number, 0, 0)
            found[number] = captions
    assert found == {n: [f"picture {n}, 1", f"picture {n}, 2"] for n in range(12)}
    assert "12 pictures with 24 captions" in capsys.readouterr().out
    assert data.from_csv(path) == folder
    with pytest.raises(ValueError, match="mine was not made from"):
        data.from_csv(path, seed=1)
    copy = path.with_name("other.csv")
    copy.write_bytes(path.read_bytes())
    other = data.from_csv(copy, seed=1)
    assert data.load_split(other, "test").records != splits[2].records


def test_a_column_may_name_the_split(album):
    header = ("caption", "split", "path", "author")
    rows = [(f"picture {n}", ("val", "test", "train")[n % 3], f"{n}.png", "me") for n in range(12)]
    folder = data.from_csv(album(rows, header))
    for name, rest in (("val", 0), ("test", 1), ("train", 2)):
        captions = data.load_split(folder, name).captions
        assert captions == [[f"picture {n}"] for n in range(12) if n % 3 == rest]


def test_lines_that_cannot_be_used_are_named_and_left_out(album, fault):
    path = album([])
    (path.parent / "broken.png").write_bytes(b"no picture")
    bad = {
        "broken.png cannot be read": ("broken.png", "a dog"),
        "there is no picture": ("nowhere.png", "a dog"),
        "its caption has no word": ("1.png", " ... "),
        "it names no picture": ("", "a dog"),
        "it has too many columns": ("1.png", "a dog", " barking"),
    }
    fault("captions", len(bad))
    path = album([*bad.values(), *ROWS, ("1.png",), ("1.png", "one\nmore\x00line")])
    with pytest.warns(UserWarning) as warned:
        folder = data.from_csv(path)
    lines = str(warned[-1].message).split("\n")
    assert lines[0].startswith(
        "Left out of mine.csv (to include them, correct these lines, delete "
    )
    assert len(lines) == 7
    for number, (complaint, line) in enumerate(zip(bad, lines[1:], strict=False)):
        assert line.startswith(f"line {number + 2}: ") and complaint in line
    splits = [data.load_split(folder, name) for name in ("train", "val", "test")]
    assert sum(len(split) for split in splits) == 12
    mended = album(ROWS)
    with pytest.raises(ValueError, match="if the table has changed, delete that folder"):
        data.from_csv(mended)
    shutil.rmtree(folder)
    assert data.from_csv(mended) == folder
    assert "one more line" in [c for split in splits for own in split.captions for c in own]


def test_a_picture_that_is_named_in_two_ways_is_one_picture(album):
    rows = [row for name, text in ROWS for row in ((name, text), (f"./{name}", f"{text} again"))]
    path = album([*rows, (str(album([]).parent / "0.png"), "and again")])
    folder = data.from_csv(path)
    splits = [data.load_split(folder, name) for name in ("train", "val", "test")]
    assert [len(split) for split in splits] == [10, 1, 1]
    assert sum(len(own) for split in splits for own in split.captions) == 2 * len(ROWS) + 1


@pytest.mark.parametrize("name", ["flickr8k", "Features", "scenes-6000"])
def test_a_table_does_not_take_the_place_of_what_the_course_keeps(album, data_home, name):
    with pytest.raises(ValueError, match=f"data/{name} is a folder of the course; give .* another"):
        data.from_csv(album(ROWS, name=f"{name}.csv"))
    assert not list(data_home.iterdir())


def test_a_full_disk_is_no_fault_of_a_line(album, data_home, monkeypatch, fault):
    fault("captions")

    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = album(ROWS)
    monkeypatch.setattr("convrnn_utils.own_data.shutil.copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        data.from_csv(path)
    assert [left.name for left in data_home.iterdir()] == [".mine.lock"]


TABLES = {
    "empty": (b"", "needs a first line that names its columns"),
    "no header": (b"1.png,a dog\n", "needs a first line"),
    "another header": (b"file,text\n1.png,a dog\n", "it is 'file,text'"),
    "Latin-1": ("path,caption\n1.png,ein Stra\u00dfenhund\n".encode("latin1"), "not in UTF-8"),
    "UTF-16": ("path,caption\n1.png,a dog\n".encode("utf-16"), "not in UTF-8"),
    "a picture": (b"\x89PNG\r\n\x1a\n\x00\xff", "not in UTF-8"),
    "an open quote": (b'path,caption\n1.png,"a dog\n', "is not a CSV file.*, on line 2 or"),
    "an endless field": (b"path,caption\n1.png," + b"a" * 200_000, "is not a CSV file"),
    "splits with another name": (
        b"path,caption,split\n" + b"".join(b"%d.png,a,dev\n" % n for n in range(5)),
        "fewer than three.*\n.*its split is 'dev'",
    ),
    "two pictures": (b"path,caption\n1.png,a\n2.png,b\n", "fewer than three pictures"),
    "no picture there": (b"path,caption\n" + b"x.png,a\n" * 9, "fewer than three.*\n.*no picture"),
    "all in one split": (
        b"path,caption,split\n" + b"".join(b"%d.png,a,train\n" % n for n in range(5)) + b"x,a,val",
        "no picture for the split val.\nline 7: there is no picture",
    ),
}


@pytest.mark.parametrize("content, message", TABLES.values(), ids=TABLES)
def test_a_table_that_is_none_is_refused_and_leaves_nothing(
    album, data_home, content, message, fault
):
    fault("captions")
    path = album([])
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        data.from_csv(path)
    assert [left.name for left in data_home.iterdir()] == [".mine.lock"]


def test_a_table_that_is_missing_is_named(data_home):
    with pytest.raises(FileNotFoundError, match=r"there is no file nowhere\.csv"):
        data.from_csv("nowhere.csv")


def test_random_damage_to_a_captions_file_is_refused_in_words(tmp_path, fault, many):
    generator = random.Random(2)
    sound = json.dumps(coco([(n, f"caption {n}") for n in range(4)])).encode()
    refused = 0
    for _ in range(many(200, 10_000)):
        fault("captions")
        damaged = bytearray(sound)
        for _ in range(generator.randrange(1, 3)):
            place = generator.randrange(len(damaged))
            damaged[place : place + generator.randrange(3)] = generator.randbytes(1)
        (tmp_path / "captions_train.json").write_bytes(damaged)
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("warnings.warn", lambda *_, **__: None)
                split = data.load_split(tmp_path, "train")
        except ValueError as error:
            refused += 1
            assert "captions_train.json" in str(error)
        else:
            assert all(isinstance(text, str) for own in split.captions for text in own)
    assert refused > 50


def test_a_picture_in_two_splits_and_a_split_that_there_is_not_are_named(album):
    header = ("path", "caption", "split")
    rows = [(f"{n}.png", f"picture {n}", ("Val", "TEST", "train ")[n % 3]) for n in range(12)]
    with pytest.warns(UserWarning) as warned:
        folder = data.from_csv(album([*rows, ("2.png", "a", "val"), ("3.png", "a", "dev")], header))
    lines = str(warned[-1].message).split("\n")[1:]
    assert "2.png is in another split on an earlier line" in lines[0]
    assert "its split is 'dev', which is not train, val or test" in lines[1]
    assert data.load_split(folder, "train").captions[0] == ["picture 2"]


@pytest.mark.parametrize("count, sizes", [(3, [1, 1, 1]), (12, [10, 1, 1]), (30, [24, 3, 3])])
def test_a_tenth_of_the_pictures_but_one_at_least_goes_to_val_and_to_test(album, count, sizes):
    path = album([(f"p{n}.png", "a dog") for n in range(count)])
    for number in range(count):
        Image.new("RGB", (9, 6)).save(path.parent / f"p{number}.png")
    folder = data.from_csv(path)
    assert [len(data.load_split(folder, name)) for name in ("train", "val", "test")] == sizes


def test_a_data_set_of_the_same_name_that_came_from_elsewhere_is_not_taken_for_the_table(
    album, data_home
):
    (data_home / "mine").mkdir()
    with pytest.raises(ValueError, match="mine was not made from"):
        data.from_csv(album(ROWS))
