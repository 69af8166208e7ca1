"""Trains kronos-tokenizer-nano, then kronos-nano on its tokens:

    python -m training.train_kronos tokenizer --data CORPUS --visible CANDLES --out RUN [--minutes 14]
    python -m training.train_kronos model --tokenizer RUN/state.pt --data CORPUS --visible CANDLES --out RUN2 [--minutes 22]
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from .candle_code import decoder_parameters, start_decoder, start_model, write_encoder
from .candles import CandleSampler, load_candles
from .models.kronos import Kronos, KronosConfig, KronosTokenizer, TokenizerConfig
from .optimise import MuonAdam, clip_gradients, schedule
from .runs import Run, multiplies_bfloat16

LENGTH = 192
CONTEXT_LOW, CONTEXT_HIGH = 48, 160
COLUMN_WEIGHTS = (1.0, 1.0, 1.0, 4.0, 0.3, 0.1)  # open, high, low, close, volume, amount


def tokenizer_loss(model: KronosTokenizer, x: Tensor) -> Tensor:
    """Reconstruction from all bits and from the coarse ones, in units of each window's own one-bar moves. The encoder is
    given (candle_code.py), so no gradient passes the signs."""
    with torch.no_grad():
        signs = torch.where(model.latent(x) > 0, 1.0, -1.0) * model.bits**-0.5
    fine = model.decode_signs(signs)
    coarse = model.decode_signs(signs[..., : model.config.s1_bits], coarse=True)
    step = x[..., 3].diff(dim=1).square().mean(1).sqrt()[:, None, None].clamp(min=0.05)
    unit = torch.cat((step.expand(-1, 1, 4), torch.full_like(step, 0.6).expand(-1, 1, 2)), -1)
    weight = torch.tensor(COLUMN_WEIGHTS) / sum(COLUMN_WEIGHTS)

    def distance(y: Tensor) -> Tensor:
        error = (y.float() - x) / unit
        return ((error.square() + 0.001).sqrt() * weight).sum(-1).mean()

    return distance(fine) + 0.2 * distance(coarse)


def model_loss(model: Kronos, tokenizer: KronosTokenizer, x: Tensor, stamps: Tensor, contexts: Tensor) -> Tensor:
    """Only bars after the rows that gave the units are scored: earlier ones would know their own future mean."""
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        s1, s2 = tokenizer.encode(x)
    h = model.hidden(s1[:, :-1], s2[:, :-1], stamps[:, :-1])
    first = CONTEXT_LOW - 1
    logits1 = model.head.proj_s1(h[:, first:])
    logits2 = model.head.proj_s2(model.dependent(h, s1[:, 1:])[:, first:])
    scored = torch.arange(CONTEXT_LOW, x.shape[1])[None] >= contexts[:, None]
    losses = [F.cross_entropy(l.float().flatten(0, 1), t[:, CONTEXT_LOW:].flatten(), reduction="none") for l, t in ((logits1, s1), (logits2, s2))]
    return ((losses[0] + losses[1]) * scored.flatten()).sum() / scored.sum()


def parameter_groups(model: nn.Module, trained: list[Tensor], lr: float) -> list[dict]:
    hidden = {id(p) for n, p in model.named_parameters() if p.dim() == 2 and any(k in n for k in ("self_attn", "ffn", "cross_attn", "fusion"))}
    muon = [p for p in trained if id(p) in hidden]
    return [{"params": muon, "lr": lr, "kind": "muon", "decay": 0.02}, {"params": [p for p in trained if id(p) not in hidden], "lr": lr * 0.2}]


def initialise(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.5 * module.embedding_dim**-0.5)


def weights_of(path: Path) -> dict[str, Tensor]:
    """The weights of a run's state or of an exported folder."""
    return load_file(path / "model.safetensors") if path.is_dir() else torch.load(path, weights_only=False)["model"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["tokenizer", "model"])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds ohlcv/")
    parser.add_argument("--visible", type=Path, help="folder with BTCUSD-1h.csv and ETHUSD-1d.csv")
    parser.add_argument("--tokenizer", type=Path, help="state.pt of the tokenizer run, or an exported folder")
    parser.add_argument("--start", type=Path, help="state.pt or exported folder of the model whose weights this run goes on from")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=0.006)
    parser.add_argument("--without-copyleft", action="store_true", help="leave the GPL/LGPL sources out")
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(args.seed)
    run = Run(args.out, args.steps, args.minutes)
    narrow = multiplies_bfloat16()
    tokenizer = KronosTokenizer(TokenizerConfig())
    model = tokenizer if args.part == "tokenizer" else Kronos(KronosConfig())
    initialise(model)
    if args.part == "model":
        tokenizer.load_state_dict(weights_of(args.tokenizer))
    sampler = CandleSampler(load_candles(args.data, args.visible, args.without_copyleft), LENGTH, args.seed)
    if args.part == "tokenizer":
        examples = sampler.draw(400, CONTEXT_LOW, CONTEXT_HIGH)[0]
        write_encoder(model, examples)
        start_decoder(model, examples)
    elif args.start:
        model.load_state_dict(weights_of(args.start))
    else:
        start_model(model)
    trained = decoder_parameters(model) if args.part == "tokenizer" else list(model.parameters())
    optimiser = MuonAdam(parameter_groups(model, trained, args.lr))
    extra = {"sampler": (lambda: sampler.rng.bit_generator.state, lambda s: setattr(sampler.rng.bit_generator, "state", s))}
    run.resume(model, optimiser, extra)
    print(f"{sum(q.numel() for q in model.parameters())} parameters, {len(sampler.candles)} series", flush=True)
    while run.progress < 1:
        run.threads.begin()
        values, stamps, contexts = sampler.draw(args.batch, CONTEXT_LOW, CONTEXT_HIGH)
        x = torch.from_numpy(np.ascontiguousarray(values))
        with torch.autocast("cpu", torch.bfloat16, enabled=args.part == "model" and narrow and run.progress < 0.9):
            loss = tokenizer_loss(model, x) if args.part == "tokenizer" else model_loss(model, tokenizer, x, torch.from_numpy(stamps), torch.from_numpy(contexts))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        clip_gradients(model, 1.0)
        optimiser.lr_scale = schedule(run.progress)
        optimiser.step()
        if not math.isfinite(value := float(loss.detach())):
            raise SystemExit(f"loss became {value} at step {run.step}; lower --lr")
        run.threads.end(args.batch)
        run.record(value)
        if run.step % 200 == 0:
            run.save(model, optimiser, extra)
    run.save(model, optimiser, extra)
    title = "kronos-tokenizer-nano" if args.part == "tokenizer" else "kronos-nano"
    run.finish(title, {"seed": args.seed, "lr": args.lr, "withoutCopyleft": args.without_copyleft, "parameters": sum(q.numel() for q in model.parameters())})


if __name__ == "__main__":
    main()
