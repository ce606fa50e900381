"""What the speed_*.py commands share: two sides timed in turn, rows of results, the machine.

python benchmarks/timing.py    prints the table of benchmarks/results.json, as the README has it,
                               but for its last column
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from convrnn_utils.env import BFLOAT16_QUESTIONS, device, has_bfloat16


def in_turn(sides: dict[str, Callable[[], object]], rounds: int = 5) -> dict[str, float]:
    """The median time that each side takes, in seconds.

    Every round runs each side once, so that whatever else the machine does affects all sides. One
    more round comes first and is not counted.

    Args:
        sides: what is timed, by name.
        rounds: an odd number.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, side in sides.items():
            began = time.perf_counter()
            side()
            wait_for_device()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}


def wait_for_device() -> None:
    """Wait until a GPU has done all that it was given."""
    if device().type != "cpu":
        torch.accelerator.synchronize()


def multiply_adds_a_second(size: int = 2048, rounds: int = 7) -> float:
    """The rate of a product of two matrices of fp32, with as many threads as torch has now."""
    matrix = torch.rand(size, size)
    return size**3 / in_turn({"product": lambda: matrix @ matrix}, rounds)["product"]


def machine(where: str | None = None) -> str:
    """The processor, how many threads torch uses on it, and torch's version.

    It also says whether what is timed may use units for bfloat16 (see ``env.has_bfloat16``).

    Args:
        where: ``"cpu"`` for what runs on the CPU even if there is a GPU; without it, the GPU, if
            there is one, is named too.
    """
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), name)
    where = where or device().type
    if where == "cuda":
        name = f"{torch.cuda.get_device_name()}, {name}"
    name += ", with bfloat16" if has_bfloat16(torch.device(where)) else ""
    return f"{name}, {torch.get_num_threads()} of {os.cpu_count()} cores, torch {torch.__version__}"


def row(name: str, ours: float, reference: float, unit: str, where: str | None = None) -> dict:
    """One row of results; ``ratio`` says how many times faster ours is.

    Args:
        name: of the benchmark.
        ours, reference: of the two sides, in ``unit``.
        unit: a rate such as ``"pictures/s"``, or ``"s"``.
        where: see ``machine``.
    """
    ratio = reference / ours if unit == "s" else ours / reference
    record = {"name": name, "ours": ours, "reference": reference, "unit": unit, "ratio": ratio}
    return {key: round(v, 3) if isinstance(v, float) else v for key, v in record.items()} | {
        "machine": machine(where)
    }


def merge(path: Path, rows: list[dict]) -> None:
    """Put rows into the JSON list in a file; they replace rows of the same names."""
    kept = json.loads(path.read_text()) if path.exists() else []
    names = [record["name"] for record in rows]
    rows = [record for record in kept if record["name"] not in names] + rows
    path.write_text(json.dumps(rows, indent=1) + "\n")


def table(rows: list[dict]) -> str:
    """Rows as a table in Markdown, and the machines that they come from."""
    lines = ["| | ours | the common way | | times as fast |", "|---|---|---|---|---|"]
    for record in rows:
        rates = f"{record['ours']:.3g} | {record['reference']:.3g} | {record['unit']}"
        lines.append(f"| `{record['name']}` | {rates} | {record['ratio']:.1f} |")
    return "\n".join([*lines, "", *sorted({record["machine"] for record in rows})])


def command(description: str, measure: Callable[[], list[dict]]) -> None:
    """Measure, print a table and JSON, and with ``--into FILE`` keep the rows there.

    With ``--float32``, ours does without the units for bfloat16 that a processor or GPU may have.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--into", type=Path, help="add the rows to the JSON list in this file")
    choice.add_argument(
        "--float32", action="store_true", help="ours as on a machine without units for bfloat16"
    )
    options = parser.parse_args()
    if options.into and not options.into.parent.is_dir():
        parser.error(f"there is no folder {options.into.parent}")  # before minutes of measuring
    if options.float32:  # what env.has_bfloat16 asks torch
        for question in BFLOAT16_QUESTIONS:
            setattr(torch.cpu, question, lambda: False)
        torch.cuda.is_bf16_supported = lambda **_: False
    rows = measure()
    print(f"{'':22}{'ours':>12}{'reference':>12}  {'unit':12}{'ratio':>6}")
    for record in rows:
        print(
            f"{record['name']:22}{record['ours']:12.2f}{record['reference']:12.2f}"
            f"  {record['unit']:12}{record['ratio']:6.1f}"
        )
    print(json.dumps(rows))
    if options.into:
        merge(options.into, rows)


if __name__ == "__main__":
    print(table(json.loads(Path(__file__).with_name("results.json").read_text())))
