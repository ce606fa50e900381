import json
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest
import torch
from PIL import Image, ImageOps

from convrnn_utils import data, files, scenes, sources
from convrnn_utils.text import END, PAD, START, UNKNOWN, Vocabulary

EXIF_ORIENTATION = 0x0112


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# ---------------------------------------------------------------- COCO files


def coco_file(captions, images=None):
    """A COCO captions file of ``captions``, pairs of an image id and a caption."""
    if images is None:
        images = sorted({image_id for image_id, _ in captions}, reverse=True)
        images = [{"id": image_id, "file_name": f"{image_id}.jpg"} for image_id in images]
    annotations = [
        {"id": 100 + number, "image_id": image_id, "caption": caption}
        for number, (image_id, caption) in enumerate(captions)
    ]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations}


def test_a_split_is_read_in_the_order_of_its_ids_with_each_caption_at_its_picture(tmp_path, capsys):
    captions = [(9, "nine"), (30, "thirty"), (9, "neuf"), (7, "Sept, à sept."), (30, "trente")]
    content = coco_file(captions)
    content["images"][0]["width"] = 640
    write_json(tmp_path / "little" / "captions_val.json", content)
    split = data.load_split(tmp_path / "little", "val")
    assert split.name == "little/val"
    assert len(split) == 3
    assert split.ids == [7, 9, 30]
    assert split.paths == [tmp_path / "little" / "images" / f"{n}.jpg" for n in (7, 9, 30)]
    assert split.captions == [["Sept, à sept."], ["nine", "neuf"], ["thirty", "trente"]]
    assert split.references() == {7: split.captions[0], 9: ["nine", "neuf"], 30: split.captions[2]}
    assert [record["id"] for record in split.records] == [7, 9, 30]
    assert split.records[2]["width"] == 640
    assert capsys.readouterr().out == ""  # pycocotools chatters


def test_captions_are_read_as_utf_8_whatever_the_machine_is_set_to(tmp_path, monkeypatch):
    content = json.dumps(coco_file([(1, "un caf\u00e9")]), ensure_ascii=False)
    write_json(tmp_path / "captions_val.json", content)
    monkeypatch.setattr("pycocotools.coco.open", None, raising=False)  # asks the locale
    assert data.load_split(tmp_path, "val").captions == [["un caf\u00e9"]]


def test_the_first_pictures_of_a_split_are_a_split_with_a_name_of_its_own(tmp_path):
    write_json(tmp_path / "captions_val.json", coco_file([(1, "one"), (2, "two"), (3, "three")]))
    split = data.load_split(str(tmp_path), "val").first(2)
    assert len(split) == 2 and split.ids == [1, 2] and split.captions == [["one"], ["two"]]
    assert [path.name for path in split.paths] == ["1.jpg", "2.jpg"]
    assert [record["id"] for record in split.records] == [1, 2]
    assert split.name == f"{tmp_path.name}/val-first-2"


def test_a_split_that_is_missing_names_those_there_are(tmp_path):
    for split in ("train", "held_out"):
        write_json(tmp_path / f"captions_{split}.json", coco_file([(1, "one")]))
    with pytest.raises(FileNotFoundError, match="no split 'test'; it has held_out, train"):
        data.load_split(tmp_path, "test")


def test_a_folder_without_captions_or_that_is_missing_says_so(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match="no split 'test'; it has no captions at all"):
            data.load_split(folder, "test")


IMAGE = {"id": 1, "file_name": "1.jpg"}
NOT_CAPTIONS = {
    "empty": "",
    "not JSON": "a dog runs",
    "cut off": json.dumps(coco_file([(1, "one")]))[:-20],
    "a list": [IMAGE],
    "a number": 3,
    "another object": {"words": ["a", "dog"]},
    "no images": {"annotations": [{"id": 1, "image_id": 1, "caption": "one"}]},
    "images without a file name": coco_file([(1, "one")], images=[{"id": 1}]),
    "images without an id": coco_file([(1, "one")], images=[{"file_name": "1.jpg"}]),
    "annotations by name": {"images": [IMAGE], "annotations": {"1": "one"}},
    "annotations of boxes": {
        "images": [IMAGE],
        "annotations": [{"id": 1, "image_id": 1, "bbox": [0, 0, 1, 1], "category_id": 1}],
        "categories": [{"id": 1, "name": "dog"}],
    },
    "an annotation without a caption": {
        "images": [IMAGE],
        "annotations": [{"id": 1, "image_id": 1, "caption": "one"}, {"id": 2, "image_id": 1}],
    },
    "a caption that is not text": coco_file([(1, ["one"])]),
    "no caption but null": coco_file([(1, None)]),
}


@pytest.mark.parametrize("content", NOT_CAPTIONS.values(), ids=NOT_CAPTIONS.keys())
def test_a_file_in_another_format_is_refused_in_one_sentence(tmp_path, content):
    write_json(tmp_path / "captions_val.json", content)
    with pytest.raises(ValueError) as refusal:
        data.open_captions(tmp_path, "val")
    message = str(refusal.value)
    assert "captions_val.json is not a COCO captions file" in message
    assert "'images' (id, file_name) and 'annotations' (id, image_id, caption)" in message
    assert "\n" not in message and message.endswith(".")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "captions_val.json").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(ValueError, match="is not a COCO captions file"):
        data.open_captions(tmp_path, "val")


def test_captions_that_are_written_can_be_read(tmp_path):
    records = [
        {"id": 2, "file_name": "b.png", "captions": ["größe", "two"], "author": "B"},
        {"id": 1, "file_name": "sub/a.png", "captions": ["one"]},
    ]
    files.write_captions(tmp_path / "new", "train", records)
    split = data.load_split(tmp_path / "new", "train")
    assert split.ids == [1, 2]
    assert split.captions == [["one"], ["größe", "two"]]
    assert split.records[1] == {"id": 2, "file_name": "b.png", "author": "B"}
    assert split.paths[0] == tmp_path / "new" / "images" / "sub" / "a.png"
    ids = list(data.open_captions(tmp_path / "new", "train").anns)
    assert len(set(ids)) == 3
    assert names_in(tmp_path / "new") == ["captions_train.json"]


# ---------------------------------------------------------------- pictures


@pytest.fixture
def corners():
    """A picture of 60 × 40 pixels: red at the top left, blue at the bottom right, else grey."""
    pixels = numpy.full((40, 60, 3), 128, numpy.uint8)
    pixels[:20, :30] = (250, 10, 10)
    pixels[20:, 30:] = (10, 10, 250)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("orientation, stored", [(3, Image.Transpose.ROTATE_180), (6, 2), (8, 4)])
def test_a_photograph_taken_sideways_is_turned_upright(tmp_path, corners, orientation, stored):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    corners.transpose(Image.Transpose(stored)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = data.read_image(tmp_path / "a.jpg")
    assert image.size == (60, 40) and image.mode == "RGB"
    assert image.getpixel((5, 5)) == pytest.approx((250, 10, 10), abs=12)
    assert image.getpixel((55, 35)) == pytest.approx((10, 10, 250), abs=12)


@pytest.mark.parametrize(
    "mode, suffix", [("P", "png"), ("P", "gif"), ("RGBA", "png"), ("1", "png")]
)
@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0)])
def test_pictures_of_every_mode_become_rgb(tmp_path, mode, suffix, colour):
    Image.new("RGB", (9, 6), colour).convert(mode).save(tmp_path / f"a.{suffix}")
    image = data.read_image(tmp_path / f"a.{suffix}")
    assert (image.mode, image.size) == ("RGB", (9, 6))
    assert image.getcolors() == [(54, colour)]


def test_grey_becomes_rgb_with_three_equal_values(tmp_path):
    Image.new("L", (8, 8), 77).save(tmp_path / "grey.png")
    assert data.read_image(tmp_path / "grey.png").getpixel((0, 0)) == (77, 77, 77)


def test_sixteen_bits_of_grey_are_scaled_and_not_clipped(tmp_path):
    grey = numpy.linspace(0, 65535, 256).astype(numpy.uint16).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    image = numpy.asarray(data.read_image(tmp_path / "deep.png"))
    assert image.shape == (16, 16, 3)
    assert numpy.abs(image[..., 0].astype(int) - (grey >> 8)).max() <= 1


def test_cmyk_becomes_rgb_with_the_right_colours(tmp_path, corners):
    corners.convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    with Image.open(tmp_path / "print.jpg") as stored:
        assert stored.mode == "CMYK"
    image = data.read_image(tmp_path / "print.jpg")
    assert image.mode == "RGB"
    assert image.getpixel((5, 5)) == pytest.approx((250, 10, 10), abs=15)
    assert image.getpixel((55, 35)) == pytest.approx((10, 10, 250), abs=15)


def test_a_picture_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no picture .*lost\.jpg"):
        data.read_image(tmp_path / "lost.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_picture_is_refused_by_name(tmp_path, suffix, share):
    pixels = numpy.random.RandomState(0).randint(0, 256, (64, 64, 3), numpy.uint8)
    path = tmp_path / f"half.{suffix}"
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=rf"half\.{suffix} cannot be read as a picture"):
        data.read_image(path)


BOMB = b"P6 100000 100000 255\n"  # ten thousand million pixels


@pytest.mark.parametrize("content", [b"", b"a dog runs", b"\x00" * 500, b"P6 5\xff 7 255\n", BOMB])
def test_a_file_that_is_no_picture_is_refused_by_name(tmp_path, content):
    (tmp_path / "notes.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=r"notes\.jpg cannot be read as a picture"):
        data.read_image(tmp_path / "notes.jpg")


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises((ValueError, OSError), match=tmp_path.name):
        data.read_image(tmp_path)


def test_pictures_in_memory_and_from_disk_are_equal(small_split, tiny_encoder):
    on_disk = data.Pictures(small_split, tiny_encoder)
    in_memory = data.Pictures(small_split, tiny_encoder, in_memory=True)
    assert len(on_disk) == len(in_memory) == 7
    for rows in ([4, 0, 4], range(7), numpy.array([6, 1])):
        pictures = on_disk[rows]
        assert pictures.dtype == torch.uint8
        assert pictures.shape == (len(rows), 3, 16, 16)
        assert torch.equal(pictures, in_memory[rows])
    expected = tiny_encoder.preprocess(data.read_image(small_split.paths[5]))
    assert torch.equal(on_disk[[2, 5]][1], expected)
    for path in small_split.paths:
        path.unlink()
    assert in_memory[[3]].shape == (1, 3, 16, 16)


# ---------------------------------------------------------------- the feature cache


def features_of(split, encoder):
    with torch.inference_mode():
        return encoder(data.Pictures(split, encoder)[range(len(split))]).numpy()


@pytest.mark.usefixtures("two_threads")
def test_cached_features_are_the_encoders_within_the_precision_of_fp16(small_split, tiny_encoder):
    expected = features_of(small_split, tiny_encoder)
    cached = data.cached_features(small_split, tiny_encoder, batch_size=3)
    assert cached.shape == (7, 4, 5) and cached.dtype == numpy.float16
    assert isinstance(cached, numpy.memmap)
    numpy.testing.assert_allclose(cached, expected, rtol=1e-3, atol=1e-4)
    assert numpy.ptp(expected) > 0.1


def test_features_without_room_or_sense_are_refused_in_words(
    small_split, tiny_encoder, data_home, monkeypatch
):
    class Free:
        free = 7 * 4 * 5 * 2 - 1

    with monkeypatch.context() as patch:
        patch.setattr("convrnn_utils.downloads.shutil.disk_usage", lambda path: Free)
        with pytest.raises(OSError, match="features of .* needs .*make room, or set CONVRNN_DATA"):
            data.cached_features(small_split, tiny_encoder)
    assert names_in(data_home / "features") == []
    with pytest.raises(ValueError, match="has no picture"):
        data.cached_features(small_split.first(0), tiny_encoder)
    tiny_encoder.frozen = False
    with pytest.raises(ValueError, match="in training mode"):
        data.cached_features(small_split, tiny_encoder.train())


def test_batches_that_threads_share_come_back_in_order():
    def work(number):
        time.sleep(0.05 if number == 0 else 0)  # the others are done before it
        return number, torch.get_num_threads()

    assert list(data.prefetch(work, range(9), cores=3)) == [(number, 1) for number in range(9)]


@pytest.mark.usefixtures("two_threads")
def test_the_number_of_threads_stays_as_it_was(small_split, tiny_encoder):
    threads = torch.get_num_threads()
    data.cached_features(small_split, tiny_encoder, batch_size=1)
    with ThreadPoolExecutor(1) as pool:  # also in threads that begin later
        assert pool.submit(torch.get_num_threads).result() == threads == torch.get_num_threads()


def test_the_pooled_features_are_the_mean_of_the_grid(small_split, tiny_encoder):
    grid = data.cached_features(small_split, tiny_encoder)
    pooled = data.cached_features(small_split, tiny_encoder, pooled=True)
    assert pooled.shape == (7, 5) and pooled.dtype == numpy.float16
    numpy.testing.assert_allclose(pooled, grid.astype(float).mean(axis=1), rtol=3e-3, atol=1e-3)


@pytest.mark.parametrize("pooled", [False, True])
def test_a_second_call_does_not_run_the_encoder(small_split, tiny_encoder, pooled):
    first = numpy.array(data.cached_features(small_split, tiny_encoder, pooled, batch_size=4))
    assert tiny_encoder.calls == 2
    second = data.cached_features(small_split, tiny_encoder, pooled, batch_size=3)
    assert tiny_encoder.calls == 2
    assert numpy.array_equal(first, second)


def change_weights(split, encoder):
    with torch.no_grad():
        encoder.network.bias += 1


def change_normalisation(split, encoder):
    encoder.mean += 20


def change_a_picture(split, encoder):
    Image.new("RGB", (33, 21), "red").save(split.paths[3])


@pytest.mark.parametrize("change", [change_weights, change_normalisation, change_a_picture])
def test_after_a_change_the_features_are_made_anew(small_split, tiny_encoder, data_home, change):
    old = numpy.array(data.cached_features(small_split, tiny_encoder))
    data.cached_features(small_split, tiny_encoder, pooled=True)
    data.cached_features(small_split.first(2), tiny_encoder)
    before = set(names_in(data_home / "features"))
    assert len(before) == 3
    change(small_split, tiny_encoder)
    new = data.cached_features(small_split, tiny_encoder)
    assert not numpy.allclose(old, new, atol=0.05)
    numpy.testing.assert_allclose(new, features_of(small_split, tiny_encoder), rtol=1e-3, atol=1e-3)
    after = set(names_in(data_home / "features"))
    assert len(before - after) == len(after - before) == 1  # the outdated one, and no other, went


def test_features_that_are_interrupted_leave_no_file(
    small_split, tiny_encoder, data_home, monkeypatch
):
    forward = tiny_encoder.forward

    def interrupted(pictures):
        if tiny_encoder.calls == 1:
            raise KeyboardInterrupt
        return forward(pictures)

    with monkeypatch.context() as patch:
        patch.setattr(tiny_encoder, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            data.cached_features(small_split, tiny_encoder, batch_size=3)
    assert tiny_encoder.calls == 1
    assert names_in(data_home / "features") == []
    assert data.cached_features(small_split, tiny_encoder, batch_size=3).shape == (7, 4, 5)


def test_a_view_is_the_part_of_the_picture_that_it_names():
    """On a picture whose red grows to the right and whose green grows downwards."""
    ramp = numpy.arange(64, dtype=numpy.uint8)
    pixels = numpy.zeros((64, 64, 3), numpy.uint8)
    pixels[..., 0], pixels[..., 1] = ramp, ramp[:, None]
    corners = {
        "whole": (0, 0, 63, 63),
        "mirrored": (63, 0, 0, 63),
        "centre": (4, 4, 59, 59),
        "top_left": (0, 0, 55, 55),
        "top_right": (8, 0, 63, 55),
        "bottom_left": (0, 8, 55, 63),
        "bottom_right": (8, 8, 63, 63),
    }
    assert corners.keys() == data.VIEWS.keys()
    for name, expected in corners.items():
        seen = numpy.array(data.VIEWS[name](Image.fromarray(pixels)))
        assert (*seen[0, 0, :2], *seen[-1, -1, :2]) == expected, name


def test_each_view_has_a_cache_of_its_own(small_split, tiny_encoder):
    whole = data.cached_features(small_split, tiny_encoder)
    mirrored = data.cached_features(small_split, tiny_encoder, view="mirrored")
    again = data.cached_features(small_split, tiny_encoder)
    assert numpy.array_equal(whole, again)
    assert not numpy.allclose(whole, mirrored, atol=1e-3)
    images = [ImageOps.mirror(data.read_image(path)) for path in small_split.paths]
    expected = tiny_encoder(torch.stack([tiny_encoder.preprocess(image) for image in images]))
    assert numpy.allclose(mirrored, expected.detach().numpy(), atol=2e-3)


def test_a_view_that_there_is_not_is_answered_with_those_there_are(small_split, tiny_encoder):
    with pytest.raises(ValueError, match="no view 'mirror'; choose one of whole, mirrored, "):
        data.cached_features(small_split, tiny_encoder, view="mirror")


def test_features_for_training_are_rounded_where_that_pays(
    small_split, tiny_encoder, data_home, monkeypatch
):
    exact = data.cached_features(small_split, tiny_encoder)
    monkeypatch.setattr(data, "has_bfloat16", lambda where: False)
    same = data.cached_features(small_split, tiny_encoder, for_training=True)
    assert same.filename == exact.filename
    monkeypatch.setattr(data, "has_bfloat16", lambda where: True)
    again = data.cached_features(small_split, tiny_encoder)  # not for training
    assert again.filename == exact.filename
    rounded = data.cached_features(small_split, tiny_encoder, for_training=True)
    assert rounded.dtype == numpy.float16 and "bfloat16" in rounded.filename.name
    assert len(names_in(data_home / "features")) == 2
    error = numpy.abs(rounded.astype(float) - exact).max() / numpy.abs(exact).max()
    assert 1e-4 < error < 2e-2
    pooled = data.cached_features(small_split, tiny_encoder, pooled=True, for_training=True)
    numpy.testing.assert_allclose(pooled, rounded.astype(float).mean(axis=1), rtol=3e-3, atol=1e-3)


def test_views_give_each_picture_in_one_of_its_views():
    views = data.Views({"whole": numpy.arange(0, 10), "mirrored": numpy.arange(100, 110)})
    assert len(views) == 10
    torch.manual_seed(0)
    rows = [3, 7, 3, 9] * 50
    given = views[rows]
    assert (given % 100 == rows).all()
    assert 60 < (given >= 100).sum() < 140
    torch.manual_seed(0)
    assert numpy.array_equal(views[rows], given)


def test_features_go_to_a_gpu_if_half_of_its_memory_holds_them(monkeypatch):
    """A CPU stands for the GPU; 600 rows of 3 numbers of 2 bytes, in two views."""
    array = numpy.random.RandomState(0).random_sample((600, 3)).astype(numpy.float16)
    views = data.Views({"whole": array, "mirrored": -array})
    where, rows = torch.device("cpu"), [5, 599, 5, 0]
    assert data.to_gpu(array, where) is array and data.to_gpu(views, where) is views
    monkeypatch.setattr(data, "_free_on_gpu", lambda where: 2 * 3600)
    moved = data.to_gpu(array, where)
    assert torch.is_tensor(moved) and numpy.array_equal(moved[rows].numpy(), array[rows])
    assert data.to_gpu(moved, where) is moved
    assert data.to_gpu(views, where) is views, "both views together are too large"
    monkeypatch.setattr(data, "_free_on_gpu", lambda where: 2 * 7200)
    moved = data.to_gpu(views, where)
    drawn = []
    for inputs in (moved, views):
        torch.manual_seed(0)
        drawn.append(torch.as_tensor(inputs[rows * 10]))
    assert torch.is_tensor(moved[rows]) and torch.equal(*drawn) and moved.names == views.names
    assert data.to_gpu([], where) == [], "not an array: as it is"


def test_features_beyond_the_range_of_fp16_are_refused(small_split, tiny_encoder, data_home):
    with torch.no_grad():
        tiny_encoder.network.bias += 1e6
    with pytest.raises(ValueError, match="tiny gives features beyond the range of fp16"):
        data.cached_features(small_split, tiny_encoder)
    assert names_in(data_home / "features") == []


# ---------------------------------------------------------------- batches


def vocabulary_of(split):
    return Vocabulary.from_captions([c for captions in split.captions for c in captions], 1)


def test_captions_are_padded_to_the_longest():
    padded = data.pad_captions([[1, 5, 2], [1, 2], [1, 6, 7, 8, 2]])
    expected = [[1, 5, 2, PAD, PAD], [1, 2, PAD, PAD, PAD], [1, 6, 7, 8, 2]]
    assert padded.dtype == torch.int64
    assert padded.tolist() == expected


@pytest.mark.parametrize("kind", ["pictures", "grid", "pooled", "array"])
def test_a_batch_holds_the_pictures_and_the_captions_of_its_pairs(small_split, tiny_encoder, kind):
    inputs = {
        "pictures": lambda: data.Pictures(small_split, tiny_encoder),
        "grid": lambda: data.cached_features(small_split, tiny_encoder),
        "pooled": lambda: data.cached_features(small_split, tiny_encoder, pooled=True),
        "array": lambda: numpy.arange(14.0, dtype=numpy.float32).reshape(7, 2),
    }[kind]()
    vocabulary = vocabulary_of(small_split)
    dataset = data.CaptionDataset(small_split, inputs, vocabulary)
    assert len(dataset) == 14
    indices = [13, 0, 5, 4]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of arrays that cannot be written to
        batch, captions = dataset[indices]
    assert torch.is_tensor(batch) and len(batch) == 4
    assert torch.equal(batch, torch.as_tensor(inputs[[6, 0, 2, 2]]))
    texts = [caption for group in small_split.captions for caption in group]
    assert [vocabulary.decode(row) for row in captions] == [texts[index] for index in indices]
    assert all(row[0] == START and END in row for row in captions.tolist())
    assert captions.shape[1] == max(len(vocabulary.encode(texts[index])) for index in indices)


def test_long_captions_are_cut_but_end(small_split):
    vocabulary = vocabulary_of(small_split)
    dataset = data.CaptionDataset(small_split, numpy.zeros((7, 1)), vocabulary, max_words=4)
    whole = [vocabulary.encode(c) for captions in small_split.captions for c in captions]
    assert max(map(len, whole)) > 6
    for (row, ids), uncut in zip(dataset.pairs, whole, strict=True):
        assert ids[0] == START and ids[-1] == END and ids.count(END) == 1
        assert ids[1:-1] == uncut[1:-1][:4]
        assert 0 <= row < 7


def test_words_that_the_vocabulary_does_not_know_are_unknown(small_split):
    dataset = data.CaptionDataset(small_split, numpy.zeros((7, 1)), Vocabulary(["noise"]))
    assert dataset[[1]][1].tolist() == [[START, 4, UNKNOWN, END]]


def test_inputs_that_are_not_one_a_picture_are_refused(small_split):
    with pytest.raises(ValueError, match="6 inputs do not fit the 7 pictures"):
        data.CaptionDataset(small_split, numpy.zeros((6, 1)), vocabulary_of(small_split))


@pytest.fixture(scope="module")
def thousand():
    """1,003 pairs with captions of 1 to 20 words."""
    random = numpy.random.RandomState(0)
    captions = [["word " * random.randint(1, 21)] for _ in range(1003)]
    ids = list(range(1003))
    split = data.Split("many/train", ids, [None] * 1003, captions, [{}] * 1003)
    return data.CaptionDataset(split, numpy.zeros((1003, 1)), Vocabulary(["word"]))


@pytest.mark.parametrize("batch_size", [2, 10, 64, 2000])
def test_the_batches_hold_every_pair_once(thousand, batch_size):
    batches = data.batch_indices(thousand, batch_size, seed=0)
    left_out = 1003 % batch_size == 1
    flat = sorted(index for batch in batches for index in batch)
    assert len(flat) == len(set(flat)) == 1003 - left_out
    assert set(flat) <= set(range(1003))
    assert sum(len(batch) < batch_size for batch in batches) == (1003 % batch_size > 1)


def test_the_seed_fixes_the_batches(thousand):
    first = data.batch_indices(thousand, 10, seed=0)
    assert data.batch_indices(thousand, 10, seed=0) == first
    other = data.batch_indices(thousand, 10, seed=1)
    assert other != first
    assert {frozenset(batch) for batch in other} != {frozenset(batch) for batch in first}


def test_a_batch_holds_captions_of_about_equal_length_in_random_order(thousand):
    lengths = [len(ids) for _, ids in thousand.pairs]
    batches = data.batch_indices(thousand, 10, seed=0)
    padding = sum(max(lengths[i] for i in b) * len(b) - sum(lengths[i] for i in b) for b in batches)
    assert padding / sum(lengths) < 0.03  # 0.6 in batches drawn without a look at the lengths
    means = [numpy.mean([lengths[i] for i in batch]) for batch in batches]
    assert abs(numpy.corrcoef(means, range(len(means)))[0, 1]) < 0.3


def test_batches_of_one_caption_are_left_out(thousand):
    batches = data.batch_indices(thousand, 3 * 334, seed=0)
    assert [len(batch) for batch in batches] == [1002]


def test_a_picture_comes_once_with_all_its_captions(small_split):
    inputs = numpy.arange(7.0).reshape(7, 1)
    dataset = data.PictureDataset(small_split, inputs, vocabulary_of(small_split), captions_each=2)
    assert len(dataset) == 7
    pictures, captions = dataset[[4, 1]]
    assert pictures.flatten().tolist() == [4, 1]
    pairs = data.CaptionDataset(small_split, inputs, vocabulary_of(small_split))
    assert torch.equal(captions, pairs[[8, 9, 2, 3]][1])
    assert dataset.length(4) == captions.shape[1]
    lengths = [max(map(dataset.length, batch)) for batch in data.batch_indices(dataset, 2, seed=0)]
    assert sorted(lengths) == sorted(dataset.length(row) for row in (1, 3, 5))


def test_a_picture_with_too_few_captions_is_refused(small_split):
    with pytest.raises(ValueError, match="a picture of noise/train has 2 captions, not 5"):
        data.PictureDataset(small_split, numpy.zeros((7, 1)), vocabulary_of(small_split))


# ---------------------------------------------------------------- complete or absent


def test_a_file_and_a_folder_get_their_name_at_the_end(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with files.complete_or_absent(path) as unfinished:
        unfinished.write_text("words")
        assert not path.exists()
    assert path.read_text() == "words"
    with files.complete_or_absent(tmp_path / "folder") as unfinished:
        (unfinished / "images").mkdir(parents=True)
        assert not (tmp_path / "folder").exists()
    assert (tmp_path / "folder" / "images").is_dir()
    assert names_in(tmp_path) == ["folder", "new"]
    assert names_in(tmp_path / "new") == ["file.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", [True, False])
def test_a_file_that_is_not_finished_leaves_nothing_and_the_old_one_stays(tmp_path, error, old):
    path = tmp_path / "file.txt"
    if old:
        path.write_text("old")
    with pytest.raises(error), files.complete_or_absent(path) as unfinished:
        unfinished.write_text("half")
        raise error
    assert names_in(tmp_path) == (["file.txt"] if old else [])
    assert not old or path.read_text() == "old"


@pytest.mark.parametrize("old", [True, False])
def test_a_folder_that_is_not_finished_leaves_nothing_and_the_old_one_stays(tmp_path, old):
    path = tmp_path / "folder"
    if old:
        write_json(path / "a.json", "{}")
    with pytest.raises(KeyboardInterrupt), files.complete_or_absent(path) as unfinished:
        write_json(unfinished / "images" / "b.json", "{}")
        raise KeyboardInterrupt
    assert names_in(tmp_path) == (["folder"] if old else [])
    assert not old or names_in(path) == ["a.json"]


def test_nothing_written_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError), files.complete_or_absent(tmp_path / "file.txt"):
        pass
    assert names_in(tmp_path) == []


# ---------------------------------------------------------------- scenes and photographs


def test_the_scenes_are_drawn_once(data_home, monkeypatch):
    folder = data.scenes(train=4, test=2, seed=5)
    assert folder.parent == data_home
    sizes = {split: len(data.load_split(folder, split)) for split in scenes.SPLITS}
    assert sizes == {"train": 4, "val": 2, "test": 2, "held_out": 2}
    split = data.load_split(folder, "train")
    assert [len(captions) for captions in split.captions] == [5] * 4
    assert data.read_image(split.paths[0]).size == (96, 96)

    def refuse(*arguments, **options):
        raise AssertionError("drawn a second time")

    monkeypatch.setattr(scenes, "write", refuse)
    assert data.scenes(train=4, test=2, seed=5) == folder
    for other in ({"train": 5}, {"test": 3}, {"seed": 6}):
        with pytest.raises(AssertionError, match="second time"):
            data.scenes(**{"train": 4, "test": 2, "seed": 5, **other})


def test_the_scenes_of_other_settings_never_share_a_folder(data_home, monkeypatch):
    monkeypatch.setattr(scenes, "write", lambda *arguments, **options: None)
    settings = [(6000, 500, 0), (6000, 500, 1), (6000, 50, 0), (600, 500, 0), (60, 500, 0)]
    assert len({data.scenes(*numbers) for numbers in settings}) == len(settings)
    assert data.scenes().name == "scenes-6000"


def test_the_photographs_come_with_the_course_wherever_other_data_lie(data_home):
    split = data.load_split(data.photos(), "test")
    assert 12 <= len(split) <= 24
    assert all(path.is_file() for path in split.paths)


def test_photographs_that_are_missing_are_named_with_a_way_out(monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "repository", lambda: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"photos.*clone the repository again"):
        data.photos()


def test_so_many_pictures_go_through_the_encoder_at_a_time_as_are_asked_for(
    small_split, tiny_encoder
):
    data.cached_features(small_split, tiny_encoder, batch_size=2)
    assert tiny_encoder.calls == 4
