"""What every mapping of the configuration file is: its keys known, its values frozen."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class Section(BaseModel):
    """A mapping of the file: no unknown keys, and nobody changes it afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Defaults as one writes them; a section's defaults are said once, in the section."""
        schema = handler(core)
        defaults = cls.model_construct().model_dump(mode="json", by_alias=True, warnings=False)
        for key, spec in handler.resolve_ref_schema(schema).get("properties", {}).items():
            if "default" in spec:
                spec["default"] = defaults[key]
            if "$ref" in spec or spec.get("default") is None:
                spec.pop("default", None)
        return schema
