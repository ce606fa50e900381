"""The embedded photographs: every picture is there, fit to show, captioned and licensed."""

import json
from pathlib import Path

import pytest
from PIL import Image

DATA = Path(__file__).resolve().parents[1] / "data"
IMAGES = DATA / "photos" / "images"
CAPTIONS = DATA / "photos" / "captions_test.json"

COCO = json.loads(CAPTIONS.read_text(encoding="utf-8"))
ENTRIES = COCO["images"]
EXIF_ORIENTATION = 0x0112


def captions_of(entry):
    return [a["caption"] for a in COCO["annotations"] if a["image_id"] == entry["id"]]


def card_row(file_name):
    """The line of the table in data/README.md that describes this file."""
    lines = (DATA / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith(f"| `{file_name}` |")]
    assert len(rows) == 1, f"{file_name} has {len(rows)} rows in data/README.md, not one"
    return [cell.strip() for cell in rows[0].strip("|").split(" | ")]


def test_the_folder_and_the_json_list_the_same_files():
    on_disk = {path.name for path in IMAGES.iterdir()}
    assert on_disk == {entry["file_name"] for entry in ENTRIES}


def test_there_are_enough_photographs_and_they_stay_small():
    assert 12 <= len(ENTRIES) <= 24
    assert sum(path.stat().st_size for path in IMAGES.iterdir()) <= 3_000_000


def test_ids_are_unique_and_every_caption_has_its_image():
    image_ids = [entry["id"] for entry in ENTRIES]
    annotation_ids = [a["id"] for a in COCO["annotations"]]
    assert len(set(image_ids)) == len(image_ids)
    assert len(set(annotation_ids)) == len(annotation_ids)
    assert {a["image_id"] for a in COCO["annotations"]} == set(image_ids)


def test_no_caption_is_used_twice():
    captions = [a["caption"] for a in COCO["annotations"]]
    assert len(set(captions)) == len(captions)


def test_pycocotools_reads_the_file(capsys):
    coco_module = pytest.importorskip("pycocotools.coco")
    coco = coco_module.COCO(str(CAPTIONS))
    capsys.readouterr()  # pycocotools prints as it loads
    assert sorted(coco.getImgIds()) == sorted(entry["id"] for entry in ENTRIES)
    assert all(len(coco.getAnnIds(imgIds=[entry["id"]])) == 5 for entry in ENTRIES)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["file_name"])
class TestEachPhotograph:
    def test_decodes_to_rgb_of_the_stated_size(self, entry):
        with Image.open(IMAGES / entry["file_name"]) as image:
            assert image.format == "JPEG"
            assert image.mode == "RGB"
            image.load()
            assert image.size == (entry["width"], entry["height"])
            assert max(image.size) <= 640

    def test_is_upright_and_carries_no_metadata(self, entry):
        with Image.open(IMAGES / entry["file_name"]) as image:
            assert EXIF_ORIENTATION not in image.getexif()
            assert not image.getexif() and "exif" not in image.info
            assert "icc_profile" not in image.info  # none means sRGB

    def test_has_five_distinct_captions_of_one_short_sentence(self, entry):
        captions = captions_of(entry)
        assert len(captions) == 5
        assert len({caption.lower() for caption in captions}) == 5
        for caption in captions:
            assert caption == caption.strip() and caption[0].isupper()
            assert caption.endswith(".") and caption.count(".") == 1
            assert 6 <= len(caption.split()) <= 20

    def test_names_its_author_licence_and_source(self, entry):
        licences = {licence["id"]: licence for licence in COCO["licenses"]}
        licence = licences[entry["license"]]
        assert licence["name"].startswith(("CC0", "Public domain")) and licence["url"]
        assert entry["author"].strip() and entry["source"].strip()

    def test_has_a_row_in_the_card(self, entry):
        _, shows, author, licence, source, change = card_row(entry["file_name"])
        assert shows and change
        assert entry["author"] in author
        assert source == entry["source"]
        licences = {item["id"]: item["name"] for item in COCO["licenses"]}
        assert licence.startswith("CC0") == licences[entry["license"]].startswith("CC0")
