"""Compares the three forwards with golden cases before any time is spent on training.

    python -m training.check_goldens --goldens DIR --maker make-checkpoint.mjs

DIR holds case folders (case.json, tensors.safetensors); the maker writes the formula checkpoints they name (needs node).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from .models.kronos import Kronos, KronosConfig, KronosTokenizer, TokenizerConfig
from .models.toto1 import Toto1, Toto1Config
from .models.toto2 import Toto2, Toto2Config


def build(reference: dict, maker: Path, model_class, config_class):
    with tempfile.TemporaryDirectory() as folder:
        extra = ["--set", *(f"{k}={v}" for k, v in reference["set"].items())] if reference["set"] else []
        subprocess.run(["node", maker, reference["preset"], folder, "--seed", str(reference["seed"]), *extra], check=True, capture_output=True)
        config = json.loads((Path(folder) / "config.json").read_text())
        model = model_class(config_class(**{k: v for k, v in config.items() if k in config_class.__dataclass_fields__}))
        model.load_state_dict(load_file(Path(folder) / "model.safetensors"), strict=False)
    return model.eval()


def difference(name: str, folder: Path, maker: Path) -> dict[str, float]:
    """Largest absolute difference per compared tensor, as a share of the largest expected value."""
    case, t = json.loads((folder / "case.json").read_text()), load_file(folder / "tensors.safetensors")
    reference = case["checkpoint"]
    if name.startswith("toto2"):
        model = build(reference["model"], maker, Toto2, Toto2Config)
        got = {"quantiles": model.forecast(t["target"], t["mask"].bool(), t["ids"], case["options"]["horizon"])}
    elif name.startswith("toto1"):
        model = build(reference["model"], maker, Toto1, Toto1Config)
        pad = -t["series"].shape[-1] % model.config.patch_size
        ids = t["ids"] if t["ids"].dim() == 2 else t["ids"][..., 0]
        got = {"forecast": model.decode_mean(F.pad(t["series"], (pad, 0)), F.pad(t["mask"].bool(), (pad, 0)), ids, case["options"]["horizon"])}
    elif name == "kronos-tokenizer":
        tokenizer = build(reference["tokenizer"], maker, KronosTokenizer, TokenizerConfig)
        s1, s2 = tokenizer.encode(t["x"])
        got = {"s1": s1, "s2": s2, "reconstruction": tokenizer.decode(s1, s2)}
    else:
        model = build(reference["model"], maker, Kronos, KronosConfig)
        h = model.hidden(t["s1"], t["s2"], t["stamps"])
        query = t["chosen"].view(-1, 1).expand_as(t["s1"])
        got = {"s1Logits": model.head.proj_s1(h)}
        # the training form: at the last position it must equal the single-query inference form
        got["s2Logits"] = model.head.proj_s2(model.dependent(h, query))[:, -1]
        t["s2Logits"] = t["s2Logits"][:, -1]
    return {k: float((v - t[k]).abs().max() / t[k].abs().max()) for k, v in got.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goldens", type=Path, required=True)
    parser.add_argument("--maker", type=Path, required=True)
    args = parser.parse_args()
    worst = 0.0
    with torch.no_grad():
        for name in ("toto1-decode-nocache", "toto2-single-v1", "toto2-single-v1-missing", "toto2-single-v3-groups", "kronos-tokenizer", "kronos-logits"):
            result = difference(name, args.goldens / name, args.maker)
            worst = max(worst, *result.values())
            print(name, {k: f"{v:.1e}" for k, v in result.items()})
    if worst > 1e-5:
        raise SystemExit(f"largest relative difference {worst:.1e}, expected at most 1e-5: the forward is not the published one")


if __name__ == "__main__":
    main()
