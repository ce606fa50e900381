"""What torch.compile brings to the captioner that attends, and what the compiling costs.

python benchmarks/compiled.py

Times a step of training (128 captions) and a beam search (256 photographs, beam 5). In both,
``attend``, the part that runs once per word, is timed both as it is and compiled. The compiled
version goes over the sums of keys and queries once, and does not keep them. The course does not
compile: see the README for what was measured. On a CPU, a C++ compiler is needed; on a GPU, Triton,
which comes with torch.
"""

import copy
import shutil
import time

import torch
from speed_training import batch, check, fast_loss, features_of, step
from timing import in_turn, machine

from convrnn_utils import data
from convrnn_utils.attention import ShowAttendTell
from convrnn_utils.checkpoints import SHIPPED_CAPTIONER, load_model
from convrnn_utils.decoding import beam_search
from convrnn_utils.env import device
from convrnn_utils.training import teacher_forcing_loss

CAPTIONS, PICTURES = 128, 256


def compiled_copy(model: ShowAttendTell) -> ShowAttendTell:
    """The same weights, ``attend`` compiled for any number of pictures."""
    compiled = copy.copy(model)
    compiled.attend = torch.compile(model.attend, dynamic=True)
    return compiled


def measure(captions: int = CAPTIONS, pictures: int = PICTURES, rounds: int = 5) -> list[str]:
    """Lines that say what was measured; raises an ``AssertionError`` if the losses differ."""
    photos = data.load_split(data.photos(), "test")
    model, vocabulary, _ = load_model(SHIPPED_CAPTIONER)
    model = model.to(device())
    compiled, grids = compiled_copy(model), features_of(model, photos)
    rows, words = batch(photos, vocabulary, captions)
    began = time.perf_counter()
    both = (model, compiled)
    exact = [lambda each=each: teacher_forcing_loss(each, grids[rows], words) for each in both]
    check(model, *exact)  # in fp32, since the compiled version does not round the sums to bfloat16
    losses = [lambda each=each: fast_loss(each, grids[rows], words) for each in both]
    steps = {
        name: step(each, loss)
        for name, each, loss in zip(("plain", "compiled"), both, losses, strict=True)
    }
    several = grids.repeat(-(-pictures // len(grids)), 1, 1)[:pictures]
    searches = {
        "plain": lambda: beam_search(model, several),
        "compiled": lambda: beam_search(compiled, several),
    }
    steps["compiled"]()
    model.eval()
    searches["compiled"]()
    lines = [f"until all was compiled: {time.perf_counter() - began:.0f} s"]
    for what, sides, mode in (("a step", steps, True), ("a search", searches, False)):
        model.train(mode), compiled.train(mode)
        seconds = in_turn(sides, rounds)
        ratio = seconds["plain"] / seconds["compiled"]
        lines.append(
            f"{what}: {1000 * seconds['plain']:.0f} ms, compiled "
            f"{1000 * seconds['compiled']:.0f} ms, {ratio:.2f} times as fast"
        )
    return [*lines, machine()]


def main() -> None:
    if device().type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
        raise SystemExit("torch.compile needs a C++ compiler on a CPU; none was found.")
    print(*measure(), sep="\n")


if __name__ == "__main__":
    main()
