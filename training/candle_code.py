"""A designed candle code written into the published tokenizer and token embeddings.

A tokenizer learned in ten minutes on two cores used 12 of its 20 bits and missed closes by a third of a one-bar move. So
the encoder is set by construction: 8 bits for the close (256 levels over ±5 deviations), 4 for open - close, 3 + 3 for
the wicks, 2 for volume, thresholds at quantiles of the training data. Only the decoder is trained. The coarse token holds
the close and half of the body, so that the s1 head predicts closes. Must not know about files or training loops.

How: a constant channel of size LARGE turns RMSNorm into a fixed factor; a pair of steep silu units makes one threshold;
sums of thresholds with alternating signs make binary digits; the second block codes what the first one left over.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .models.kronos import Kronos, KronosTokenizer

LARGE = 3000.0
STEEP = 2e-5  # width of a threshold in normalised units
OPEN, HIGH, LOW, CLOSE, VOLUME, AMOUNT = range(6)
CONSTANT, REST, BODY, UPPER, LOWER, FIRST_BIT = 6, 7, 8, 9, 10, 12
CELL = 10 / 16  # first four bits of the close; the second four divide a cell again
# position in the latent -> bit channel: s1 = body (high half), close; s2 = volume, upper, lower, body (low half)
CLOSE_BITS, BODY_BITS, UPPER_BITS, LOWER_BITS, VOLUME_BITS = range(0, 8), range(8, 12), range(12, 15), range(15, 18), range(18, 20)
LATENT = [*BODY_BITS[2:], *CLOSE_BITS, *VOLUME_BITS, *UPPER_BITS, *LOWER_BITS, *BODY_BITS[:2]]  # every range: least significant bit first
CLOSE_SHIFT = 2


class Writer:
    """Adds hidden units to one block's feed-forward network."""

    def __init__(self, block, width: int):
        self.ffn, self.used, self.root = block.ffn, 0, math.sqrt(width)
        for layer in (block.ffn.w1, block.ffn.w2, block.ffn.w3):
            layer.weight.zero_()
        block.self_attn.out_proj.weight.zero_()
        block.self_attn.out_proj.bias.zero_()

    def unit(self, channel: int, slope: float, offset: float, out: dict[int, float]) -> None:
        """out += coefficient · silu(slope · x[channel] + offset)."""
        u = self.used
        self.used += 1
        self.ffn.w1.weight[u, channel] = slope * LARGE / self.root
        self.ffn.w1.weight[u, CONSTANT] = offset / self.root
        self.ffn.w3.weight[u, CONSTANT] = 1 / self.root
        for target, coefficient in out.items():
            self.ffn.w2.weight[target, u] = coefficient

    def step(self, channel: int, threshold: float, out: dict[int, float]) -> None:
        """out += coefficient · [x[channel] > threshold]."""
        for side, sign in ((4.0, 1), (-4.0, -1)):
            self.unit(channel, 1 / STEEP, -threshold / STEEP + side, {k: sign * v / 8 for k, v in out.items()})

    def digits(self, channel: int, thresholds: np.ndarray, bits: range, rest: float = 0.0) -> None:
        """Binary digits (±1 around the -1 the channel starts with) of how many thresholds lie below x."""
        for i, threshold in enumerate(thresholds, start=1):
            out = {}
            for place, bit in enumerate(bits):
                change = ((i >> place) & 1) - (((i - 1) >> place) & 1)
                if change:
                    out[FIRST_BIT + bit] = 2.0 * change
            if rest:
                out[REST] = -rest
            self.step(channel, float(threshold), out)


def candle_parts(x: np.ndarray) -> dict[str, np.ndarray]:
    """Normalised candles [..., 6] -> the quantities the code splits."""
    body = x[..., OPEN] - x[..., CLOSE]
    return {"body": body, "upper": x[..., HIGH] - x[..., CLOSE] - np.maximum(body, 0), "lower": x[..., CLOSE] - x[..., LOW] - np.maximum(-body, 0), "volume": x[..., VOLUME]}


@torch.no_grad()
def write_encoder(tokenizer: KronosTokenizer, examples: np.ndarray) -> None:
    """Sets embed, encoder and quant_embed; thresholds from quantiles of `examples` [n, T, 6]."""
    part = {k: v.ravel() for k, v in candle_parts(examples.astype(np.float64)).items()}

    def quantiles(name: str, count: int) -> np.ndarray:
        # many bars have exactly no body or wick; distinct thresholds are needed all the same
        at = np.quantile(part[name], np.arange(1, count + 1) / (count + 1))
        return np.maximum.accumulate(at + 1e-3 * np.arange(count))

    embed, width = tokenizer.embed, tokenizer.config.d_model
    embed.weight.zero_()
    embed.bias.zero_()
    for column in range(6):
        embed.weight[column, column] = 1
    embed.bias[CONSTANT] = LARGE
    embed.bias[FIRST_BIT : FIRST_BIT + 20] = -1
    embed.weight[REST, CLOSE], embed.bias[REST] = 1, 5
    embed.weight[BODY, OPEN], embed.weight[BODY, CLOSE] = 1, -1
    embed.weight[UPPER, HIGH], embed.weight[UPPER, CLOSE] = 1, -1
    embed.weight[LOWER, CLOSE], embed.weight[LOWER, LOW] = 1, -1
    first = Writer(tokenizer.encoder[0], width)
    first.digits(CLOSE, -5 + CELL * np.arange(1, 16), CLOSE_BITS[4:], rest=CELL)
    first.digits(BODY, quantiles("body", 15), BODY_BITS)
    first.digits(VOLUME, quantiles("volume", 3), VOLUME_BITS)
    bend = 1e-3
    first.unit(BODY, 1 / bend, 0, {UPPER: -bend})
    first.unit(BODY, -1 / bend, 0, {LOWER: -bend})
    second = Writer(tokenizer.encoder[1], width)
    second.digits(REST, CELL / 16 * np.arange(1, 16), CLOSE_BITS[:4])
    second.digits(UPPER, quantiles("upper", 7), UPPER_BITS)
    second.digits(LOWER, quantiles("lower", 7), LOWER_BITS)
    for block in list(tokenizer.encoder)[2:]:
        Writer(block, width)
    tokenizer.quant_embed.weight.zero_()
    tokenizer.quant_embed.bias.zero_()
    for dimension, bit in enumerate(LATENT):
        tokenizer.quant_embed.weight[dimension, FIRST_BIT + bit] = 1


@torch.no_grad()
def start_decoder(tokenizer: KronosTokenizer, examples: np.ndarray) -> None:
    """Bits straight to the head, least squares; the blocks start as identities."""
    x = torch.from_numpy(examples)
    bits = torch.where(tokenizer.latent(x) > 0, 1.0, -1.0)
    root = math.sqrt(tokenizer.bits)
    design = torch.cat((bits.flatten(0, 1), torch.ones(bits.shape[0] * bits.shape[1], 1)), 1).double()
    solution = torch.linalg.lstsq(design, x.flatten(0, 1).double()).solution.float()
    tokenizer.post_quant_embed.weight.normal_(std=0.3)
    tokenizer.post_quant_embed.bias.normal_(std=0.3)
    tokenizer.post_quant_embed_pre.weight.normal_(std=0.3)
    tokenizer.post_quant_embed_pre.bias.normal_(std=0.3)
    for layer, count in ((tokenizer.post_quant_embed, 20), (tokenizer.post_quant_embed_pre, 10)):
        layer.weight[:20] = 0
        layer.bias[:20] = 0
        layer.weight[:count, :count] = torch.eye(count) * root
    tokenizer.head.weight.zero_()
    tokenizer.head.weight[:, :20] = solution[:20].T
    tokenizer.head.bias.copy_(solution[20])
    for block in tokenizer.decoder:
        block.self_attn.out_proj.weight.zero_()
        block.ffn.w2.weight.zero_()


def decoder_parameters(tokenizer: KronosTokenizer) -> list[Tensor]:
    parts = (tokenizer.decoder, tokenizer.head, tokenizer.post_quant_embed, tokenizer.post_quant_embed_pre)
    return [p for part in parts for p in part.parameters()]


@torch.no_grad()
def start_model(model: Kronos) -> None:
    """Token tables that know which closes are neighbours: sines and cosines of the level, so that the untrained model
    already prefers the last close."""
    d = model.config.d_model
    token = torch.arange(2**model.config.s1_bits)
    level, body = (token >> CLOSE_SHIFT).double(), token & 3
    waves = 44
    period = torch.logspace(math.log10(700), math.log10(3), waves, dtype=torch.float64)
    angle = 2 * math.pi * level[:, None] / period
    features = torch.zeros(len(token), d)
    features[:, :waves], features[:, waves : 2 * waves] = angle.cos().float(), angle.sin().float()
    features[:, 2 * waves : 2 * waves + 4] = torch.nn.functional.one_hot(body, 4).float() * 2
    noise = torch.randn(features.shape) * 0.1
    noise[:, : 2 * waves] *= 0.3
    features = features + noise
    model.embedding.emb_s1.weight.copy_(features / math.sqrt(d))
    head = features * 0.12
    head[:, 2 * waves :] *= 0.3
    model.head.proj_s1.weight.copy_(head)
    fine = (((token[:, None] >> torch.arange(model.config.s2_bits)) & 1) * 2 - 1).float()
    mix = torch.randn(model.config.s2_bits, d) / math.sqrt(model.config.s2_bits)
    model.embedding.emb_s2.weight.copy_((fine @ mix + 0.1 * torch.randn(len(token), d)) / math.sqrt(d))
    model.head.proj_s2.weight.copy_(0.03 * fine @ torch.randn(model.config.s2_bits, d))
    fusion = model.embedding.fusion_proj.weight
    fusion[:, :d] = torch.eye(d)
    fusion[:, d:] = 0.4 * torch.randn(d, d) / math.sqrt(d)
    for table in model.time_emb.children():
        table.weight.mul_(0.3)
    for block in model.transformer:
        block.self_attn.out_proj.weight.mul_(0.3)
        block.ffn.w2.weight.mul_(0.3)
