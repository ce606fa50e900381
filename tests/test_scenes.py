"""Tests of the drawn scenes: the pictures, the captions, the files, the score."""

import contextlib
import hashlib
import io
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from convrnn_utils import scenes as sc
from convrnn_utils.scene_checking import holds
from convrnn_utils.scene_reading import Statement
from convrnn_utils.scene_words import ACTION_WORDS

# All files of write(train=6, val=2, test=2, held_out=2, seed=3) and write_clips(2, 1, 1, seed=3).
DIGEST = "9e265134d4bcfef0f352156a8801c5242b294c8d1f7dfdb475aee8417dcb99ba"


def some_scenes(count: int, seed: int = 0, held_out: bool = False) -> list[sc.Scene]:
    random = np.random.RandomState(seed)
    return [sc.sample_scene(random, held_out) for _ in range(count)]


def thing(shape, colour="red", size="small", pattern="plain", x=48.0, y=48.0, radius=10.0):
    return sc.Thing(shape, colour, size, pattern, x, y, radius, 0.0)


@pytest.fixture
def desk() -> sc.Scene:
    """Three things in a row, and a big star below that partly covers the ring in the middle."""
    things = (
        thing("circle", "red", x=15),
        thing("ring", "blue", "medium", "striped", x=48, y=50, radius=13),
        thing("heart", "red", x=81, y=52),
        thing("star", "yellow", "large", "dotted", x=50, y=70, radius=17),
    )
    return sc.Scene(things, "wood", 5, ((3, 1),))


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
        assert picture.shape == (96, 96, 3) and picture.dtype == np.uint8
        for one, mask in zip(scene.things, sc.masks(scene), strict=True):
            if one.pattern != "plain":
                continue
            mean = np.median(picture[mask], axis=0) / 255
            gaps = {name: np.abs(mean - colour[0]).max() for name, colour in sc.COLOURS.items()}
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
            assert np.array_equal(visible[front], whole[front])
            assert np.array_equal(visible[back], whole[back] & ~whole[front])
        overlapping += bool(covered)
        for part, mask, one in zip(visible, whole, scene.things, strict=True):
            assert part.sum() >= 0.6 * mask.sum()
            across = max(np.ptp(np.flatnonzero(mask.any(axis=axis))) + 1 for axis in (0, 1))
            assert 15 <= across <= 44, one
            edges = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
            assert not edges, one
    assert overlapping > 40


def test_the_background_is_textured_and_the_shadow_falls_to_the_lower_right():
    for background in sc.BACKGROUNDS:
        bare = sc.draw(sc.Scene((), background, 1)).astype(int)
        assert bare.std(axis=(0, 1)).max() > 3
        drawn = sc.draw(sc.Scene((thing("square", radius=12.0),), background, 1)).astype(int)
        darker = (bare - drawn).sum(axis=2)
        assert darker[48:60, 59:61].mean() > 10  # right of the square
        assert darker[40:56, 34:36].mean() == 0  # left of it


def test_a_scene_survives_json(desk):
    for scene in [desk, *some_scenes(20)]:
        assert sc.Scene.from_json(json.loads(json.dumps(scene.to_json()))) == scene


# ---------------------------------------------------------------- captions


def test_the_reader_understands_a_caption():
    said = sc.parse("the small striped red star sits above an orange hoop with dots on the sand")
    assert said == [
        Statement("thing", "star", (0,)), Statement("size", "small", (0,)),
        Statement("pattern", "striped", (0,)), Statement("colour", "red", (0,)),
        Statement("unique", 1, (0,)), Statement("thing", "ring", (1,)),
        Statement("colour", "orange", (1,)), Statement("pattern", "dotted", (1,)),
        Statement("relation", "above", (0, 1)), Statement("background", "sand"),
    ]  # fmt: skip
    turned = sc.parse("between a star and a ring there is a heart")
    assert Statement("relation", "between", (2, 0, 1)) in turned
    assert Statement("total", 2) in sc.parse("a star and a ring and nothing else")
    assert Statement("count", 3, (0,)) in sc.parse("three shapes, one of them a green heart")
    assert Statement("colour", "blue", (0,)) in sc.parse("the big star is blue and the ring is red")
    assert sc.parse("") == sc.parse("qwerty of the uiop") == []


@pytest.mark.parametrize("caption", [
    "a red circle and a red heart on a wooden table",
    "two red shapes", "four things", "the big star is yellow and dotted",
    "a striped ring is partly covered by a large star",
    "a star in front of the blue ring", "a blue ring between a circle and a heart",
    "between a circle and a heart there is a ring", "below the circle lies a star",
    "a circle, a ring, a heart and a star and nothing else",
    "the circle is to the left of the ring, which is left of the heart",
])  # fmt: skip
def test_true_captions_are_found_true(desk, caption):
    verdicts = sc.check(caption, desk)
    assert verdicts and all(truth for _, truth in verdicts), verdicts


@pytest.mark.parametrize(("caption", "kind"), [
    ("a square", "thing"), ("a blue circle", "colour"), ("a large heart", "size"),
    ("a checked star", "pattern"), ("a star and another star", "thing"),
    ("the red shape", "unique"), ("three red shapes", "count"), ("one red shape", "count"),
    ("two circles", "count"), ("a circle to the right of a ring", "relation"),
    ("a ring in front of a star", "relation"), ("a circle behind a ring", "relation"),
    ("a circle between a ring and a heart", "relation"), ("a ring on the beach", "background"),
    ("above the star is a square", "relation"), ("a circle is above a heart", "relation"),
    ("nothing but a star", "total"), ("the star is red", "colour"),
])  # fmt: skip
def test_false_captions_are_found_false(desk, caption, kind):
    assert kind in {statement.kind for statement, truth in sc.check(caption, desk) if not truth}


def test_captions_are_true_of_their_own_scene_and_mostly_false_of_another():
    random = np.random.RandomState(7)
    scenes = some_scenes(3000, seed=8) + some_scenes(200, seed=9, held_out=True)
    false_elsewhere, kinds, words = 0, Counter(), Counter()
    for index, scene in enumerate(scenes):
        written = sc.captions(scene, random)
        assert len(set(written)) == 5
        for caption in written:
            words.update(caption.replace(",", "").replace(":", "").split())
            verdicts = sc.check(caption, scene)
            assert verdicts and all(truth for _, truth in verdicts), (caption, scene)
            kinds.update(statement.kind for statement, _ in verdicts)
        other = scenes[index - 1]
        false_elsewhere += not all(truth for _, truth in sc.check(written[0], other))
    assert false_elsewhere > 0.85 * len(scenes)
    assert len(words) >= 150
    assert set(kinds) == {"thing", "size", "colour", "pattern", "relation", "background", "count",
                          "unique", "total"}  # fmt: skip
    assert all(kinds[kind] > 300 for kind in kinds), kinds


def test_relations_follow_the_geometry():
    """Against a second, independent reading of where things are: the masks."""
    for scene in some_scenes(300, seed=5):
        alone = [sc.masks(sc.Scene((one,), "sand", 0))[0] for one in scene.things]
        middles = [np.argwhere(mask).mean(axis=0) for mask in alone]
        for a in range(len(middles)):
            for b in range(len(middles)):
                (ya, xa), (yb, xb) = middles[a], middles[b]
                if a != b and holds(scene, "left", a, b):
                    assert xa + 5 < xb and holds(scene, "right", b, a)
                if a != b and holds(scene, "above", a, b):
                    assert ya + 5 < yb and holds(scene, "below", b, a)
                assert holds(scene, "front", a, b) == holds(scene, "behind", b, a)


# ---------------------------------------------------------------- faithfulness


def test_faithfulness_by_hand(desk):
    caption = "a small red circle to the left of a big green ring on the sand"
    score = sc.faithfulness([caption], [desk])
    assert score["stated"]["attribute"] == 4 and score["precision"]["attribute"] == 0.5
    assert score["precision"]["thing"] == 1 and score["precision"]["relation"] == 1
    assert score["precision"]["background"] == 0 and score["recall"]["background"] == 0
    assert score["recall"]["thing"] == 0.5 and score["present"]["thing"] == 4
    # three sizes (the ring is medium), four colours and two patterns (two things are plain)
    assert score["present"]["attribute"] == 9 and score["recall"]["colour"] == 0.25
    assert np.isnan(score["precision"]["count"])


def test_what_is_said_of_an_absent_thing_is_false(desk):
    score = sc.faithfulness(["a small red square next to a small red square"], [desk])
    assert score["precision"]["all"] == 0 and score["stated"]["all"] == 7
    repeated = sc.faithfulness(["a star and a star and a star"], [desk])
    assert repeated["precision"]["thing"] == pytest.approx(1 / 3)


def test_faithfulness_matches_for_the_most_truth_and_bears_any_words(desk):
    assert sc.faithfulness(["a shape above a big star"], [desk])["precision"]["all"] == 1
    swapped = sc.Scene(desk.things[::-1], "wood", 5, ((0, 2),))
    caption = "a red thing and a blue thing and a yellow thing"
    assert sc.faithfulness([caption, caption], [desk, swapped])["precision"]["all"] == 1
    salad = ["red red left above the of behind", "", "star " * 40, "the the a one of between"]
    score = sc.faithfulness(salad, [desk] * len(salad))
    assert 0 < score["precision"]["thing"] < 0.2
    with pytest.raises(ValueError, match="give one for each"):
        sc.faithfulness(["a star"], [])


# ---------------------------------------------------------------- files


def test_the_files_load_as_coco_and_the_masks_agree(written):
    folder = written / "scenes"
    for split, count in (("train", 6), ("val", 2), ("test", 2), ("held_out", 2)):
        coco = load(folder / f"captions_{split}.json")
        boxes = load(folder / f"instances_{split}.json")
        assert len(coco.imgs) == count
        for image_id, image in coco.imgs.items():
            scene = sc.Scene.from_json(image["scene"])
            on_disk = np.array(Image.open(folder / "images" / image["file_name"]))
            assert np.array_equal(on_disk, sc.draw(scene))
            sentences = [a["caption"] for a in coco.imgToAnns[image_id]]
            assert len(set(sentences)) == 5
            assert all(truth for s in sentences for _, truth in sc.check(s, scene))
            annotations = boxes.imgToAnns[image_id]
            assert len(annotations) == len(scene.things)
            for one, mask, note in zip(scene.things, sc.masks(scene), annotations, strict=True):
                assert np.array_equal(boxes.annToMask(note), mask)
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
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sc.write(tmp_path / "scenes", train=3, val=0, test=0, held_out=0, progress=stop)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "scenes").mkdir()
    with pytest.raises(FileExistsError, match="is there already"):
        sc.write(tmp_path / "scenes", train=1, val=0, test=0, held_out=0)


# ---------------------------------------------------------------- clips


def test_clips_show_the_action_they_are_labelled_with():
    random = np.random.RandomState(0)
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
            gaps = [np.hypot(s.things[0].x - s.things[1].x, s.things[0].y - s.things[1].y)
                    for s in (clip.scenes[0], clip.scenes[-1])]  # fmt: skip
            assert (gaps[0] - gaps[1]) * (1 if clip.action == "meet" else -1) > 28
        assert first[len(clip.movers) :] == last[len(clip.movers) :]
        sentences = sc.clip_captions(clip, random)
        assert len(set(sentences)) == 5
        for sentence in sentences:
            told = [a for a, ways in ACTION_WORDS.items() for way in ways if f" {way}" in sentence]
            assert set(told) == {clip.action}, sentence
            for scene in (clip.scenes[0], clip.scenes[-1]):
                assert all(truth for _, truth in sc.check(sentence, scene)), sentence
    assert set(seen) == set(sc.ACTIONS)


def test_frames_share_their_background_and_only_the_mover_moves():
    clip = sc.sample_clip(np.random.RandomState(2), frames=8)
    frames = sc.draw_clip(clip)
    assert frames.shape == (8, 96, 96, 3)
    assert np.array_equal(frames, np.stack([sc.draw(scene) for scene in clip.scenes]))
    changed = (frames != frames[0]).any(axis=(0, 3))
    assert 0 < changed.mean() < 0.6
    assert sc.Clip.from_json(json.loads(json.dumps(clip.to_json()))) == clip
    with pytest.raises(ValueError, match="8 to 16 frames"):
        sc.sample_clip(np.random.RandomState(0), frames=4)


def test_clips_on_disk(written):
    coco = load(written / "clips" / "captions_train.json")
    for image_id, image in coco.imgs.items():
        frames = [np.array(Image.open(written / "clips" / "images" / n)) for n in image["frames"]]
        clip = sc.Clip.from_json(image["clip"])
        assert np.array_equal(np.stack(frames), sc.draw_clip(clip))
        assert image["action"] == clip.action and len(coco.imgToAnns[image_id]) == 5
