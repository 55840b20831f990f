"""``segfw serve-monailabel``: a folder under review for MONAI Label's plug-ins of 3D Slicer and OHIF."""

from __future__ import annotations

from pathlib import Path

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.monailabel.label_server_options import LabelServerOptions


@takes_options(options=LabelServerOptions)
def serve_monailabel(folder: Path, options: LabelServerOptions = LabelServerOptions()) -> None:
    """Answers MONAI Label's plug-ins until it is interrupted.

    Whoever uses this computer may ask: the plug-ins know no password. What they save becomes a version in ``review/``
    of the folder, and what they submit is REVIEWED; signing is done in ``segfw review``, or by ``segfw accept``.

    Parameters
    ----------
    folder
        Of masks that ``predict`` or ``ensemble`` wrote.
    options
        The model that predicts, the refiner that answers points, the address, and who saves.

    Raises
    ------
    UserError
        If it is no folder of masks, the port is taken, or the packages of the server are not installed.
    """
    from segfw.monailabel.serve_labels import serve_labels

    def say_ready(address: str) -> None:
        print(f"{folder}: served at {address}; give that address to the plug-in of MONAI Label")
        print("anybody on this computer may ask; Ctrl-C ends it, what was saved stays", flush=True)

    serve_labels(Path(folder), options, say_ready)


def _say_nothing(*_: object) -> None:
    """All was said while it ran."""


COMMAND = Command(
    function=serve_monailabel,
    what="Serve a folder under review to MONAI Label's plug-ins of 3D Slicer and OHIF, on this computer alone.",
    example="segfw serve-monailabel masks --model work",
    arguments=(Argument(name="folder", help="folder of masks that segfw predict wrote"),),
    say_result=_say_nothing,
)
