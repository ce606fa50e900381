"""Training in several processes: the same as in one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from train_together import train_captioner

from convrnn_utils import processes


def test_alone_nothing_is_shared_out():
    processes.join()
    assert (processes.rank(), processes.count()) == (0, 1)
    assert processes.share([1, 2, 3]) == [1, 2, 3] == processes.gathered([1, 2, 3])
    model = torch.nn.Linear(1, 1)
    assert processes.together(model) is model
    with processes.first_before_others():
        processes.wait_for_all()
    assert processes.total(torch.tensor(2.0)) == 2 and processes.leave() == 0


@pytest.mark.parametrize("length", [0, 1, 5, 6])
def test_what_was_shared_out_is_gathered_in_order(monkeypatch, length):
    items = list(range(length))
    monkeypatch.setattr(processes, "count", lambda: 3)
    parts = []
    for number in range(3):
        monkeypatch.setattr(processes, "rank", lambda number=number: number)
        parts.append(processes.share(items))

    def all_gather_object(target, own):
        target[:] = parts

    monkeypatch.setattr(processes.dist, "all_gather_object", all_gather_object)
    assert sum(map(len, parts)) == length and processes.gathered(parts[0]) == items


def test_two_processes_have_the_losses_and_weights_of_one_with_twice_the_batch(tmp_path):
    script = Path(__file__).with_name("train_together.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(script.parents[1]), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }
    subprocess.run([*command, script, tmp_path], check=True, env=environment, timeout=540)
    history, model = train_captioner(tmp_path / "alone")
    for number in range(2):
        result = json.loads((tmp_path / f"result-{number}.json").read_text())
        assert result["count"] == 2
        for entry, expected in zip(result["history"], history, strict=True):
            for name in ("training_loss", "validation_loss", "cider"):
                assert entry[name] == pytest.approx(expected[name], abs=1e-5), (number, name)
        for name, weight in model.named_parameters():
            assert result["weights"][name] == pytest.approx(weight.sum().item(), abs=1e-3), name
    assert history[1]["training_loss"] < history[0]["training_loss"] - 0.05
