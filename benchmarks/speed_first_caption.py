"""From a cold start to the first caption: seconds, compared with a script like those of tutorials.

python benchmarks/speed_first_caption.py

Both sides are new processes, without a GPU, and the time is that of the whole process. Ours is
``python -m convrnn_utils caption``; the reference is ``plain_first_caption.py``. Both write the
same caption.
"""

import os
import subprocess
import sys
from pathlib import Path

from timing import command, in_turn, row

from convrnn_utils.env import repository

PHOTO = repository() / "data" / "photos" / "images" / "dog.jpg"


def caption_of(arguments: list) -> str:
    """What a new process prints last."""
    paths = [str(repository()), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    environment["CUDA_VISIBLE_DEVICES"] = ""  # the reference takes no GPU
    arguments = [sys.executable, *map(str, arguments)]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=True)
    return done.stdout.strip().removeprefix(f"{PHOTO}: ")


def measure(rounds: int = 3) -> list[dict]:
    """The row ``first_caption``; raises an ``AssertionError`` if the captions differ."""
    commands = {
        "ours": ["-m", "convrnn_utils", "caption", PHOTO, "--length-power", 0],
        "reference": [Path(__file__).with_name("plain_first_caption.py"), PHOTO],
    }
    captions = {}

    def runs(side: str):
        def run() -> None:
            captions[side] = caption_of(commands[side])

        return run

    seconds = in_turn({side: runs(side) for side in commands}, rounds)
    assert captions["ours"] == captions["reference"], captions
    return [row("first_caption", seconds["ours"], seconds["reference"], "s", "cpu")]


if __name__ == "__main__":
    command(__doc__, measure)
