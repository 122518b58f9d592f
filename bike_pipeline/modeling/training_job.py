"""What the workers of one training need to know, as one line of JSON that travels to each of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationError

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.settings.section import Section
from bike_pipeline.settings.training import TrainingSettings

Place = Annotated[str, Field(min_length=1)]


class TrainingJob(Section):
    """One training: rows in, model out. Every place is a path or URI that each worker reaches under the same name.

    Attributes:
        examples: file patterns of the tf.Examples to train on (gzipped TFRecords).
        schema_file: the schema, as text proto.
        transform_graph: folder of the TransformGraph artifact.
        base_model: folder of the SavedModel to start from; empty for none.
        run_dir: folder for the losses; the chief's.
        model_dir: folder for the SavedModel; the chief's; must not exist.
        training: the settings of the training.
        seed: seeds every random number generator.
    """

    examples: Annotated[tuple[Place, ...], Field(min_length=1)]
    schema_file: Place
    transform_graph: Place
    base_model: str = ""
    run_dir: Place
    model_dir: Place
    training: TrainingSettings
    seed: Annotated[int, Field(ge=0, lt=2**31)]

    @classmethod
    def from_json(cls, text: str) -> TrainingJob:
        """Return the job that the JSON describes; a ConfigurationError names the part that is wrong."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ConfigurationError(
                f"{where}: {first['msg']}" if where else first["msg"],
                where="--job",
                fix="take the job as the Trainer stage or the TrainJob's manifest has it",
            ) from None
