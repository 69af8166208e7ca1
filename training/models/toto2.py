"""Toto 2: unit-scaled patch decoder with nine quantiles per future sample.

Holds the network, its causal patch scaler and `forecast()` (single pass). Parameter names are the published ones, so
`state_dict()` is the checkpoint. Must not know about data sets, losses or optimisers.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

QUANTILES = tuple(q / 10 for q in range(1, 10))
UNIT_SILU = 1.7667829483123283
SCALE_FLOOR = 1e-6


@dataclass(frozen=True)
class Toto2Config:
    """The fields of config.json that the forward needs; the defaults are those of toto2-nano."""

    patch_size: int = 32
    d_model: int = 128
    num_layers: int = 5
    num_heads: int = 4
    num_groups: int = 4
    qk_dim: int = 32
    v_dim: int = 32
    d_ff: int = 344
    layer_group_size: int = 5
    num_variate_layers_per_group: int = 1
    variate_layer_first: bool = False
    num_output_patches: int = 1
    pre_norm: bool = True
    attn_bias: bool = True
    mlp_bias: bool = False
    qk_norm: bool = False
    qk_norm_include_weight: bool = False
    norm_include_weight: bool = False
    per_dim_scale: bool = True
    use_xpos: bool = True
    norm_eps: float = 1e-4
    residual_mult: float = 0.75
    residual_attn_ratio: float = math.sqrt(64 / math.log(64))
    dropout_p: float = 0.0

    def to_dict(self) -> dict:
        return asdict(self)


class UnitLinear(nn.Module):
    """(x Wᵀ + b) · fan_in^-1/2, or / fan_in for a readout; weights start with unit variance."""

    def __init__(self, fan_in: int, fan_out: int, bias: bool, readout: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in))
        self.bias = nn.Parameter(torch.zeros(fan_out)) if bias else None
        self.factor = 1.0 / fan_in if readout else fan_in**-0.5

    def forward(self, x: Tensor) -> Tensor:
        # Scaling the small operands instead of the wide output is the same product and one pass less over memory.
        bias = None if self.bias is None else self.bias * self.factor
        return F.linear(x, self.weight * self.factor, bias)


class ResidualMlp(nn.Module):
    """(linear2(1.7668·silu(linear1 x)) + skip_proj x) / √2; the head's second half is a readout."""

    def __init__(self, fan_in: int, hidden: int, fan_out: int, readout: bool):
        super().__init__()
        self.linear1 = UnitLinear(fan_in, hidden, True)
        self.linear2 = UnitLinear(hidden, fan_out, True, readout)
        self.skip_proj = UnitLinear(fan_in, fan_out, True, readout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = UNIT_SILU * F.silu(self.linear1(x))
        return (self.linear2(hidden) + self.skip_proj(x)) * math.sqrt(0.5)


def rms_norm(x: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), eps=eps)


class PerDimScale(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.per_dim_scale = nn.Parameter(torch.zeros(width))

    def forward(self, q: Tensor) -> Tensor:
        return q * (F.softplus(self.per_dim_scale) / math.log(2))


def rotary_tables(tokens: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """cos, sin and xPos multiplier, each [tokens, width/2], for one call over positions 0 … tokens-1."""
    index = torch.arange(0, width, 2, dtype=torch.float64)
    position = torch.arange(tokens, dtype=torch.float64)[:, None]
    angle = position * 10000.0 ** (-index / width)
    zeta = (index + 0.4 * width) / (1.4 * width)
    centre = tokens // 2  # floor((t_max + 1) / 2)
    decay = zeta ** ((position - centre) / 256.0)
    return angle.cos().to(dtype), angle.sin().to(dtype), decay.to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Interleaved rotary on the first half of each head; `cos` and `sin` already carry the xPos multiplier."""
    width = 2 * cos.shape[-1]
    even, odd = x[..., 0:width:2], x[..., 1:width:2]
    turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)
    return torch.cat((turned, x[..., width:]), -1)


class Attention(nn.Module):
    def __init__(self, config: Toto2Config, rotary: bool):
        super().__init__()
        c = self.config = config
        self.rotary = rotary
        self.in_proj = UnitLinear(c.d_model, c.qk_dim * (c.num_heads + c.num_groups) + c.v_dim * c.num_groups, c.attn_bias)
        self.out_proj = UnitLinear(c.v_dim * c.num_heads, c.d_model, c.attn_bias)
        self._pds = PerDimScale(c.qk_dim)

    def forward(self, x: Tensor, allowed: Tensor, tables: tuple[Tensor, Tensor, Tensor] | None) -> Tensor:
        """x [N, T, D]; allowed bool [N, 1, T, T] (true = may be read)."""
        c = self.config
        n, t, _ = x.shape
        q, k, v = self.in_proj(x).split([c.qk_dim * c.num_heads, c.qk_dim * c.num_groups, c.v_dim * c.num_groups], -1)
        q = self._pds(q.view(n, t, c.num_heads, c.qk_dim)).transpose(1, 2)
        k = k.view(n, t, c.num_groups, c.qk_dim).transpose(1, 2)
        v = v.view(n, t, c.num_groups, c.v_dim).transpose(1, 2)
        if self.rotary:
            cos, sin, decay = tables
            q = rotate(q, cos * decay, sin * decay)
            k = rotate(k, cos / decay, sin / decay)
        if c.num_groups != c.num_heads:
            repeat = c.num_heads // c.num_groups
            k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, scale=1.0 / c.qk_dim)
        return self.out_proj(out.transpose(1, 2).reshape(n, t, c.v_dim * c.num_heads))


class FeedForward(nn.Module):
    def __init__(self, config: Toto2Config):
        super().__init__()
        self.fc1 = UnitLinear(config.d_model, 2 * config.d_ff, config.mlp_bias)
        self.fc2 = UnitLinear(config.d_ff, config.d_model, config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.fc1(x).chunk(2, -1)
        return self.fc2(value * F.silu(gate))


def residual_tau(config: Toto2Config, sublayer: int) -> float:
    """Unit-scaling's transformer residual rule; even sub-layers are attention, odd ones feed-forward."""
    ratio = config.residual_attn_ratio
    mlp = config.residual_mult * math.sqrt(2 / (1 + ratio**2))
    attention = ratio * mlp
    attention_before, mlp_before = (sublayer + 1) // 2, sublayer // 2
    own = attention if sublayer % 2 == 0 else mlp
    return own / math.sqrt(config.num_layers + attention_before * attention**2 + mlp_before * mlp**2)


class Layer(nn.Module):
    def __init__(self, config: Toto2Config, index: int):
        super().__init__()
        self.eps = config.norm_eps
        position = index % config.layer_group_size
        n = config.num_variate_layers_per_group
        self.is_variate = position < n if config.variate_layer_first else position >= config.layer_group_size - n
        self.attn = Attention(config, rotary=not self.is_variate)
        self.ffn = FeedForward(config)
        # python floats keep the compiled graph free of 0-dim tensors; the buffers exist for the checkpoint
        self.taus = (residual_tau(config, 2 * index), residual_tau(config, 2 * index + 1))
        self.register_buffer("attn_tau", torch.tensor(self.taus[0]))
        self.register_buffer("mlp_tau", torch.tensor(self.taus[1]))

    def forward(self, x: Tensor, time_mask: Tensor, variate_mask: Tensor, tables) -> Tensor:
        """x [B, V, S, D]; time_mask [B·V, 1, S, S]; variate_mask [B·S, 1, V, V]."""
        b, v, s, d = x.shape
        y = rms_norm(x, self.eps)
        if not self.is_variate:
            y = self.attn(y.view(b * v, s, d), time_mask, tables).view(b, v, s, d)
        elif v == 1:
            y = self._single_variate(y)
        else:
            across = y.transpose(1, 2).reshape(b * s, v, d)
            y = self.attn(across, variate_mask, None).view(b, s, v, d).transpose(1, 2)
        x = self._add(y, x, self.taus[0])
        return self._add(self.ffn(rms_norm(x, self.eps)), x, self.taus[1])

    def _single_variate(self, y: Tensor) -> Tensor:
        c = self.attn.config
        v = self.attn.in_proj(y)[..., -c.v_dim * c.num_groups :]
        if c.num_groups != c.num_heads:
            v = v.unflatten(-1, (c.num_groups, c.v_dim)).repeat_interleave(c.num_heads // c.num_groups, -2).flatten(-2)
        return self.attn.out_proj(v)

    @staticmethod
    def _add(branch: Tensor, skip: Tensor, tau: float) -> Tensor:
        norm = math.sqrt(1 + tau * tau)
        return branch * (tau / norm) + skip * (1 / norm)


class Transformer(nn.Module):
    def __init__(self, config: Toto2Config):
        super().__init__()
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_layers))


class ParamProjection(nn.Module):
    def __init__(self, config: Toto2Config):
        super().__init__()
        d = config.d_model
        self.proj = ResidualMlp(d, 4 * d, config.patch_size * config.num_output_patches * len(QUANTILES), readout=True)


class OutputHead(nn.Module):
    def __init__(self, config: Toto2Config):
        super().__init__()
        self.param_projection = ParamProjection(config)


def causal_patch_statistics(x: Tensor, observed: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """x float [..., T], observed bool [..., T] -> loc, scale float32 [..., T/patch]; sums run in float64 from the left."""
    w = observed.double()
    value = torch.where(observed, x, 0.0).double()
    count = w.cumsum(-1).clamp(min=1)
    mean = value.cumsum(-1) / count
    before = F.pad(mean[..., :-1], (1, 0))
    m2 = ((value - before) * (value - mean) * w).cumsum(-1)
    loc, m2, count = (a[..., patch - 1 :: patch] for a in (mean, m2, count))
    scale = (m2 / (count - 1).clamp(min=1)).sqrt().clamp(min=SCALE_FLOOR)
    return loc.float(), scale.float()


class Toto2(nn.Module):
    def __init__(self, config: Toto2Config):
        super().__init__()
        self.config = config
        c = config
        self.patch_proj = ResidualMlp(2 * c.patch_size, 4 * c.d_model, c.d_model, readout=False)
        self.transformer = Transformer(c)
        self.output_head = OutputHead(c)

    def normalise(self, x: Tensor, observed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, V, T] -> asinh-normalised values [B, V, S, P] (0 where unobserved), loc and scale [B, V, S]."""
        p = self.config.patch_size
        loc, scale = causal_patch_statistics(x, observed, p)
        patches = x.unflatten(-1, (-1, p))
        z = torch.asinh((patches - loc[..., None]) / scale[..., None])
        return torch.where(observed.unflatten(-1, (-1, p)), z, 0.0), loc, scale

    def network(self, z: Tensor, missing: Tensor, ids: Tensor) -> Tensor:
        """z, missing [B, V, S, P], group ids int [B, V, S] -> asinh-space quantiles [B, V, S, P, 9]."""
        b, v, s, p = z.shape
        x = self.patch_proj(torch.cat((z, missing), -1))
        causal = torch.ones(s, s, dtype=torch.bool).tril()
        rows = ids.view(b * v, s)
        time_mask = (causal & (rows[:, :, None] == rows[:, None, :]))[:, None]
        columns = ids.transpose(1, 2).reshape(b * s, v)
        variate_mask = (columns[:, :, None] == columns[:, None, :])[:, None]
        tables = rotary_tables(s, self.config.qk_dim // 2, x.dtype)
        for layer in self.transformer.layers:
            x = layer(x, time_mask, variate_mask, tables)
        out = self.output_head.param_projection.proj(rms_norm(x, self.config.norm_eps))
        return out.view(b, v, s, p, len(QUANTILES))

    @torch.no_grad()
    def forecast(self, target: Tensor, observed: Tensor, series_ids: Tensor, horizon: int) -> Tensor:
        """Single-pass forecast. target float32 [B, V, L] finite, observed bool, series_ids int [B, V]; L a multiple of
        the patch size -> sorted quantiles float32 [9, B, V, horizon]."""
        p = self.config.patch_size
        if target.shape[-1] % p:
            raise ValueError(f"context length {target.shape[-1]} is not a multiple of the patch size {p}; left-pad it")
        contexts, futures = target.shape[-1] // p, -(-horizon // p)
        x = F.pad(target, (0, futures * p))
        mask = F.pad(observed, (0, futures * p))
        mask[..., (contexts - 1) * p : contexts * p] = True
        ids = series_ids[..., None].expand(*series_ids.shape, contexts + futures).clone()
        seen = mask.unflatten(-1, (-1, p)).any(-1)
        ids[..., :contexts][~seen[..., :contexts]] = -1
        z, loc, scale = self.normalise(x, mask)
        dtype = self.patch_proj.linear1.weight.dtype
        missing = (~mask).to(dtype).unflatten(-1, (-1, p))
        out = self.network(z.to(dtype), missing, ids)[:, :, contexts - 1 : -1].float()
        loc, scale = loc[..., contexts:], scale[..., contexts:]
        values = torch.sinh(out) * scale[..., None, None] + loc[..., None, None]
        finite = values.isfinite()
        high = values.where(finite, -math.inf).amax((-1, -2), keepdim=True)
        low = values.where(finite, math.inf).amin((-1, -2), keepdim=True)
        values = torch.where(values == math.inf, high, torch.where(values == -math.inf, low, values))
        values = values.sort(-1).values.flatten(2, 3)[:, :, :horizon]
        return values.permute(3, 0, 1, 2)
