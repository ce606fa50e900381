"""The command line, from drawn scenes to captions for a picture file."""

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from convrnn_utils import data, metrics, training
from convrnn_utils.__main__ import build_parser, main
from convrnn_utils.checkpoints import DOCUMENT_CAPTIONER, load_model
from convrnn_utils.env import repository


@pytest.fixture
def no_meteor(monkeypatch):
    """METEOR takes seconds to start, and ``test_train_then_caption`` has it."""
    monkeypatch.setattr(metrics, "score", partial(metrics.score, meteor=False))


def test_train_then_caption(small_scenes, data_home, capsys):
    train = "train --data scenes --encoder small_cnn --epochs 1 --min-count 1 --hidden-size 16"
    main(train.split())
    printed = capsys.readouterr().out
    assert "30 pictures, 150 captions" in printed
    for metric in ("BLEU-1", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr"):
        assert metric in printed
    assert "scenes-30-10-0 test, greedy, 5 references, scores × 100" in printed

    picture = data.load_split(small_scenes, "test").paths[0]
    checkpoint = data_home / "checkpoints" / "scenes-small_cnn-rnn" / "captioner.safetensors"
    main(["caption", str(picture), "--checkpoint", str(checkpoint)])
    assert capsys.readouterr().out.startswith(f"{picture}: ")

    main(["evaluate", str(checkpoint), "--data", "scenes"])
    evaluated = capsys.readouterr().out.splitlines()
    assert evaluated[-9:-1] == printed.splitlines()[-9:-1]
    assert evaluated[-1].startswith("BLEU-1 to BLEU-4 without the brevity penalty: ")


@pytest.mark.usefixtures("no_meteor")
def test_attention_is_trained_evaluated_and_captions_as_json(small_scenes, data_home, capsys):
    train = "train --data scenes --encoder small_cnn --decoder attention --epochs 1 --min-count 1 "
    train += "--embed-size 16 --hidden-size 16 --views whole centre --averaging 0.9 "
    train += "--by-picture --attention-size 8 --self-critical 1 --self-critical-rate 0.1"
    main(train.split())
    run = data_home / "checkpoints" / "scenes-small_cnn-attention"
    checkpoint = run / "captioner.safetensors"
    parts = [run / "best.safetensors", run / "self-critical" / "best.safetensors", checkpoint]
    before, after, blended = (load_model(path)[0].embed.weight for path in parts)
    assert torch.allclose(blended, before.lerp(after, 0.7), atol=1e-3)
    assert not torch.allclose(before, after, atol=1e-3)
    main(["evaluate", str(checkpoint), *["--data", "scenes", "--split", "val", "--beam", "3"]])
    printed = capsys.readouterr().out
    assert "scenes-30-10-0 val, beam 3, length power 1, 5 references, scores × 100" in printed

    pictures = data.load_split(small_scenes, "test").paths * 4  # more than one batch
    main(["caption", *map(str, pictures), "--json", "--checkpoint", str(checkpoint)])
    records = json.loads(capsys.readouterr().out)
    assert [record["file"] for record in records] == [str(path) for path in pictures]
    assert all(record.keys() == {"file", "caption", "log_probability"} for record in records)
    assert all(record["log_probability"] < 0 for record in records)
    assert [record["caption"] for record in records[:10]] == [
        record["caption"] for record in records[10:20]
    ]

    looks = data_home / "looks"
    arguments = ["--attention", str(looks), "--checkpoint", str(checkpoint)]
    main(["caption", str(pictures[0]), str(pictures[1]), *arguments])
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 2
    assert f"Where it looked is drawn in {looks}." in printed.err
    names = [f"{path.name}.attention.png" for path in pictures[:2]]
    assert sorted(path.name for path in looks.iterdir()) == sorted(names)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ("caption photo.jpg --checkpoint nowhere.safetensors", "there is no checkpoint"),
        (
            f"caption photo.jpg --attention looks --checkpoint {DOCUMENT_CAPTIONER}",
            "a model without attention",
        ),
        ("caption a/x.jpg b/x.jpg --attention looks", "several photographs are called x.jpg"),
        (f"caption photo.jpg --attention {__file__}", "is a file; --attention wants a folder"),
        ("caption nowhere/*.jpg", "no file matches nowhere/*.jpg"),
        ("train --data scenes --encoder resnet51", "there is no encoder 'resnet51'"),
        ("train --data nowhere.csv --encoder resnet51", "there is no encoder 'resnet51'"),
        (f"train --data scenes --folder {__file__}", "is a file; --folder wants a folder"),
        ("train --data scenes --self-critical 1", "needs all captions of a picture: add"),
        ("train --data scenes --views whole mirrored", "mirrored scenes make"),
        (
            "train --data scenes --encoder small_cnn --min-count 1000",
            "no word of the 150 captions occurs 1000 times or more; give a lower --min-count",
        ),
    ],
)
def test_what_a_user_gets_wrong_is_said_in_one_sentence(small_scenes, arguments, sentence):
    with pytest.raises(SystemExit) as stop:
        main(arguments.split())
    assert str(stop.value).startswith("Error: ") and sentence in str(stop.value)
    assert "\n" not in str(stop.value)


@pytest.mark.usefixtures("no_meteor")
def test_evaluation_leaves_out_a_picture_that_cannot_be_read(small_scenes, capsys):
    path = data.load_split(small_scenes, "test").paths[0]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(UserWarning, match=r"1 of the 10 pictures .* left out"):
        main(["evaluate", str(DOCUMENT_CAPTIONER), "--data", "scenes"])
    assert "scenes-30-10-0 test-readable, greedy" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ("caption photo.jpg --beam 0", "argument --beam: it is 0, and has to be 1 or more"),
        (
            "caption photo.jpg --length-power -1",
            "--length-power: it is -1, and has to be between 0 and 10",
        ),
        ("train --epochs 0", "argument --epochs: it is 0, and has to be 1 or more"),
        ("train --dropout 1.5", "--dropout: it is 1.5, and has to be between 0 and 1"),
        ("train --learning-rate nan", "--learning-rate: it is nan, and has to be 0 or more"),
        ("train --learning-rate inf", "--learning-rate: it is inf, and has to be 0 or more"),
        ("train --seed -1", "argument --seed: it is -1, and has to be between 0 and 4294967295"),
        ("train --epochs few", "argument --epochs: invalid int value: 'few'"),
        (
            "train --data pictures",
            "'pictures' is neither flickr8k, scenes, coco nor a file NAME.csv",
        ),
    ],
)
def test_numbers_out_of_bounds_are_refused_with_the_name_of_the_option(
    small_scenes, arguments, sentence, capsys
):
    with pytest.raises(SystemExit) as stop:
        main(arguments.split())
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "evaluate", "caption"])
def test_every_option_is_explained(command):
    parser = build_parser()._subparsers._group_actions[0].choices[command]
    assert all(action.help for action in parser._actions)


@pytest.mark.parametrize("command", ["train", "evaluate", "caption"])
def test_the_help_names_each_default_and_no_folder_of_this_machine(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    options = vars(build_parser().parse_args([command] if command == "train" else [command, "x"]))
    for name in ("command", "arguments", "checkpoint", "photos"):
        options.pop(name, None)
    defaults = [value for value in options.values() if value is not None and value is not False]
    assert text.count("(default: ") == len(defaults) > 1
    assert "None" not in text and "False" not in text and str(Path.cwd()) not in text


@pytest.mark.usefixtures("no_meteor")
def test_an_interrupted_training_goes_on_with_the_same_command(
    small_scenes, data_home, monkeypatch, capsys
):
    train = "train --data scenes --encoder small_cnn --epochs 1 --min-count 1 --hidden-size 16"

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "cider_of_captions", interrupted)
        with pytest.raises(SystemExit) as stop:
            main(train.split())
    assert stop.value.code == 130
    said = capsys.readouterr()
    run = data_home / "checkpoints" / "scenes-small_cnn-rnn"
    assert f"Training in {run}." in said.out
    assert "Interrupted. Give the same command again" in said.err
    main(train.split())
    assert f"Found an earlier run in {run}." in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main([*train.split(), "--hidden-size", "8", "--dropout", "0.2"])
    assert "begun with model.arguments.hidden_size = 16, model.arguments.dropout = 0.4, and" in str(
        stop.value
    )
    assert "--folder" in str(stop.value) and len(str(stop.value)) < 500


@pytest.mark.usefixtures("no_meteor")
def test_a_table_with_few_pictures_is_trained_on_to_the_end(small_scenes, data_home, capsys):
    """With one picture to validate on CIDEr is always 0: the loss decides, all epochs are run."""
    split = data.load_split(small_scenes, "train").first(8)
    lines = [
        f'{path},"{caption}"'
        for path, group in zip(split.paths, split.captions, strict=True)
        for caption in group
    ]
    table = data_home / "mine.csv"
    table.write_text("\n".join(["path,caption", *lines]))
    train = f"train --data {table} --encoder small_cnn --epochs 5 --min-count 1 --hidden-size 16"
    main(train.split())
    printed = capsys.readouterr().out
    assert "epoch  5" in printed and "CIDEr 0.0" in printed
    assert "Epoch 5 is kept: lowest validation loss of those with the highest CIDEr." in printed
    checkpoint = data_home / "checkpoints" / "mine-small_cnn-rnn" / "captioner.safetensors"
    main(["evaluate", str(checkpoint)])  # on what it was trained on
    assert capsys.readouterr().out.splitlines()[:7] == printed.splitlines()[-8:-1]
    shutil.rmtree(data_home / "mine")
    with pytest.raises(SystemExit, match="was trained on mine, which is not in .*say with --data"):
        main(["evaluate", str(checkpoint)])


def test_patterns_that_the_shell_has_left_are_filled_in(tmp_path, capsys):
    for photo in data.load_split(data.photos(), "test").paths[:2]:
        shutil.copyfile(photo, tmp_path / photo.name)
    main(["caption", str(tmp_path / "*.jpg"), "--json", "--beam", "1"])
    records = json.loads(capsys.readouterr().out)
    assert [record["file"] for record in records] == sorted(map(str, tmp_path.iterdir()))


def test_a_file_that_is_no_picture_is_named_and_the_others_have_captions(tmp_path, capsys):
    photos = data.load_split(data.photos(), "test").paths[:2]
    broken = tmp_path / "notes.jpg"
    broken.write_text("no picture")
    with pytest.raises(SystemExit, match="Files without a caption: 1 of 3"):
        main(["caption", str(photos[0]), str(broken), str(photos[1]), "--json", "--beam", "1"])
    printed = capsys.readouterr()
    assert "notes.jpg cannot be read as a picture" in printed.err
    assert [record["file"] for record in json.loads(printed.out)] == [str(path) for path in photos]
    with pytest.raises(SystemExit, match="Files without a caption: 2 of 2"):
        main(["caption", str(tmp_path / "nowhere.jpg"), str(tmp_path)])
    said = capsys.readouterr().err
    assert "there is no picture" in said
    assert f"{tmp_path} cannot be read as a picture: it is a folder" in said


@pytest.mark.skipif(sys.platform != "linux", reason="only there a name may be any bytes")
def test_a_photograph_with_a_name_that_is_no_text_is_captioned_too(tmp_path):
    photo = data.load_split(data.photos(), "test").paths[0]
    names = [os.fsencode(tmp_path) + b"/caf\xe9.jpg", os.fsencode(tmp_path) + b"/none-\xe9.jpg"]
    shutil.copyfile(photo, names[0])
    command = [sys.executable, "-m", "convrnn_utils", "caption", "--beam", "1", *names, photo]
    said = subprocess.run(command, capture_output=True, cwd=repository())
    lines = said.stdout.decode().splitlines()
    assert lines[0].startswith(rf"{tmp_path}/caf\udce9.jpg: a ") and len(lines) == 2
    assert rf"there is no picture {tmp_path}/none-\udce9.jpg" in said.stderr.decode()
