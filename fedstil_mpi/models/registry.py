"""Which backbone a config names: one of torchvision's, one of timm's, or the user's own.

The user's own is a module with
    create(image_size)   the model for images of this height and width, with random weights from torch's global generator
    in_stages(model)     its Backbone
    CLASSIFIERS          if it has one: how the names of the classifier's tensors begin, ("head.",)
"""

from fedstil_mpi.models import timm_backbones, torchvision_backbones
from fedstil_mpi.models.backbones import Architecture, unknown
from fedstil_mpi.util import plugins
from fedstil_mpi.util.errors import InputError

KEY = "model.backbone"


def find(name: str) -> Architecture:
    """The architecture of this name. Raises InputError where there is none."""
    if plugins.is_plugin(name):
        module = plugins.load(KEY, name, ("create", "in_stages"))
        return Architecture(module.create, module.in_stages, tuple(getattr(module, "CLASSIFIERS", ())))
    if name.startswith(timm_backbones.PREFIX):
        return timm_backbones.architecture(name)
    if name not in torchvision_backbones.FAMILIES:
        more = "or timm's Vision Transformers as timm:NAME, or the path of a .py file"
        raise InputError(f"{unknown('backbone', name, torchvision_backbones.FAMILIES)}, {more}")
    return torchvision_backbones.architecture(name)
