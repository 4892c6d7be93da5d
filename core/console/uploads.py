"""Forms that bring a file: it waits on disk while it comes, so that memory does not grow by its length."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import IO, Final, cast

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from core.console.visit import Upload
from core.services.problems import Refusal

_FORM: Final = "multipart/form-data"
_FIELDS_MAX: Final = 20
_FIELD_MAX_BYTES: Final = 64 * 1024


@asynccontextmanager
async def form_with_file(
    request: Request, limit_bytes: int
) -> AsyncIterator[tuple[list[tuple[str, str]], Upload | None]]:
    """Lend the fields of a form, and its file where one was chosen, which goes when the block ends.

    Raises Refusal: unsupported_media_type, body_too_large, invalid_request.
    """
    if request.headers.get("content-type", "").partition(";")[0] != _FORM:
        raise Refusal("unsupported_media_type", "send a form with a file")
    parser = MultiPartParser(
        request.headers, _bounded(request, limit_bytes),
        max_files=1, max_fields=_FIELDS_MAX, max_part_size=_FIELD_MAX_BYTES,
    )  # fmt: skip
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Refusal("invalid_request", f"the form cannot be read: {error.message}") from error
    try:
        fields = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
        files = [value for value in form.values() if isinstance(value, UploadFile) and value.filename]
        yield fields, Upload(files[0].filename or "", cast("IO[bytes]", files[0].file)) if files else None
    finally:
        await form.close()


async def _bounded(request: Request, limit_bytes: int) -> AsyncGenerator[bytes, None]:
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit_bytes:
            raise Refusal("body_too_large", f"a file here has at most {limit_bytes} bytes")
        yield part
