"""`petalign compile`: what the fused engine makes of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignment.commands.console import out, print_json
from alignment.commands.plan import size
from alignment.errors import ConfigError
from alignment.predicting.models import model_bytes, model_errors
from inference.errors import ShapeError
from storage.store import normalise_uri

if TYPE_CHECKING:
    from inference.engine import Engine


def compile_model(
    model: str, shape: tuple[int, ...], *, isa: str, tile_px: int, threads: int, is_tuned: bool
) -> Engine:
    """Return a Keras model, compiled for inputs of (z, y, x, channels) or (y, x, channels).

    Raises
    ------
    MissingError
        If there is no such file.
    ConfigError
        If the file is no model that may be opened, or the engine does not know a layer of it, has
        no such vectors, or cannot compute it for inputs of this shape.
    """
    data = model_bytes(normalise_uri(model))
    with model_errors():
        from inference.engine import compile, sources

        try:
            return compile(
                sources.read(data),
                shape,
                isa=isa,
                strict=tile_px == 1,
                largest_tile=max(2, tile_px),
                threads=threads,
                tuning=is_tuned,
            )
        except ShapeError as error:
            raise ConfigError(f"--shape {','.join(map(str, shape))}: {error}") from error


def print_compiled(engine: Engine, *, is_whole: bool, as_json: bool) -> None:
    """Print the plan, or only its size."""
    weights = engine.program.weights_bytes
    if as_json:
        print_json(
            {
                "isa": engine.isa,
                "threads": engine.settings.threads,
                "memory_bytes": engine.working_bytes,
                "weights_bytes": weights,
                "passes": engine.graph.notes,
                "steps": engine.program.labels,
            }
        )
    elif is_whole:
        out.print(engine.plan(), markup=False)
    else:
        out.print(
            f"{engine.isa}, {len(engine.program.labels)} steps, memory "
            f"{size(engine.working_bytes)}, weights {size(weights)}",
            markup=False,
        )
