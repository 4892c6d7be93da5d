"""How a provider writes its register: which column of its file is what, and how it is written."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from schemas.base import Contract, Day, Flag
from schemas.limits import known_timezone
from schemas.registers import Section


class MappedValue(Contract):
    """Where a value comes from: a column, or the same for every line; `values` translates what the column says."""

    column: str = ""
    const: str = ""
    values: dict[str, str] = Field(default_factory=dict)
    """What the provider writes, and what it means; without it the text is taken as it is."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.column) == bool(self.const):
            raise ValueError("give either column or const")
        return self


class MappedAmount(Contract):
    """A column of money, in major units unless it is minor ones."""

    column: str
    minor: Flag = False
    decimal: Annotated[str, Field(pattern=r"^[.,]$")] = "."
    group: Annotated[str, Field(max_length=2)] = ""
    """What parts thousands, such as a comma, a blank or a no-break space."""
    negative_is_out: Flag = False
    """A sign says the direction: what is below zero left us."""


class MappedMoment(Contract):
    """A column of times; without an offset they are of the zone."""

    column: str
    format: str = ""
    """As strptime has it; left out, ISO 8601."""
    timezone: str = "UTC"

    @model_validator(mode="after")
    def _known(self) -> Self:
        known_timezone(self.timezone)
        return self


class RegisterMapping(Contract):
    """How one provider writes its register; `core/services/recon/mappings` has one for each that is known."""

    rail: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,30}$")]
    provider_account: str
    environment: str = "sandbox"
    section: Section = ""
    encoding: str = "utf-8"
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    quote: Annotated[str, Field(min_length=1, max_length=1)] = '"'
    skip_lines: Annotated[int, Field(ge=0, le=100)] = 0
    """Lines before the header that are none of the table."""
    stop_at: str = ""
    """A line whose first cell is this ends the table, such as a total."""
    provider_ref: MappedValue | None = None
    our_ref: MappedValue | None = None
    operation: MappedValue = MappedValue(const="PAYMENT")
    direction: MappedValue | None = None
    amount: MappedAmount
    fee: MappedAmount | None = None
    currency: MappedValue
    status: MappedValue = MappedValue(const="SETTLED")
    at: MappedMoment

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.provider_ref is None and self.our_ref is None:
            raise ValueError("provider_ref or our_ref: a line needs a name")
        if self.direction is None and not self.amount.negative_is_out:
            raise ValueError("direction: give it, or amount.negative_is_out")
        try:
            b"".decode(self.encoding)
        except LookupError as error:
            raise ValueError(f"encoding: {self.encoding!r} is not known") from error
        return self


class RegisterImport(Contract):
    """The body of `POST /v1/registers`: a provider's file, as it came, and how it is read."""

    mapping: RegisterMapping
    content: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$")]
    """The file's bytes, as base64."""
    name: Annotated[str, Field(max_length=200)] = ""
    business_day: Day | None = None
    """Needed where the lines speak of several days."""
    apply: Flag = False
    """Keep it; without this it is only read."""
