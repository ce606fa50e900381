"""What the options of the commands come to: each is followed to what it changes, untrained."""

import json
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from convrnn_utils import commands, data, plots
from convrnn_utils.__main__ import build_parser, main
from convrnn_utils.checkpoints import SHIPPED_CAPTIONER, load_model, save_model
from convrnn_utils.commands import DATA_SETS
from convrnn_utils.decoding import attention_of, beam_search, log_probability
from convrnn_utils.text import Vocabulary

ENTRY = {"epoch": 1, "training_loss": 2.0, "validation_loss": 3.0, "cider": 4.0, "seconds": 5.0}
OPTIONS = """train --data scenes --encoder small_cnn --decoder attention --views whole centre
--epochs 3 --patience 2 --batch-size 7 --by-picture --learning-rate 0.02 --embed-size 10
--hidden-size 12 --attention-size 6 --dropout 0.25 --label-smoothing 0.3 --weight-decay 0.01
--averaging 0.8
--min-count 3 --self-critical 2 --self-critical-rate 0.004 --self-critical-share 0.25 --seed 5"""


@pytest.fixture
def trained(monkeypatch):
    """``train``, ``blend`` and ``metrics.score`` only note what they are called with."""
    noted = {"train": [], "blend": [], "score": []}

    def train(model, training, validation, folder, **settings):
        noted["train"].append((model, training, validation, folder, settings))
        save_model(folder / "best.safetensors", model, training.vocabulary)
        return [ENTRY]

    def score(references, candidates, **options):
        noted["score"].append(options)
        return {f"BLEU-{n}": 1.0 for n in range(1, 5)} | {"CIDEr": 2.0}

    monkeypatch.setattr(commands, "train", train)
    monkeypatch.setattr(commands, "blend", lambda *given: noted["blend"].append(given[1:]))
    monkeypatch.setattr(commands.metrics, "score", score)
    return noted


def test_every_option_reaches_the_training(small_scenes, tmp_path, trained, monkeypatch):
    asked = []
    readable = data.readable
    monkeypatch.setattr(data, "readable", lambda split: asked.append(split.name) or readable(split))
    monkeypatch.setattr(data, "has_bfloat16", lambda where: True)
    run, arguments = tmp_path / "run", [*OPTIONS.split(), "--folder", str(tmp_path / "run")]
    main(arguments)
    (model, training, validation, folder, first), (*_, further, second) = trained["train"]
    assert (folder, further) == (run, run / "self-critical") and len(asked) == 3
    sizes = ("embed_size", "hidden_size", "attention_size", "dropout")
    assert [model.arguments[name] for name in sizes] == [10, 12, 6, 0.25]
    assert type(training) is type(validation) is data.PictureDataset
    assert training.inputs.names == ["whole", "centre"]
    assert not numpy.array_equal(*training.inputs.arrays) and training.inputs.arrays[0].ndim == 3
    assert all("bfloat16" in view.filename.name for view in training.inputs.arrays)
    assert "bfloat16" not in validation.inputs.filename.name
    captions = sum(training.split.captions, [])
    assert training.vocabulary == Vocabulary.from_captions(captions, 3)
    own = {"batch_size": 7, "averaging": 0.8, "patience": 2, "seed": 5}
    expected = {"epochs": 3, "learning_rate": 0.02, "label_smoothing": 0.3, "weight_decay": 0.01}
    assert {name: first[name] for name in first if name != "on_epoch"} == own | expected
    assert type(second.pop("loss")).__name__ == "SelfCriticalLoss"
    expected = {"epochs": 2, "learning_rate": 0.004}
    assert {name: second[name] for name in second if name != "on_epoch"} == own | expected
    assert trained["blend"] == [(run / "best.safetensors", 0.25)]
    facts = load_model(run / "captioner.safetensors")[2]
    assert facts["command"] == arguments and facts["data"] == small_scenes.name
    assert facts["metrics"].keys() == {"val", "test"}
    kept = load_file(run / "captioner.safetensors")
    assert kept["bias"].dtype == torch.float16


def test_captions_one_by_one_are_the_default_and_pooled(small_scenes, tmp_path, trained):
    main(["train", "--data", "scenes", "--encoder", "small_cnn", "--folder", str(tmp_path / "run")])
    ((_, training, validation, _, _),) = trained["train"]
    assert type(training) is type(validation) is data.CaptionDataset
    assert training.inputs.arrays[0].ndim == 2


def test_a_seed_fixes_the_first_weights(small_scenes, tmp_path, trained):
    command = "train --data scenes --encoder small_cnn --hidden-size 8 --embed-size 8 --seed"
    for number, seed in enumerate("556"):
        main([*command.split(), seed, "--folder", str(tmp_path / str(number))])
    first, same, other = (call[0].rnn_decoder.linear.weight for call in trained["train"])
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_evaluate_searches_as_asked(tmp_path, trained, monkeypatch, data_home, capsys):
    searches = []

    def search(model, images, max_words, beam_width, length_power):
        searches.append((beam_width, length_power))
        return torch.full((len(images), 2), 4)

    monkeypatch.setattr(commands, "beam_search", search)
    folder = data.scenes(4, 2, 3)
    monkeypatch.setitem(DATA_SETS, "scenes", lambda: folder)
    main(f"evaluate {SHIPPED_CAPTIONER} --data scenes --beam 3 --length-power 0.5".split())
    assert searches == [(3, 0.5)]
    assert trained["score"] == [{}, {"meteor": False, "brevity_penalty": False}]
    monkeypatch.setitem(DATA_SETS, "flickr8k", lambda: folder)  # on what it was trained on
    main(["evaluate", str(SHIPPED_CAPTIONER), "--beam", "3"])
    assert "scenes-4-2-3 test, beam 3, length power 1, 5 references" in capsys.readouterr().out


@pytest.mark.parametrize(
    "ciders, epochs, said",
    [
        ([1.0, 3.0, 2.0], 3, "Epoch 2 is kept: highest CIDEr."),
        (
            [1.0, 3.0, 2.0, 2.0, 2.0],
            9,
            "Epoch 2 is kept: highest CIDEr. Training stopped, as the 3 after it brought nothing "
            "better.",
        ),
    ],
)
def test_the_last_line_says_what_is_kept(ciders, epochs, said):
    history = [ENTRY | {"epoch": n, "cider": c} for n, c in enumerate(ciders, start=1)]
    assert commands._end_line(history, epochs) == said
    assert commands._epoch_line(ENTRY) == (
        "epoch  1: training loss 2.000, validation loss 3.000, CIDEr 4.0, 5 s"
    )


@pytest.mark.parametrize(
    "numbers, said", [((5, 5), "5 references"), ((1, 1), "1 reference"), ((2, 5), "2 to 5 refer")]
)
def test_the_number_of_references_is_said(numbers, said, capsys):
    groups = [["a dog"] * number for number in numbers]
    split = data.Split("mine/test", [1, 2], [], groups, [])
    commands._print_scores(split, "greedy", {"CIDEr": 1.0})
    line = capsys.readouterr().out.splitlines()[0]
    assert f", {said}" in line and line.count("references,") == (numbers != (1, 1))


def test_photographs_have_the_captions_certainties_and_looks_of_the_model(
    tmp_path, monkeypatch, capsys
):
    first, second = data.load_split(data.photos(), "test").paths[:2]
    copied = tmp_path / "dog[1].jpg"  # looks like a pattern
    copied.write_bytes(first.read_bytes())
    shown, show = [], plots.show_attention
    monkeypatch.setattr(
        plots, "show_attention", lambda *given: shown.append(given[1:]) or show(*given)
    )
    figures = plots.plt.get_fignums()
    read, read_image = [], data.read_image
    monkeypatch.setattr(data, "read_image", lambda path: read.append(path) or read_image(path))
    main(["caption", str(copied), str(second), "--json", "--attention", str(tmp_path / "looks")])
    assert read == [copied, second]  # once each: a pipe, say, could not be read again
    records = json.loads(capsys.readouterr().out)
    model, vocabulary, _ = load_model(SHIPPED_CAPTIONER)
    for path, record, (said, weights) in zip((copied, second), records, shown, strict=True):
        with torch.inference_mode():
            features = model.cnn(model.cnn.preprocess(data.read_image(path)).unsqueeze(0))
        ids = beam_search(model, features, beam_width=5, length_power=1.0)
        words = vocabulary.decode(ids[0].tolist()).split()
        assert record["caption"] == " ".join(words) and said == words
        certain = log_probability(model, features, ids).item()
        assert record["log_probability"] == pytest.approx(certain, abs=1e-3)
        looks = attention_of(model, features, ids)[0, : len(words)]
        assert numpy.allclose(weights, looks, atol=1e-4)
    picture = Image.open(tmp_path / "looks" / "dog[1].jpg.attention.png")
    assert picture.format == "PNG" and picture.width > 300
    assert plots.plt.get_fignums() == figures


def test_too_few_captions_for_by_picture_are_refused_before_any_feature_is_computed(
    data_home, monkeypatch
):
    split = data.Split("mine/train", [1], [Path("x.jpg")], [["a dog", "a cat"]], [{}])
    monkeypatch.setattr(commands.data, "readable", lambda _: split)
    monkeypatch.setattr(commands.data, "load_split", lambda *_: split)
    monkeypatch.setitem(DATA_SETS, "scenes", lambda: data_home)
    monkeypatch.delattr(commands.data, "cached_features")
    with pytest.raises(SystemExit, match="a picture of mine/train has 2 captions, not 5"):
        main(["train", "--data", "scenes", "--encoder", "small_cnn", "--by-picture"])


def test_defaults_are_those_of_the_readme():
    options = build_parser().parse_args(["train"])
    assert (options.encoder, options.decoder, options.seed) == ("efficientnet_lite2", "rnn", 0)
    assert (options.self_critical_rate, options.self_critical_share) == (2e-4, 0.7)
    assert build_parser().parse_args(["caption", "x.jpg"]).beam == 5
    assert build_parser().parse_args(["evaluate", "x"]).beam == 1


@pytest.mark.parametrize("command, advice", [("train", True), ("caption x.jpg", False)])
def test_an_interrupt_gives_advice_where_it_helps(monkeypatch, capsys, command, advice):
    def interrupted(options):
        raise KeyboardInterrupt

    name = "train_and_score" if advice else "caption_files"
    monkeypatch.setattr("convrnn_utils.__main__." + name, interrupted)
    with pytest.raises(SystemExit) as stop:
        main(command.split())
    assert stop.value.code == 130
    assert ("Give the same command again" in capsys.readouterr().err) == advice


def test_a_runtime_error_is_said_in_one_sentence(monkeypatch):
    def no_network(options):
        raise RuntimeError("the weights could not be downloaded")

    monkeypatch.setattr("convrnn_utils.__main__.evaluate", no_network)
    with pytest.raises(SystemExit, match="^Error: the weights could not be downloaded$"):
        main(["evaluate", "x.safetensors"])


def test_a_model_of_an_epoch_is_evaluated_on_the_data_set_of_its_split(data_home, monkeypatch):
    monkeypatch.setitem(DATA_SETS, "scenes", lambda: data_home / "drawn")
    trained_on = commands._trained_on
    assert trained_on("best.safetensors", {"data": "scenes/train"}) == data_home / "drawn"
    (data_home / "mine").mkdir()
    assert trained_on("best.safetensors", {"data": "mine/train"}) == data_home / "mine"
