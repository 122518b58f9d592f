"""What every section of the settings shares: strictness about unknown keys, and the kinds of numbers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
# An export format by its name in the registry.
FormatName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Severity = Literal["error", "warning", "ignore"]


class Section(BaseModel):
    """Base of every section: frozen, strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
