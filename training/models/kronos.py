"""Kronos: candle tokenizer (binary quantisation, 10 + 10 bits) and the two-step token decoder.

Parameter names are the published ones. `Kronos.forward` is the teacher-forced form of the inference rule: the
dependency layer reads all earlier positions without a positional code. Must not know about files, losses, optimisers.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class TokenizerConfig:
    """config.json of the tokenizer; the defaults are those of kronos-tokenizer-nano. n layers build n - 1 blocks."""

    d_in: int = 6
    d_model: int = 96
    n_heads: int = 4
    ff_dim: int = 192
    n_enc_layers: int = 4
    n_dec_layers: int = 4
    ffn_dropout_p: float = 0.0
    attn_dropout_p: float = 0.0
    resid_dropout_p: float = 0.0
    s1_bits: int = 10
    s2_bits: int = 10
    beta: float = 0.05
    gamma0: float = 1.0
    gamma: float = 1.1
    zeta: float = 0.05
    group_size: int = 4

    def to_dict(self) -> dict:
        return asdict(self)


@dataclass(frozen=True)
class KronosConfig:
    """config.json of the model; the defaults are those of kronos-nano."""

    s1_bits: int = 10
    s2_bits: int = 10
    n_layers: int = 4
    d_model: int = 128
    n_heads: int = 4
    ff_dim: int = 256
    ffn_dropout_p: float = 0.0
    attn_dropout_p: float = 0.0
    resid_dropout_p: float = 0.0
    token_dropout_p: float = 0.0
    learn_te: bool = True
    max_context: int = 192  # not a published field: longest sequence seen in training

    def to_dict(self) -> dict:
        return asdict(self)


class RmsNorm(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight, 1e-5)


class Rotary(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("inv_freq", 1.0 / (10000 ** (torch.arange(0, width, 2).float() / width)))


class Attention(nn.Module):
    """Contiguous heads; half-split rotary from position 0 unless `rotary` is false."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.rotary = Rotary(width // heads)

    def forward(self, query: Tensor, memory: Tensor, positions: bool, causal: bool, cache: dict | None = None) -> Tensor:
        """query [B, T, D], memory [B, M, D] -> [B, T, D]. A cache holds earlier keys and values; positions continue after them."""
        b, t, d = query.shape
        q, k, v = (f(x).view(b, x.shape[1], self.heads, -1).transpose(1, 2) for f, x in ((self.q_proj, query), (self.k_proj, memory), (self.v_proj, memory)))
        before = cache["k"].shape[2] if cache else 0
        if positions:
            angle = torch.arange(before, before + t)[:, None] * self.rotary.inv_freq
            cos, sin = (torch.cat((a, a), -1).to(q.dtype) for a in (angle.cos(), angle.sin()))
            half = q.shape[-1] // 2
            q, k = (x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin for x in (q, k))
        if cache:
            k, v = torch.cat((cache["k"], k), 2), torch.cat((cache["v"], v), 2)
        if cache is not None:
            cache["k"], cache["v"] = k, v
        # after a prefill only one token at a time is added, so nothing needs hiding
        out = F.scaled_dot_product_attention(q, k, v, is_causal=causal and not before)
        return self.out_proj(out.transpose(1, 2).reshape(b, t, d))


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.w1 = nn.Linear(width, hidden, bias=False)
        self.w3 = nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.norm1, self.norm2 = RmsNorm(width), RmsNorm(width)
        self.self_attn = Attention(width, heads)
        self.ffn = FeedForward(width, hidden)

    def forward(self, x: Tensor, cache: dict | None = None) -> Tensor:
        y = self.norm1(x)
        x = x + self.self_attn(y, y, positions=True, causal=True, cache=cache)
        return x + self.ffn(self.norm2(x))


class BinaryQuantiser(nn.Module):
    """Only the buffers a published file carries."""

    def __init__(self, bits: int, group: int):
        super().__init__()
        self.register_buffer("basis", 2 ** torch.arange(bits - 1, -1, -1))
        self.register_buffer("group_basis", 2 ** torch.arange(group - 1, -1, -1))


class QuantiserHolder(nn.Module):
    def __init__(self, bits: int, group: int):
        super().__init__()
        self.bsq = BinaryQuantiser(bits, group)


class KronosTokenizer(nn.Module):
    def __init__(self, config: TokenizerConfig):
        super().__init__()
        c = self.config = config
        self.bits = c.s1_bits + c.s2_bits
        self.embed, self.head = nn.Linear(c.d_in, c.d_model), nn.Linear(c.d_model, c.d_in)
        self.encoder = nn.ModuleList(Block(c.d_model, c.n_heads, c.ff_dim) for _ in range(c.n_enc_layers - 1))
        self.decoder = nn.ModuleList(Block(c.d_model, c.n_heads, c.ff_dim) for _ in range(c.n_dec_layers - 1))
        self.quant_embed = nn.Linear(c.d_model, self.bits)
        self.post_quant_embed_pre = nn.Linear(c.s1_bits, c.d_model)
        self.post_quant_embed = nn.Linear(self.bits, c.d_model)
        self.tokenizer = QuantiserHolder(self.bits, c.group_size)

    def latent(self, x: Tensor) -> Tensor:
        """x [B, T, 6] normalised candles -> [B, T, bits] on the unit sphere; only the signs survive."""
        h = self.embed(x)
        for block in self.encoder:
            h = block(h)
        return F.normalize(self.quant_embed(h).float(), dim=-1)

    def decode_signs(self, signs: Tensor, coarse: bool = False) -> Tensor:
        """±1/√bits [B, T, bits] (or the first s1_bits of them) -> candles [B, T, 6]."""
        h = self.post_quant_embed_pre(signs) if coarse else self.post_quant_embed(signs)
        for block in self.decoder:
            h = block(h)
        return self.head(h)

    def tokens_of(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Dimension 0 is the least significant bit."""
        bit = (latent > 0).long()
        weight = 2 ** torch.arange(self.config.s1_bits)
        return (bit[..., : self.config.s1_bits] * weight).sum(-1), (bit[..., self.config.s1_bits :] * weight).sum(-1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.tokens_of(self.latent(x))

    def decode(self, s1: Tensor, s2: Tensor) -> Tensor:
        shift = torch.arange(self.config.s1_bits)
        bits = torch.cat(((s1[..., None] >> shift) & 1, (s2[..., None] >> shift) & 1), -1)
        return self.decode_signs((bits * 2 - 1).float() * self.bits**-0.5)


class Embedding(nn.Module):
    def __init__(self, c: KronosConfig):
        super().__init__()
        self.emb_s1 = nn.Embedding(2**c.s1_bits, c.d_model)
        self.emb_s2 = nn.Embedding(2**c.s2_bits, c.d_model)
        self.fusion_proj = nn.Linear(2 * c.d_model, c.d_model)


class TimeEmbedding(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.minute_embed, self.hour_embed = nn.Embedding(60, width), nn.Embedding(24, width)
        self.weekday_embed, self.day_embed, self.month_embed = nn.Embedding(7, width), nn.Embedding(32, width), nn.Embedding(13, width)

    def forward(self, stamps: Tensor) -> Tensor:
        """stamps int [B, T, 5]: minute, hour, weekday (Monday 0), day, month."""
        minute, hour, weekday, day, month = stamps.unbind(-1)
        return self.hour_embed(hour) + self.weekday_embed(weekday) + self.day_embed(day) + self.month_embed(month) + self.minute_embed(minute)


class DependencyLayer(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.cross_attn = Attention(width, 4)
        self.norm = RmsNorm(width)


class DualHead(nn.Module):
    def __init__(self, c: KronosConfig):
        super().__init__()
        self.proj_s1, self.proj_s2 = nn.Linear(c.d_model, 2**c.s1_bits), nn.Linear(c.d_model, 2**c.s2_bits)


class Kronos(nn.Module):
    def __init__(self, config: KronosConfig):
        super().__init__()
        c = self.config = config
        self.embedding = Embedding(c)
        self.time_emb = TimeEmbedding(c.d_model)
        self.transformer = nn.ModuleList(Block(c.d_model, c.n_heads, c.ff_dim) for _ in range(c.n_layers))
        self.norm = RmsNorm(c.d_model)
        self.dep_layer = DependencyLayer(c.d_model)
        self.head = DualHead(c)

    def hidden(self, s1: Tensor, s2: Tensor, stamps: Tensor, caches: list[dict] | None = None) -> Tensor:
        """tokens int [B, T], stamps int [B, T, 5] -> h [B, T, D]."""
        gain = math.sqrt(self.config.d_model)
        e = torch.cat((self.embedding.emb_s1(s1) * gain, self.embedding.emb_s2(s2) * gain), -1)
        x = self.embedding.fusion_proj(e) + self.time_emb(stamps)
        for i, block in enumerate(self.transformer):
            x = block(x, caches[i] if caches else None)
        return self.norm(x)

    def dependent(self, h: Tensor, next_s1: Tensor) -> Tensor:
        """h [B, T, D], next_s1 [B, T] the coarse token that follows each position -> input of the fine head [B, T, D]."""
        attended = self.dep_layer.cross_attn(self.embedding.emb_s1(next_s1), h, positions=False, causal=True)
        return self.dep_layer.norm(h + attended)

    def forward(self, s1: Tensor, s2: Tensor, stamps: Tensor, next_s1: Tensor) -> tuple[Tensor, Tensor]:
        h = self.hidden(s1, s2, stamps)
        return self.head.proj_s1(h), self.head.proj_s2(self.dependent(h, next_s1))

    @torch.no_grad()
    def generate(self, s1: Tensor, s2: Tensor, stamps: Tensor, steps: int, samples: int, temperature: float, top_p: float, generator: torch.Generator | None):
        """tokens [B, T], stamps [B, T + steps, 5] -> both tokens [B·samples, T + steps], samples of a series adjacent.
        Greedy without a generator. The window never slides here: T + steps is the caller's to bound."""
        caches = [{} for _ in self.transformer]
        dependency: dict = {}
        h = self.hidden(s1, s2, stamps[:, : s1.shape[1]], caches)
        for step in range(steps):
            if step == 1:
                stamps = stamps.repeat_interleave(samples, 0)
            if step:
                t = s1.shape[1] - 1
                h = self.hidden(s1[:, t:], s2[:, t:], stamps[:, t : t + 1], caches)
            logits = self.head.proj_s1(h[:, -1])
            last = h[:, -1:]
            if step == 0:
                logits, last, s1, s2 = (a.repeat_interleave(samples, 0) for a in (logits, last, s1, s2))
                h = h.repeat_interleave(samples, 0)
                for cache in caches:
                    cache.update({name: value.repeat_interleave(samples, 0) for name, value in cache.items()})
            next_s1 = choose(logits, temperature, top_p, generator)
            # one query against all positions, as published; the rotation is the identity
            query = self.embedding.emb_s1(next_s1)[:, None]
            y = self.dep_layer.norm(last + self.dep_layer.cross_attn(query, h, positions=False, causal=False, cache=dependency))
            next_s2 = choose(self.head.proj_s2(y[:, 0]), temperature, top_p, generator)
            s1, s2 = torch.cat((s1, next_s1[:, None]), 1), torch.cat((s2, next_s2[:, None]), 1)
        return s1, s2


def choose(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator | None) -> Tensor:
    """One token per row: arg max without a generator, else a draw after temperature and nucleus filter."""
    if generator is None:
        return logits.argmax(-1)
    p = (logits.float() / temperature).softmax(-1)
    if top_p < 1:
        order = p.sort(-1, descending=True)
        keep = order.values.cumsum(-1) - order.values <= top_p
        p = p * torch.zeros_like(keep).scatter(-1, order.indices, keep)
    return torch.multinomial(p, 1, generator=generator)[:, 0]
