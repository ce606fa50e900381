"""COCO: the splits that are made of its files, and their download from a server of our own."""

import io
import json
import os
import random
import zipfile

import pytest
from PIL import Image

from convrnn_utils import coco, data, downloads


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def put_pictures(folder, *parts):
    """The folders of pictures, as if they had been unpacked there."""
    for part in parts:
        (folder / "images" / part).mkdir(parents=True)


def karpathy_image(number, part, split):
    """An image as it stands in ``dataset_coco.json``."""
    name = f"COCO_{part}_{number:012d}.jpg"
    sentences = [
        {
            "tokens": ["caption", str(n), "of", str(number)],
            "raw": f"Caption {n} of {number}.\n",
            "imgid": number,
            "sentid": 10 * number + n,
        }
        for n in range(5)
    ]
    return {
        "filepath": part,
        "sentids": [sentence["sentid"] for sentence in sentences],
        "filename": name,
        "imgid": number,
        "split": split,
        "sentences": sentences,
        "cocoid": 1000 + number,
    }


def test_coco_2014_follows_karpathys_split(data_home):
    images = [
        karpathy_image(5, "train2014", "train"),
        karpathy_image(4, "val2014", "restval"),
        karpathy_image(3, "val2014", "val"),
        karpathy_image(2, "val2014", "test"),
        karpathy_image(1, "val2014", "test"),
    ]
    put_pictures(data_home / "coco2014", "train2014", "val2014")
    write_json(data_home / "coco2014" / "dataset_coco.json", {"images": images, "dataset": "coco"})
    folder = data.coco()
    assert folder == data_home / "coco2014"
    ids = {split: data.load_split(folder, split).ids for split in ("train", "val", "test")}
    assert ids == {"train": [1004, 1005], "val": [1003], "test": [1001, 1002]}
    split = data.load_split(folder, "train")
    assert split.paths[0] == folder / "images" / "val2014" / "COCO_val2014_000000000004.jpg"
    assert split.paths[1] == folder / "images" / "train2014" / "COCO_train2014_000000000005.jpg"
    assert split.captions[0] == [f"Caption {n} of 4." for n in range(5)]
    (folder / "dataset_coco.json").unlink()
    assert data.coco(2014) == folder  # converted once, and found again


def public_coco_file(numbers):
    """A captions file as COCO publishes it, of five captions a picture."""
    images = [
        {
            "license": 3,
            "file_name": f"{number:012d}.jpg",
            "coco_url": f"http://images.cocodataset.org/train2017/{number:012d}.jpg",
            "height": 480,
            "width": 640,
            "date_captured": "2013-11-14 17:02:52",
            "flickr_url": "http://farm7.staticflickr.com/0/0_z.jpg",
            "id": number,
        }
        for number in numbers
    ]
    annotations = [
        {"image_id": number, "id": 10 * number + n, "caption": f"Caption {n} of {number}. "}
        for n in range(5)
        for number in numbers
    ]
    info = {"description": "COCO 2017 Dataset", "url": "http://cocodataset.org", "version": "1.0"}
    return {"info": info, "licenses": [], "images": images, "annotations": annotations}


def test_coco_2017_tests_on_the_public_validation_pictures(data_home):
    put_pictures(data_home / "coco2017", "train2017", "val2017")
    annotations = data_home / "coco2017" / "annotations"
    write_json(annotations / "captions_train2017.json", public_coco_file(range(149, 99, -1)))
    write_json(annotations / "captions_val2017.json", public_coco_file([7, 8]))
    folder = data.coco(2017)
    assert folder == data_home / "coco2017"
    splits = {split: data.load_split(folder, split) for split in ("train", "val", "test")}
    assert splits["test"].ids == [7, 8]
    assert splits["val"].ids == [100, 124, 148]
    assert sorted(splits["train"].ids + splits["val"].ids) == list(range(100, 150))
    assert splits["train"].paths[0] == folder / "images" / "train2017" / "000000000101.jpg"
    assert splits["val"].paths[0] == folder / "images" / "train2017" / "000000000100.jpg"
    assert splits["test"].paths[0] == folder / "images" / "val2017" / "000000000007.jpg"
    assert splits["test"].captions[1] == [f"Caption {n} of 8." for n in range(5)]


@pytest.mark.parametrize("year", [2015, "2014", 14])
def test_another_year_of_coco_is_refused(data_home, year):
    with pytest.raises(ValueError, match=f"no COCO {year} here; choose 2014 or 2017"):
        data.coco(year)
    assert os.listdir(data_home) == []


# ---------------------------------------------------------------- downloads


def jpeg(number):
    file = io.BytesIO()
    Image.new("RGB", (32, 24), (30 * number % 256,) * 3).save(file, "JPEG")
    return file.getvalue()


def zip_of(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.fixture
def release(data_home, monkeypatch, misbehaving):
    """A server of little archives that are packed as those of COCO are."""
    monkeypatch.delenv("CONVRNN_COCO", raising=False)
    images = [
        karpathy_image(1, "train2014", "train"),
        karpathy_image(2, "val2014", "restval"),
        karpathy_image(3, "val2014", "val"),
        karpathy_image(4, "val2014", "test"),
    ]
    files = {
        "train2014": {f"train2014/{images[0]['filename']}": jpeg(1)},
        "val2014": {f"val2014/{image['filename']}": jpeg(2) for image in images[1:]},
        "caption_datasets": {
            "dataset_coco.json": json.dumps({"images": images, "dataset": "coco"}),
            "dataset_flickr8k.json": "{}",
        },
        "train2017": {f"train2017/{n:012d}.jpg": jpeg(n) for n in range(30)},
        "val2017": {"val2017/000000000040.jpg": jpeg(3)},
        "annotations_trainval2017": {
            "annotations/captions_train2017.json": json.dumps(public_coco_file(range(30))),
            "annotations/captions_val2017.json": json.dumps(public_coco_file([40])),
            "annotations/instances_val2017.json": "{}",
        },
    }
    for name, members in files.items():
        content = zip_of(members)
        misbehaving.files[f"/{name}.zip"] = content
        ours = {"address": misbehaving.address, "bytes": len(content), "sha256": None}
        if "pictures" in coco.ARCHIVES[f"{name}.zip"]:
            ours["pictures"] = len(members)
        monkeypatch.setitem(coco.ARCHIVES, f"{name}.zip", ours)
    return misbehaving


SIZES = {2014: {"train": 2, "val": 1, "test": 1}, 2017: {"train": 28, "val": 2, "test": 1}}


def assert_whole(folder, year):
    splits = {name: data.load_split(folder, name) for name in ("train", "val", "test")}
    assert {name: len(split) for name, split in splits.items()} == SIZES[year]
    for split in splits.values():
        assert all(data.read_image(path).size == (32, 24) for path in split.paths)
    assert not list(folder.rglob("*unfinished")) and not list(folder.rglob("*.zip*"))


@pytest.mark.parametrize("year", [2014, 2017])
def test_coco_is_fetched_unpacked_and_found_again(release, data_home, year):
    folder = data.coco(year)
    assert_whole(folder, year)
    assert [path.name for path in data_home.iterdir() if path.suffix != ".lock"] == [folder.name]
    assert len(release.requests) == 3
    assert data.coco(year) == folder
    assert len(release.requests) == 3


def test_what_is_there_is_not_fetched_again(release, data_home):
    put_pictures(data_home / "coco2014", "train2014", "val2014")
    data.coco(2014)
    assert len(release.requests) == 1


def test_coco_comes_from_a_mirror_where_one_is_named(release, monkeypatch):
    for archive in coco.ARCHIVES.values():
        archive["address"] = f"{release.address}/elsewhere"
    with pytest.raises(ConnectionError, match=r"404.*call coco\(\) again.*CONVRNN_COCO"):
        data.coco(2017)
    monkeypatch.setenv("CONVRNN_COCO", release.address)
    assert_whole(data.coco(2017), 2017)
    assert_whole(data.coco(2014, [f"{release.address}/nowhere", release.address]), 2014)


def test_coco_says_first_how_much_room_it_needs(release, monkeypatch, data_home):
    class Free:
        free = 10_000

    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda path: Free)
    with pytest.raises(OSError, match=r"COCO 2017 needs .* GB in .*make room"):
        data.coco(2017)
    assert release.requests == []


def test_what_has_been_fetched_needs_no_room_again(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"12345")
    (tmp_path / "b.zip.part").write_bytes(b"123")
    (tmp_path / "b.zip.part.json").write_bytes(b"{}")
    assert downloads.fetched(["a.zip", "b.zip", "c.zip"], tmp_path) == 8


def test_the_public_releases_need_the_room_that_the_card_says():
    for year, gigabytes in {2014: 20.2, 2017: 20.2}.items():
        sizes = [coco.ARCHIVES[f"{part}.zip"]["bytes"] for part in coco.PICTURES[year]]
        assert sum(sizes) / 1e9 == pytest.approx(gigabytes, abs=0.06)


def test_another_number_of_pictures_is_refused(release, data_home):
    coco.ARCHIVES["val2017.zip"]["pictures"] = 2
    with pytest.raises(ValueError, match=r"val2017\.zip .* 1 pictures and not 2.* coco\(\) again"):
        data.coco(2017)
    assert not (data_home / "coco2017" / "images" / "val2017").exists()
    assert (data_home / "coco2017" / "images" / "train2017").exists()  # is not fetched again
    coco.ARCHIVES["val2017.zip"]["pictures"] = 1
    assert_whole(data.coco(2017), 2017)


def karpathys(*changes):
    """A file like Karpathy's with a picture for each split, each changed by one of ``changes``."""
    images = [
        {"cocoid": n, "filepath": "val2014", "filename": f"{n}.jpg", "split": split}
        | {"sentences": [{"raw": "a dog"}]}
        for n, split in enumerate(("train", "val", "test"))
    ]
    return {"images": [image | change for image, change in zip(images, changes, strict=False)]}


ODD = [
    *({}, {"images": [{}]}, {"images": [{"split": 3}]}, []),
    karpathys({}, {}, {"cocoid": 0}),
    karpathys({}, {"cocoid": "1"}, {}),
    karpathys({}, {}),
]


@pytest.mark.parametrize("content", ODD)
def test_a_damaged_file_of_karpathys_is_refused_in_words(release, data_home, content):
    write_json(data_home / "coco2014" / "dataset_coco.json", content)
    with pytest.raises(ValueError, match=r"is not Karpathy's split .*remove it and call coco"):
        data.coco(2014)
    assert not list((data_home / "coco2014").glob("captions_*"))


@pytest.mark.parametrize("year", [2014, 2017])
def test_coco_survives_a_server_that_misbehaves(release, data_home, monkeypatch, fault, many, year):
    """Called as often as it takes, it ends with the whole data set."""
    monkeypatch.setattr(downloads, "SILENCE", 0.5)
    generator = random.Random(year)
    kinds = ["cut", "no ranges", "status", "web page", "stalled", "another place", "none"]
    for _ in range(many(2, 20)):
        release.faults = [
            (generator.choice(kinds), generator.choice([404, 503])) for _ in range(12)
        ]
        for _ in range(20):
            left = len(release.faults)
            try:
                folder = data.coco(year)
            except (ConnectionError, ValueError):
                assert not (data_home / f"coco{year}" / "captions_test.json").exists()
            else:
                break
            finally:
                fault("downloads", left - len(release.faults))
        assert_whole(folder, year)
        folder.rename(data_home / f"done-{generator.random()}")


@pytest.mark.parametrize("year", [2014, 2017])
def test_both_releases_have_the_same_number_of_pictures(year):
    archives = [coco.ARCHIVES[f"{part}.zip"] for part in coco.PICTURES[year]]
    assert sum(archive["pictures"] for archive in archives) == 123_287


def test_the_room_for_coco_is_that_of_all_pictures_and_of_the_largest_archive(
    release, monkeypatch, data_home
):
    asked = []
    monkeypatch.setattr(coco, "require_room", lambda folder, size, what: asked.append(size))
    data.coco(2017)
    sizes = [coco.ARCHIVES[f"{part}.zip"]["bytes"] for part in coco.PICTURES[2017]]
    assert asked == [sum(sizes) + max(sizes)]


def test_an_empty_variable_is_no_address(data_home, monkeypatch):
    asked = []

    def fetch(folder, year, address):
        asked.append(address)
        raise ConnectionError

    monkeypatch.setenv("CONVRNN_COCO", "")
    monkeypatch.setattr(coco, "_fetch", fetch)
    with pytest.raises(ConnectionError):
        data.coco()
    assert asked == [None]
