"""timm's Vision Transformers in stages, under timm's names; an optional extra: pip install 'fedstil-mpi[timm]'."""

from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from fedstil_mpi.models.backbones import Architecture, Backbone
from fedstil_mpi.models.torchvision_cpu import import_models
from fedstil_mpi.util.errors import InputError, did_you_mean

PREFIX = "timm:"


class Tokens(nn.Module):
    """Images [n, 3, h, w] -> tokens [n, tokens, width]: all that a model does before its blocks."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model
        model.blocks = nn.Sequential()  # which are stages of their own
        model.norm, model.fc_norm, model.head = nn.Identity(), nn.Identity(), nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        model: Any = self.model
        return model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))


class Pool(nn.Module):
    """Tokens [n, tokens, width] -> the class's, or the mean over the patches' [n, width]."""

    def __init__(self, kind: str, first_patch: int):
        super().__init__()
        self.kind = kind
        self.first_patch = first_patch

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0] if self.kind == "token" else tokens[:, self.first_patch :].mean(1)


def architecture(name: str) -> Architecture:
    """name: timm:NAME of a Vision Transformer. Its images have the config's size, and its positions fit it.

    Raises InputError where timm is not installed or has no such model.
    """
    timm, model_name = _timm(), name.removeprefix(PREFIX)
    known = timm.list_models(module="vision_transformer")
    if model_name.partition(".")[0] not in known:
        raise InputError(
            f"timm has no Vision Transformer {model_name!r}; {did_you_mean(model_name, known)}set model.backbone to a name "
            f"such as {PREFIX}vit_tiny_patch16_224"
        )
    return Architecture(
        partial(_create, model_name), in_stages, ("head.",), partial(_imagenet, model_name), _fit_positions
    )


def _create(name: str, image_size: tuple[int, int], pretrained: bool = False) -> nn.Module:
    model = _timm().create_model(name, pretrained=pretrained, num_classes=0, img_size=image_size)
    if min(model.patch_embed.grid_size) < 1:
        height, width = image_size
        raise InputError(
            f"images of {height} x {width} are smaller than a patch of {PREFIX}{name}; set data.height and data.width to "
            f"{max(model.patch_embed.patch_size)} or more"
        )
    return model


def in_stages(model: Any) -> Backbone:
    """Raises InputError for a model that pools in another way than by its class token or the mean."""
    if model.global_pool not in ("token", "avg") or model.attn_pool is not None:
        raise InputError(f"a backbone that pools by {model.global_pool!r} is not supported; choose another of timm's")
    blocks = {f"blocks.{number}": block for number, block in enumerate(model.blocks)}
    norm, pool = model.norm, nn.Sequential(Pool(model.global_pool, model.num_prefix_tokens), model.fc_norm)
    stages = {"tokens": Tokens(model), **blocks, "norm": norm, "pool": pool}
    return Backbone(stages, list(blocks)[-1], None, model.num_features)


def _imagenet(name: str, model: Any) -> dict[str, Tensor]:
    """timm's weights of this name, on the model's size of image."""
    with torch.random.fork_rng(devices=[]):
        return _create(name, model.patch_embed.img_size, pretrained=True).state_dict()


def _fit_positions(state: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    from timm.models.vision_transformer import checkpoint_filter_fn

    return checkpoint_filter_fn(state, model)


def _timm() -> ModuleType:
    import_models()  # timm imports torchvision
    try:
        import timm
    except ImportError as error:
        raise InputError(
            f"model.backbone begins with {PREFIX}, but timm cannot be imported ({error}); pip install 'fedstil-mpi[timm]', "
            "or choose another backbone"
        ) from None
    return timm
