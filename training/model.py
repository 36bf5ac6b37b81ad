"""A Llama-type transformer in plain PyTorch, and generation with a cache for many conversations at once.

Weights carry the names of `transformers.LlamaForCausalLM`, so a checkpoint is saved as a Hugging Face folder without
conversion and served by vLLM; a test holds the logits equal to theirs.

Axes: B rows, S new positions, T positions in all, D width, H heads, K key-value heads, C head width, V vocabulary.
"""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from aem_harness.harness.types import Record


class ModelConfig(Record):
    vocab_size: int = Field(default=512, gt=0)
    hidden_size: int = Field(default=128, gt=0)
    intermediate_size: int = Field(default=352, gt=0)
    num_hidden_layers: int = Field(default=4, gt=0)
    num_attention_heads: int = Field(default=4, gt=0)
    num_key_value_heads: int = Field(default=4, gt=0)
    max_position_embeddings: int = Field(default=384, gt=0)
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


class Cache:
    """Keys and values of every layer, (B, K, T, C), with room for the whole context, and how many each row has."""

    def __init__(self, config: ModelConfig, rows: int) -> None:
        shape = (rows, config.num_key_value_heads, config.max_position_embeddings + 1, config.head_dim)
        self.layers = [(torch.zeros(shape), torch.zeros(shape)) for _ in range(config.num_hidden_layers)]
        self.lengths_B = torch.zeros(rows, dtype=torch.long)

    def keep(self, rows: Tensor) -> None:
        """Forget all but these rows."""
        self.layers = [(keys[rows], values[rows]) for keys, values in self.layers]
        self.lengths_B = self.lengths_B[rows]


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, kv_width = config.hidden_size, config.num_key_value_heads * config.head_dim
        self.heads, self.kv_heads, self.head_dim = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, kv_width, bias=False)
        self.v_proj = nn.Linear(width, kv_width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(
        self,
        hidden_B_S_D: Tensor,
        rotation: tuple[Tensor, Tensor],
        cached: tuple[Tensor, Tensor] | None,
        positions_B_S: Tensor | None,
        visible_B_1_S_T: Tensor | None,
    ) -> Tensor:
        rows, new, _ = hidden_B_S_D.shape

        def split(projected: Tensor, heads: int) -> Tensor:
            return projected.view(rows, new, heads, self.head_dim).transpose(1, 2)

        queries = rotate(split(self.q_proj(hidden_B_S_D), self.heads), rotation)
        keys = rotate(split(self.k_proj(hidden_B_S_D), self.kv_heads), rotation)
        values = split(self.v_proj(hidden_B_S_D), self.kv_heads)
        if cached is not None and positions_B_S is not None and visible_B_1_S_T is not None:
            reach = visible_B_1_S_T.shape[-1]
            index = positions_B_S[:, None, :, None].expand(-1, self.kv_heads, -1, self.head_dim)
            cached[0].scatter_(2, index, keys)
            cached[1].scatter_(2, index, values)
            keys, values = cached[0][:, :, :reach], cached[1][:, :, :reach]
        attended = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=visible_B_1_S_T,
            is_causal=cached is None,
            enable_gqa=self.heads != self.kv_heads,
        )
        return self.o_proj(attended.transpose(1, 2).reshape(rows, new, -1))


class Mlp(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(hidden)) * self.up_proj(hidden))


class Layer(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(config), Mlp(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden: Tensor, *context: object) -> Tensor:
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), *context)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class Backbone(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)


class Model(nn.Module):
    """The policy. Embedding and output share their weights."""

    cosine_T_C: Tensor
    sine_T_C: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        initialise(self)
        frequencies = config.rope_theta ** (-torch.arange(0, config.head_dim, 2) / config.head_dim)
        # One position more than the context: where the padding of a full row goes.
        angles = torch.arange(config.max_position_embeddings + 1)[:, None] * frequencies.repeat(2)
        self.register_buffer("cosine_T_C", angles.cos(), persistent=False)
        self.register_buffer("sine_T_C", angles.sin(), persistent=False)

    def forward(self, ids_B_S: Tensor, cache: Cache | None = None, lengths_B: Tensor | None = None) -> Tensor:
        """(B, S, V) logits. Without a cache: rows start at position 0 and padding stands on the right.

        With one: row b continues at cache.lengths_B[b] and has lengths_B[b] <= S new ids, the rest being padding,
        which the next call overwrites before anything can see it.
        """
        new = ids_B_S.shape[1]
        hidden = self.model.embed_tokens(ids_B_S)
        if cache is None or lengths_B is None:
            rotation = self.cosine_T_C[:new], self.sine_T_C[:new]
            for layer in self.model.layers:
                hidden = layer(hidden, rotation, None, None, None)
        else:
            positions_B_S = cache.lengths_B[:, None] + torch.arange(new)
            positions_B_S = positions_B_S.clamp_max(self.config.max_position_embeddings)
            rotation = self.cosine_T_C[positions_B_S][:, None], self.sine_T_C[positions_B_S][:, None]
            reach = int(positions_B_S.max()) + 1
            visible = torch.arange(reach) <= positions_B_S[:, None, :, None]
            for layer, cached in zip(self.model.layers, cache.layers, strict=True):
                hidden = layer(hidden, rotation, cached, positions_B_S, visible)
            cache.lengths_B = cache.lengths_B + lengths_B
        return F.linear(self.model.norm(hidden), self.model.embed_tokens.weight)


def initialise(model: Model) -> None:
    """Weights of unit gain, those that write into the residual stream scaled down by depth.

    The usual 0.02 is right for wide models and far too small at a width of 128: copying is then learned many times
    more slowly.
    """
    for name, weight in model.named_parameters():
        if "embed" in name:
            nn.init.normal_(weight, std=0.04)
        elif "norm" not in name:
            writes = "o_proj" in name or "down_proj" in name
            depth = 2 * model.config.num_hidden_layers if writes else 1
            nn.init.normal_(weight, std=(weight.shape[1] * depth) ** -0.5)


def rotate(heads: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary position embedding in Llama's half-split form."""
    first, second = heads.chunk(2, dim=-1)
    return heads * rotation[0] + torch.cat((-second, first), dim=-1) * rotation[1]


@torch.no_grad()
def continue_rows(
    model: Model,
    cache: Cache,
    new_ids: list[list[int]],
    *,
    end: int,
    room_B: list[int],
    temperature: float,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """Read every row's new ids and sample its reply: up to and including `end`, at most room_B[b] ids.

    Temperature 0 is greedy. The cache afterwards holds what was read and all of the reply but its last id, which the
    next call's `new_ids` must begin with.
    """
    rows, width = len(new_ids), max(map(len, new_ids))
    ids_B_S = torch.zeros(rows, width, dtype=torch.long)
    for row, ids in enumerate(new_ids):
        ids_B_S[row, : len(ids)] = torch.tensor(ids)
    lengths_B = torch.tensor([len(ids) for ids in new_ids])
    logits_B_V = model(ids_B_S, cache, lengths_B)[torch.arange(rows), lengths_B - 1]
    replies: list[list[int]] = [[] for _ in range(rows)]
    live_B = torch.tensor([room > 0 for room in room_B])
    room = torch.tensor(room_B)
    count = 0
    while True:
        if temperature > 0:
            chosen_B = torch.multinomial((logits_B_V / temperature).softmax(-1), 1, generator=generator)[:, 0]
        else:
            chosen_B = logits_B_V.argmax(-1)
        count += 1
        for row in live_B.nonzero()[:, 0].tolist():
            replies[row].append(int(chosen_B[row]))
        live_B = live_B & (chosen_B != end) & (room > count)
        if not live_B.any():
            return replies
        # Rows that have ended feed a dummy id that does not count: their length stays, so it is overwritten later.
        logits_B_V = model(chosen_B[:, None], cache, live_B.long())[:, 0]
