"""Which data stream a config names: one of the program's, or the user's own.

The user's own is a module with
    open_stream(data, seed)   the stream for the config's section `data` and the experiment's seed, as a streams.base.Stream
Every rank opens it, before torch may be imported: it must not import torch.
"""

from fedstil_mpi.config.schema import Data
from fedstil_mpi.data.streams.base import Stream
from fedstil_mpi.data.streams.dense import dense
from fedstil_mpi.data.streams.pooled import PooledStream
from fedstil_mpi.data.streams.subset import SubsetStream
from fedstil_mpi.data.streams.validation import ValidationStream
from fedstil_mpi.util import plugins
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.files import expanded


def open_stream(data: Data, seed: int) -> Stream:
    """The stream of this config, scanned but not decoded, with the people trained on numbered from 0 without gaps.

    Raises InputError where the source cannot be used.
    """
    return dense(open_original(data, seed))


def open_original(data: Data, seed: int) -> Stream:
    """The same stream with the person ids of its source, for what users see."""
    stream = _source(data, seed)
    if data.validation:  # innermost: what is held out must not come back among the pooled images
        stream = ValidationStream(stream)
    if data.clients is not None:
        stream = SubsetStream(stream, data.clients)
    return PooledStream(stream) if data.pooled else stream


def _source(data: Data, seed: int) -> Stream:
    if plugins.is_plugin(data.kind):
        stream = plugins.load("data.kind", data.kind, ("open_stream",), early=True).open_stream(data, seed)
        if not isinstance(stream, Stream):
            raise InputError(
                f"data.kind = {data.kind}: its open_stream gave {stream!r}; expected a {Stream.__module__}.Stream"
            )
        return stream
    if data.kind == "folder":
        from fedstil_mpi.data.streams.folder import FolderStream

        return FolderStream(
            expanded(data.path_for(seed)),
            data.height,
            data.width,
            camera_pattern=data.camera_pattern,
            follow_links=data.follow_links,
        )
    if data.kind == "pku":
        from fedstil_mpi.data.streams.pku import PkuStream

        return PkuStream(
            expanded(data.path_for(seed)), tasks=data.tasks, height=data.height, width=data.width, seed=seed
        )
    if data.kind == "pack":
        from fedstil_mpi.data.pack.stream import PackStream

        return PackStream(expanded(data.path_for(seed)), data.height, data.width)
    from fedstil_mpi.data.streams.synthetic import SyntheticStream

    return SyntheticStream(data.synthetic, seed, tasks=data.tasks, height=data.height, width=data.width)
