"""The speed benchmarks: both sides of each compute the same, and rows are what they should be."""

import importlib
import json
import sys
from functools import partial
from types import SimpleNamespace

import numpy
import pytest
import torch

from convrnn_utils import data
from convrnn_utils.attention import ShowAttendTell
from convrnn_utils.decoders import ConvRNN
from convrnn_utils.decoding import beam_search
from convrnn_utils.env import has_bfloat16, repository
from convrnn_utils.text import END, START, Vocabulary
from convrnn_utils.training import teacher_forcing_loss

WORDS = 20


@pytest.fixture(autouse=True)
def benchmarks_folder(monkeypatch):
    """The benchmarks import each other as they do when they are run."""
    monkeypatch.syspath_prepend(str(repository() / "benchmarks"))


def load(name):
    return importlib.import_module(name)


def captions_of_lengths(*lengths):
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(4, WORDS, (n,), generator=generator).tolist() for n in lengths]
    return data.pad_captions([[START, *row, END] for row in rows])


@pytest.fixture
def captioner(tiny_encoder):
    """A captioner that attends, with decided opinions, and its plain copy."""
    torch.manual_seed(0)
    model = ShowAttendTell(6, 8, WORDS, cnn=tiny_encoder).eval()
    for name, weight in model.named_parameters():
        if not name.startswith("cnn."):
            weight.data *= 3
    return model, load("plain_attention").plain_copy(model)


def grids(count):
    return torch.randn(count, 4, 5, generator=torch.Generator().manual_seed(2))


# ---------------------------------------------------------------- timing


def test_the_median_of_all_rounds_but_the_first_the_wait_for_the_device_included(monkeypatch):
    timing, clock, order = load("timing"), [0.0], []

    def passes(seconds):
        clock[0] += seconds

    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(timing, "wait_for_device", lambda: passes(0.5))
    taken = {"a": iter([9, 1, 5, 2]), "b": iter([9, 3, 3, 8])}

    def side(name):
        order.append(name)
        passes(next(taken[name]))

    medians = timing.in_turn({name: partial(side, name) for name in taken}, 3)
    assert "".join(order) == "abababab" and medians == {"a": 2.5, "b": 3.5}


def test_what_runs_on_the_cpu_names_no_gpu(monkeypatch):
    timing = load("timing")
    monkeypatch.setattr(timing, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(timing, "has_bfloat16", lambda where: where.type == "cuda")
    assert timing.machine().startswith("a GPU, ") and ", with bfloat16, " in timing.machine()
    assert "a GPU" not in timing.machine("cpu") and "bfloat16" not in timing.machine("cpu")


def test_the_ratio_says_how_many_times_faster_ours_is():
    timing = load("timing")
    rate, seconds = timing.row("a", 30.0, 10.0, "pictures/s"), timing.row("b", 2.0, 5.0, "s")
    assert rate["ratio"] == 3 and seconds["ratio"] == 2.5
    assert list(rate) == ["name", "ours", "reference", "unit", "ratio", "machine"]
    assert f"of {timing.os.cpu_count()} cores, torch {torch.__version__}" in rate["machine"]


def test_rows_are_kept_by_name(tmp_path, monkeypatch, capsys):
    timing, path = load("timing"), tmp_path / "results.json"
    timing.merge(path, [{"name": "a", "ours": 1}, {"name": "b", "ours": 2}])
    monkeypatch.setattr(sys, "argv", ["speed_b.py", "--into", str(path)])
    timing.command("Title\n\nmore", lambda: [timing.row("b", 30.0, 10.0, "pictures/s")])
    kept = json.loads(path.read_text())
    assert [record["name"] for record in kept] == ["a", "b"] and kept[1]["ratio"] == 3
    table, text = capsys.readouterr().out.strip().rsplit("\n", 1)
    assert json.loads(text) == kept[1:] and "30.00       10.00  pictures/s     3.0" in table


def test_a_folder_that_is_missing_is_said_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["speed_b.py", "--into", str(tmp_path / "none" / "rows.json")])
    with pytest.raises(SystemExit):
        load("timing").command("Title", lambda: pytest.fail("it measures"))


@pytest.mark.parametrize("options", [[], ["--float32"]])
def test_a_command_can_do_without_the_units_for_bfloat16(options, monkeypatch):
    for question in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, question, lambda: True, raising=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(sys, "argv", ["speed_b.py", *options])
    found = []

    def measure():
        found.extend(has_bfloat16(torch.device(where)) for where in ("cpu", "cuda"))
        return []

    load("timing").command("Title", measure)
    assert found == [not options] * 2


def test_rows_without_the_units_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["speed_b.py", "--float32", "--into", str(tmp_path / "rows")])
    with pytest.raises(SystemExit):
        load("timing").command("Title", lambda: pytest.fail("it measures"))


def test_the_table_has_a_line_for_each_row():
    timing = load("timing")
    rows = [timing.row("a", 30.0, 10.0, "pictures/s"), timing.row("b", 2.0, 5.0, "s")]
    lines = timing.table(rows).splitlines()
    assert lines[2:4] == ["| `a` | 30 | 10 | pictures/s | 3.0 |", "| `b` | 2 | 5 | s | 2.5 |"]
    assert lines[5:] == [rows[0]["machine"]]


# ---------------------------------------------------------------- both sides agree


def test_attention_as_commonly_written_gives_the_same_loss_and_gradients(captioner):
    captions = captions_of_lengths(3, 9, 5, 1)
    results = []
    for model in captioner:
        loss = teacher_forcing_loss(model, grids(4), captions)
        loss.backward()
        weights = dict(model.named_parameters())
        results.append({"loss": loss} | {n: w.grad for n, w in weights.items() if w.requires_grad})
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=0, atol=1e-4, msg=name)
    assert results[0]["key.weight"].abs().max() > 1e-3


@pytest.mark.parametrize("beam_width", [1, 3, 5])
def test_a_search_alone_writes_the_same_captions(captioner, beam_width):
    model, plain = captioner
    speed = load("speed_generation")
    together = speed.without_padding(beam_search(model, grids(30), 12, beam_width))
    search = load("plain_attention").search_alone
    alone = [search(plain, grid, 12, beam_width) for grid in grids(30).split(1)]
    speed.check(together, alone)
    assert len({len(ids) for ids in alone}) > 1
    with pytest.raises(AssertionError, match="1 captions differ"):
        speed.check(together, [[*alone[0], 4], *alone[1:]])


def test_the_documents_model_as_commonly_trained_has_the_same_loss(tiny_encoder):
    torch.manual_seed(0)
    model = ConvRNN(6, 8, WORDS, cnn=tiny_encoder)
    pictures = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    captions = captions_of_lengths(9, 5, 3, 1)
    plain = load("speed_training").plain_document_loss
    kept = tiny_encoder(pictures).mean(dim=1)
    losses = [plain(model, pictures, captions), teacher_forcing_loss(model, kept, captions)]
    torch.testing.assert_close(*losses, rtol=0, atol=1e-4)
    speed = load("speed_training")
    with pytest.raises(AssertionError, match="the losses differ"):
        speed.check(model, lambda: losses[0], lambda: losses[1] + 1)


def test_an_epoch_is_measured_with_the_cnn_once_and_in_every_batch():
    few = data.load_split(data.photos(), "test").first(2)
    (record,) = load("speed_training").measure_epoch(few, rounds=3, size=5)
    assert record["name"] == "epoch_document" and record["unit"] == "s" and record["ratio"] > 1


def test_scenes_drawn_plainly_are_the_same():
    speed = load("speed_scenes")
    (record,) = speed.measure(count=12, rounds=1)
    assert record["name"] == "scenes" and record["ours"] > 0 and record["reference"] > 0


def test_features_of_the_plain_way_are_the_same(monkeypatch):
    speed = load("speed_features")
    monkeypatch.setattr(speed, "report_network", lambda encoder, pictures: None)
    few = data.load_split(data.photos(), "test").first(3)
    monkeypatch.setattr(speed.data, "load_split", lambda folder, split: few)
    (record,) = speed.measure(repeats=2, plain_repeats=1, rounds=1)
    assert record["name"] == "features" and record["ours"] > 0


@pytest.mark.usefixtures("two_threads")
def test_the_network_alone_is_timed_and_compared_with_bfloat16(monkeypatch, tiny_encoder, capsys):
    speed = load("speed_features")
    monkeypatch.setattr(speed, "multiply_adds_a_second", lambda: 4e9)
    monkeypatch.setattr(speed, "rate_of_network", lambda network, pictures: 5.0)
    monkeypatch.setattr(speed, "has_bfloat16", lambda where: True)
    threads = torch.get_num_threads()
    pictures = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    speed.report_network(tiny_encoder, pictures)
    printed = capsys.readouterr().out
    assert "4 G multiply-adds" in printed and "allow 10, 2.0 times as many" in printed
    assert "features that are 0." in printed  # per cent of their length
    monkeypatch.setattr(speed, "has_bfloat16", lambda where: False)
    speed.report_network(tiny_encoder, pictures)
    assert "In bfloat16" not in capsys.readouterr().out
    monkeypatch.undo()
    assert speed.rate_of_network(tiny_encoder.network, tiny_encoder.normalise(pictures), 1) > 0
    assert torch.get_num_threads() == threads


def test_what_compiling_brings_is_measured(monkeypatch):
    """torch.compile itself takes half a minute and needs a compiler: here it changes nothing."""
    compiled = load("compiled")
    seen = []
    monkeypatch.setattr(torch, "compile", lambda part, dynamic: seen.append(part) or part)
    lines = compiled.measure(captions=2, pictures=2, rounds=1)
    assert [part.__name__ for part in seen] == ["attend"]
    assert lines[0].startswith("until all was compiled") and len(lines) == 4
    assert all("times as fast" in line for line in lines[1:3])


def test_make_bench_runs_every_speed_command():
    text = (repository() / "Makefile").read_text().split("bench: .venv/complete")[1]
    named = set(text.split("for part in ")[1].split(";")[0].split())
    files = (repository() / "benchmarks").glob("speed_*.py")
    assert named == {path.stem.removeprefix("speed_") for path in files}


def test_the_whole_training_runs_in_small(data_home, monkeypatch, capsys):
    gpu = load("gpu_training")
    folder = data.scenes(8, 4)
    monkeypatch.setattr(gpu.data, "flickr8k", lambda: folder)
    monkeypatch.setattr(gpu.metrics, "score", lambda *pair: {"CIDEr": 12.5})  # spares Java
    small = "--encoder small_cnn --epochs 1 --batch-size 4 --size 16 --pictures 6 --product 64"
    records = gpu.main(small.split())
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith("{")]
    assert [json.loads(line) for line in lines] == records
    for record, phase in zip(records, ("pictures to features", "decoding"), strict=True):
        assert record["counts"]["training"] == 5 * 6 and record["seconds"][phase] > 0
        assert all(share > 0 for share in record["shares"].values())
        assert f"{phase} " in printed and "CIDEr 12.5" in printed
    assert not (data_home / "features").exists(), "a second run would time what this one has kept"
    only = gpu.main([*small.split(), "--only", "fine-tuned"])
    assert [record["name"] for record in only] == ["encoder trained along"]


def test_operations_and_bytes_of_a_step_by_hand(tiny_encoder):
    gpu = load("gpu_training")
    layer = torch.nn.Linear(3, 5, bias=False)
    assert gpu.operations_of(lambda: layer(torch.zeros(2, 3))) == 2 * 2 * 3 * 5
    model = ShowAttendTell(6, 8, WORDS, attention_size=4, cnn=tiny_encoder)
    floor = gpu.floor_of_step(model, grids(2), captions_of_lengths(3, 3))
    weights = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    # 2 pictures, 4 places, 4 + 8 numbers each, 4 words read, 2 bytes, twice; weights 8 times
    assert floor["bytes"] == 2 * 4 * 12 * 4 * 2 * 2 + 32 * weights
    assert floor["bytes of weights"] == 32 * weights
    assert model.key.weight.grad is None


# ------------------------------------------------- rates, medians, and that the sides are compared


@pytest.fixture
def takes(monkeypatch):
    """``takes(module, side=seconds)``: each side is run once, and its seconds are made up."""

    def install(module, **seconds):
        def in_turn(sides, rounds=5):
            for side in sides.values():
                side()
            return {name: seconds[name] for name in sides}

        monkeypatch.setattr(module, "in_turn", in_turn)

    return install


@pytest.fixture
def checked(monkeypatch):
    """``checked(module)`` gives the list of the calls of its ``check``, which then does nothing."""

    def install(module):
        calls = []
        monkeypatch.setattr(module, "check", lambda *given: calls.append(given))
        return calls

    return install


@pytest.fixture
def few(monkeypatch):
    photos = data.load_split(data.photos(), "test").first(2)
    monkeypatch.setattr(data, "load_split", lambda folder, split: photos)
    return photos


def rates(record):
    return record["name"], record["ours"], record["reference"], record["ratio"]


def test_steps_are_compared_and_counted(few, takes, checked):
    speed = load("speed_training")
    takes(speed, ours=0.5, reference=2.0, pictures=1.0)
    calls = checked(speed)
    (record,) = speed.measure_document(few, 1, size=3)
    assert rates(record) == ("train_document_b3", 6.0, 1.5, 4.0)
    (record,) = speed.measure_attention(few, 1, sizes=(4,))
    assert rates(record) == ("train_attention_b4", 8.0, 2.0, 4.0)
    assert [len(losses) for _, *losses in calls] == [2, 2]


def test_a_batch_by_picture_has_the_captions_of_its_pictures_in_their_order():
    speed, photos = load("speed_training"), data.load_split(data.photos(), "test")
    vocabulary = Vocabulary.from_captions([c for group in photos.captions for c in group], 1)
    rows, captions = speed.batch_by_picture(photos, vocabulary, 32)
    assert len(rows) == 8 and len(captions) == 32
    expected = [photos.captions[row][i] for row in rows for i in range(4)]
    assert [vocabulary.decode(ids) for ids in captions] == [
        vocabulary.decode(vocabulary.encode(caption)) for caption in expected
    ]


def test_an_epoch_bears_its_part_of_the_features(few, takes, monkeypatch):
    speed, steps = load("speed_training"), []
    monkeypatch.setattr(
        speed, "step", lambda model, loss, fused: lambda: steps.append(loss().item())
    )
    takes(speed, ours=2.0, reference=30.0, once=40.0)
    (record,) = speed.measure_epoch(few, 1, size=5, epochs=10)
    assert rates(record) == ("epoch_document", 6.0, 30.0, 5.0)
    assert len(steps) == 4 and all(loss > 0 for loss in steps)  # 10 captions, two batches a side


def test_captions_are_compared_and_counted(few, takes, checked):
    speed = load("speed_generation")
    takes(speed, ours=0.5, reference=2.0)
    calls = checked(speed)
    greedy, beam = speed.measure(repeats=3)
    assert rates(greedy) == ("generate_greedy", 12.0, 1.0, 12.0)
    assert rates(beam)[1:] == rates(greedy)[1:]
    assert len(calls) == 2 and all(together == alone for together, alone in calls)


def test_features_are_compared_and_counted(few, checked, monkeypatch):
    speed = load("speed_features")
    timed = []

    def ours(split, encoder, for_training):
        timed.append(for_training)
        return 0.5, numpy.zeros((len(split), 1))

    def start_reference(target, paths):
        numpy.save(target, numpy.zeros((len(paths), 1)))
        ended = SimpleNamespace(close=lambda: None)
        return SimpleNamespace(stdin=ended, wait=lambda: None)

    monkeypatch.setattr(speed, "ours", ours)
    monkeypatch.setattr(speed, "start_reference", start_reference)
    monkeypatch.setattr(speed, "ask", lambda process: 2.0)
    monkeypatch.setattr(speed, "report_network", lambda *_: None)
    calls = checked(speed)
    (record,) = speed.measure(repeats=6, plain_repeats=4, rounds=1)
    assert rates(record) == ("features", 24.0, 4.0, 6.0) and len(calls) == 1
    assert timed == [True, True, False]  # what is compared with the reference is not rounded


def test_features_that_differ_are_refused(few, tiny_encoder):
    speed = load("speed_features")
    right = tiny_encoder(data.Pictures(few, tiny_encoder)[range(2)]).detach().numpy()
    speed.check(tiny_encoder, few, right.astype("float16"), right)
    for cached, expected in ((right + 0.01, right), (right, right + 0.01)):
        with pytest.raises(AssertionError):
            speed.check(tiny_encoder, few, cached, expected)


def test_scenes_and_first_captions_are_compared(takes, checked, monkeypatch):
    speed = load("speed_scenes")
    takes(speed, ours=0.5, reference=2.0)
    calls = checked(speed)
    (record,) = speed.measure(count=2, rounds=1)
    assert rates(record) == ("scenes", 4.0, 1.0, 4.0) and len(calls) == 1
    speed = load("speed_first_caption")
    takes(speed, ours=2.0, reference=3.0)
    monkeypatch.setattr(speed, "caption_of", lambda arguments: "a dog")
    assert rates(speed.measure()[0]) == ("first_caption", 2.0, 3.0, 1.5)
    monkeypatch.setattr(speed, "caption_of", lambda arguments: str(len(arguments)))
    with pytest.raises(AssertionError):
        speed.measure()


def test_operations_of_a_step_by_hand(tiny_encoder):
    gpu = load("gpu_training")
    model = ShowAttendTell(6, 8, 20, attention_size=4, cnn=tiny_encoder)
    captions = data.pad_captions([[START, 5, 6, 7, END]] * 2)
    places = 2 * 2 * 4 * 5 * (4 + 8)  # keys and values of 2 pictures, 4 places, 5 features
    words = 2 * 2 * (8 * 4 + 4 * 4 + 4 * 8 + 8 * 8 + (14 + 8) * 32)  # of a word
    ends = 2 * 2 * 8 * 16 + 2 * 8 * (22 * 6 + 6 * 20)  # first state; 8 words written
    floor = gpu.floor_of_step(model, torch.rand(2, 4, 5), captions)
    # backwards two products for each, but no gradient of the features
    assert floor["operations"] == 3 * (4 * words + ends) + 2 * places


@pytest.mark.parametrize(
    "features, decoded, operations, read, slowest",
    [
        (30e9, 100.0, 1e9, 300, "CNN"),
        (8e9, 1.0, 8e9, 8, "decoding"),
        (9e9, 1.0, 8e9, 90, "decoding"),
    ],
)
def test_the_plan_for_coco_by_hand(features, decoded, operations, read, slowest):
    """Two GPUs at half of what they can do; 113,287 / 40 × 10 = 28,321.75 steps."""
    coco = load("coco_plan")
    work = {"of a picture": 6e9, "of a step": operations, "features": features, "decoded": decoded}
    work |= {"bytes of places": 4e8, "bytes of weights": 3e8}
    two = coco.Machine(2, 10, float32=1e12, bfloat16=2e12, bandwidth=2e11, memory=16e9)
    plan = coco.plan(two, work, share=0.5)
    assert plan["decoding, minutes"] == pytest.approx(123_287 / (10 * decoded) / 60)
    # two GPUs at half: 2e12 operations a second in training, 1e12 for the other pictures
    assert plan["CNN, minutes"] == pytest.approx((113_287 / 2e12 + 10_000 / 1e12) * 6e9 / 60)
    # a step: (4e8 / 2 + 3e8) bytes at 1e11 a second, or its operations at 2e12
    of_step = max(0.005, operations / 2e12)
    assert plan["training, minutes"] == pytest.approx(28_321.75 * of_step / 60)
    slow = plan[f"{slowest}, minutes"]
    assert plan["in all, minutes"] == pytest.approx(slow + plan["training, minutes"])
    assert plan["features read, GB"] == pytest.approx(read)  # 9 GB are more than half of 16
    assert plan["disk, GB"] == pytest.approx(50.2 if features == 30e9 else 33.7)


def test_a_gpu_that_trains_in_float32_is_planned_so():
    coco = load("coco_plan")
    work = {"of a picture": 6e9, "of a step": 1e9, "features": 1e9, "decoded": 100.0}
    work |= {"bytes of places": 4e8, "bytes of weights": 2e8}
    old = coco.Machine(1, 10, float32=1e12, bfloat16=0, bandwidth=1e12, memory=16e9)
    # the places take 4 bytes a number, and not 2: (8e8 + 2e8) / 1e12 s a step
    plan = coco.plan(old, work, share=1)
    assert plan["training, minutes"] == pytest.approx(28_321.75 * 0.001 / 60)
    plan = coco.plan(old, work | {"of a step": 2e9}, share=1)
    assert plan["training, minutes"] == pytest.approx(28_321.75 * 0.002 / 60)
    assert plan["CNN, minutes"] == pytest.approx(123_287 * 6e9 / 1e12 / 60)
    assert coco.MACHINES["T4 in Colab"].bfloat16 == 0


def test_the_typical_batch_is_that_of_the_median_length():
    class Lengths:
        lengths = [5] * 8 + [9] * 8 + [30] * 8

        def __len__(self):
            return len(self.lengths)

        def length(self, row):
            return self.lengths[row]

    gpu = load("gpu_training")
    assert {Lengths.lengths[row] for row in gpu.typical_batch(Lengths(), 8)} == {9}


def test_the_plan_is_printed_for_every_machine(monkeypatch, capsys):
    coco = load("coco_plan")
    monkeypatch.setattr(coco, "decoded_a_second", lambda encoder: 100.0)
    plans = coco.main(["--share", "0.5"])
    assert plans.keys() == coco.MACHINES.keys()
    assert plans["H200"]["features, GB"] == pytest.approx(81 * 1280 * 2 * 123_287 / 1e9)
    assert "50% of the best; 100 photographs a second" in capsys.readouterr().out


@pytest.mark.parametrize("share", ["0", "30", "nan"])
def test_a_share_of_the_best_is_a_share(share, capsys):
    with pytest.raises(SystemExit):
        load("coco_plan").main(["--share", share])
    assert "it has to be above 0 and at most 1" in capsys.readouterr().err
