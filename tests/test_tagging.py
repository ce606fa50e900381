"""tagging: what the small CNN is asked, and that it learns it."""

import re
import sys
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load_file

from convrnn_utils import data, scenes, tagging
from convrnn_utils.encoders import create_encoder
from convrnn_utils.scenes import Scene, Thing


def thing(shape="square", colour="red", x=30.0, y=54.0, radius=17.0):
    return Thing(shape, colour, "large", "striped", x, y, radius, 0.0)


def test_the_tags_of_a_scene():
    scene = Scene((thing(),), "sand", 1)
    expected = {("sand",), (1,), ("red", "square"), ("striped", "square"), ("large", "square")}
    expected |= {("striped", "red"), ("large", "red"), ("square", 0, 1), ("red", 0, 1)}
    assert tagging.tags(scene) == expected
    table, columns = tagging.tag_table([scene, Scene((thing(colour="blue"),), "sand", 1)])
    assert set(columns) == expected | tagging.tags(Scene((thing(colour="blue"),), "sand", 1))
    assert {column for column, true in zip(columns, table[0], strict=True) if true} == expected


def test_a_place_is_the_things_that_covers_most_of_it():
    scene = Scene((thing(), thing("star", "blue", 78.0, 78.0, 9.0)), "sand", 1)
    places = tagging.place_table([scene]).view(8, 8, 4)
    square = [scenes.SHAPES.index("square"), list(scenes.COLOURS).index("red")]
    square += [scenes.PATTERNS.index("striped"), list(scenes.SIZES).index("large")]
    assert places[4, 2].tolist() == square  # pixels 24 to 35 across, 48 to 59 down
    assert places[0, 0].tolist() == [len(scenes.SHAPES), -100, -100, -100]
    shares = numpy.stack([scenes.place_shares(mask, 8) for mask in scenes.masks(scene)])
    shares = torch.from_numpy(shares).view(2, 8, 8)
    own = (shares >= tagging.LEAST_SHARE) & (shares == shares.max(dim=0).values)
    assert torch.equal(places[:, :, 0] == square[0], own[0])
    assert shares[0].sum().item() == pytest.approx(scenes.masks(scene)[0].sum() / 144)


def test_a_small_thing_astride_four_places_has_one_of_them():
    scene = Scene((thing("moon", "blue", 47.5, 47.5, 7.0),), "sand", 1)
    assert scenes.place_shares(scenes.masks(scene)[0], 8).max() < tagging.LEAST_SHARE
    places = tagging.place_table([scene])[0]
    assert (places[:, 0] == scenes.SHAPES.index("moon")).sum() == 1


def test_the_scenes_are_those_of_the_data_set(tmp_path):
    pictures, drawn = tagging.draw_scenes(3)
    scenes.write(tmp_path / "scenes", train=3, val=0, test=0, held_out=0, seed=1)
    split = data.load_split(tmp_path / "scenes", "train")
    assert [Scene.from_json(record["scene"]) for record in split.records] == drawn
    assert torch.equal(data.Pictures(split, create_encoder("small_cnn", None))[range(3)], pictures)


def test_average_precision():
    tags = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    scores = torch.tensor([[3.0, 3.0, 1.0], [2.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
    # first tag: ranks 1 and 3, (1 + 2/3) / 2; second: rank 2, 1/2; third: nowhere true
    assert tagging.average_precision(scores, tags) == pytest.approx((5 / 6 + 1 / 2) / 2)


def test_the_command_trains_and_writes_weights(tmp_path, monkeypatch, capsys):
    output = tmp_path / "weights.safetensors"
    arguments = ["tagging", "--pictures", "100", "--epochs", "1", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", arguments)
    tagging.main()
    assert "on 2 new scenes" in capsys.readouterr().out
    create_encoder("small_cnn", weights=None).network.load_state_dict(load_file(output))


@pytest.mark.parametrize(
    "options", ["--pictures 1", "--epochs 0", f"--output {Path(__file__).parent}"]
)
def test_the_command_refuses_at_once_what_cannot_end_well(options, monkeypatch, capsys):
    monkeypatch.setattr(tagging, "draw_scenes", lambda _: pytest.fail("it has begun"))
    monkeypatch.setattr(sys, "argv", ["tagging", *options.split()])
    with pytest.raises(SystemExit):
        tagging.main()
    assert re.search("one epoch at least|is a folder", capsys.readouterr().err)


def test_training_makes_the_answers_better():
    torch.manual_seed(0)
    pictures, drawn = tagging.draw_scenes(64)
    places, (tags, _) = tagging.place_table(drawn), tagging.tag_table(drawn)
    encoder = create_encoder("small_cnn", weights=None, frozen=False)
    heads = tagging.Heads(encoder.dim, tags.shape[1])
    before = tagging.measure(encoder, heads, pictures, places, tags)
    encoder.train()
    tagging.train(encoder, heads, pictures, places, tags, epochs=30, batch_size=32)
    after = tagging.measure(encoder, heads, pictures, places, tags)
    assert after["colour"] > before["colour"] + 0.3 and after["tags"] > before["tags"] + 0.3


@pytest.mark.parametrize(
    "x, y, place", [(10.0, 90.0, (0, 2)), (50.0, 33.0, (1, 1)), (95.9, 31.9, (2, 0))]
)
def test_a_tag_says_in_which_third_a_thing_is(x, y, place):
    assert ("square", *place) in tagging.tags(Scene((thing(x=x, y=y),), "sand", 1))
