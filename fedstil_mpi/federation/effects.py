"""Settings that would change nothing with a method are refused, so that nobody takes them for tried.

Only what is set is asked after, and only what belongs to messages: schedule, training, memory and the rest hold for every method.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import NamedTuple

from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.federation.messages import MessageSchema, message_schema
from fedstil_mpi.federation.start_model import blank_network
from fedstil_mpi.methods.aids import averaging
from fedstil_mpi.methods.base import MethodModule
from fedstil_mpi.util.errors import InputError


class Setting(NamedTuple):
    key: str
    off: str | float
    """The value that asks for nothing."""
    works: Callable[[MethodModule, MessageSchema], bool]
    otherwise: str
    """Why not, where it does not."""


SETTINGS = (
    Setting(
        "serving.average",
        0.0,
        lambda method, schema: averaging.applies(method.Client, schema.plain),
        "what its clients are searched with does not come from the server",
    ),
    Setting("compression.up", "none", lambda _, schema: schema.codecs.up is not None, "no weights go up"),
    Setting("compression.upload_above", 0.0, lambda _, schema: schema.codecs.up is not None, "no weights go up"),
    Setting(
        "compression.down",
        "none",
        lambda _, schema: schema.codecs.down is not None,
        "a client is sent no weights of its own or of a common model",
    ),
    Setting("compression.rows", "all", lambda _, schema: schema.codecs.known_rows, "no row of the classifier travels"),
    Setting(
        "compression.prototypes",
        "none",
        lambda _, schema: bool({"prototypes", "token"} & schema.kinds),
        "neither identity prototypes (prototypes.exchange) nor task tokens travel",
    ),
    Setting("compression.importance", "none", lambda _, schema: "importance" in schema.kinds, "no importances travel"),
)


def check_effects(experiment: Experiment, method: MethodModule) -> None:
    """Raise InputError at the first setting that changes nothing with this method."""
    for setting in without_effect(experiment, method):
        found = attrgetter(setting.key)(experiment)
        raise InputError(
            f"{setting.key} = {found} changes nothing with method {experiment.method.name} as it is set: {setting.otherwise}; "
            f"set {setting.key}={setting.off}, in a comparison for this variant"
        )


def without_effect(experiment: Experiment, method: MethodModule) -> list[Setting]:
    """Those that are set and change nothing. Where none is set, no model is looked at."""
    asked = [setting for setting in SETTINGS if attrgetter(setting.key)(experiment) != setting.off]
    if not asked:
        return []
    schema = message_schema(experiment, method, 2, blank_network(experiment, 1))
    return [setting for setting in asked if not setting.works(method, schema)]
