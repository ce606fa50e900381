"""Tests of the captions of drawn scenes: those who write them, read them and check them."""

from collections import Counter

import numpy
import pytest

from convrnn_utils import scenes as sc
from convrnn_utils.scene_checking import holds
from convrnn_utils.scene_reading import Statement
from convrnn_utils.scene_words import ACTION_WORDS


def some_scenes(count: int, seed: int = 0, held_out: bool = False) -> list[sc.Scene]:
    random = numpy.random.RandomState(seed)
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


# ---------------------------------------------------------------- captions


def test_the_reader_understands_a_caption():
    said = sc.parse("the small striped red star sits above an orange hoop with dots on the sand")
    assert said == [
        Statement("thing", "star", (0,)),
        Statement("size", "small", (0,)),
        Statement("pattern", "striped", (0,)),
        Statement("colour", "red", (0,)),
        Statement("unique", 1, (0,)),
        Statement("thing", "ring", (1,)),
        Statement("colour", "orange", (1,)),
        Statement("pattern", "dotted", (1,)),
        Statement("relation", "above", (0, 1)),
        Statement("background", "sand"),
    ]
    turned = sc.parse("between a star and a ring there is a heart")
    assert Statement("relation", "between", (2, 0, 1)) in turned
    assert Statement("total", 2) in sc.parse("a star and a ring and nothing else")
    assert Statement("count", 3, (0,)) in sc.parse("three shapes, one of them a green heart")
    assert Statement("colour", "blue", (0,)) in sc.parse("the big star is blue and the ring is red")
    assert sc.parse("") == sc.parse("qwerty of the uiop") == []


@pytest.mark.parametrize(
    "caption",
    [
        "a red circle and a red heart on a wooden table",
        "two red shapes",
        "four things",
        "the big star is yellow and dotted",
        "a striped ring is partly covered by a large star",
        "a star in front of the blue ring",
        "a blue ring between a circle and a heart",
        "between a circle and a heart there is a ring",
        "below the circle lies a star",
        "a circle, a ring, a heart and a star and nothing else",
        "the circle is to the left of the ring, which is left of the heart",
    ],
)
def test_true_captions_are_found_true(desk, caption):
    verdicts = sc.check(caption, desk)
    assert verdicts and all(truth for _, truth in verdicts), verdicts


@pytest.mark.parametrize(
    ("caption", "kind"),
    [
        ("a square", "thing"),
        ("a blue circle", "colour"),
        ("a large heart", "size"),
        ("a checked star", "pattern"),
        ("a star and another star", "thing"),
        ("the red shape", "unique"),
        ("three red shapes", "count"),
        ("one red shape", "count"),
        ("two circles", "count"),
        ("a circle to the right of a ring", "relation"),
        ("a ring in front of a star", "relation"),
        ("a circle behind a ring", "relation"),
        ("a circle between a ring and a heart", "relation"),
        ("a ring on the beach", "background"),
        ("above the star is a square", "relation"),
        ("a circle is above a heart", "relation"),
        ("nothing but a star", "total"),
        ("the star is red", "colour"),
    ],
)
def test_false_captions_are_found_false(desk, caption, kind):
    assert kind in {statement.kind for statement, truth in sc.check(caption, desk) if not truth}


def test_captions_are_true_of_their_own_scene_and_mostly_false_of_another():
    random = numpy.random.RandomState(7)
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
    expected = "thing size colour pattern relation background count unique total"
    assert set(kinds) == set(expected.split())
    assert all(kinds[kind] > 300 for kind in kinds), kinds


def test_relations_follow_the_geometry():
    """Against a second, independent reading of where things are: the masks."""
    for scene in some_scenes(300, seed=5):
        alone = [sc.masks(sc.Scene((one,), "sand", 0))[0] for one in scene.things]
        middles = [numpy.argwhere(mask).mean(axis=0) for mask in alone]
        for a in range(len(middles)):
            for b in range(len(middles)):
                (ya, xa), (yb, xb) = middles[a], middles[b]
                if a != b and holds(scene, "left", a, b):
                    assert xa + 5 < xb and holds(scene, "right", b, a)
                if a != b and holds(scene, "above", a, b):
                    assert ya + 5 < yb and holds(scene, "below", b, a)
                assert holds(scene, "front", a, b) == holds(scene, "behind", b, a)


def test_captions_of_clips_tell_the_action_and_are_true_from_beginning_to_end():
    random = numpy.random.RandomState(0)
    for _ in range(150):
        clip = sc.sample_clip(random)
        sentences = sc.clip_captions(clip, random)
        assert len(set(sentences)) == 5
        for sentence in sentences:
            told = [a for a, ways in ACTION_WORDS.items() for way in ways if f" {way}" in sentence]
            assert set(told) == {clip.action}, sentence
            for scene in (clip.scenes[0], clip.scenes[-1]):
                assert all(truth for _, truth in sc.check(sentence, scene)), sentence


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
    assert numpy.isnan(score["precision"]["count"])


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


@pytest.mark.parametrize(
    "x, y, beside", [(55, 48, True), (65, 48, False), (40, 48, False), (44, 69, False)]
)
def test_beside_is_near_and_to_the_side(x, y, beside):
    scene = sc.Scene((thing("circle", x=30), thing("ring", x=x, y=y)), "sand", 1)
    assert holds(scene, "beside", 0, 1) == holds(scene, "beside", 1, 0) == beside
