"""What goes to devices, and from where they fetch it."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from bike_pipeline.settings.section import Positive, Section

Version = Annotated[str, Field(pattern=r"^\d+(\.\d+){0,2}$")]


class MinimumVersions(Section):
    """Versions that a device must have at least; it refuses an update if it has less."""

    python: Version
    ai_edge_litert: Version
    numpy: Version


class EdgeSettings(Section):
    """What goes to devices, and from where they fetch it.

    Attributes:
        base_path: folder of the channels, which a web server serves as static files; empty for `<workspace>/edge`.
        author: who stands as the author in the models' metadata.
        license: what stands as their licence.
        golden_tolerance: of a float32 model, largest |difference| / max(rentals, 1) between a device and this machine
            on a golden row. Above `exporting.max_relative_difference`, since other processors round otherwise.
        reduced_golden_tolerance: the same of all other models, whose kernels differ between processors.
    """

    base_path: str = ""
    valid_days: Positive
    author: Annotated[str, Field(min_length=1)]
    license: str
    golden_tolerance: Positive
    reduced_golden_tolerance: Positive
    minimum: MinimumVersions

    @model_validator(mode="after")
    def _local(self) -> Self:
        if "://" in self.base_path:
            raise ValueError("base_path must be a local or mounted folder; copy it to where devices fetch it from")
        return self
