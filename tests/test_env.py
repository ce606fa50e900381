import random
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch

import convrnn_utils
from convrnn_utils import env, memory


def draw_from_each_generator():
    return random.random(), numpy.random.rand(), torch.rand(1).item()


def test_one_seed_gives_the_same_numbers_and_another_gives_others():
    env.seed_everything(3)
    first = draw_from_each_generator()
    env.seed_everything(3)
    assert draw_from_each_generator() == first
    env.seed_everything(4)
    assert all(new != old for new, old in zip(draw_from_each_generator(), first, strict=True))


def test_the_seed_is_0_unless_another_is_given():
    env.seed_everything()
    first = draw_from_each_generator()
    env.seed_everything(0)
    assert draw_from_each_generator() == first


@pytest.mark.parametrize("name", ["smoke", "laptop", "gpu"])
@pytest.mark.parametrize("cuda", [True, False])
def test_the_variable_chooses_the_profile_whatever_the_machine(monkeypatch, name, cuda):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setenv("CONVRNN_PROFILE", name)
    assert env.profile() == name
    assert env.pick(smoke="smoke", laptop="laptop", gpu="gpu") == name


@pytest.mark.parametrize("unset", [True, False])
@pytest.mark.parametrize("cuda, name", [(True, "gpu"), (False, "laptop")])
def test_without_the_variable_the_machine_chooses(monkeypatch, unset, cuda, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    if unset:
        monkeypatch.delenv("CONVRNN_PROFILE", raising=False)
    else:
        monkeypatch.setenv("CONVRNN_PROFILE", "")
    assert env.profile() == name
    assert env.pick(smoke=1, laptop=2, gpu=3) == {"laptop": 2, "gpu": 3}[name]


@pytest.mark.parametrize("name", ["GPU", "fast", " laptop"])
def test_a_profile_that_does_not_exist_is_refused_in_words(monkeypatch, name):
    monkeypatch.setenv("CONVRNN_PROFILE", name)
    with pytest.raises(ValueError, match=rf"CONVRNN_PROFILE is '{name}'.*smoke, laptop, gpu"):
        env.pick(smoke=1, laptop=2, gpu=3)


def test_pick_wants_a_value_for_every_profile(monkeypatch):
    monkeypatch.setenv("CONVRNN_PROFILE", "smoke")
    with pytest.raises(TypeError):
        env.pick(smoke=1, laptop=2)
    assert env.pick(smoke=None, laptop=2, gpu=3) is None


def test_check_shape_returns_the_tensor_that_fits():
    tensor = torch.zeros(2, 7, 7, 5)
    assert env.check_shape(tensor, 2, 7, 7, 5) is tensor
    assert env.check_shape(tensor, "B", "side", "side", "D") is tensor
    assert env.check_shape(tensor, "B", 7, "side", 5) is tensor
    assert env.check_shape(numpy.zeros((3, 4)), 3, "D").shape == (3, 4)
    assert env.check_shape(torch.tensor(1.0)).item() == 1.0


@pytest.mark.parametrize(
    "sizes",
    [
        (2, 7, 5),  # a wrong number
        ("N", "N", 4),  # a name that stands for two sizes
        ("N", 4, "N"),
        (2, 3),  # a dimension too few
        ("B", "C"),
        (2, 3, 4, 1),  # one too many
        ("B", "C", "D", "E"),
        (),
        (0, 3, 4),
    ],
)
def test_check_shape_refuses_another_shape_and_shows_both(sizes):
    with pytest.raises(ValueError) as refusal:
        env.check_shape(torch.zeros(2, 3, 4), *sizes)
    assert "(2, 3, 4)" in str(refusal.value)
    assert f"({', '.join(map(str, sizes))})" in str(refusal.value)


def test_the_data_folder_is_the_repositorys_unless_the_variable_names_another(
    monkeypatch, tmp_path
):
    monkeypatch.delenv("CONVRNN_DATA", raising=False)
    assert env.data_folder() == env.repository() / "data"
    assert (env.data_folder() / "photos").is_dir()
    monkeypatch.setenv("CONVRNN_DATA", "")
    assert env.data_folder() == env.repository() / "data"
    monkeypatch.setenv("CONVRNN_DATA", str(tmp_path))
    assert env.data_folder() == tmp_path
    monkeypatch.setenv("CONVRNN_DATA", "~/captions")
    assert env.data_folder() == Path.home() / "captions"


def test_the_repository_holds_the_package():
    assert (env.repository() / "convrnn_utils" / "env.py").samefile(env.__file__)
    assert (env.repository() / "pyproject.toml").is_file()


@pytest.mark.parametrize("error", [OSError("not this C library"), AttributeError("mallopt")])
def test_where_the_c_library_is_another_one_nothing_happens(monkeypatch, error):
    def missing(name):
        raise error

    monkeypatch.setattr(memory.ctypes, "CDLL", missing)
    memory.keep_freed_memory()


def test_an_older_c_library_that_refuses_2_gb_is_asked_for_32_mb(monkeypatch):
    settings = {}

    def mallopt(option, value):
        if option == -3 and value > 2**25:
            return 0
        settings[option] = value
        return 1

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    memory.keep_freed_memory()
    assert settings == {-1: 2**31 - 1, -2: 2**26, -3: 2**25}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the settings are glibc's")
def test_freed_memory_is_kept_and_used_again():
    resource = pytest.importorskip("resource")
    memory.keep_freed_memory()
    memory.keep_freed_memory()  # a second time does no harm

    def page_faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        assert torch.ones(10_000_000).sum().item() == 10_000_000  # 40 MB, about 10,000 pages
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    for _ in range(10):  # a freed block is a little too small for the next, until it has neighbours
        page_faults()
    assert min(page_faults() for _ in range(3)) < 1000


def test_the_description_names_versions_device_and_profile(monkeypatch):
    monkeypatch.setenv("CONVRNN_PROFILE", "smoke")
    line = env.describe()
    assert "\n" not in line
    assert re.search(r"Python 3\.\d+\.\d+ · torch \d+\.\d+.* · device .+ · profile smoke$", line)
    assert torch.__version__ in line


def test_a_gpu_without_bfloat16_is_named_as_such(monkeypatch):
    monkeypatch.setattr(env, "device", lambda: torch.device("mps"))
    assert "device mps (without bfloat16: it trains in float32)" in env.describe()
    monkeypatch.setattr(env, "has_bfloat16", lambda where: True)
    assert "device mps · profile" in env.describe()


def test_the_package_has_a_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+", convrnn_utils.__version__)


@pytest.mark.parametrize(
    "cuda, mps, name", [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_the_fastest_device_is_taken(monkeypatch, cuda, mps, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert env.device() == torch.device(name)


@pytest.mark.parametrize("unit", ["_is_amx_tile_supported", "_is_avx512_bf16_supported"])
def test_mixed_precision_is_for_devices_with_units_for_it(monkeypatch, unit):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert env.has_bfloat16(torch.device("cuda")) and not env.has_bfloat16(torch.device("cpu"))
    monkeypatch.setattr(torch.cpu, unit, lambda: True)
    assert env.has_bfloat16(torch.device("cpu")) and not env.has_bfloat16(torch.device("mps"))


def test_convolutions_and_lstms_are_not_rounded_to_tf32_on_a_gpu():
    assert not torch.backends.cudnn.allow_tf32
