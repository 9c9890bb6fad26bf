"""Small sequence models written by hand; features are (N, 12, 10), tokens (N, 12)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(N, L, C) to (N, heads, L, C / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head attention of ``x`` over ``other``, by default itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.heads = heads

    def forward(self, x: Tensor, other: Tensor | None = None, causal: bool = False) -> Tensor:
        other = x if other is None else other
        q, k, v = (split_heads(t, self.heads) for t in (self.query(x), self.key(other), self.value(other)))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.out(y.transpose(1, 2).flatten(2))


def mlp(width: int, hidden: int, out: int | None = None) -> nn.Sequential:
    """Two layers with GELU."""
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width if out is None else out))


class PreNorm(nn.Module):
    """A vision transformer with a class token: norms before attention and feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, 32))
        self.positions = nn.Parameter(torch.zeros(1, 17, 32))
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(5))
        self.mixers = nn.ModuleList(Attention(32, 4) for _ in range(2))
        self.mlps = nn.ModuleList(mlp(32, 48) for _ in range(2))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1) + self.positions
        for i, (mixer, feed) in enumerate(zip(self.mixers, self.mlps, strict=True)):
            x = x + mixer(self.norms[2 * i](x))
            x = x + feed(self.norms[2 * i + 1](x))
        return self.head(self.norms[-1](x)[:, 0])


class PostNorm(nn.Module):
    """`torch.nn.TransformerEncoder` as it comes: norms after the sums, packed projections."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(10, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 48, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x)).mean(1))


class SwiGlu(nn.Module):
    """Shazeer, 2020, with gate and value packed in one projection."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * hidden, bias=False), nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.up(x).chunk(2, -1)
        return self.down(F.silu(gate) * value)


class SwiGluTransformer(nn.Module):
    """Root-mean-square norms, causal attention, SwiGLU feed-forward; an output head of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 32)
        self.norms = nn.ModuleList(nn.RMSNorm(32) for _ in range(5))
        self.mixers = nn.ModuleList(Attention(32, 4) for _ in range(2))
        self.mlps = nn.ModuleList(SwiGlu(32, 40) for _ in range(2))
        self.head = nn.Linear(32, 50, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        for i, (mixer, feed) in enumerate(zip(self.mixers, self.mlps, strict=True)):
            x = x + mixer(self.norms[2 * i](x), causal=True)
            x = x + feed(self.norms[2 * i + 1](x))
        return self.head(self.norms[-1](x))


class TiedEmbedding(nn.Module):
    """One matrix for words in and words out, scaled by the root of the width on the way in."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(50, 32), nn.Embedding(16, 32)
        self.norm1, self.norm2, self.last = (nn.LayerNorm(32) for _ in range(3))
        self.mixer, self.feed = Attention(32, 4), mlp(32, 48)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) * 32**0.5 + self.positions.weight[: ids.shape[1]]
        x = x + self.mixer(self.norm1(x), causal=True)
        x = x + self.feed(self.norm2(x))
        return F.linear(self.last(x), self.words.weight)


class ParallelBlock(nn.Module):
    """Wang and Komatsuzaki, 2021 (GPT-J): attention with rotary positions and feed-forward from one norm, summed."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.feed = mlp(width, 64)
        self.heads = heads

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (split_heads(t, self.heads) for t in self.qkv(y).chunk(3, -1))
        q, k = (t * cos + rotated(t) * sin for t in (q, k))
        y2 = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        return x + self.out(y2) + self.feed(y)


def rotated(x: Tensor) -> Tensor:
    """Neighbouring pairs (a, b) become (-b, a)."""
    return torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)


class ParallelTransformer(nn.Module):
    """Two parallel blocks over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 32)
        self.blocks = nn.ModuleList(ParallelBlock(32, 4) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 50)
        angles = torch.outer(torch.arange(16.0), 0.1 ** torch.arange(4)).repeat_interleave(2, -1)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        for block in self.blocks:
            x = block(x, self.cos[: ids.shape[1]], self.sin[: ids.shape[1]])
        return self.head(self.norm(x))


class EinsumAttention(nn.Module):
    """Projections and attention as Einstein sums, weights of shape (width, heads, size)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Parameter(torch.zeros(width, heads, width // heads)) for _ in range(3))
        self.out = nn.Parameter(torch.zeros(heads, width // heads, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("nlc,chd->nlhd", x, w) for w in (self.query, self.key, self.value))
        weights = torch.einsum("nlhd,nmhd->nhlm", q, k).mul(q.shape[-1] ** -0.5).softmax(-1)
        return torch.einsum("nhlm,nmhd,hdc->nlc", weights, v, self.out)


class EinsumTransformer(nn.Module):
    """A transformer in which every product is an Einstein sum."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Parameter(torch.zeros(10, 32)), nn.Parameter(torch.zeros(32, 5))
        self.mixers = nn.ModuleList(EinsumAttention(32, 4) for _ in range(2))
        self.up = nn.ParameterList(torch.zeros(32, 48) for _ in range(2))
        self.down = nn.ParameterList(torch.zeros(48, 32) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.einsum("nlf,fc->nlc", x, self.embed)
        for i, mixer in enumerate(self.mixers):
            x = x + mixer(self.norms[2 * i](x))
            y = F.gelu(torch.einsum("nlc,ch->nlh", self.norms[2 * i + 1](x), self.up[i]))
            x = x + torch.einsum("nlh,hc->nlc", y, self.down[i])
        return torch.einsum("nlc,ck->nk", x, self.head) / x.shape[1]


class MlpMixer(nn.Module):
    """Tolstikhin et al., 2021: a feed-forward over patches, then one over features."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.tokens = nn.ModuleList(mlp(16, 24) for _ in range(2))
        self.features = nn.ModuleList(mlp(32, 64) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(5))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        for i, (tokens, features) in enumerate(zip(self.tokens, self.features, strict=True)):
            x = x + tokens(self.norms[2 * i](x).transpose(1, 2)).transpose(1, 2)
            x = x + features(self.norms[2 * i + 1](x))
        return self.head(self.norms[-1](x).mean(1))


class Recurrent(nn.Module):
    """Embedding, one LSTM or GRU layer, a feed-forward head on the last state."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 16)
        self.layer = getattr(nn, kind)(16, 24, batch_first=True)
        self.head = mlp(24, 32, 5)

    def forward(self, ids: Tensor) -> Tensor:
        states, _ = self.layer(self.words(ids))
        return self.head(states[:, -1])
