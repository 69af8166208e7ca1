"""Toto 1: causal patch decoder with a Student-t mixture for the next patch.

Holds the network, its causal patch scaler, mean decoding and sampling (both without a key/value cache). Parameter names
are the published ones (fused spelling). Must not know about data sets, losses or optimisers.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1.1920929e-7
MINIMUM_SCALE = 0.1


@dataclass(frozen=True)
class Toto1Config:
    """The fields of config.json; the defaults are those of toto1-nano."""

    patch_size: int = 32
    stride: int = 32
    embed_dim: int = 128
    num_layers: int = 4
    num_heads: int = 4
    mlp_hidden_dim: int = 256
    dropout: float = 0.0
    spacewise_every_n_layers: int = 4
    spacewise_first: bool = False
    scaler_cls: str = "<class 'model.scaler.CausalPatchStdMeanScaler'>"
    output_distribution_classes: list = field(default_factory=lambda: ["<class 'model.distribution.MixtureOfStudentTsOutput'>"])
    output_distribution_kwargs: dict = field(default_factory=lambda: {"k_components": 6})
    use_memory_efficient_attention: bool = False
    stabilize_with_global: bool = True
    scale_factor_exponent: float = 10.0

    def to_dict(self) -> dict:
        return asdict(self)


class RmsNorm(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.scale, 1e-8)


class PatchEmbed(nn.Module):
    def __init__(self, config: Toto1Config):
        super().__init__()
        self.projection = nn.Linear(config.patch_size, config.embed_dim)


def rotary_tables(tokens: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """cos and sin [tokens, width/2], xPos multiplier [tokens, width] whose two halves repeat (not its pairs)."""
    index = torch.arange(0, width, 2, dtype=torch.float64)
    position = torch.arange(tokens, dtype=torch.float64)[:, None]
    angle = position * 10000.0 ** (-index / width)
    zeta = (index + 0.4 * width) / (1.4 * width)
    decay = torch.cat((zeta, zeta)) ** ((position - (tokens - 1) // 2) / 512)
    return angle.cos().to(dtype), angle.sin().to(dtype), decay.to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)


class Attention(nn.Module):
    def __init__(self, config: Toto1Config):
        super().__init__()
        self.heads = config.num_heads
        self.wQKV = nn.Linear(config.embed_dim, 3 * config.embed_dim)
        self.wO = nn.Linear(config.embed_dim, config.embed_dim)

    def forward(self, x: Tensor, allowed: Tensor | None, tables) -> Tensor:
        """x [N, T, D]. With tables: causal over time; without: everything `allowed` [N, 1, T, T]."""
        n, t, d = x.shape
        # rows of wQKV run (part, head_dim, head) with the head fastest
        q, k, v = self.wQKV(x).view(n, t, 3, d // self.heads, self.heads).permute(2, 0, 4, 1, 3)
        if tables is not None:
            cos, sin, decay = tables
            q = rotate(q, cos, sin) * decay
            k = rotate(k, cos, sin) / decay
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, is_causal=tables is not None)
        return self.wO(out.transpose(1, 2).reshape(n, t, d))


class SwiGlu(nn.Module):
    def __init__(self, config: Toto1Config):
        super().__init__()
        self.w12 = nn.Linear(config.embed_dim, 2 * config.mlp_hidden_dim)
        self.w3 = nn.Linear(config.mlp_hidden_dim, config.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, -1)
        return self.w3(F.silu(gate) * value)


class Layer(nn.Module):
    def __init__(self, config: Toto1Config, is_space: bool):
        super().__init__()
        self.is_space = is_space
        self.norm1, self.norm2 = RmsNorm(config.embed_dim), RmsNorm(config.embed_dim)
        self.attention = Attention(config)
        self.mlp = nn.Sequential(SwiGlu(config))

    def forward(self, x: Tensor, space_mask: Tensor | None, tables) -> Tensor:
        b, v, s, d = x.shape
        y = self.norm1(x)
        if self.is_space:
            y = y.transpose(1, 2).reshape(b * s, v, d)
            y = self.attention(y, space_mask, None).view(b, s, v, d).transpose(1, 2)
        else:
            y = self.attention(y.view(b * v, s, d), None, tables).view(b, v, s, d)
        x = x + y
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    def __init__(self, config: Toto1Config):
        super().__init__()
        n = config.spacewise_every_n_layers
        space = 0 if config.spacewise_first else n - 1
        self.layers = nn.ModuleList(Layer(config, n > 0 and i % n == space) for i in range(config.num_layers))


class MixtureOutput(nn.Module):
    def __init__(self, width: int, components: int):
        super().__init__()
        self.df = nn.Linear(width, components)
        self.loc_proj = nn.Linear(width, components)
        self.scale_proj = nn.Linear(width, components)
        self.mixture_weights = nn.Linear(width, components)

    def forward(self, f: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """f [..., D] -> df, loc, scale and log weights, each [..., K]."""
        df = 2 + F.softplus(self.df(f)).clamp(min=EPSILON)
        return df, self.loc_proj(f), F.softplus(self.scale_proj(f)).clamp(min=EPSILON), self.mixture_weights(f).log_softmax(-1)


class Backbone(nn.Module):
    def __init__(self, config: Toto1Config):
        super().__init__()
        self.patch_embed = PatchEmbed(config)
        self.transformer = Transformer(config)
        self.unembed = nn.Linear(config.embed_dim, config.patch_size * config.embed_dim)
        self.output_distribution = MixtureOutput(config.embed_dim, config.output_distribution_kwargs["k_components"])


def causal_patch_statistics(x: Tensor, observed: Tensor, patch: int, prefix: int, config: Toto1Config) -> tuple[Tensor, Tensor]:
    """x finite [..., T], observed bool -> loc, scale float32 [..., T/patch]."""
    w, value = observed.double(), x.double()
    count = w.cumsum(-1).clamp(min=1)
    mean = (w * value).cumsum(-1) / count
    before = F.pad(mean[..., :-1], (1, 0))
    m2 = ((value - before) * (value - mean) * w).cumsum(-1)
    scale = (m2 / (count - 1).clamp(min=1) + MINIMUM_SCALE).sqrt()
    if config.stabilize_with_global:
        w0, x0 = w[..., :prefix], value[..., :prefix]
        total = w0.sum(-1, keepdim=True).clamp(min=1)
        centre = (w0 * x0).sum(-1, keepdim=True) / total
        spread = ((((x0 - centre) * w0) ** 2).sum(-1, keepdim=True) / total + MINIMUM_SCALE).sqrt()
        factor = 10.0**config.scale_factor_exponent
        scale = torch.minimum(torch.maximum(scale, (spread / factor).clamp(min=MINIMUM_SCALE)), spread * factor)
    return mean[..., patch - 1 :: patch].float(), scale[..., patch - 1 :: patch].float()


def mixture_log_density(x: Tensor, df: Tensor, loc: Tensor, scale: Tensor, log_weight: Tensor) -> Tensor:
    """x [...], parameters [..., K] -> log density [...]."""
    z = (x[..., None] - loc) / scale
    norm = scale.log() + 0.5 * (df * math.pi).log() + torch.lgamma(df / 2) - torch.lgamma((df + 1) / 2)
    return (log_weight - 0.5 * (df + 1) * torch.log1p(z * z / df) - norm).logsumexp(-1)


class Toto1(nn.Module):
    def __init__(self, config: Toto1Config):
        super().__init__()
        self.config = config
        self.model = Backbone(config)

    def hidden(self, z: Tensor, ids: Tensor) -> Tensor:
        """z [B, V, S, P] normalised patches, ids [B, V] -> hidden states [B, V, S, D]."""
        b, v, s, _ = z.shape
        x = self.model.patch_embed.projection(z)
        mask = (ids[:, :, None] == ids[:, None, :])[:, None, None].expand(b, s, 1, v, v).reshape(b * s, 1, v, v)
        tables = rotary_tables(s, self.config.embed_dim // self.config.num_heads, x.dtype)
        for layer in self.model.transformer.layers:
            x = layer(x, mask, tables)
        return x

    def head(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """h [..., D] -> mixture parameters [..., P, K] of the following patch."""
        return self.model.output_distribution(self.model.unembed(h).unflatten(-1, (self.config.patch_size, self.config.embed_dim)))

    def normalise(self, x: Tensor, observed: Tensor, prefix: int) -> tuple[Tensor, Tensor, Tensor]:
        p = self.config.patch_size
        loc, scale = causal_patch_statistics(x, observed, p, prefix, self.config)
        return (x.unflatten(-1, (-1, p)) - loc[..., None]) / scale[..., None], loc, scale

    def next_patch(self, x: Tensor, observed: Tensor, ids: Tensor, prefix: int):
        """Mixture parameters [B, V, P, K] of the next patch with its loc and scale [B, V, 1]."""
        z, loc, scale = self.normalise(x, observed, prefix)
        z = z.to(self.model.unembed.weight.dtype)
        return self.head(self.hidden(z, ids)[:, :, -1]), loc[..., -1:], scale[..., -1:]

    @torch.no_grad()
    def decode_mean(self, x: Tensor, observed: Tensor, ids: Tensor, horizon: int) -> Tensor:
        """x float32 [B, V, L] finite, L whole patches -> [B, V, horizon], no cache."""
        length = x.shape[-1]
        while x.shape[-1] < length + horizon:
            (_, loc_k, _, log_weight), loc, scale = self.next_patch(x, observed, ids, length)
            y = (log_weight.exp() * loc_k).sum(-1).float() * scale + loc
            y = torch.where(y.isfinite() & (y.abs() < torch.finfo(torch.float32).max / 2), y, 0.0)
            x = torch.cat((x, y), -1)
            observed = torch.cat((observed, torch.ones_like(y, dtype=torch.bool)), -1)
        return x[..., length : length + horizon]

    @torch.no_grad()
    def sample(self, x: Tensor, observed: Tensor, horizon: int, samples: int, generator: torch.Generator) -> Tensor:
        """x float32 [B, V, L] -> [B, V, horizon, samples]; every variate is its own series; no cache."""
        b, v, length = x.shape
        parts = []
        for chunk in range(0, samples, 20):
            n = min(20, samples - chunk)
            grown, seen = x, observed
            ids = torch.arange(v).expand(b, v)
            while grown.shape[-1] < length + horizon:
                (df, loc_k, scale_k, log_weight), loc, scale = self.next_patch(grown, seen, ids, length)
                if grown.shape[0] == b:  # the first patch has one distribution for all samples
                    df, loc_k, scale_k, log_weight, loc, scale, grown, seen, ids = (
                        a.repeat_interleave(n, 0) for a in (df, loc_k, scale_k, log_weight, loc, scale, grown, seen, ids)
                    )
                shape = log_weight.shape[:-1]
                k = torch.multinomial(log_weight.exp().flatten(0, -2), 1, generator=generator).view(*shape, 1)
                df, loc_k, scale_k = (a.gather(-1, k)[..., 0] for a in (df, loc_k, scale_k))
                chi = 2 * torch._standard_gamma(df / 2, generator=generator)
                y = loc_k + scale_k * torch.randn(shape, generator=generator) * (chi / df).rsqrt()
                y = y * scale + loc
                y = torch.where(y.isfinite() & (y.abs() < torch.finfo(torch.float32).max / 2), y, 0.0)
                grown = torch.cat((grown, y), -1)
                seen = torch.cat((seen, torch.ones_like(y, dtype=torch.bool)), -1)
            parts.append(grown[..., length : length + horizon].view(b, n, v, horizon).permute(0, 2, 3, 1))
        return torch.cat(parts, -1)
