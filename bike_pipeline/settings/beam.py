"""How Beam-powered stages run where they run on Beam."""

from __future__ import annotations

from bike_pipeline.settings.section import Section


class BeamSettings(Section):
    """How Beam-powered stages run where they run on Beam.

    Attributes:
        pipeline_args: Beam's own flags. They are not part of any cache key, since they do not change results.
    """

    pipeline_args: tuple[str, ...]
