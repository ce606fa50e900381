"""Tests of the drawn scenes and clips: the pictures, and the files they are written to."""

import contextlib
import hashlib
import io
import json
from collections import Counter

import numpy
import pytest
from PIL import Image
from pycocotools.coco import COCO

from convrnn_utils import scenes as sc

# All files of write(train=6, val=2, test=2, held_out=2, seed=3) and write_clips(2, 1, 1, seed=3).
DIGEST = "9e265134d4bcfef0f352156a8801c5242b294c8d1f7dfdb475aee8417dcb99ba"


def some_scenes(count: int, seed: int = 0, held_out: bool = False) -> list[sc.Scene]:
    random = numpy.random.RandomState(seed)
    return [sc.sample_scene(random, held_out) for _ in range(count)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small data set of scenes and one of clips on disk."""
    folder = tmp_path_factory.mktemp("data")
    sc.write(folder / "scenes", train=6, val=2, test=2, held_out=2, seed=3)
    sc.write_clips(folder / "clips", train=2, val=1, test=1, seed=3)
    return folder


def load(path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


# ---------------------------------------------------------------- pictures


def test_every_byte_is_the_same_on_every_machine(written):
    digest = hashlib.sha256()
    for path in sorted(p for p in written.rglob("*") if p.is_file()):
        digest.update(path.relative_to(written).as_posix().encode() + path.read_bytes())
    assert digest.hexdigest() == DIGEST


def test_scenes_differ_and_keep_to_their_ranges():
    many = some_scenes(400)
    assert len({scene.seed for scene in many}) > 390
    assert {len(scene.things) for scene in many} == {1, 2, 3, 4}
    assert {scene.background for scene in many} == set(sc.BACKGROUNDS)
    for one in (one for scene in many for one in scene.things):
        low, high = sc.SIZES[one.size]
        assert low <= one.radius <= high
        assert one.shape in sc.SHAPES and one.colour in sc.COLOURS and one.pattern in sc.PATTERNS


def test_held_out_pairs_stay_out_of_training_but_no_colour_or_shape_is_missing():
    trained = [{(t.colour, t.shape) for t in scene.things} for scene in some_scenes(2000)]
    assert not any(pairs & sc.HELD_OUT for pairs in trained)
    seen = set().union(*trained)
    assert seen == {(c, s) for c in sc.COLOURS for s in sc.SHAPES} - sc.HELD_OUT
    tested = [{(t.colour, t.shape) for t in s.things} for s in some_scenes(300, 1, held_out=True)]
    assert all(pairs & sc.HELD_OUT for pairs in tested)
    assert not sc.HELD_OUT - set().union(*tested)


def test_a_thing_is_seen_where_its_mask_is_and_in_its_colour():
    for scene in some_scenes(150, seed=4):
        picture = sc.draw(scene)
        assert picture.shape == (96, 96, 3) and picture.dtype == numpy.uint8
        for one, mask in zip(scene.things, sc.masks(scene), strict=True):
            if one.pattern != "plain":
                continue
            mean = numpy.median(picture[mask], axis=0) / 255
            gaps = {name: numpy.abs(mean - colour[0]).max() for name, colour in sc.COLOURS.items()}
            assert min(gaps, key=gaps.get) == one.colour, (one, mean)


def test_things_stay_visible_and_overlap_only_where_the_scene_says_so():
    overlapping = 0
    for scene in some_scenes(600, seed=2):
        visible = sc.masks(scene)
        whole = [sc.masks(sc.Scene((one,), scene.background, 0))[0] for one in scene.things]
        covered = set()
        for front in range(len(whole)):
            for back in range(front):
                if (whole[front] & whole[back]).any():
                    covered.add((front, back))
        assert covered == set(scene.overlaps)
        assert visible.sum(axis=0).max() == 1  # a pixel shows one thing: the front one
        for front, back in scene.overlaps:
            assert numpy.array_equal(visible[front], whole[front])
            assert numpy.array_equal(visible[back], whole[back] & ~whole[front])
        overlapping += bool(covered)
        for part, mask, one in zip(visible, whole, scene.things, strict=True):
            assert part.sum() >= 0.6 * mask.sum()
            across = max(numpy.ptp(numpy.flatnonzero(mask.any(axis=axis))) + 1 for axis in (0, 1))
            assert 15 <= across <= 44, one
            edges = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
            assert not edges, one
    assert overlapping > 40


def test_the_background_is_textured_and_the_shadow_falls_to_the_lower_right():
    square = sc.Thing("square", "red", "small", "plain", 48.0, 48.0, 12.0, 0.0)
    for background in sc.BACKGROUNDS:
        bare = sc.draw(sc.Scene((), background, 1)).astype(int)
        assert bare.std(axis=(0, 1)).max() > 3
        drawn = sc.draw(sc.Scene((square,), background, 1)).astype(int)
        darker = (bare - drawn).sum(axis=2)
        assert darker[48:60, 59:61].mean() > 10  # right of the square
        assert darker[40:56, 34:36].mean() == 0  # left of it


def test_a_scene_survives_json():
    scenes = some_scenes(20)
    assert any(scene.overlaps for scene in scenes)
    for scene in scenes:
        assert sc.Scene.from_json(json.loads(json.dumps(scene.to_json()))) == scene


# ---------------------------------------------------------------- files


def test_the_files_load_as_coco_and_the_masks_agree(written):
    folder = written / "scenes"
    for split, count in (("train", 6), ("val", 2), ("test", 2), ("held_out", 2)):
        coco = load(folder / f"captions_{split}.json")
        boxes = load(folder / f"instances_{split}.json")
        assert len(coco.imgs) == count
        for image_id, image in coco.imgs.items():
            scene = sc.Scene.from_json(image["scene"])
            on_disk = numpy.array(Image.open(folder / "images" / image["file_name"]))
            assert numpy.array_equal(on_disk, sc.draw(scene))
            sentences = [a["caption"] for a in coco.imgToAnns[image_id]]
            assert len(set(sentences)) == 5
            assert all(truth for s in sentences for _, truth in sc.check(s, scene))
            annotations = boxes.imgToAnns[image_id]
            assert len(annotations) == len(scene.things)
            for one, mask, note in zip(scene.things, sc.masks(scene), annotations, strict=True):
                assert numpy.array_equal(boxes.annToMask(note), mask)
                assert boxes.cats[note["category_id"]]["name"] == one.shape
                left, top, width, height = note["bbox"]
                assert mask[top : top + height, left : left + width].sum() == mask.sum()
                assert note["area"] == mask.sum() and note["attributes"]["colour"] == one.colour


def test_a_picture_depends_only_on_seed_split_and_number(tmp_path, written):
    sc.write(tmp_path / "few", train=1, val=1, test=0, held_out=0, seed=3)
    for name in ("train_000000.png", "val_000000.png"):
        few, many = (folder / "images" / name for folder in (tmp_path / "few", written / "scenes"))
        assert few.read_bytes() == many.read_bytes()
    sc.write(tmp_path / "other", train=1, val=0, test=0, held_out=0, seed=4)
    other = tmp_path / "other" / "images" / "train_000000.png"
    assert other.read_bytes() != (tmp_path / "few" / "images" / "train_000000.png").read_bytes()


def test_nothing_half_written_remains(tmp_path):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sc.write(tmp_path / "scenes", train=3, val=0, test=0, held_out=0, progress=stop)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "scenes").mkdir()
    with pytest.raises(FileExistsError, match="is there already"):
        sc.write(tmp_path / "scenes", train=1, val=0, test=0, held_out=0)


# ---------------------------------------------------------------- clips


def test_clips_show_the_action_they_are_labelled_with():
    random = numpy.random.RandomState(0)
    seen = Counter()
    for _ in range(150):
        clip = sc.sample_clip(random)
        seen[clip.action] += 1
        first, last = clip.scenes[0].things, clip.scenes[-1].things
        dx, dy = last[0].x - first[0].x, last[0].y - first[0].y
        growth = last[0].radius / first[0].radius
        if clip.action in ("left", "right", "up", "down"):
            across, along = (dy, dx) if clip.action in ("left", "right") else (dx, dy)
            assert across == 0 and growth == 1
            assert along * (1 if clip.action in ("right", "down") else -1) >= 36
        elif clip.action in ("grow", "shrink"):
            assert (dx, dy) == (0, 0)
            assert growth > 1.9 if clip.action == "grow" else growth < 1 / 1.9
        else:
            gaps = [
                numpy.hypot(s.things[0].x - s.things[1].x, s.things[0].y - s.things[1].y)
                for s in (clip.scenes[0], clip.scenes[-1])
            ]
            assert (gaps[0] - gaps[1]) * (1 if clip.action == "meet" else -1) > 28
        assert first[len(clip.movers) :] == last[len(clip.movers) :]
    assert set(seen) == set(sc.ACTIONS)


def test_frames_share_their_background_and_only_the_mover_moves():
    clip = sc.sample_clip(numpy.random.RandomState(2), frames=8)
    frames = sc.draw_clip(clip)
    assert frames.shape == (8, 96, 96, 3)
    assert numpy.array_equal(frames, numpy.stack([sc.draw(scene) for scene in clip.scenes]))
    changed = (frames != frames[0]).any(axis=(0, 3))
    assert 0 < changed.mean() < 0.6
    assert sc.Clip.from_json(json.loads(json.dumps(clip.to_json()))) == clip
    with pytest.raises(ValueError, match="8 to 16 frames"):
        sc.sample_clip(numpy.random.RandomState(0), frames=4)


def test_clips_on_disk(written):
    coco = load(written / "clips" / "captions_train.json")
    for image_id, image in coco.imgs.items():
        frames = [
            numpy.array(Image.open(written / "clips" / "images" / n)) for n in image["frames"]
        ]
        clip = sc.Clip.from_json(image["clip"])
        assert numpy.array_equal(numpy.stack(frames), sc.draw_clip(clip))
        assert image["action"] == clip.action and len(coco.imgToAnns[image_id]) == 5
