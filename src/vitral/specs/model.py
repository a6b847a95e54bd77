"""ModelSpec: everything that decides the weights of a model, and nothing else."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from vitral.errors import ModelError, SpecError
from vitral.specs.fields import choice, from_mapping, pair
from vitral.specs.resnet import ResNetSpec

MOST = 1 << 24  # beyond any model; a typing slip would hang the machine
DEEPEST = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """A Vision Transformer, a hybrid, or a ResNet alone (BiT, or v1 with group norm).

    Change one with `dataclasses.replace(spec, size=384, classes=10)`. The defaults are the
    authors' (Dosovitskiy et al., section 3.1 and appendix D; vit_jax where the paper is silent).

    Attributes:
        name: what a person calls it; it decides nothing.
        size: (height, width) of the image in pixels; one number means a square.
        channels: of the image.
        patch: (height, width) of a patch in pixels; in a hybrid, of the stem's feature map.
        width: of a token (the paper's D).
        depth: number of blocks (L).
        heads: attention heads per block (k).
        head_width: of one head; None is width / heads.
        out_projection: whether a linear map follows the joined heads of attention; without one
            their width is the tokens' (vit-pytorch, where one head is as wide as the tokens).
        mlp_width: of the hidden layer of each block's MLP.
        classes: of the head; 0 leaves the head out, and the model answers with its
            representation.
        class_token: whether a learned token stands before the patches.
        distillation_token: DeiT's second token with a head of its own.
        registers: extra tokens after the class token that are dropped at the output.
        positions: "none", "learned" (one row per position, in raster order), "learned2d" (a table
            of rows and one of columns, half the width each), "sincos2d" (big_vision's fixed
            table), "sincos2d_mae" (MAE's), "relative" (keys per raster offset, in each
            block; the class token stands before the first patch), "rope2d" (DINOv3's rotation of
            queries and keys).
        positions_at: "stem" adds the positions once, "every" adds each block's own table at its
            input, "shared" adds one table at every block's input (table 8).
        prefix_positions: whether the class and distillation tokens have a position too (vit_jax:
            yes, big_vision: no).
        register_positions: whether the registers have a position too (timm's so150m: yes,
            DINOv2: no).
        rope_base: base of the periods of "rope2d", in half images (DINOv3: 100).
        pool: what the head reads: the class token ("cls"), the mean of the patches ("mean") or of
            all tokens ("mean_all"), the class token beside the mean of the patches ("cls_mean",
            twice as wide), or what a learned probe attends to over all tokens ("map").
        pool_blocks: of "cls" and "cls_mean", the class tokens of the last so many blocks are read,
            side by side, the earliest first (DINOv2's heads: 1 or 4).
        pool_norm: whether the final norm comes "before" (the authors) or "after" pooling (MAE).
        representation: width of the hidden tanh layer of the head; 0 is none.
        layer_scale: initial value of a learned factor per channel on each branch; None is none.
        qk_norm: layer norm of queries and keys over the head width.
        gelu: "tanh" approximation (authors) or exact "erf" (timm, DeiT, transformers).
        patch_norms: whether the flattened patches are normed before their projection, and the
            tokens after it (vit-pytorch).
        norm_eps: epsilon of the layer norms.
        biases: of the blocks' linear maps: "all", "no_qkv", "no_attention" (in the MLP alone) or
            "none"; norms, patch projection and head keep theirs.
        resample: whose rule resizes learned positions: "google" (bilinear, aligned corners),
            "timm" (bicubic, antialiased), "transformers" (bicubic), "torchvision" (bicubic,
            aligned corners), "flexivit" (bilinear, antialiased), "dino" (bicubic, a tenth of a
            patch off).
        resnet: the stem of a hybrid, or with depth=0 the whole network.
    """

    name: str
    size: tuple[int, int] = (224, 224)
    channels: int = 3
    patch: tuple[int, int] = (16, 16)
    width: int
    depth: int
    heads: int
    head_width: int | None = None
    out_projection: bool = True
    mlp_width: int
    classes: int = 1000
    class_token: bool = True
    distillation_token: bool = False
    registers: int = 0
    positions: Literal[
        "none", "learned", "learned2d", "sincos2d", "sincos2d_mae", "relative", "rope2d"
    ] = "learned"
    positions_at: Literal["stem", "every", "shared"] = "stem"
    prefix_positions: bool = True
    register_positions: bool = False
    rope_base: float = 100.0
    pool: Literal["cls", "mean", "mean_all", "cls_mean", "map"] = "cls"
    pool_blocks: int = 1
    pool_norm: Literal["before", "after"] = "before"
    representation: int = 0
    layer_scale: float | None = None
    qk_norm: bool = False
    gelu: Literal["tanh", "erf"] = "tanh"
    patch_norms: bool = False
    norm_eps: float = 1e-6
    biases: Literal["all", "no_qkv", "no_attention", "none"] = "all"
    resample: Literal["google", "timm", "transformers", "torchvision", "flexivit", "dino"] = (
        "google"
    )
    resnet: ResNetSpec | None = None

    def __post_init__(self) -> None:
        """Normalise the types and refuse what does not fit together, with the reason."""
        object.__setattr__(self, "size", pair("ModelSpec.size", self.size))
        object.__setattr__(self, "patch", pair("ModelSpec.patch", self.patch))
        if not isinstance(self.resnet, ResNetSpec | None):
            raise SpecError(f"ModelSpec.resnet is a ResNetSpec or None, not {self.resnet!r}.")
        for field in fields(self):
            if str(field.type).startswith("Literal"):
                choice(self, field.name, ModelSpec)
        self._check_numbers()
        if self.is_resnet:
            self._check_resnet()
        else:
            self._check_tokens()
            self._check_positions()
        self.grid_at(self.size)

    @property
    def is_resnet(self) -> bool:
        """True for a ResNet alone, with no transformer behind it; BiT always is."""
        return self.resnet is not None and (self.resnet.kind == "v2" or self.depth == 0)

    @property
    def attention_width(self) -> int:
        """Width of all heads together: heads times head_width."""
        return self.heads * (self.head_width or self.width // self.heads) if self.heads else 0

    @property
    def prefix(self) -> int:
        """Number of tokens before the patches: class, distillation, registers."""
        return self.class_token + self.distillation_token + self.registers

    @property
    def readout(self) -> tuple[tuple[int, str], ...]:
        """The vectors that the head reads, side by side: (blocks before the end, which tokens)."""
        earlier = tuple((back, "cls") for back in range(self.pool_blocks - 1, 0, -1))
        last = ("cls", "mean") if self.pool == "cls_mean" else (self.pool,)
        return earlier + tuple((0, tokens) for tokens in last)

    @property
    def pooled_width(self) -> int:
        """Number of values that the head, or the tanh layer before it, reads."""
        return len(self.readout) * self.width

    @property
    def read_width(self) -> int:
        """Number of values that the head itself reads."""
        return self.representation or self.pooled_width

    @property
    def adds_positions(self) -> bool:
        """True if positions are added to the tokens; else attention knows them, if anything."""
        return self.positions not in ("none", "relative", "rope2d")

    @property
    def position_prefix(self) -> int:
        """Number of the tokens before the patches that have a position: the first so many."""
        first = (self.class_token + self.distillation_token) if self.prefix_positions else 0
        return first + (self.registers if self.register_positions else 0)

    @property
    def stride(self) -> tuple[int, int]:
        """Size (height, width) in image pixels of the cell that one patch token stands for."""
        step = self.resnet.stride if self.resnet else 1
        return self.patch[0] * step, self.patch[1] * step

    @property
    def grid(self) -> tuple[int, int]:
        """Number of patches as (rows, columns)."""
        return self.grid_at(self.size)

    @property
    def tokens(self) -> int:
        """Length of the sequence: the patches and the tokens before them."""
        return self.grid[0] * self.grid[1] + self.prefix

    def grid_at(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (rows, columns) of patches at a size (height, width); SpecError if none fit."""
        height, width = self.resnet.map_size(size) if self.resnet else size
        if height % self.patch[0] or width % self.patch[1]:
            below, above = (self._nearest(size, up) for up in (False, True))
            fit = [f"{h}x{w}" for h, w in (below, above) if h and w]
            nearest = f"fit are {' and '.join(fit)}" if len(fit) > 1 else f"fits is {fit[0]}"
            raise SpecError(
                f"Size {size[0]}x{size[1]} is not a multiple of the patch "
                f"{self.stride[0]}x{self.stride[1]}; the nearest that {nearest}."
            )
        return height // self.patch[0], width // self.patch[1]

    def check_images(self, shape: tuple[int, ...], any_size: bool = False) -> None:
        """Raise ModelError unless images are (B, channels, H, W), of this size or any that fits."""
        if len(shape) != 4 or shape[1] != self.channels:
            raise ModelError(
                f"{self.name} takes images (B, {self.channels}, height, width), "
                f"not a tensor of shape {tuple(shape)}."
            )
        _, _, height, width = shape
        if (height, width) == self.size:
            return
        if not any_size:
            raise ModelError(
                f"{self.name} takes {self.size[0]}x{self.size[1]} pixels, not {height}x{width}; "
                f"resize the images, pass any_size=True, or use model.resized(({height}, {width}))."
            )
        self.grid_at((height, width))

    def _nearest(self, size: tuple[int, int], up: bool) -> tuple[int, int]:
        height, width = (
            (side + up * (step - 1)) // step * step
            for side, step in zip(size, self.stride, strict=True)
        )
        return height, width

    def _check_numbers(self) -> None:
        minimum = 0 if self.is_resnet else 1
        least = {"channels": 1, "width": 1, "depth": minimum, "heads": minimum, "pool_blocks": 1}
        least |= {"mlp_width": minimum, "classes": 0, "registers": 0, "representation": 0}
        if self.head_width is not None:
            least["head_width"] = 1
        for name, bound in least.items():
            value = getattr(self, name)
            if type(value) is not int or not bound <= value <= MOST:
                raise SpecError(
                    f"ModelSpec.{name} is a whole number from {bound} to {MOST:,}, not {value!r}."
                )
        if self.depth > DEEPEST:
            raise SpecError(f"ModelSpec.depth is at most {DEEPEST:,}, not {self.depth:,}.")
        for name in (field.name for field in fields(self) if field.type == "bool"):
            if not isinstance(getattr(self, name), bool):
                raise SpecError(f"ModelSpec.{name} is true or false, not {getattr(self, name)!r}.")
        for name in ("norm_eps", "rope_base", "layer_scale"):
            value = getattr(self, name)
            if value is None and name == "layer_scale":
                continue
            if type(value) not in (int, float) or not 0 < value < math.inf:
                raise SpecError(f"ModelSpec.{name} is greater than 0, not {value!r}.")

    def _check_tokens(self) -> None:
        if self.head_width is None and self.width % self.heads:
            raise SpecError(
                f"Width {self.width} is not a multiple of {self.heads} heads; "
                "change one of them or set head_width."
            )
        if not self.out_projection and self.attention_width != self.width:
            raise SpecError(
                f"out_projection=False needs heads that are together as wide as the tokens, "
                f"{self.width}, not {self.attention_width}."
            )
        self._check_pool()
        if self.distillation_token and (self.representation or not self.classes):
            raise SpecError(
                "distillation_token needs classes and representation=0: "
                "DeiT's two heads are single linear layers."
            )

    def _check_pool(self) -> None:
        of_class_token = self.pool in ("cls", "cls_mean")
        if of_class_token and not self.class_token:
            raise SpecError(
                f"pool='{self.pool}' needs class_token=True; without it pool='mean' or 'map'."
            )
        if self.pool == "cls_mean" and self.pool_norm == "after":
            raise SpecError("pool='cls_mean' norms the tokens before they are pooled.")
        if self.pool_blocks > 1 and not of_class_token:
            raise SpecError(
                f"pool_blocks={self.pool_blocks} reads class tokens, and pool='{self.pool}' none; "
                f"it goes with pool='cls' or 'cls_mean'."
            )
        if self.pool_blocks > self.depth:
            raise SpecError(f"pool_blocks is at most the depth, {self.depth}.")
        if self.distillation_token and (self.pool != "cls" or self.pool_blocks > 1):
            raise SpecError(
                "distillation_token needs pool='cls': each of its two heads reads its own token."
            )

    def _check_positions(self) -> None:
        if self.register_positions:
            self._check_registers()
        if self.positions in ("sincos2d", "sincos2d_mae") and (self.width % 4 or self.width < 8):
            raise SpecError(f"positions='{self.positions}' needs a width of 8, 12, 16, ...")
        if self.positions == "learned2d" and self.width % 2:
            raise SpecError(f"positions='learned2d' needs an even width, not {self.width}.")
        head = self.attention_width // self.heads
        if self.positions == "rope2d" and head % 4:
            raise SpecError(f"positions='rope2d' needs a head width in steps of 4, not {head}.")
        if self.positions_at != "stem" and not self.adds_positions:
            raise SpecError(
                f"positions_at='{self.positions_at}' says where positions are added, but "
                f"positions='{self.positions}' adds none to the tokens; leave it at 'stem'."
            )
        if self.positions_at == "every" and self.positions.startswith("sincos2d"):
            raise SpecError(
                f"positions='{self.positions}' is fixed, so no block has its own; "
                "use positions_at='shared'."
            )

    def _check_registers(self) -> None:
        if not self.registers:
            raise SpecError("register_positions=True needs registers; here there are none.")
        if self.class_token and not self.prefix_positions:
            raise SpecError(
                "register_positions=True needs prefix_positions=True: the class token stands "
                "before the registers, and the first rows of positions are the first tokens'."
            )
        if self.positions not in ("learned", "learned2d", "relative"):
            raise SpecError(
                f"register_positions=True needs positions='learned', 'learned2d' or 'relative': "
                f"'{self.positions}' gives the tokens before the patches none."
            )

    def _check_resnet(self) -> None:
        expected = {
            "width": self.resnet.outputs if self.resnet else 0,
            **dict.fromkeys(("depth", "heads", "mlp_width", "registers", "representation"), 0),
            **dict.fromkeys(("class_token", "distillation_token", "register_positions"), False),
            **{"qk_norm": False, "patch_norms": False, "out_projection": True},
            **{
                "patch": (1, 1),
                "pool": "mean",
                "pool_blocks": 1,
                "positions": "none",
                "positions_at": "stem",
            },
            **{"head_width": None, "layer_scale": None, "biases": "all", "pool_norm": "before"},
        }
        for name, value in expected.items():
            if getattr(self, name) != value:
                raise SpecError(
                    f"A ResNet alone (depth=0, as BiT's kind v2 always is) has no transformer, so "
                    f"{name} stays at {value!r}, not {getattr(self, name)!r}."
                )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for model.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelSpec:
        """Undo to_dict; SpecError names an unknown or a missing field."""
        return from_mapping(cls, values)
