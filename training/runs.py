"""Bookkeeping of a training run: progress, resumable state, loss log and its picture.

A run is bounded by steps and by minutes of wall clock, whichever ends first; the learning rate follows the larger of
the two fractions, so a busy machine shortens a run but never cuts its decay off. Must not know about models.
"""

from __future__ import annotations

import csv
import json
import os
import time
from pathlib import Path

import torch


def multiplies_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices itself; where it does not, they are six times slower than float32."""
    return torch.cpu._is_avx512_bf16_supported()


class ThreadChooser:
    """Picks one or two threads per step by measured speed: beside other work two threads can wait for each other."""

    def __init__(self):
        self.rate = {1: 0.0, 2: 0.0}
        self.steps, self.threads, self.began = 0, 2, 0.0

    def begin(self) -> None:
        self.steps += 1
        best = max(self.rate, key=lambda n: self.rate[n])
        # two steps in every twenty look at the other choice again
        self.threads = 3 - best if self.steps % 20 in (0, 1) or self.rate[3 - best] == 0 else best
        torch.set_num_threads(self.threads)
        self.began = time.monotonic()

    def end(self, work: float) -> None:
        speed = work / (time.monotonic() - self.began)
        old = self.rate[self.threads]
        self.rate[self.threads] = speed if old == 0 else 0.7 * old + 0.3 * speed


class Run:
    def __init__(self, folder: Path, steps: int, minutes: float):
        self.folder, self.steps, self.seconds = folder, steps, minutes * 60
        folder.mkdir(parents=True, exist_ok=True)
        self.step, self.before = 0, 0.0
        self.started = time.monotonic()
        self.rows: list[tuple[int, float, float]] = []
        self._sum, self._count = 0.0, 0
        self.threads = ThreadChooser()

    @property
    def elapsed(self) -> float:
        return self.before + time.monotonic() - self.started

    @property
    def progress(self) -> float:
        return max(self.step / self.steps, self.elapsed / self.seconds)

    @property
    def state_path(self) -> Path:
        return self.folder / "state.pt"

    def resume(self, model, optimiser, extra: dict) -> bool:
        """Loads the last state if there is one; `extra` objects have state_dict-like get/set callables."""
        if not self.state_path.exists():
            return False
        state = torch.load(self.state_path, weights_only=False)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        self.step, self.before, self.rows = state["step"], state["elapsed"], state["rows"]
        for name, (_, put) in extra.items():
            put(state["extra"][name])
        return True

    def save(self, model, optimiser, extra: dict) -> None:
        state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": self.step, "elapsed": self.elapsed,
                 "rows": self.rows, "extra": {name: get() for name, (get, _) in extra.items()}}  # fmt: skip
        partial = self.state_path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.state_path)

    def record(self, loss: float, every: int = 50) -> None:
        self.step += 1
        self._sum, self._count = self._sum + loss, self._count + 1
        if self.step % every == 0:
            mean = self._sum / self._count
            self.rows.append((self.step, self.elapsed, mean))
            self._sum, self._count = 0.0, 0
            print(f"step {self.step}  {self.elapsed / 60:.1f} min  progress {self.progress:.3f}  loss {mean:.5f}  threads {self.threads.threads}", flush=True)

    def finish(self, title: str, notes: dict) -> None:
        with open(self.folder / "loss.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "seconds", "loss"])
            writer.writerows((s, round(t, 1), round(v, 6)) for s, t, v in self.rows)
        summary = {"steps": self.step, "minutes": round(self.elapsed / 60, 1), **notes}
        (self.folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        draw_loss(self.rows, title, self.folder / "loss.svg")


def draw_loss(rows: list[tuple[int, float, float]], title: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3))
    axes.plot([r[0] for r in rows], [r[2] for r in rows], lw=0.8)
    values = sorted(r[2] for r in rows)
    if values:
        axes.set_ylim(values[0] - 0.02 * abs(values[0]), values[int(0.97 * (len(values) - 1))] + 0.02 * abs(values[-1]))
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")
    axes.set_title(title, fontsize=9)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
