"""What long inputs cost: the reformer trunk against the dense one, by the length of the input.

For each length, forward and backward of one trunk on random tokens, in training mode, in float32 (`--bf16`: as the
student trains where the device has it), and the most memory that this takes beyond the weights and the input. Both
trunks have the same width, depth and heads, hence about as many parameters. Dense attention is torch's fused kernel:
its time grows with the square of the length, its memory does not. `explicit` is the dense trunk with that kernel
forbidden, as papers count it.

Time: median of interleaved rounds; the ratio is of one round each. Memory: of one pass, on a GPU torch's peak of
allocated bytes, else the peak of resident bytes of a process of its own.

    python benchmarks/long_inputs.py [--lengths 512 1024 2048 4096 8192] [--rounds 5] [--device cuda] [--bf16]
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from raydistill.config.student import StudentConfig
from raydistill.evaluation.assemble import machine
from raydistill.student.shape import trunk_options
from raydistill.student.trunks import TRUNKS

WAYS = ("dense", "explicit", "reformer")
LENGTHS = (512, 1024, 2048, 4096, 8192)
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", choices=("tiny", "small", "base"), default="small")
    parser.add_argument("--chunk-length", type=int, default=64)
    parser.add_argument("--num-hashes", type=int, default=2)
    parser.add_argument("--recompute", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--memory-of", nargs=2, metavar=("WAY", "LENGTH"), help=argparse.SUPPRESS)  # in own processes
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(peak_bytes(options, options.memory_of[0], int(options.memory_of[1])))
        return
    settings = {way: config(options, way) for way in options.ways}
    weights = {way: sum(each.numel() for each in trunk(options, way).parameters()) for way in options.ways}
    width, depth, num_heads = next(iter(settings.values())).measures
    print(f"{date.today()}, {machine()}; Python {platform.python_version()}, torch {torch.__version__}")
    print(f"{options.device}, {'bf16' if options.bf16 else 'fp32'}, {options.threads} thread(s), "
          f"{options.rounds} rounds, batch {options.batch}; width {width}, depth {depth}, {num_heads} heads; chunks of "
          f"{options.chunk_length}, {options.num_hashes} hashes, recompute {options.recompute}; parameters "
          + ", ".join(f"{way} {number:,}" for way, number in weights.items()) + "\n")  # fmt: skip
    print(f"{'tokens':>8}" + "".join(f"{f'{way}, ms':>16}{'MiB':>10}" for way in options.ways) + f"{'÷ dense, ms':>30}")
    for length in options.lengths:
        print(row(options, length), flush=True)


def row(options: argparse.Namespace, length: int) -> str:
    passes = {way: one_pass(options, way, length) for way in options.ways}
    times: dict[str, list[float]] = {way: [] for way in options.ways}
    for round_ in range(options.rounds + 1):
        # Each round begins with another: what slows a machine down for a while hits all alike.
        first = round_ % len(options.ways)
        for way in options.ways[first:] + options.ways[:first]:
            began = time.perf_counter()
            passes[way]()
            if round_:  # the first warms up
                times[way].append((time.perf_counter() - began) * 1e3)
    del passes
    gc.collect()
    cells = "".join(f"{statistics.median(times[way]):16.1f}{memory(options, way, length) / MIB:10.0f}" for way in times)
    ratios = ""
    if "dense" in times and "reformer" in times:
        each = [one / other for one, other in zip(times["reformer"], times["dense"], strict=True)]
        ratios = f"{f'{statistics.median(each):.2f} ({min(each):.2f}…{max(each):.2f})':>30}"
    return f"{length:8,}{cells}{ratios}"


def config(options: argparse.Namespace, way: str) -> StudentConfig:
    reformer = {"chunk_length": options.chunk_length, "num_hashes": options.num_hashes, "recompute": options.recompute}
    kind = "reformer" if way == "reformer" else "dense"
    # Enough buckets for the longest, the same for all: a student's are fixed, too.
    buckets = max(2, 2 * max(options.lengths) // options.chunk_length)
    return StudentConfig.model_validate(
        {"size": options.size, "trunk": kind, "reformer": {**reformer, "num_buckets": buckets + buckets % 2}}
    )


def trunk(options: argparse.Namespace, way: str) -> nn.Module:
    student = config(options, way)
    torch.manual_seed(0)
    made = TRUNKS[student.trunk](*student.measures, student.dropout, **trunk_options(student))
    return made.to(options.device).train()


def one_pass(options: argparse.Namespace, way: str, length: int) -> Callable[[], Any]:
    """Forward and backward, until the device is done."""
    module, device = trunk(options, way), torch.device(options.device)
    width = config(options, way).measures[0]
    tokens = torch.randn(options.batch, length, width, device=device, requires_grad=True)

    def run() -> None:
        kernel = sdpa_kernel(SDPBackend.MATH) if way == "explicit" else contextlib.nullcontext()
        with kernel:
            with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
                loss = module(tokens, None).float().square().mean()
            loss.backward()
        module.zero_grad(set_to_none=True)
        tokens.grad = None
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def memory(options: argparse.Namespace, way: str, length: int) -> int:
    """Bytes; of the processor in a process of its own: what another pass left resident is not to be seen."""
    if options.device.startswith("cuda"):
        return peak_bytes(options, way, length)
    given = [
        "--lengths", *map(str, options.lengths), "--batch", str(options.batch), "--size", options.size,
        "--chunk-length", str(options.chunk_length), "--num-hashes", str(options.num_hashes),
        "--device", options.device, "--threads", str(options.threads), *(["--bf16"] if options.bf16 else []),
        "--recompute" if options.recompute else "--no-recompute",
    ]  # fmt: skip
    command = [sys.executable, __file__, *given, "--memory-of", way, str(length)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.split()[-1])


def peak_bytes(options: argparse.Namespace, way: str, length: int) -> int:
    one_pass(options, way, options.chunk_length)()  # libraries and their own buffers
    run = one_pass(options, way, length)
    if options.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    # Importing took more than a short input does: the kernel forgets that peak (proc_pid_clear_refs(5)).
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_peak()
    run()
    return resident_peak() - before


def resident_peak() -> int:
    """Bytes, of this process since it was last forgotten; Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024


if __name__ == "__main__":
    main()
